/* The example of the small C allocator: set up a heap, allocate, look at the status, free. */
#include <smalloc.h>
#include <stdio.h>

static int run(int list) {
    Malloc_Status status;
    int outcome = list == SMALLOC_LINKED ? my_init(65536) : my_init_list(65536, list);
    if (outcome != 0) {
        perror("my_init");
        return 1;
    }
    void *block = smalloc(128, &status);
    printf("success %d, offset %lu, hops %d\n", status.success, status.payload_offset, status.hops);
    void *after = smalloc(1, NULL);
    printf("the next one is %d bytes behind\n", (int)((char *)after - (char *)block));
    void *none = smalloc(65536, &status);
    printf("too large: %s, success %d\n", none ? "placed" : "null", status.success);
    printf("in use: %d\n", my_init(65536));
    sfree(block);
    sfree(after);
    sfree(NULL);
    return 0;
}

int main(void) {
    if (run(SMALLOC_LINKED) || run(SMALLOC_INDEXED)) return 1;
    return my_init(0) != -1 || my_init(-5) != -1 || my_init_list(4096, 9) != -1;
}
