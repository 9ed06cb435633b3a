// Starts the page, and draws it again when something has changed.

const state = {
  facts: null, blocks: null, charts: [], moment: null, residue: null, residueCells: null,
  now: 0, kind: 'size', groupOf: null, marked: null, focus: -1, sort: 'live', descending: true,
  drawing: false, mapIsStale: true,
};

/** Draws with the next frame. */
function redraw() {
  if (state.drawing) return;
  state.drawing = true;
  requestAnimationFrame(draw);
}

/** Draws what has changed. `performance` keeps the time of each redraw. */
function draw() {
  state.drawing = false;
  performance.mark('begin');
  paintPicture(state.blocks);
  paintCharts();
  performance.measure('redraw', 'begin');
  if (state.mapIsStale) {
    state.mapIsStale = false;
    findMoment(state.blocks);
    paintMap(state.blocks);
    listHoles(state.blocks);
    tallyNow(state.blocks);
    listGroups();
  }
  // The mark for those who wait until everything is drawn.
  const { dataset } = document.documentElement;
  dataset.draws = Number(dataset.draws || 0) + 1;
}

/** Moves "now" to the moment after a call. */
function setNow(call) {
  const now = Math.min(view.calls, Math.max(0, Math.round(call) || 0));
  if (now !== state.now) state.mapIsStale = true;
  state.now = now;
  document.getElementById('now').value = now;
  document.getElementById('now-slider').value = now;
  redraw();
}

/** Marks a group of blocks; null marks none. */
function mark(group) {
  state.marked = group;
  state.mapIsStale = true;
  document.getElementById('unmark').disabled = group === null;
  redraw();
}

function setKind(kind) {
  state.kind = kind;
  state.groupOf = groupOf(state.blocks);
  document.getElementById('kind').value = kind;
  mark(null);
}

function applyTheme(printed) {
  const chosen = typeof printed === 'string' ? printed : document.getElementById('theme').value;
  const dark = chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.classList.toggle('dark', dark);
  document.documentElement.style.colorScheme = dark ? 'dark' : 'light';
  if (!state.blocks) return;
  state.mapIsStale = true;
  redraw();
}

/** A button behind each finding that can be shown in the picture. */
function linkFindings() {
  for (const finding of document.querySelectorAll('#findings li')) {
    const { call, low, high, group } = finding.dataset;
    if (call === undefined && low === undefined && group === undefined) continue;
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = 'Show';
    button.setAttribute('aria-label', 'Show: ' + finding.textContent);
    button.addEventListener('click', () => {
      const now = call === undefined ? view.calls : Number(call);
      showEverything();
      if (group !== undefined) {
        setKind(state.facts.kind);
        mark(Number(group));
      }
      if (low !== undefined) lookAt(view.t0, view.t1, Number(low), Number(high));
      setNow(now);
      document.getElementById('picture').scrollIntoView({ block: 'center' });
    });
    finding.append(button);
  }
}

async function start() {
  const facts = JSON.parse(document.getElementById('facts').textContent);
  Object.assign(state, { facts, kind: facts.kind, residue: facts.residue });
  applyTheme();
  state.residueCells = new Float32Array((await unpack('residue')).buffer);
  state.blocks = await readBlocks(facts.blocks);
  state.groupOf = groupOf(state.blocks);
  const top = state.blocks.end.reduce((most, end) => Math.max(most, end), 4);
  Object.assign(view, { calls: facts.calls, top: Math.max(top, Math.max(0, ...facts.bins.top) / GRANULE) });
  showEverything();
  const legend = [['above', 'above top'], ['free', 'free'], ['used', 'in use, from a little to all'], ['mark', 'marked']];
  document.getElementById('picture-legend').append(...legend.map(([name, text]) => item(text, 'swatch', name)));
  makeCharts();
  makeTable();
  listen();
  linkFindings();
  setNow(view.calls);
}

start().catch((error) => {
  const failure = document.getElementById('failure');
  failure.hidden = false;
  failure.textContent = `The pictures cannot be drawn: ${error.message}`;
  throw error;
});
