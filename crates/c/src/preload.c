/* The names by which C and C++ programs know an allocator, for libsmalloc-preload.so.
 *
 * This file is C, and compiled with -fno-builtin, for three reasons: a compiler that knows these names must not
 * reason about what is behind them; reallocarray, free_sized and free_aligned_sized call realloc and free by their
 * symbols, because valgrind replaces only those; and operator new has to throw through its own frame. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *smalloc_preload_malloc(size_t size);
void *smalloc_preload_calloc(size_t count, size_t size);
void *smalloc_preload_realloc(void *block, size_t size);
void *smalloc_preload_aligned_alloc(size_t alignment, size_t size);
void *smalloc_preload_memalign(size_t alignment, size_t size);
void *smalloc_preload_valloc(size_t size);
void *smalloc_preload_pvalloc(size_t size);
int smalloc_preload_posix_memalign(void **result, size_t alignment, size_t size);
void smalloc_preload_free(void *block);
void *smalloc_preload_new(size_t size, size_t alignment, unsigned char kind);
void smalloc_preload_delete(void *block, unsigned char kind);
void smalloc_preload_delete_sized(void *block, size_t size, size_t alignment, unsigned char kind);
void smalloc_preload_check(void *block, size_t size, size_t alignment);
size_t smalloc_preload_usable_size(void *block);
int smalloc_preload_trim(size_t pad);
int smalloc_preload_info(int options, FILE *stream);
void smalloc_preload_stats(void);
struct mallinfo smalloc_preload_mallinfo(void);
struct mallinfo2 smalloc_preload_mallinfo2(void);

/* ---- C ------------------------------------------------------------------------------------------------------- */

void *malloc(size_t size) { return smalloc_preload_malloc(size); }
void *calloc(size_t count, size_t size) { return smalloc_preload_calloc(count, size); }
void *realloc(void *block, size_t size) { return smalloc_preload_realloc(block, size); }
void *aligned_alloc(size_t alignment, size_t size) { return smalloc_preload_aligned_alloc(alignment, size); }
void *memalign(size_t alignment, size_t size) { return smalloc_preload_memalign(alignment, size); }
void *valloc(size_t size) { return smalloc_preload_valloc(size); }
void *pvalloc(size_t size) { return smalloc_preload_pvalloc(size); }
int posix_memalign(void **result, size_t alignment, size_t size) {
    return smalloc_preload_posix_memalign(result, alignment, size);
}
void free(void *block) { smalloc_preload_free(block); }
void cfree(void *block) { smalloc_preload_free(block); }
size_t malloc_usable_size(void *block) { return smalloc_preload_usable_size(block); }
int malloc_trim(size_t pad) { return smalloc_preload_trim(pad); }
int malloc_info(int options, FILE *stream) { return smalloc_preload_info(options, stream); }
void malloc_stats(void) { smalloc_preload_stats(); }
struct mallinfo mallinfo(void) { return smalloc_preload_mallinfo(); }
struct mallinfo2 mallinfo2(void) { return smalloc_preload_mallinfo2(); }

/* Parameters of glibc's allocator mean nothing here. Every one is accepted, as by glibc, and none has an effect. */
int mallopt(int parameter, int value) {
    (void)parameter, (void)value;
    return 1;
}

void *reallocarray(void *block, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, bytes);
}

void free_sized(void *block, size_t size) {
    smalloc_preload_check(block, size, 1);
    free(block);
}

void free_aligned_sized(void *block, size_t alignment, size_t size) {
    smalloc_preload_check(block, size, alignment);
    free(block);
}

/* ---- C++ ----------------------------------------------------------------------------------------------------- */

/* operator new calls the new handler until there is room, and throws std::bad_alloc if there is none. Both are
 * functions of the C++ library, looked up when they are needed: a C program does not have them. A handler may
 * throw as well. */

typedef void (*handler_t)(void);

static __attribute__((cold, noinline)) void *new_slow(size_t size, size_t alignment, unsigned char kind, int nothrow) {
    handler_t (*get_handler)(void) = (handler_t(*)(void))dlsym(RTLD_DEFAULT, "_ZSt15get_new_handlerv");
    handler_t handler;
    while ((handler = get_handler ? get_handler() : NULL)) {
        handler();
        void *block = smalloc_preload_new(size, alignment, kind);
        if (block) return block;
    }
    if (nothrow) return NULL;
    void (*throw_bad_alloc)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv");
    if (throw_bad_alloc) throw_bad_alloc();
    static const char line[] = "smalloc: operator new: nothing fits, and there is no C++ library to throw bad_alloc\n";
    if (write(STDERR_FILENO, line, sizeof line - 1) < 0) abort();
    abort();
}

enum { ONE = 1, ARRAY = 2 };

static inline void *new_at(size_t size, size_t alignment, unsigned char kind, int nothrow) {
    void *block = smalloc_preload_new(size, alignment, kind);
    return __builtin_expect(block != NULL, 1) ? block : new_slow(size, alignment, kind, nothrow);
}

/* new, new[]; with a size, an alignment (St11align_val_t), nothrow (RKSt9nothrow_t). */
void *_Znwm(size_t size) { return new_at(size, 16, ONE, 0); }
void *_Znam(size_t size) { return new_at(size, 16, ARRAY, 0); }
void *_ZnwmRKSt9nothrow_t(size_t size, const void *tag) { return (void)tag, new_at(size, 16, ONE, 1); }
void *_ZnamRKSt9nothrow_t(size_t size, const void *tag) { return (void)tag, new_at(size, 16, ARRAY, 1); }
void *_ZnwmSt11align_val_t(size_t size, size_t alignment) { return new_at(size, alignment, ONE, 0); }
void *_ZnamSt11align_val_t(size_t size, size_t alignment) { return new_at(size, alignment, ARRAY, 0); }
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment, const void *tag) {
    return (void)tag, new_at(size, alignment, ONE, 1);
}
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment, const void *tag) {
    return (void)tag, new_at(size, alignment, ARRAY, 1);
}

/* delete, delete[]; a size is checked. */
void _ZdlPv(void *block) { smalloc_preload_delete(block, ONE); }
void _ZdaPv(void *block) { smalloc_preload_delete(block, ARRAY); }
void _ZdlPvRKSt9nothrow_t(void *block, const void *tag) { (void)tag, smalloc_preload_delete(block, ONE); }
void _ZdaPvRKSt9nothrow_t(void *block, const void *tag) { (void)tag, smalloc_preload_delete(block, ARRAY); }
void _ZdlPvm(void *block, size_t size) { smalloc_preload_delete_sized(block, size, 1, ONE); }
void _ZdaPvm(void *block, size_t size) { smalloc_preload_delete_sized(block, size, 1, ARRAY); }
void _ZdlPvSt11align_val_t(void *block, size_t alignment) { (void)alignment, smalloc_preload_delete(block, ONE); }
void _ZdaPvSt11align_val_t(void *block, size_t alignment) { (void)alignment, smalloc_preload_delete(block, ARRAY); }
void _ZdlPvmSt11align_val_t(void *block, size_t size, size_t alignment) {
    smalloc_preload_delete_sized(block, size, alignment, ONE);
}
void _ZdaPvmSt11align_val_t(void *block, size_t size, size_t alignment) {
    smalloc_preload_delete_sized(block, size, alignment, ARRAY);
}
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *block, size_t alignment, const void *tag) {
    (void)alignment, (void)tag, smalloc_preload_delete(block, ONE);
}
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *block, size_t alignment, const void *tag) {
    (void)alignment, (void)tag, smalloc_preload_delete(block, ARRAY);
}
