/* Every call on several heaps. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <smalloc.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void *work(void *heap) {
    for (int round = 0; round < 20000; round++) {
        char *block = smalloc_heap_alloc(heap, 1 + round % 300);
        assert(block);
        block[0] = 1;
        smalloc_heap_free(heap, block);
    }
    return NULL;
}

int main(void) {
    smalloc_heap *heap = smalloc_heap_new(1 << 20), *other = smalloc_heap_new(4 << 20);
    assert(heap && other && heap != other);

    char *a = smalloc_heap_alloc(heap, 100);
    assert(a && (uintptr_t)a % 16 == 0 && smalloc_heap_usable_size(heap, a) == 112);
    assert(smalloc_heap_contains(heap, a) && !smalloc_heap_contains(other, a));
    assert(smalloc_heap_usable_size(heap, a + 16) == 0 && smalloc_heap_usable_size(heap, NULL) == 0);
    memset(a, 7, 112);
    a = smalloc_heap_realloc(heap, a, 50000);
    assert(a && a[111] == 7 && smalloc_heap_usable_size(heap, a) == 50000);

    errno = 0;
    assert(!smalloc_heap_alloc(heap, 2 << 20) && errno == ENOMEM);
    errno = 0;
    assert(!smalloc_heap_aligned_alloc(heap, 48, 10) && errno == EINVAL);
    errno = 0;
    assert(!smalloc_heap_calloc(heap, SIZE_MAX / 2, 3) && errno == ENOMEM);
    errno = 0;
    assert(!smalloc_heap_realloc(heap, a, SIZE_MAX) && errno == ENOMEM && a[111] == 7);

    char *aligned = smalloc_heap_aligned_alloc(heap, 4096, 10);
    assert(aligned && (uintptr_t)aligned % 4096 == 0);
    char *zeros = smalloc_heap_calloc(heap, 1000, 3);
    for (int i = 0; i < 3000; i++) assert(zeros[i] == 0);

    smalloc_segment segments[16];
    size_t count = smalloc_heap_snapshot(heap, segments, 16), offset = 0, used = 0;
    assert(count >= 4 && count <= 16 && smalloc_heap_snapshot(heap, NULL, 0) == count);
    for (size_t i = 0; i < count; i++) {
        assert(segments[i].offset == offset);
        offset += segments[i].size;
        used += segments[i].in_use ? segments[i].size : 0;
    }
    smalloc_stats stats;
    smalloc_heap_stats(heap, &stats);
    assert(offset == stats.region_size && stats.region_size == 1 << 20 && used == stats.used_bytes);
    assert(stats.live_segments == 3 && stats.failures == 1 && stats.reallocs == 1 && stats.allocs == 3);

    smalloc_heap_free_sized(heap, zeros, 3000);
    smalloc_heap_free_sized(heap, NULL, 5);
    smalloc_heap_free(heap, aligned);
    smalloc_heap_free(heap, a);
    smalloc_heap_free(heap, NULL);
    smalloc_heap_stats(heap, &stats);
    assert(stats.used_bytes == 0 && stats.top == 0 && stats.frees == 3);
    assert(smalloc_heap_trim(heap) > 0 && smalloc_heap_trim(heap) == 0);
    assert(smalloc_heap_set_limit(heap, 8192) == 8192 && !smalloc_heap_alloc(heap, 9000));
    assert(smalloc_heap_set_limit(heap, SIZE_MAX) == 1 << 20);

    pthread_t threads[3];
    for (int i = 0; i < 3; i++) assert(!pthread_create(&threads[i], NULL, work, other));
    for (int i = 0; i < 3; i++) assert(!pthread_join(threads[i], NULL));
    char line[80];
    assert(smalloc_heap_check(heap, line, sizeof line) == 0 && smalloc_heap_check(other, NULL, 0) == 0);
    smalloc_heap_delete(heap);
    smalloc_heap_delete(other);
    smalloc_heap_delete(NULL);
    puts("ok");
    return 0;
}
