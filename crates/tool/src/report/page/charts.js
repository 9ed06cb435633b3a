// Sizes, holes and hops over the same calls as the picture.

/** The index of the bin that a call is in. The moment after a call lasts until the next one. */
function binOf(time) {
  const call = Math.floor(time);
  const { end } = state.facts.bins;
  let [low, high] = [0, end.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (end[middle] < call) low = middle + 1;
    else high = middle;
  }
  return low;
}

function binValue(name, call) {
  const values = state.facts.bins[name];
  return values.length ? values[binOf(call)] : 0;
}

/** The panels: a title, a scale and curves. */
function chartList() {
  const { bins, lists } = state.facts;
  const hops = lists.map((list, i) => ({ name: `mean, ${list.name}`, values: list.mean, color: ['second', 'third'][i] }));
  return [
    {
      title: 'Bytes', text: bytesText, base: 2,
      curves: [
        { name: 'footprint', values: bins.footprint, color: 'fourth' },
        { name: 'top', values: bins.top, color: 'third' },
        { name: 'used', values: bins.used, color: 'second' },
        { name: 'live', values: bins.live, color: 'first' },
      ],
    },
    { title: 'Holes', text: countText, base: 10, curves: [{ name: 'holes', values: bins.holes, color: 'second' }] },
    { title: 'Hops of a search', text: (hop) => String(+hop.toFixed(2)), base: 10, curves: hops },
  ];
}

/** Makes a canvas and a legend for each panel. */
function makeCharts() {
  const place = document.getElementById('charts');
  state.charts = chartList().map((chart) => {
    const canvas = document.createElement('canvas');
    canvas.className = 'chart';
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', `${chart.title} over the calls: ${chart.curves.map((curve) => curve.name).join(', ')}`);
    const legend = document.createElement('ul');
    legend.className = 'legend';
    legend.append(item(chart.title + ':'));
    for (const curve of chart.curves) legend.append(item(curve.name, 'stroke', curve.color));
    place.append(legend, canvas);
    return { ...chart, canvas };
  });
}

/** An item of a legend. */
function item(text, kind, name) {
  const line = document.createElement('li');
  if (kind) {
    const sample = document.createElement('span');
    sample.className = kind;
    sample.style[kind === 'stroke' ? 'borderColor' : 'background'] = `var(--${name})`;
    line.append(sample);
  }
  line.append(text);
  return line;
}

function paintCharts() {
  for (const chart of state.charts) paintChart(chart);
}

function paintChart({ canvas, curves, text, base }) {
  const { context, width, height } = begin(canvas);
  const [top, bottom] = [8, height - 22];
  const { end } = state.facts.bins;
  const [first, last] = [binOf(view.t0), binOf(view.t1)];
  let most = 0;
  for (const { values } of curves) for (let i = first; i <= last; i++) most = Math.max(most, values[i] || 0);
  most = most || 1;
  const y = (value) => bottom - (value / most) * (bottom - top);
  context.fillStyle = css(color('panel'));
  context.fillRect(MARGIN.left, top, plotWidth(width), bottom - top);
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  const step = Math.max(stepOf(most / 4, base), text === countText ? 1 : 0);
  for (let tick = 0; tick <= most; tick += step) {
    context.fillStyle = css(color('line'));
    context.fillRect(MARGIN.left, y(tick), plotWidth(width), 1);
    context.fillStyle = css(color('pale'));
    context.fillText(text(tick), MARGIN.left - 8, y(tick));
  }
  context.save();
  context.beginPath();
  context.rect(MARGIN.left, 0, plotWidth(width), height);
  context.clip();
  for (const curve of curves) {
    context.strokeStyle = css(color(curve.color));
    context.lineWidth = 1.75;
    context.beginPath();
    for (let i = first; i <= last; i++) {
      if (curve.values[i] === null) continue;
      const from = timeX(i ? end[i - 1] + 1 : 0, width);
      context.lineTo(from, y(curve.values[i]));
      context.lineTo(timeX(end[i] + 1, width), y(curve.values[i]));
    }
    context.stroke();
  }
  context.restore();
  timeAxis(context, width, bottom);
  paintNow(context, width, top, bottom - top);
}
