"""Looks at the heaps of a program that uses smalloc, in a live process or in a core file.

    gdb -p PID -x crates/tool/gdb/smalloc_gdb.py
    gdb PROGRAM CORE -x crates/tool/gdb/smalloc_gdb.py

    (gdb) smalloc stats              the numbers of every heap
    (gdb) smalloc map                where what is in use lies
    (gdb) smalloc segment ADDRESS    the segment that holds an address
    (gdb) smalloc segments [in-use|free] [size=MIN[-MAX]] [at=FROM[-TO]]
                                     the segments of these sizes in bytes, at these addresses

The program needs no debug information, and no symbols: in a stripped one, the table of heaps is found by its first
bytes, and heaps have addresses instead of names. Heaps are found that are statics; a call that was under way when the
program stopped may be seen half.
"""

import bisect
import re
import struct

import gdb

GRANULE = 16
CHUNK = 64
TAG = 1 << 63
ALL = (1 << 64) - 1
SYMBOL = "smalloc::debugger::HEAPS"
MAGIC = b"smalloc's heaps\0"
BUCKETS = 128
# The counters in memory's order, before the histogram of the hops.
COUNTERS = (
    "allocated headroom peak_used peak_top requested freed cuts unjoined splits extensions growths paddings "
    "reallocs reallocs_in_place reallocs_moved failures last_failed_size"
).split()


def read(address, size):
    if size == 0:
        return b""
    return bytes(gdb.selected_inferior().read_memory(address, size))


def words(address, count):
    return struct.unpack("<%dQ" % count, read(address, 8 * count))


def size_text(size):
    if size < 1024:
        return "%d B" % size
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024:
            break
    return ("%d %s" if size == int(size) else "%.1f %s") % (size, unit)


def places_of_symbol():
    """The addresses of the symbol: one for each library that has a smalloc of its own."""
    found = []
    symbol = gdb.lookup_static_symbol(SYMBOL)
    if symbol is not None:
        found.append(int(symbol.value().address))
    for line in gdb.execute("info variables %s" % SYMBOL, to_string=True).splitlines():
        address, _, name = line.partition("  ")
        if address.startswith("0x") and name.startswith(SYMBOL):
            found.append(int(address, 16))
    return sorted(set(found))


def places_of_bytes():
    """Where the table's first bytes are in the writable data of the program and its libraries."""
    found = []
    for line in gdb.execute("info files", to_string=True).splitlines():
        section = re.match(r"\s*0x([0-9a-f]+) - 0x([0-9a-f]+) is (\.data\S*)", line)
        if section is None:
            continue
        at, end = int(section[1], 16), int(section[2], 16)
        while at < end:
            try:
                at = gdb.selected_inferior().search_memory(at, end - at, MAGIC)
            except gdb.MemoryError:
                break
            if at is None:
                break
            found.append(at)
            at += len(MAGIC)
    return found


def heaps():
    places = places_of_symbol() or places_of_bytes()
    if not places:
        raise gdb.GdbError("no table of heaps (%s): the program does not use smalloc" % SYMBOL)
    found = []
    for place in places:
        try:
            head = read(place, 32)
        except gdb.MemoryError:
            raise gdb.GdbError("the program does not run, and there is no core file")
        version, capacity = struct.unpack("<2Q", head[16:])
        if head[:16] != MAGIC or version != 3:
            raise gdb.GdbError("this smalloc has another layout (version %d, known is 3)" % version)
        for index in range(capacity):
            entry = words(place + 32 + 64 * index, 8)
            # The counters come last: without them the entry is not complete.
            if entry[7]:
                found.append(Heap(entry))
    if not found:
        raise gdb.GdbError("no heap has been used yet")
    return found


