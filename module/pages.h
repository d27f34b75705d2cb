/* Memory for large tables that are looked into here and there.
 *
 * Threads: any. Ownership: the caller's, to be given to free.
 */
#pragma once

#include <stddef.h>

enum { PAGES_HUGE = 2 << 20 };

/** @param align a power of two @return NULL when out of memory */
void *pages_get(size_t align, size_t size);

/** The same, of zeros. */
void *pages_zeroed(size_t align, size_t size);
