// The table of groups, by call site, size or thread; and their call stacks.

const MOST_ROWS = 200;
const COLUMNS = [
  { key: 'name', title: 'Group', text: String },
  { key: 'live', title: 'Live now', text: bytesText },
  { key: 'liveBlocks', title: 'Blocks now', text: countText },
  { key: 'pinned', title: 'Keeps free', text: bytesText, hint: 'Free bytes of pages that its live blocks keep from going back to the system' },
  { key: 'keeps', title: 'Keeps top', text: bytesText, hint: 'By how much top would be lower without its blocks' },
  { key: 'peak', title: 'Peak', text: bytesText },
  { key: 'bytes', title: 'Total', text: bytesText },
  { key: 'blocks', title: 'Blocks', text: countText },
  { key: 'calls', title: 'Mean life', text: (calls) => (calls === null ? 'never freed' : countText(calls) + ' calls') },
  { key: 'hops', title: 'Mean hops', text: (hops) => hops.toFixed(2) },
];

/** The site of a call stack; 0 is unknown. */
function siteOf(stack) {
  const { sites } = state.facts;
  return sites && sites.stacks[stack] ? sites.stacks[stack].site : 0;
}

/** The function that gives the group of a block. */
function groupOf(blocks) {
  if (state.kind === 'site') return (i) => siteOf(blocks.stack[i]);
  if (state.kind === 'stack') return (i) => blocks.stack[i];
  if (state.kind === 'thread') return (i) => blocks.thread[i];
  return (i) => sizeGroup(blocks.size[i]);
}

/** How many blocks of its group a block stands for: not one if stacks are known of a sample alone. */
function weightOf(blocks, i) {
  const byStack = state.kind === 'site' || state.kind === 'stack';
  return blocks.weight && byStack ? blocks.weight[i] : 1;
}

function isMarked(i) {
  return state.groupOf(i) === state.marked;
}

/** Puts what is live "now" into the groups. */
function tallyNow(blocks) {
  const { live, pins: kept } = state.moment;
  const groups = new Map();
  for (const row of state.facts.groups[state.kind]) {
    groups.set(row.group, Object.assign(row, { live: 0, liveBlocks: 0, pinned: 0, keeps: 0 }));
  }
  live.forEach((i, at) => {
    const weight = weightOf(blocks, i);
    if (!weight) return;
    const row = groups.get(state.groupOf(i));
    row.live += weight * blocks.size[i];
    row.liveBlocks += weight;
    row.pinned += weight * kept[at] * GRANULE;
  });
  const { group, keeps } = highest(blocks, live, state.groupOf);
  if (groups.has(group)) groups.get(group).keeps = keeps * GRANULE;
}

function makeTable() {
  const head = document.querySelector('#groups thead tr');
  for (const { key, title, hint } of COLUMNS) {
    const cell = document.createElement('th');
    cell.scope = 'col';
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = title;
    if (hint) cell.title = hint;
    button.addEventListener('click', () => {
      state.descending = state.sort === key ? !state.descending : key !== 'name';
      state.sort = key;
      listGroups();
    });
    cell.append(button);
    head.append(cell);
  }
  const choice = document.getElementById('kind');
  for (const kind of ['site', 'stack', 'size', 'thread']) {
    const rows = state.facts.groups[kind];
    const told = kind === 'size' || rows.some((row) => !row.name.startsWith('an unknown'));
    if (told) choice.append(new Option(kind, kind, false, kind === state.kind));
  }
}

function sortedGroups() {
  const wanted = document.getElementById('search').value.toLowerCase();
  const rows = state.facts.groups[state.kind].filter((row) => row.name.toLowerCase().includes(wanted));
  const value = (row) => (state.sort === 'name' && state.kind === 'size' ? row.group : row[state.sort] ?? Infinity);
  rows.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.group - b.group));
  return state.descending ? rows.reverse() : rows;
}

function listGroups() {
  const rows = sortedGroups();
  document.querySelectorAll('#groups th').forEach((cell, i) => {
    const own = COLUMNS[i].key === state.sort;
    cell.setAttribute('aria-sort', own ? (state.descending ? 'descending' : 'ascending') : 'none');
    cell.firstChild.textContent = COLUMNS[i].title + (own ? (state.descending ? ' ▼' : ' ▲') : '');
  });
  document.querySelector('#groups tbody').replaceChildren(...rows.slice(0, MOST_ROWS).map(groupRow));
  const shown = Math.min(rows.length, MOST_ROWS);
  document.getElementById('table-words').textContent = `${countText(shown)} of ${countText(rows.length)} groups`;
  showStack();
  flame(rows);
}

function groupRow(group) {
  const row = document.createElement('tr');
  row.classList.toggle('marked', group.group === state.marked);
  for (const { key, text } of COLUMNS) {
    const cell = row.insertCell();
    if (key !== 'name') {
      cell.textContent = text(group[key]);
      continue;
    }
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = group.name;
    button.setAttribute('aria-pressed', String(group.group === state.marked));
    button.addEventListener('click', () => mark(group.group === state.marked ? null : group.group));
    cell.append(button);
  }
  return row;
}

/** The marked stack. */
function showStack() {
  const { sites } = state.facts;
  const stack = state.kind === 'stack' && sites && state.marked !== null ? sites.stacks[state.marked] : null;
  document.getElementById('stack').hidden = !stack;
  const lines = (stack ? stack.frames : []).map((frame) => {
    const line = document.createElement('li');
    line.textContent = sites.frames[frame];
    return line;
  });
  document.querySelector('#stack ol').replaceChildren(...lines);
}

/** A flame graph of the column that the table is sorted by: callers above, callees below. */
function flame(rows) {
  const { sites } = state.facts;
  const summed = ['live', 'liveBlocks', 'pinned', 'peak', 'bytes', 'blocks'];
  const key = summed.includes(state.sort) ? state.sort : 'bytes';
  const place = document.getElementById('flame');
  document.getElementById('flame-part').hidden = state.kind !== 'stack' || !sites;
  if (state.kind !== 'stack' || !sites) return;
  document.getElementById('flame-by').textContent = COLUMNS.find((one) => one.key === key).title.toLowerCase();
  const root = { name: 'all', sum: 0, below: new Map() };
  for (const row of rows) {
    let node = root;
    node.sum += row[key];
    for (const frame of sites.stacks[row.group] ? [...sites.stacks[row.group].frames].reverse() : []) {
      if (!node.below.has(frame)) node.below.set(frame, { name: sites.frames[frame], sum: 0, below: new Map() });
      node = node.below.get(frame);
      node.sum += row[key];
    }
  }
  const boxes = [];
  const text = COLUMNS.find((one) => one.key === key).text;
  let deepest = 0;
  const draw = (node, left, depth) => {
    const width = node.sum / root.sum;
    if (!(width > 0.002)) return;
    const box = document.createElement('div');
    box.style.cssText = `left:${100 * left}%;width:${100 * width}%;top:${20 * depth}px`;
    box.title = box.textContent = `${node.name}: ${text(node.sum)}`;
    boxes.push(box);
    deepest = Math.max(deepest, depth + 1);
    for (const child of node.below.values()) {
      draw(child, left, depth + 1);
      left += child.sum / root.sum;
    }
  };
  draw(root, 0, 0);
  place.style.height = `${20 * deepest}px`;
  place.replaceChildren(...boxes);
}
