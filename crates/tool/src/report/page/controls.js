// Wheel, touch, mouse and keys on the picture.

/** The place of an event in the plot, as shares from the left and from below. */
function shareOf(event) {
  const canvas = document.getElementById('picture');
  const box = plotBox(canvas);
  const rectangle = canvas.getBoundingClientRect();
  const x = (event.clientX - rectangle.left - box.x) / box.width;
  const y = 1 - (event.clientY - rectangle.top - box.y) / box.height;
  return { x: Math.min(1, Math.max(0, x)), y: Math.min(1, Math.max(0, y)) };
}

function placeOf(event) {
  const { x, y } = shareOf(event);
  return { call: Math.floor(view.t0 + x * (view.t1 - view.t0)), granule: Math.floor(view.a0 + y * (view.a1 - view.a0)) };
}

/** Everything that is known of a block. */
function blockText(i) {
  const { birth, death, size, offset, hops, thread, stack } = state.blocks;
  const born = birth[i] ? `placed by call ${countText(birth[i])}` : 'in use from the beginning';
  const died = death[i] === ALIVE ? 'never freed' : `freed by call ${countText(death[i])}, ${countText(death[i] - birth[i])} calls later`;
  const parts = [`${bytesText(size[i])} at offset ${offsetText(offset[i])}`, born, died, `${countText(hops[i])} hops`];
  if (state.facts.threads[thread[i]]) parts.push(`thread ${state.facts.threads[thread[i]]}`);
  const site = siteOf(stack[i]);
  if (site) parts.push(`site ${state.facts.sites.frames[site - 1]}`);
  return parts.join('; ') + '.';
}

function tell(i, event) {
  const tip = document.getElementById('tip');
  // A moving mouse would flood a screen reader; keys are answered.
  tip.setAttribute('aria-live', event ? 'off' : 'polite');
  if (i >= 0) {
    tip.textContent = blockText(i);
  } else if (event) {
    const { call, granule } = placeOf(event);
    const used = bytesText(binValue('used', call));
    tip.textContent = `After call ${countText(call)}: free at offset ${offsetText(granule)}; about ${used} in use.`;
  }
}

function listenToPointers(canvas) {
  const pointers = new Map();
  let moved = false;
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    moved = pointers.size > 1;
  });
  canvas.addEventListener('pointermove', (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) {
      const { call, granule } = placeOf(event);
      return tell(blockAt(state.blocks, call, granule), event);
    }
    const others = [...pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
    const box = plotBox(canvas);
    if (others.length) {
      const distance = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY) || 1;
      const { x, y } = shareOf(others[0]);
      zoom(distance(before) / distance(event), distance(before) / distance(event), x, y);
    } else if (moved || Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY) > 4) {
      moved = true;
      pan((before.clientX - event.clientX) / box.width, (event.clientY - before.clientY) / box.height);
    } else {
      return;
    }
    pointers.set(event.pointerId, event);
    redraw();
  });
  const up = (event) => {
    if (pointers.delete(event.pointerId) && !moved && event.type === 'pointerup') choose(event);
  };
  canvas.addEventListener('pointerup', up);
  canvas.addEventListener('pointercancel', up);
  canvas.addEventListener('dblclick', (event) => {
    const { x, y } = shareOf(event);
    zoom(0.4, 0.4, x, y);
    redraw();
  });
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    const { x, y } = shareOf(event);
    const factor = Math.exp(Math.max(-1, Math.min(1, (event.deltaY || event.deltaX) / 250)));
    zoom(event.altKey ? 1 : factor, event.shiftKey ? 1 : factor, x, y);
    redraw();
  }, { passive: false });
}

/** A click: sets "now", and marks the group of the block there. */
function choose(event) {
  const { call, granule } = placeOf(event);
  const i = blockAt(state.blocks, call, granule);
  state.focus = i;
  setNow(call);
  if (i >= 0) mark(state.groupOf(i));
  tell(i, event);
}

/** The next block in view, or the one before. */
function step(direction) {
  const { birth, death, offset, end, count } = state.blocks;
  const seen = (i) => birth[i] < view.t1 && death[i] > view.t0 && offset[i] < view.a1 && end[i] > view.a0;
  let i = state.focus < 0 ? (direction > 0 ? -1 : count) : state.focus;
  do i += direction; while (i >= 0 && i < count && !seen(i));
  if (i < 0 || i >= count) return;
  state.focus = i;
  tell(i);
}

function key(event) {
  const factor = (zoomed) => [event.altKey ? 1 : zoomed, event.shiftKey && event.key !== '+' ? 1 : zoomed];
  const actions = {
    ArrowLeft: () => pan(-0.15, 0),
    ArrowRight: () => pan(0.15, 0),
    ArrowUp: () => pan(0, 0.15),
    ArrowDown: () => pan(0, -0.15),
    '+': () => zoom(...factor(0.7)),
    '=': () => zoom(...factor(0.7)),
    '*': () => zoom(0.7, 1),
    '-': () => zoom(...factor(1 / 0.7)),
    '_': () => zoom(1 / 0.7, 1),
    0: showEverything,
    ',': () => setNow(state.now - 1),
    '.': () => setNow(state.now + 1),
    j: () => step(1),
    k: () => step(-1),
    Enter: () => state.focus >= 0 && mark(state.groupOf(state.focus)),
    Escape: () => mark(null),
  };
  const action = actions[event.key];
  if (!action || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  action();
  redraw();
}

function listen() {
  const element = (id) => document.getElementById(id);
  const canvas = element('picture');
  listenToPointers(canvas);
  canvas.addEventListener('keydown', key);
  const click = (id, action) => element(id).addEventListener('click', () => (action(), redraw()));
  click('zoom-in', () => zoom(0.5, 0.5));
  click('zoom-out', () => zoom(2, 2));
  click('everything', showEverything);
  click('unmark', () => mark(null));
  for (const id of ['now', 'now-slider']) {
    element(id).max = view.calls;
    element(id).addEventListener('input', (event) => setNow(Number(event.target.value)));
  }
  element('kind').addEventListener('change', (event) => setKind(event.target.value));
  element('search').addEventListener('input', listGroups);
  element('theme').addEventListener('change', applyTheme);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', applyTheme);
  window.addEventListener('beforeprint', () => (applyTheme('light'), draw()));
  window.addEventListener('afterprint', applyTheme);
  window.addEventListener('resize', () => {
    redraw();
    state.mapIsStale = true;
  });
}
