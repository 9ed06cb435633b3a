// The heap "now": its map, its holes, and what each block keeps from going back to the system.

const PAGE = 4096 / GRANULE;
const MOST_HOLES = 5;

/** Fills state.moment for the call state.now. */
function findMoment(blocks) {
  const live = liveAt(blocks, state.now);
  const { offset, end } = blocks;
  let used = 0;
  const holes = [];
  let before = 0;
  for (let at = 0; at < live.length; at++) {
    const i = live[at];
    used += end[i] - offset[i];
    if (offset[i] > before) holes.push({ offset: before, granules: offset[i] - before, below: at ? live[at - 1] : -1, above: i });
    before = end[i];
  }
  holes.sort((a, b) => b.granules - a.granules);
  state.moment = { live, used, top: before, holes, pins: pins(blocks, live) };
}

/** For each live block the free granules that it keeps: those of a page are shared among the blocks on it. */
function pins(blocks, live) {
  const { offset, end } = blocks;
  const kept = new Float64Array(live.length);
  for (let first = 0; first < live.length; ) {
    let page = Math.floor(offset[live[first]] / PAGE);
    for (;;) {
      const [from, to] = [page * PAGE, (page + 1) * PAGE];
      let [last, used] = [first, 0];
      for (let at = first; at < live.length && offset[live[at]] < to; at++) {
        used += Math.min(end[live[at]], to) - Math.max(offset[live[at]], from);
        last = at;
      }
      const share = (PAGE - used) / (last - first + 1);
      for (let at = first; at <= last; at++) kept[at] += share;
      const behind = end[live[last]];
      first = last;
      if (behind <= to) break;
      page = Math.floor((behind - 1) / PAGE);
    }
    first++;
  }
  return kept;
}

/** The granules by which top would be lower without the highest blocks, if those are of one group; and the group. */
function highest(blocks, live, groupOf) {
  if (!live.length) return { group: -1, keeps: 0 };
  const group = groupOf(live[live.length - 1]);
  let at = live.length - 1;
  while (at >= 0 && groupOf(live[at]) === group) at--;
  return { group, keeps: blocks.end[live[live.length - 1]] - (at < 0 ? 0 : blocks.end[live[at]]) };
}

/** The size of the map: as many cells as fit, and the granules of one. */
function mapGrid(canvas) {
  const [columns, rows] = [Math.floor(canvas.clientWidth / 2), Math.floor(canvas.clientHeight / 10)];
  return { columns, rows, granules: Math.max(1, state.moment.top / (columns * rows)) };
}

function paintMap(blocks) {
  const canvas = document.getElementById('map');
  const { context } = begin(canvas);
  const { live, top, used, holes } = state.moment;
  const { columns, rows, granules } = mapGrid(canvas);
  const [cells, marks] = [new Float64Array(columns * rows), new Float64Array(columns * rows)];
  for (const i of live) {
    const marked = state.marked !== null && isMarked(i);
    const last = Math.min(cells.length - 1, Math.floor((blocks.end[i] - 1e-9) / granules));
    for (let cell = Math.floor(blocks.offset[i] / granules); cell <= last; cell++) {
      const part = Math.min(blocks.end[i], (cell + 1) * granules) - Math.max(blocks.offset[i], cell * granules);
      cells[cell] += part / granules;
      if (marked) marks[cell] += part / granules;
    }
  }
  const [palette, mark, above] = [shades(), color('mark'), color('above')];
  for (let cell = 0; cell < cells.length; cell++) {
    let rgb = palette[cells[cell] > 0 ? Math.max(1, Math.min(255, Math.round(cells[cell] * 255))) : 0];
    if (cell * granules >= top) rgb = above;
    if (marks[cell] > 0) rgb = mix(rgb, mark, Math.min(1, 0.45 + 0.55 * marks[cell]));
    context.fillStyle = css(rgb);
    context.fillRect((cell % columns) * 2, Math.floor(cell / columns) * 10, 2, 9);
  }
  document.getElementById('map-call').textContent = countText(state.now);
  const row = bytesText(columns * granules * GRANULE);
  document.getElementById('map-words').textContent = live.length
    ? `${countText(live.length)} blocks take ${bytesText(used * GRANULE)} of the ${bytesText(top * GRANULE)} below top. ` +
      `${countText(holes.length)} holes have ${bytesText((top - used) * GRANULE)}. ` +
      `The map runs from left to right and from top to bottom; a row is ${row}.` +
      (state.residue.dropped ? ' Blocks that are not in the picture one by one are missing here.' : '')
    : 'Nothing is in use.';
}

function listHoles(blocks) {
  const block = (i) => (i < 0 ? 'beginning of the region' : `${bytesText(blocks.size[i])}, placed by call ${countText(blocks.birth[i])}`);
  const rows = state.moment.holes.slice(0, MOST_HOLES).map((hole) => {
    const row = document.createElement('tr');
    const texts = [bytesText(hole.granules * GRANULE), offsetText(hole.offset), block(hole.below), block(hole.above)];
    for (const text of texts) row.insertCell().textContent = text;
    return row;
  });
  document.querySelector('#holes tbody').replaceChildren(...rows);
  document.getElementById('holes').hidden = !rows.length;
}
