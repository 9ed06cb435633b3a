'use strict';
// Numbers as text, and round numbers for axes.

const GRANULE = 16;
const ALIVE = 0xffffffff;

/** "97.7 KiB", as the command writes sizes. */
function bytesText(bytes) {
  for (const [name, unit] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) {
    if (bytes >= unit) return (bytes % unit ? (bytes / unit).toFixed(1) : bytes / unit) + ' ' + name;
  }
  return Math.round(bytes) + ' B';
}

function countText(count) {
  return Math.round(count).toLocaleString('en');
}

function offsetText(granules) {
  return '0x' + (granules * GRANULE).toString(16);
}

/** The smallest step of at least `least`: a power of 2, or one, two or five times a power of 10. */
function stepOf(least, base) {
  const power = base ** Math.floor(Math.log(Math.max(least, 1e-9)) / Math.log(base) + 1e-9);
  const factors = base === 10 ? [1, 2, 5, 10] : [1, 2];
  return (factors.find((factor) => factor * power >= least * (1 - 1e-9)) || base) * power;
}

/** The multiples of a round step from `from` to `to`, about `count` of them. */
function ticks(from, to, count, base) {
  const step = Math.max(1, stepOf((to - from) / count, base));
  const all = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) all.push(tick);
  return all;
}

/** The number of the group that a size in bytes belongs to, as in the command. */
function sizeGroup(size) {
  if (size <= 1024) return size;
  const power = Math.floor(Math.log2(size - 1));
  return 1025 + (power - 10) * 8 + (Math.floor((size - 1) / 2 ** (power - 3)) - 8);
}
