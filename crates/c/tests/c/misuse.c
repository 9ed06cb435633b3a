/* One misuse, named by the argument. */
#include <smalloc.h>
#include <string.h>

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    smalloc_heap *heap = smalloc_heap_new(1 << 20);
    char local, *block = smalloc_heap_alloc(heap, 100), *behind = smalloc_heap_alloc(heap, 16);
    if (!strcmp(what, "double free")) smalloc_heap_free(heap, block), smalloc_heap_free(heap, block);
    if (!strcmp(what, "interior pointer")) smalloc_heap_free(heap, block + 16);
    if (!strcmp(what, "unaligned pointer")) smalloc_heap_free(heap, block + 1);
    if (!strcmp(what, "foreign pointer")) smalloc_heap_free(heap, &local);
    if (!strcmp(what, "wrong layout")) smalloc_heap_free_sized(heap, block, 200);
    my_init(65536);
    if (!strcmp(what, "seed")) sfree(behind);
    return 0;
}
