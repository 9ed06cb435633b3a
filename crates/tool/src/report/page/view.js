// The part of the picture that is seen: calls from t0 to t1, granules from a0 to a1.

const view = { t0: 0, t1: 1, a0: 0, a1: 1, calls: 1, top: 1 };
/** Pixels of the canvas that are left to the axes. */
const MARGIN = { left: 84, right: 14, bottom: 24, top: 6 };

function showEverything() {
  Object.assign(view, { t0: 0, t1: view.calls + 1, a0: 0, a1: view.top });
}

/** Keeps the view inside of everything, at least two calls wide and four granules high. */
function clampView() {
  for (const [from, to, least, most] of [['t0', 't1', 2, view.calls + 1], ['a0', 'a1', 4, view.top]]) {
    const width = Math.min(most, Math.max(least, view[to] - view[from]));
    const middle = (view[from] + view[to]) / 2;
    view[from] = Math.min(Math.max(0, middle - width / 2), most - width);
    view[to] = view[from] + width;
  }
}

/** Zooms by a factor for each axis; the point at these shares of the plot keeps its place. */
function zoom(timeFactor, addressFactor, x = 0.5, y = 0.5) {
  const [t, a] = [view.t0 + x * (view.t1 - view.t0), view.a0 + y * (view.a1 - view.a0)];
  const [width, height] = [(view.t1 - view.t0) * timeFactor, (view.a1 - view.a0) * addressFactor];
  Object.assign(view, { t0: t - x * width, t1: t + (1 - x) * width, a0: a - y * height, a1: a + (1 - y) * height });
  clampView();
}

/** Moves by shares of what is seen. */
function pan(x, y) {
  const [width, height] = [view.t1 - view.t0, view.a1 - view.a0];
  view.t0 += x * width;
  view.t1 += x * width;
  view.a0 += y * height;
  view.a1 += y * height;
  clampView();
}

/** Where a block lies is brought into the middle of the view, with room around it. */
function lookAt(t0, t1, a0, a1) {
  const [wide, high] = [(t1 - t0) * 0.3 + 1, (a1 - a0) * 0.3 + 2];
  Object.assign(view, { t0: t0 - wide, t1: t1 + wide, a0: a0 - high, a1: a1 + high });
  clampView();
}

/** The context of a canvas, cleared, and its size in CSS pixels. */
function begin(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [wide, high] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '12px system-ui, sans-serif';
  return { context, width, height, ratio };
}

/** A color of the style sheet as [red, green, blue]. */
function color(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

function css(rgb) {
  return `rgb(${rgb.map(Math.round).join(' ')})`;
}

function mix(from, to, share) {
  return from.map((value, i) => value + (to[i] - value) * share);
}

/** 256 colors from free to all in use. The smallest share does not look free. */
function shades() {
  const [free, low, middle, high] = ['free', 'low', 'middle', 'high'].map(color);
  return Array.from({ length: 256 }, (_, i) => {
    if (i === 0) return free;
    return i < 128 ? mix(low, middle, i / 128) : mix(middle, high, (i - 128) / 127);
  });
}

/** The axis of calls below a plot. */
function timeAxis(context, width, bottom) {
  context.fillStyle = css(color('pale'));
  context.textAlign = 'center';
  context.textBaseline = 'top';
  for (const tick of ticks(view.t0, view.t1, 8, 10)) {
    const x = timeX(tick, width);
    context.fillRect(x, bottom, 1, 5);
    const text = tick === 0 ? 'call 0' : countText(tick);
    const half = context.measureText(text).width / 2;
    if (x + half <= width) context.fillText(text, x, bottom + 8);
  }
}

function plotWidth(width) {
  return width - MARGIN.left - MARGIN.right;
}

function timeX(call, width) {
  return MARGIN.left + ((call - view.t0) / (view.t1 - view.t0)) * plotWidth(width);
}
