// Draws address over time: single blocks where few are seen, and shares of pixels where there are many.

/** Blocks that are drawn one by one. */
const FEW = 3000;

/** The indexes of the blocks in view, or null if there are too many to draw one by one. */
function fewInView(blocks) {
  const seen = [];
  const { birth, death, offset, end } = blocks;
  const born = bornBy(blocks, view.t1);
  for (let i = 0; i < born; i++) {
    if (death[i] > view.t0 && offset[i] < view.a1 && end[i] > view.a0 && birth[i] < view.t1) {
      if (seen.length === FEW) return null;
      seen.push(i);
    }
  }
  return seen;
}

/** For each row of pixels, what each pixel adds to the share of the one before it. */
function addShare(cells, width, row, from, to, share) {
  const base = row * width;
  const first = Math.floor(from);
  cells[base + first] += share * (first + 1 - from);
  cells[base + first + 1] += share * (from - first);
  const last = Math.floor(to);
  cells[base + last] -= share * (last + 1 - to);
  cells[base + last + 1] -= share * (to - last);
}

/** Shares in use of width by height pixels, row 0 at a0; of the blocks that `mark` names, if it is given. */
function shares(blocks, width, height, mark) {
  const stride = width + 2;
  const cells = new Float32Array(stride * (height + 1));
  const { birth, death, offset, end } = blocks;
  const [wide, high] = [width / (view.t1 - view.t0), height / (view.a1 - view.a0)];
  const { t0, t1, a0, a1 } = view;
  const born = bornBy(blocks, t1);
  for (let i = 0; i < born; i++) {
    if (death[i] <= t0 || offset[i] >= a1 || end[i] <= a0 || birth[i] >= t1 || (mark && !mark(i))) continue;
    const from = Math.max(0, (birth[i] - t0) * wide);
    const to = Math.min(width, (death[i] - t0) * wide);
    const low = Math.max(0, (offset[i] - a0) * high);
    const up = Math.min(height, (end[i] - a0) * high);
    const last = Math.floor(up);
    for (let row = Math.floor(low); row <= last; row++) {
      const share = Math.min(up, row + 1) - Math.max(low, row);
      if (share > 0) addShare(cells, stride, row, from, to, share);
    }
  }
  for (let row = 0; row < height; row++) {
    let sum = 0;
    for (let at = row * stride; at < row * stride + width; at++) cells[at] = sum += cells[at];
  }
  return { cells, stride };
}

/** Adds what was dropped, evenly over each cell of its grid. */
function addResidue(drawn, width, height) {
  const { residue, residueCells: grid } = state;
  if (!residue.dropped) return;
  for (let row = 0; row < height; row++) {
    const granule = view.a0 + ((row + 0.5) / height) * (view.a1 - view.a0);
    const line = Math.floor(granule / residue.granules) * residue.columns;
    if (line >= grid.length) break;
    for (let x = 0; x < width; x++) {
      const call = view.t0 + ((x + 0.5) / width) * (view.t1 - view.t0);
      const cell = grid[line + Math.floor(call / residue.calls)] || 0;
      drawn.cells[row * drawn.stride + x] += cell / (residue.calls * residue.granules);
    }
  }
}

/** For each column the highest row that is in use, or one beyond the last if top is above the view. */
function topRows(drawn, width, height) {
  const tops = new Int32Array(width).fill(-1);
  for (let row = 0; row < height; row++) {
    for (let x = 0; x < width; x++) if (drawn.cells[row * drawn.stride + x] > 1e-4) tops[x] = row;
  }
  for (let x = 0; x < width; x++) {
    const call = view.t0 + ((x + 0.5) / width) * (view.t1 - view.t0);
    if (binValue('top', call) / GRANULE >= view.a1) tops[x] = height;
  }
  return tops;
}

