/* Zeroed memory for large tables that are looked into here and there.
 *
 * Threads: any. Ownership: the caller's, to be given to free.
 */
#pragma once

#include <stddef.h>

/** Memory of zeros. @param align a power of two @return NULL when out of memory */
void *pages_zeroed(size_t align, size_t size);
