// The lives of all blocks, unpacked into arrays in the order of births.

function unbase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** The bytes of a column. Its text is not needed again. */
async function unpack(name) {
  const element = document.getElementById('column-' + name);
  const packed = unbase64(element.textContent);
  element.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The numbers of a column, each changed by `change(number, index)`. */
async function column(name, array, change) {
  const bytes = await unpack(name);
  let at = 0;
  for (let i = 0; i < array.length; i++) {
    let byte = bytes[at++];
    let number = byte & 0x7f;
    for (let unit = 128; byte > 0x7f; unit *= 128) {
      byte = bytes[at++];
      number += (byte & 0x7f) * unit;
    }
    array[i] = change(number, i);
  }
  return array;
}

const same = (number) => number;

/** Unpacks everything. `end` is the offset behind a block, in granules. */
async function readBlocks(count) {
  const [birth, death] = [new Uint32Array(count), new Uint32Array(count)];
  const [offset, end] = [new Uint32Array(count), new Float64Array(count)];
  let before = 0;
  await column('births', birth, (number) => (before += number));
  await column('calls', death, (number, i) => (number ? birth[i] + number - 1 : ALIVE));
  const size = await column('sizes', new Float64Array(count), same);
  before = 0;
  await column('offsets', offset, (number, i) => {
    const place = before + (number % 2 ? -(number + 1) / 2 : number / 2);
    end[i] = before = place + Math.ceil(Math.max(1, size[i]) / GRANULE);
    return place;
  });
  const hops = await column('hops', new Uint32Array(count), same);
  const thread = await column('threads', new Uint32Array(count), same);
  const stack = await column('stacks', new Uint32Array(count), same);
  const isSample = document.getElementById('column-weights') !== null;
  const weight = isSample ? await column('weights', new Uint32Array(count), same) : null;
  return { count, birth, death, offset, end, size, hops, thread, stack, weight };
}

/** How many blocks were born by call `call`. */
function bornBy(blocks, call) {
  let [low, high] = [0, blocks.count];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (blocks.birth[middle] <= call) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The block at a call and an offset in granules; -1 if there is none. */
function blockAt(blocks, call, granule) {
  const { death, offset, end } = blocks;
  for (let i = bornBy(blocks, call) - 1; i >= 0; i--) {
    if (death[i] > call && offset[i] <= granule && granule < end[i]) return i;
  }
  return -1;
}

/** The indexes of the blocks that are in use after a call, by offset: sorted by digits of 16 bits. */
function liveAt(blocks, call) {
  const { death, offset } = blocks;
  const born = bornBy(blocks, call);
  let count = 0;
  for (let i = 0; i < born; i++) count += death[i] > call;
  let live = new Uint32Array(count);
  for (let i = 0, at = 0; i < born; i++) if (death[i] > call) live[at++] = i;
  for (const shift of [0, 16]) {
    const starts = new Uint32Array(0x10001);
    for (const i of live) starts[((offset[i] >>> shift) & 0xffff) + 1]++;
    for (let digit = 0; digit < 0x10000; digit++) starts[digit + 1] += starts[digit];
    const sorted = new Uint32Array(count);
    for (const i of live) sorted[starts[(offset[i] >>> shift) & 0xffff]++] = i;
    live = sorted;
  }
  return live;
}