class Heap:
    def __init__(self, entry):
        address, list_, self.base, self.size, self.used_at, self.heads_at, top_at, self.counters_at = entry
        self.list = "indexed" if list_ else "linked"
        self.top = words(top_at, 1)[0] * GRANULE
        where = gdb.execute("info symbol %d" % address, to_string=True)
        self.name = where.split(" in section")[0].split(" + ")[0].split("::h")[0]
        if where.startswith("No symbol"):
            self.name = "0x%x" % address

    def title(self):
        region = "0x%x to 0x%x" % (self.base, self.base + self.size)
        return "%s, list %s, region %s (%s)" % (self.name, self.list, region, size_text(self.size))

    def segments(self):
        """(offset, size, in use) of every segment below top, from the two bitmaps."""
        chunks = self.top // GRANULE // CHUNK + 1
        used, heads = words(self.used_at, chunks), words(self.heads_at, chunks)
        top, at, start, in_use = self.top // GRANULE, 0, 0, False
        found = []

        def ends(end):
            nonlocal start
            if end > start:
                found.append((start * GRANULE, (end - start) * GRANULE, in_use))
                start = end

        while at < top:
            chunk, bit = divmod(at, CHUNK)
            if heads[chunk] & ~used[chunk] & TAG:
                # A tag: what is large is left in one step.
                hole = used[chunk] == 0
                if hole and in_use:
                    ends(chunk * CHUNK)
                in_use = not hole
                at = max(heads[chunk] & ~TAG if hole else used[chunk] >> 1, at + 1)
                continue
            below = (used[chunk] << 1 | int(in_use) << bit) & ALL
            begins = (used[chunk] & heads[chunk] | ~used[chunk] & below) & (ALL << bit) & ALL
            while begins and start < top:
                lowest = begins & -begins
                in_use = bool(below & lowest)
                ends(min(chunk * CHUNK + lowest.bit_length() - 1, top))
                begins ^= lowest
            in_use = bool(used[chunk] >> 63)
            at = (chunk + 1) * CHUNK
        ends(top)
        return found

    def counters(self):
        numbers = dict(zip(COUNTERS, words(self.counters_at, len(COUNTERS))))
        hops = words(self.counters_at + 8 * len(COUNTERS), BUCKETS + 2)
        numbers["placed"], numbers["hops"], numbers["max_hops"] = sum(hops[:BUCKETS]), hops[-2], hops[-1]
        return numbers

    def print_stats(self):
        segments = self.segments()
        numbers = self.counters()
        holes = [size for _, size, in_use in segments if not in_use]
        used = sum(size for _, size, in_use in segments if in_use)
        placed, moved = numbers["placed"], numbers["reallocs_moved"]
        print(self.title())
        print("  memory      used %s, free %s, top %s" % tuple(map(size_text, (used, self.size - used, self.top))))
        print("  segments    in use {:,}, holes {:,}".format(len(segments) - len(holes), len(holes)))
        largest = size_text(max(holes, default=0))
        print("  below top   bytes in holes %s, largest %s" % (size_text(sum(holes)), largest))
        print("  calls       allocs {:,}, frees {:,}".format(placed - moved, numbers["freed"] - moved))
        text = "  reallocs    {reallocs:,}, in place {reallocs_in_place:,}, moved {reallocs_moved:,}"
        print(text.format(**numbers))
        text = "  failures    {failures:,}" + (", the last of {last_failed_size:,} bytes" if numbers["failures"] else "")
        print(text.format(**numbers))
        mean = numbers["hops"] / placed if placed else 0
        print("  hops        mean %.2f, max %d, searches %s" % (mean, numbers["max_hops"], "{:,}".format(placed)))

    def print_map(self, width=64, rows=24):
        print(self.title())
        cell = GRANULE
        while cell * width * rows < self.top:
            cell *= 2
        cells = [0] * -(-self.top // cell)
        for offset, size, in_use in self.segments():
            while in_use and size > 0:
                index = offset // cell
                part = min(size, (index + 1) * cell - offset)
                cells[index] += part
                offset, size = offset + part, size - part
        digits = len("%x" % self.top)
        for row in range(0, len(cells), width):
            line = "".join(self.glyph(cells[i], min(cell, self.top - i * cell)) for i in range(row, min(row + width, len(cells))))
            print("0x%0*x  %s" % (digits, row * cell, line))
        print("1 character is %s: \u00b7 free, \u2591\u2592\u2593 in use up to 1/3, 2/3, less than all, \u2588 all in use" % size_text(cell))

    @staticmethod
    def glyph(used, size):
        if used == 0:
            return "\u00b7"
        return "\u2588" if used >= size else "\u2591\u2592\u2593"[used * 3 // size]

    def print_segment(self, address):
        offset = address - self.base
        if offset >= self.top:
            what = "free: the wilderness, %s from offset 0x%x on" % (size_text(self.size - self.top), self.top)
        else:
            segments = self.segments()
            start, size, in_use = segments[bisect.bisect_right(segments, (offset, self.size, True)) - 1]
            state = "in use" if in_use else "free"
            what = "%s: 0x%x to 0x%x, %d bytes at offset 0x%x" % (
                state, self.base + start, self.base + start + size, size, start)
            what += ", %d bytes into it" % (offset - start) if offset > start else ""
        print("0x%x is in %s, in a segment %s" % (address, self.name, what))


    def print_segments(self, wanted):
        print(self.title())
        found = [segment for segment in self.segments() if wanted(self.base + segment[0], segment[1], segment[2])]
        for offset, size, in_use in found:
            state = "in use" if in_use else "free"
            print("  0x%x  offset 0x%-10x  %-6s  %d bytes" % (self.base + offset, offset, state, size))
        print("  {:,} segments, {}".format(len(found), size_text(sum(size for _, size, _ in found))))


class Smalloc(gdb.Command):
    __doc__ = "Looks at the heaps of a program that uses smalloc." + __doc__.split("file.", 1)[1]

    def __init__(self):
        super().__init__("smalloc", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION, prefix=True)

    def invoke(self, argument, from_tty):
        raise gdb.GdbError("smalloc stats, smalloc map, smalloc segment ADDRESS, or " + Segments.USAGE)


class Stats(gdb.Command):
    """The numbers of every heap."""

    def __init__(self):
        super().__init__("smalloc stats", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        for heap in heaps():
            heap.print_stats()


class Map(gdb.Command):
    """Where what is in use lies, in every heap."""

    def __init__(self):
        super().__init__("smalloc map", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        for heap in heaps():
            heap.print_map()


class Segment(gdb.Command):
    """The segment that holds an address, which may be any expression."""

    def __init__(self):
        super().__init__("smalloc segment", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("smalloc segment ADDRESS")
        try:
            address = int(gdb.parse_and_eval(argument)) & ALL
        except gdb.error as error:
            raise gdb.GdbError(str(error))
        for heap in heaps():
            if heap.base <= address < heap.base + heap.size:
                return heap.print_segment(address)
        raise gdb.GdbError("0x%x is in no heap" % address)


class Segments(gdb.Command):
    """The segments of every heap: those in use or free, of some sizes in bytes, at some addresses."""

    USAGE = "smalloc segments [in-use|free] [size=MIN[-MAX]] [at=FROM[-TO]]"

    def __init__(self):
        super().__init__("smalloc segments", gdb.COMMAND_DATA)

    @staticmethod
    def bounds(text):
        """The two numbers of MIN-MAX, or twice that of MIN."""
        least, dash, most = text.partition("-")
        return int(least, 0), int(most, 0) if dash else int(least, 0)

    def invoke(self, argument, from_tty):
        states, sizes, places = (False, True), (0, ALL), (0, ALL)
        try:
            for word in gdb.string_to_argv(argument):
                name, equals, value = word.partition("=")
                if word in ("in-use", "free"):
                    states = (word == "in-use",)
                elif name == "size" and equals:
                    sizes = self.bounds(value)
                elif name == "at" and equals:
                    places = self.bounds(value)
                else:
                    raise ValueError
        except ValueError:
            raise gdb.GdbError(self.USAGE)

        def wanted(address, size, in_use):
            overlaps = address <= places[1] and places[0] < address + size
            return in_use in states and sizes[0] <= size <= sizes[1] and overlaps

        for heap in heaps():
            heap.print_segments(wanted)


Smalloc()
Stats()
Map()
Segment()
Segments()
