/* smalloc: first-fit heaps for C and C++.
 *
 * A heap maps one region of memory, places every request at the lowest free address that is large enough, and
 * merges freed memory with its free neighbours at once. The bookkeeping lies beside the region: a payload has no
 * header.
 *
 * Two sets of calls. my_init, smalloc and sfree are those of the small C allocator that smalloc comes from, over
 * one heap. The calls that begin with smalloc_heap work on any number of heaps.
 *
 * A pointer that is not a payload in use, given to sfree, smalloc_heap_free or smalloc_heap_realloc, writes one
 * line to standard error and aborts. All calls may be made from any thread, but not from a signal handler that may
 * have interrupted one of them.
 *
 * Link with -lsmalloc, or see pkg-config smalloc. */

#ifndef SMALLOC_H
#define SMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- one heap ------------------------------------------------------------------------------------------------ */

/* The outcome of a call of smalloc. */
typedef struct Malloc_Status {
    int success;                  /* 1 if the request was placed, else 0 */
    unsigned long payload_offset; /* bytes from the region's start to the payload; ULONG_MAX without success */
    int hops;                     /* free segments that the search stepped over: 0 if the first one fits */
} Malloc_Status;

/* The free lists. Both place every request alike; they differ in the cost of a search, and so in hops. */
enum {
    SMALLOC_LINKED = 0, /* the list of the textbooks, walked from its head */
    SMALLOC_INDEXED = 1 /* the same list with an index over it: hops counts the steps that were really taken */
};

/* Sets up the heap: a region of region_size bytes, rounded up to whole pages, as one free segment. The list is
 * SMALLOC_LINKED. A later call is possible while nothing is in use; it may change the size up to the first call's.
 *
 * Returns 0, or -1 with errno: EINVAL if the size is not above 0, EBUSY if payloads are in use, ENOMEM if the system
 * refuses the memory, or the region is smaller than this. */
int my_init(int region_size);

/* my_init with either list. EINVAL also stands for an unknown list. */
int my_init_list(int region_size, int list);

/* Allocates payload_size bytes, rounded up to a multiple of 16, first fit, aligned to 16. (The C allocator rounded
 * to 8 and kept a header in front of each payload, so its offsets differ.) 0 bytes take 16. stat may be null.
 *
 * Returns the payload, to be freed by sfree. NULL with errno ENOMEM and success 0 if nothing fits, the size is
 * negative, or my_init has not been called. */
void *smalloc(int payload_size, Malloc_Status *stat);

/* Frees a payload and merges it with its free neighbours. Null does nothing. errno is as it was. */
void sfree(void *ptr);

/* ---- any number of heaps --------------------------------------------------------------------------------------- */

/* A heap with a region and a lock of its own. In a child of fork, a heap that another thread was using stays
 * locked. */
typedef struct smalloc_heap smalloc_heap;

/* Creates a heap whose region has region_size bytes, rounded up to whole pages, from 64 KiB to 64 GiB - 2 MiB. If
 * the system refuses so many addresses, the size is halved until it accepts; smalloc_heap_stats has the result.
 * The caller owns the heap. NULL with errno, usually ENOMEM, if the system refuses the smallest one. */
smalloc_heap *smalloc_heap_new(size_t region_size);

/* Unmaps a heap with all its payloads, which need not be freed before. Null does nothing. */
void smalloc_heap_delete(smalloc_heap *heap);

/* Allocates size bytes, aligned to 16; 0 bytes take 16. The payload belongs to the caller until it is freed in
 * this heap, by any thread. NULL with ENOMEM if nothing fits. */
void *smalloc_heap_alloc(smalloc_heap *heap, size_t size);

/* smalloc_heap_alloc at a multiple of alignment. NULL with EINVAL if that is not a power of two. */
void *smalloc_heap_aligned_alloc(smalloc_heap *heap, size_t alignment, size_t size);

/* Allocates count * size bytes of zeros. Pages that are known to be zero are not touched. NULL with ENOMEM if nothing
 * fits, or the product is too large. */
void *smalloc_heap_calloc(smalloc_heap *heap, size_t count, size_t size);

/* Resizes a payload, in place if there is room behind it, else by moving it, which may lose an alignment above 16.
 * A null payload is allocated. A size of 0 keeps 16 bytes and never frees. NULL with ENOMEM if nothing fits; the
 * payload is then as it was. */
void *smalloc_heap_realloc(smalloc_heap *heap, void *payload, size_t size);

/* Frees a payload. Null does nothing. errno is as it was. */
void smalloc_heap_free(smalloc_heap *heap, void *payload);

/* Frees a payload that was allocated or resized with this size. A size that takes another number of 16-byte granules
 * writes one line to standard error and aborts. Null does nothing. */
void smalloc_heap_free_sized(smalloc_heap *heap, void *payload, size_t size);

/* The bytes that a payload may use: its size rounded up to 16. 0 for null and for whatever is not a payload in
 * use. */
size_t smalloc_heap_usable_size(smalloc_heap *heap, const void *payload);

/* 1 if an address lies in the heap's region, in use or free, else 0. */
int smalloc_heap_contains(smalloc_heap *heap, const void *address);

/* Numbers of a heap. Sizes are in bytes. */
typedef struct smalloc_stats {
    size_t region_size;
    size_t used_bytes;      /* in payloads in use, with rounding */
    size_t top;             /* the offset where the last payload ends; above it lies the wilderness */
    size_t live_segments;   /* payloads in use */
    size_t holes;           /* free segments below top */
    size_t hole_bytes;
    size_t largest_hole;
    size_t committed_bytes; /* of the region: memory that the system has been asked for */
    size_t metadata_bytes;  /* committed for the bookkeeping */
    size_t peak_used_bytes;
    size_t peak_top;
    uint64_t allocs;
    uint64_t frees;
    uint64_t reallocs;
    uint64_t failures;      /* requests that found no room */
    uint64_t hops;          /* steps of all searches that found a place */
} smalloc_stats;

/* Fills in the numbers. A search for the largest hole is all that takes time. */
void smalloc_heap_stats(smalloc_heap *heap, smalloc_stats *stats);

/* A segment: a payload, or free memory between payloads. Segments tile the region. */
typedef struct smalloc_segment {
    size_t offset; /* from the region's start */
    size_t size;
    int in_use;
} smalloc_segment;

/* Copies the segments at one instant, in ascending order, up to capacity of them, and returns how many there are.
 * segments may be null if capacity is 0. 0 with errno if the system has no memory for the copy. */
size_t smalloc_heap_snapshot(smalloc_heap *heap, smalloc_segment *segments, size_t capacity);

/* Returns free pages to the system, and how many bytes they have. Without this call the heap does so by itself,
 * later. */
size_t smalloc_heap_trim(smalloc_heap *heap);

/* Places nothing above the first bytes bytes of the region, or above what is in use now. Returns the limit. A
 * value above the region's size removes it. */
size_t smalloc_heap_set_limit(smalloc_heap *heap, size_t bytes);

/* Checks all bookkeeping. 0 if it is sound. -1 if it contradicts itself: then text, which may be null, gets a line
 * of at most size - 1 characters that says where. */
int smalloc_heap_check(smalloc_heap *heap, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
