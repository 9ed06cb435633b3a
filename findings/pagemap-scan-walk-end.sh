#!/bin/sh
# PAGEMAP_SCAN with room for more than 512 ranges stops its report of progress too early, so that a caller who goes on
# from there counts ranges twice.
#
# Guess: `walk_end` is where the scan ended. If the vector has room for all ranges, it is the end of the request.
# Seen (Linux 6.18, any user): with 2,000 single pages resident, every second one, and a vector of 4,096 ranges, one call
# reports all 2,000 ranges, but `walk_end` lies far below the end. A loop that starts the next call at `walk_end` until
# that reaches the end, as the interface suggests, finds some pages again. With a vector of 512 ranges the sum is right.
#
# For whoever measures resident memory: use a vector of at most 512 ranges.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >main.c <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

struct region { uint64_t start, end, categories; };
struct arguments {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct arguments)
#define PRESENT (1 << 3)
#define PAGES 2000L

static long pages_by(int file, uint64_t start, uint64_t end, uint64_t room, int *calls) {
    struct region *found = calloc(room, sizeof *found);
    long pages = 0;
    for (*calls = 0; start < end; ++*calls) {
        struct arguments a = { sizeof a, 0, start, end, 0, (uint64_t)found, room, 0, 0, PRESENT, 0, PRESENT };
        int n = ioctl(file, SCAN, &a);
        if (n < 0) { perror("PAGEMAP_SCAN"); exit(2); }
        for (int i = 0; i < n; ++i) pages += (found[i].end - found[i].start) / 4096;
        start = a.walk_end;
    }
    free(found);
    return pages;
}

int main(void) {
    size_t bytes = 2 * PAGES * 4096;
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (long page = 0; page < PAGES; ++page) memory[2 * page * 4096] = 1;
    int file = open("/proc/self/pagemap", O_RDONLY), calls;
    for (uint64_t room = 512; room <= 4096; room += 4096 - 512) {
        long pages = pages_by(file, (uint64_t)memory, (uint64_t)memory + bytes, room, &calls);
        printf("room for %lu: %s\n", room, pages == PAGES ? "each page once" : pages > PAGES ? "some pages twice" : "too few");
    }
}
C
uname -sr
cc -O1 -o main main.c
./main | tee seen
cat >expected <<'TEXT'
room for 512: each page once
room for 4096: some pages twice
TEXT
diff expected seen
