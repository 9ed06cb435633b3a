/* The libraries are opened late, used by a thread, and closed before it ends: their paths are the arguments. */
#define _GNU_SOURCE
#include <assert.h>
#include <dlfcn.h>
#include <pthread.h>
#include <smalloc.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *(*late_malloc)(size_t);
static void (*late_free)(void *);
static volatile int used, closed;

static void *work(void *unused) {
    late_free(late_malloc(100));
    used = 1;
    while (!closed) usleep(1000);
    return unused;
}

int main(int count, char **arguments) {
    assert(count == 3);
    for (int round = 0; round < 3; round++) {
        void *preload = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        void *heaps = dlopen(arguments[2], RTLD_NOW | RTLD_LOCAL);
        assert(preload && heaps);
        late_malloc = (void *(*)(size_t))dlsym(preload, "malloc");
        late_free = (void (*)(void *))dlsym(preload, "free");
        int (*init)(int) = (int (*)(int))dlsym(heaps, "my_init");
        void *(*place)(int, Malloc_Status *) = (void *(*)(int, Malloc_Status *))dlsym(heaps, "smalloc");
        void (*release)(void *) = (void (*)(void *))dlsym(heaps, "sfree");
        Malloc_Status status;
        assert(!init(65536));
        void *block = place(128, &status);
        assert(block && status.success && status.payload_offset == 0 && status.hops == 0);
        release(block);
        /* A block from before, of the C library. */
        late_free(malloc(50));
        pthread_t thread;
        used = closed = 0;
        assert(!pthread_create(&thread, NULL, work, NULL));
        while (!used) usleep(1000);
        dlclose(preload), dlclose(heaps);
        closed = 1;
        assert(!pthread_join(thread, NULL));
        pid_t child = fork();
        if (!child) _exit(0);
        int end;
        assert(waitpid(child, &end, 0) == child && end == 0);
    }
    return 0;
}
