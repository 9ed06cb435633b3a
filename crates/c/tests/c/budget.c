/* Run with SMALLOC_REGION=4M. (Not in traps.c: what is allocated before constructors run cannot see the
 * environment.) */
#include <assert.h>
#include <stdlib.h>

int main(void) {
    assert(!malloc(5ul << 30) && !malloc(40 << 20));
    assert(malloc(1 << 20));
    return 0;
}