/** A color as a pixel in memory, red first. */
function packed([red, green, blue]) {
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

function paintShares(blocks, context, box, ratio) {
  const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  const all = shares(blocks, width, height);
  addResidue(all, width, height);
  const marked = state.marked === null ? null : shares(blocks, width, height, isMarked);
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const [colors, above, mark] = [shades(), packed(color('above')), color('mark')];
  const palette = colors.map(packed);
  const tops = topRows(all, width, height);
  for (let row = 0; row < height; row++) {
    for (let x = 0; x < width; x++) {
      const share = all.cells[row * all.stride + x];
      const shade = share > 1e-4 ? Math.max(1, Math.min(255, Math.round(share * 255))) : 0;
      const part = marked ? marked.cells[row * marked.stride + x] : 0;
      let pixel = row > tops[x] ? above : palette[shade];
      if (part > 1e-4) pixel = packed(mix(colors[shade], mark, Math.min(1, 0.45 + 0.55 * part)));
      pixels[(height - 1 - row) * width + x] = pixel;
    }
  }
  context.putImageData(image, Math.round(box.x * ratio), Math.round(box.y * ratio));
}

function paintBlocks(blocks, seen, context, box) {
  const [wide, high] = [box.width / (view.t1 - view.t0), box.height / (view.a1 - view.a0)];
  context.save();
  context.beginPath();
  context.rect(box.x, box.y, box.width, box.height);
  context.clip();
  if (!state.residue.dropped) {
    context.fillStyle = css(color('above'));
    context.fillRect(box.x, box.y, box.width, box.height);
    paintBelowTop(context, box, high);
  }
  const [fill, mark, edge] = ['middle', 'mark', 'page'].map((name) => css(color(name)));
  context.textAlign = 'left';
  context.textBaseline = 'middle';
  for (const i of seen) {
    const death = Math.min(blocks.death[i], view.calls + 1);
    const x = Math.max(box.x - 2, box.x + (blocks.birth[i] - view.t0) * wide);
    const right = Math.min(box.x + box.width + 2, box.x + (death - view.t0) * wide);
    const y = box.y + box.height - (blocks.end[i] - view.a0) * high;
    const height = (blocks.end[i] - blocks.offset[i]) * high;
    context.fillStyle = state.marked !== null && isMarked(i) ? mark : fill;
    const gap = height > 4 && right - x > 4 ? 1 : 0;
    context.fillRect(x, y, Math.max(1, right - x - gap), Math.max(0.75, height - gap));
    if (height > 15 && right - x > 52) {
      context.fillStyle = edge;
      const middle = Math.min(Math.max(y + height / 2, box.y + 8), box.y + box.height - 8);
      context.fillText(bytesText(blocks.size[i]), x + 5, middle);
    }
    if (i === state.focus) outlineBlock(context, x, y, right - x, height);
  }
  context.restore();
}

/** What is free below top, by the bins of the charts. */
function paintBelowTop(context, box, high) {
  context.fillStyle = css(color('free'));
  for (let x = 0; x < box.width; x++) {
    const call = view.t0 + ((x + 0.5) / box.width) * (view.t1 - view.t0);
    // No canvas draws a rectangle of a billion pixels.
    const height = Math.min(box.height, (binValue('top', call) / GRANULE - view.a0) * high);
    if (height > 0) context.fillRect(box.x + x, box.y + box.height - height, 1.5, height);
  }
}

function outlineBlock(context, x, y, width, height) {
  context.strokeStyle = css(color('ink'));
  context.lineWidth = 2;
  context.strokeRect(x, y, width, height);
}

/** The plot in the canvas, in CSS pixels. */
function plotBox(canvas) {
  return {
    x: MARGIN.left,
    y: MARGIN.top,
    width: Math.max(1, plotWidth(canvas.clientWidth)),
    height: Math.max(1, canvas.clientHeight - MARGIN.top - MARGIN.bottom),
  };
}

function paintPicture(blocks) {
  const canvas = document.getElementById('picture');
  const { context, width, ratio } = begin(canvas);
  const box = plotBox(canvas);
  const seen = fewInView(blocks);
  // The blocks that were dropped can only be drawn as shares, behind the others.
  if (!seen || state.residue.dropped) paintShares(blocks, context, box, ratio);
  if (seen) paintBlocks(blocks, seen, context, box);
  context.fillStyle = css(color('pale'));
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  for (const tick of ticks(view.a0 * GRANULE, view.a1 * GRANULE, 7, 2)) {
    const y = box.y + box.height * (1 - (tick / GRANULE - view.a0) / (view.a1 - view.a0));
    context.fillRect(box.x - 5, y, 5, 1);
    const text = view.a1 - view.a0 < 4096 ? '0x' + tick.toString(16) : bytesText(tick);
    context.fillText(text, box.x - 8, Math.max(8, y));
  }
  timeAxis(context, width, box.y + box.height);
  paintNow(context, width, box.y, box.height);
}

/** The bar that marks "now". */
function paintNow(context, width, y, height) {
  if (state.now < view.t0 || state.now > view.t1) return;
  const x = timeX(state.now + Math.min(0.5, (view.t1 - view.t0) / 2000), width);
  context.fillStyle = css(color('page'));
  context.fillRect(x - 2, y, 4, height);
  context.fillStyle = css(color('ink'));
  context.fillRect(x - 0.75, y, 1.5, height);
}
