/* Edge calls against what POSIX and C23 say. Each line of the table is a call, and what must be true of its result.
 *
 * A result is checked three ways: null or not, errno, and the alignment of the address. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
void cfree(void *);

static int failures;
static volatile size_t zero = 0, one = 1, huge = SIZE_MAX, half = SIZE_MAX / 2 + 1;

static void check(int right, const char *call) {
    if (!right) printf("wrong: %s, errno %d\n", call, errno), failures++;
}
/* The call succeeds at this alignment, and leaves errno alone. The block is written and freed. */
#define GIVES(align, size, call)                                                                                  \
    do {                                                                                                          \
        errno = EDOM;                                                                                             \
        char *block = (call);                                                                                     \
        check(block && (uintptr_t)block % (align) == 0 && errno == EDOM, #call);                                  \
        check(malloc_usable_size(block) >= (size), #call ": usable size");                                        \
        memset(block, 1, malloc_usable_size(block));                                                              \
        free(block);                                                                                              \
        check(errno == EDOM, #call ": free keeps errno");                                                         \
    } while (0)
#define FAILS(number, call)                                                                                       \
    do {                                                                                                          \
        errno = 0;                                                                                                \
        check(!(call) && errno == (number), #call);                                                               \
    } while (0)

static void allocation(void) {
    GIVES(16, 0, malloc(zero));
    GIVES(16, 1, malloc(one));
    GIVES(16, 100, malloc(100 * one));
    GIVES(16, 1 << 20, malloc(one << 20));
    FAILS(ENOMEM, malloc(huge));
    FAILS(ENOMEM, malloc(half));
    FAILS(ENOMEM, malloc(half - 1));
    GIVES(16, 0, calloc(zero, 10));
    GIVES(16, 0, calloc(10, zero));
    GIVES(16, 1000, calloc(10, 100 * one));
    FAILS(ENOMEM, calloc(huge, 2));
    FAILS(ENOMEM, calloc(half, 2));
    FAILS(ENOMEM, calloc(2, half));
    char *zeros = calloc(300 * one, 1000);
    for (int i = 0; i < 300000; i++) check(zeros[i] == 0, "calloc zeroes");
    memset(zeros, 1, 300000);
    free(zeros);
    zeros = calloc(1, 300000 * one);
    for (int i = 0; i < 300000; i++) check(zeros[i] == 0, "calloc zeroes what was used");
    free(zeros);
    void *two[2] = {malloc(zero), malloc(zero)};
    check(two[0] != two[1], "empty blocks are distinct");
    free(two[0]), free(two[1]), free(NULL), cfree(NULL), cfree(malloc(10 * one));
}

static void resizing(void) {
    GIVES(16, 50, realloc(NULL, 50 * one));
    char *block = malloc(10 * one);
    memcpy(block, "nine char", 10);
    FAILS(ENOMEM, realloc(block, huge));
    FAILS(ENOMEM, realloc(block, half));
    FAILS(ENOMEM, reallocarray(block, half, 2));
    check(!strcmp(block, "nine char"), "a realloc that fails changes nothing");
    for (size_t size = 20; size < 4 << 20; size *= 3) {
        errno = EDOM;
        block = realloc(block, size);
        check(block && !strcmp(block, "nine char") && errno == EDOM, "realloc grows");
        block[size - 1] = 1;
    }
    block = realloc(block, 12 * one);
    check(!strcmp(block, "nine char"), "realloc shrinks");
    errno = EDOM;
    check(!realloc(block, zero) && errno == EDOM, "realloc of 0 bytes frees");
    GIVES(16, 0, realloc(NULL, zero));
    GIVES(16, 200, reallocarray(NULL, 10 * one, 20));
    GIVES(16, 200, reallocarray(malloc(5 * one), 10, 20));
}

static void alignment(void) {
    size_t page = sysconf(_SC_PAGESIZE);
    for (size_t align = sizeof(void *); align <= 4 << 20; align *= 2) {
        void *block = (void *)1;
        errno = EDOM;
        int error = posix_memalign(&block, align, 10 * one);
        check(error == 0 && errno == EDOM && (uintptr_t)block % align == 0, "posix_memalign");
        free_aligned_sized(block, align, 10);
    }
    void *kept = &kept;
    errno = EDOM;
    check(posix_memalign(&kept, zero, 8) == EINVAL, "posix_memalign of 0");
    check(posix_memalign(&kept, 4 * one, 8) == EINVAL, "posix_memalign below a pointer");
    check(posix_memalign(&kept, 24 * one, 8) == EINVAL, "posix_memalign of no power of two");
    check(posix_memalign(&kept, 64 * one, huge) == ENOMEM, "posix_memalign of too much");
    check(kept == &kept && errno == EDOM, "posix_memalign that fails leaves result and errno");
    GIVES(64, 0, aligned_alloc(64, zero));
    GIVES(64, 10, aligned_alloc(64, 10 * one));
    GIVES(16, 10, aligned_alloc(one, 10));
    FAILS(EINVAL, aligned_alloc(zero, 8));
    FAILS(EINVAL, aligned_alloc(24 * one, 8));
    FAILS(ENOMEM, aligned_alloc(64, huge));
    GIVES(64, 10, memalign(33 * one, 10));
    GIVES(16, 10, memalign(zero, 10));
    FAILS(EINVAL, memalign(huge, 10));
    FAILS(ENOMEM, memalign(half, 10));
    GIVES(page, 10, valloc(10 * one));
    GIVES(page, 0, valloc(zero));
    FAILS(ENOMEM, valloc(huge));
    GIVES(page, page, pvalloc(10 * one));
    GIVES(page, 0, pvalloc(zero));
    FAILS(ENOMEM, pvalloc(huge));
}

/* Blocks with mappings of their own. */
static void large(void) {
    struct mallinfo2 before = mallinfo2();
    char *block = calloc(3, one << 30), *other = aligned_alloc(1 << 21, 5 * (one << 30));
    check(block && other && (uintptr_t)other % (1 << 21) == 0, "large blocks");
    check(malloc_usable_size(block) == 3 * (one << 30) && block[(3 * one << 30) - 1] == 0, "a large block's size");
    struct mallinfo2 now = mallinfo2();
    check(now.hblks == before.hblks + 2 && now.hblkhd - before.hblkhd == 8 * (one << 30), "large blocks count");
    memcpy(block, "text", 5);
    block = realloc(block, 7 * (one << 30));
    check(block && !strcmp(block, "text") && malloc_usable_size(block) == 7 * (one << 30), "a large block grows");
    block = realloc(block, 1 << 20);
    check(block && !strcmp(block, "text"), "a large block shrinks");
    block = realloc(block, 50 * one);
    check(block && !strcmp(block, "text"), "a large block becomes small");
    block = realloc(block, 2 * (one << 30));
    check(block && !strcmp(block, "text"), "a small block becomes large");
    errno = EDOM;
    free_sized(block, 2 * (one << 30)), free(other);
    check(errno == EDOM && mallinfo2().hblks == before.hblks, "large blocks are freed");
}

static void numbers(void) {
    void *block = malloc(100000 * one);
    struct mallinfo2 now = mallinfo2();
    check(now.uordblks >= 100000 && now.arena >= now.uordblks && now.fordblks == now.arena - now.uordblks, "mallinfo2");
    check((size_t)mallinfo().uordblks == mallinfo2().uordblks, "mallinfo");
    check(mallopt(M_TRIM_THRESHOLD, 1) == 1, "mallopt");
    free_sized(block, 100000);
    free_sized(NULL, 5), free_aligned_sized(NULL, 64, 5);
    check(malloc_usable_size(NULL) == 0, "malloc_usable_size of null");
    char *waste = malloc(8 * one << 20);
    memset(waste, 1, 8 << 20);
    free(waste);
    int trimmed = malloc_trim(0);
    check(trimmed == 0 || trimmed == 1, "malloc_trim");
    check(malloc_trim(0) == 0, "malloc_trim twice");
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    check(malloc_info(0, stream) == 0, "malloc_info");
    FAILS(EINVAL, malloc_info(1, stream) + 1);
    fclose(stream);
    check(!strncmp(text, "<malloc version=", 16) && strstr(text, "</malloc>\n"), "malloc_info writes XML");
    free(text);
    malloc_stats();
}

int main(void) {
    allocation(), resizing(), alignment(), large(), numbers();
    printf("%d wrong\n", failures);
    return failures != 0;
}
