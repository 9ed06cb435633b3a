/* Places where an allocator is called that do not come to mind: named by the argument. */
#define _GNU_SOURCE
#include <assert.h>
#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile int enough;
static char *kept, *copied;

/* ---- before constructors and after everything ------------------------------------------------------------------ */

static void before(void) {
    kept = malloc(1000);
    memset(kept, 1, 1000);
    copied = strdup("early");
}
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = before;
static void at_exit(void) { free(kept), puts("at exit"); }
__attribute__((destructor)) static void last(void) {
    char *block = realloc(malloc(10), 5000);
    assert(block);
    free(block), free(copied);
    fputs("last\n", stdout), fflush(stdout);
}

/* A key's destructor runs four times, after all other destructors of the thread. */
static pthread_key_t key;
static int rounds;
static void at_thread_exit(void *block) {
    free(block);
    if (++rounds < 4) pthread_setspecific(key, malloc(100));
}
static void *with_key(void *unused) {
    pthread_setspecific(key, malloc(50));
    return unused;
}

/* ---- small stacks ----------------------------------------------------------------------------------------------- */

static void *small_stack(void *unused) {
    void *block = realloc(malloc(100), 100000), *zeros = calloc(10, 5000), *aligned;
    assert(block && zeros && !posix_memalign(&aligned, 4096, 100));
    free(block), free(zeros), free(aligned);
    malloc_trim(0);
    assert(mallinfo2().arena > 0);
    return unused;
}

static void small_stacks(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    assert(!pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN));
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        assert(!pthread_create(&thread, &attributes, small_stack, NULL) && !pthread_join(thread, NULL));
    }
}

/* ---- other processes -------------------------------------------------------------------------------------------- */

static void *churn(void *unused) {
    for (unsigned i = 1; !enough; i = i * 1103515245 + 12345) free(malloc(16 + (i >> 16) % 5000));
    return unused;
}
/* A stream that grows, with its lock held. */
static void *grow_streams(void *unused) {
    while (!enough) {
        char *text = NULL;
        size_t length = 0;
        FILE *stream = open_memstream(&text, &length);
        for (int i = 0; i < 200; i++) fprintf(stream, "%0100d", i), fflush(stream);
        fclose(stream);
        free(text);
    }
    return unused;
}
static void *flush_all(void *unused) {
    while (!enough) fflush(NULL);
    return unused;
}

static void ends_well(pid_t child) {
    int status;
    assert(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void children(int count) {
    char *arguments[] = {"true", NULL};
    for (int i = 0; i < count; i++) {
        pid_t child = vfork();
        if (!child) execve("/bin/true", arguments, environ), _exit(7);
        ends_well(child);
        assert(!posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ));
        ends_well(child);
        child = fork();
        if (!child) {
            char *block = malloc(1 << 20);
            memset(block, 1, 1 << 20);
            free(block), fflush(NULL);
            _exit(block == NULL);
        }
        ends_well(child);
    }
    assert(system("true") == 0);
}

static void beside(void *(*work[])(void *), int threads, int count) {
    pthread_t ids[3];
    for (int i = 0; i < threads; i++) assert(!pthread_create(&ids[i], NULL, work[i], NULL));
    children(count);
    enough = 1;
    for (int i = 0; i < threads; i++) assert(!pthread_join(ids[i], NULL));
}

/* ---- blocks of others ------------------------------------------------------------------------------------------- */

static void foreign(void) {
    void *(*own)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "__libc_malloc");
    assert(own);
    for (size_t size = 10; size < 10 << 20; size *= 7) {
        char *block = own(size);
        strcpy(block, "foreign");
        assert(malloc_usable_size(block) >= size);
        block = realloc(block, 2 * size);
        assert(block && !strcmp(block, "foreign"));
        free(block), free(own(size));
    }
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(what, "early and late")) {
        atexit(at_exit);
        pthread_t thread;
        pthread_key_create(&key, at_thread_exit);
        assert(!pthread_create(&thread, NULL, with_key, NULL) && !pthread_join(thread, NULL) && rounds == 4);
        puts(copied);
    }
    if (!strcmp(what, "small stacks")) small_stacks();
    if (!strcmp(what, "children")) beside((void *(*[])(void *)){churn, churn}, 2, 60);
    if (!strcmp(what, "streams")) beside((void *(*[])(void *)){grow_streams, grow_streams, flush_all}, 3, 20);
    if (!strcmp(what, "foreign")) foreign();
    char local[64];
    if (!strcmp(what, "stack")) free(local + 16 - (size_t)local % 16);
    if (!strcmp(what, "size")) {
        void free_sized(void *, size_t);
        free_sized(malloc(100), 200);
    }
    if (!strcmp(what, "overflow")) {
        char *block = malloc(100);
        memset(block, 0, 101);
        free(block);
    }
    if (!strcmp(what, "empty")) {
        void *block = malloc(0);
        assert(malloc_usable_size(block) == 0);
        free(block), free(block);
    }
    if (!strcmp(what, "read empty")) printf("%d\n", ((volatile char *)malloc(0))[0]);
    if (!strcmp(what, "written")) {
        char *volatile block = malloc(100);
        free(block);
        block[20] = 1;
    }
    if (!strcmp(what, "twice")) free(copied), free(copied);
    puts("done");
    return 0;
}
