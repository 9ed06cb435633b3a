#!/bin/sh
# `mremap` with MREMAP_DONTUNMAP takes the lock of `mlock` from pages that it was not asked to move.
#
# Guess: the pages that move keep or lose their lock; the rest of the mapping is not touched.
# Seen (Linux 6.18): of a locked mapping of 16 pages, pages 4 to 7 are moved away. Afterwards the other 12 pages are not
# locked either, though their owner never unlocked them, and `VmLck` still counts pages that nobody can unlock.
#
# For an allocator that moves large blocks by their pages: find out whether any of them is locked (`msync` with
# MS_INVALIDATE fails with EBUSY for locked pages), and copy then.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >main.c <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char *locked(char *start, size_t bytes) {
    return msync(start, bytes, MS_ASYNC | MS_INVALIDATE) != 0 && errno == EBUSY ? "locked" : "not locked";
}

static long counted(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[200];
    long kib = -1;
    while (fgets(line, sizeof line, file)) sscanf(line, "VmLck: %ld", &kib);
    fclose(file);
    return kib;
}

int main(void) {
    size_t page = 4096;
    char *a = mmap(0, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mlock(a, 16 * page) != 0) { perror("mlock"); return 2; }
    memset(a, 1, 16 * page);
    printf("before: front %s, back %s\n", locked(a, 4 * page), locked(a + 8 * page, 8 * page));
    char *b = mremap(a + 4 * page, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    if (b == MAP_FAILED) { perror("mremap"); return 2; }
    printf("after: front %s, back %s\n", locked(a, 4 * page), locked(a + 8 * page, 8 * page));
    munlock(a, 16 * page);
    munlock(b, 4 * page);
    printf("all unlocked, and VmLck is %s\n", counted() > 0 ? "not 0" : "0");
}
C
uname -sr
cc -O1 -o main main.c
./main | tee seen
cat >expected <<'TEXT'
before: front locked, back locked
after: front not locked, back not locked
all unlocked, and VmLck is not 0
TEXT
diff expected seen
