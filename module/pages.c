/* Large tables on huge pages.
 *
 * Happy path: from 2 MiB on the kernel is asked for huge pages; a look into a large table costs a walk through the page tables otherwise, as none of its
 * pages is in the TLB, and with a hundred thousand stanzas that was a third of what they cost a query.
 *
 * Failure modes: NULL when out of memory. A kernel that has no huge pages gives others.
 */
#include "pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *pages_get(size_t align, size_t size)
{
    size_t huge = size & ~((size_t)PAGES_HUGE - 1);
    align = huge > 0 ? PAGES_HUGE : align;
    void *ret = aligned_alloc(align, (size + align - 1) & ~(align - 1));
    if (ret != NULL && huge > 0) {
        (void)madvise(ret, huge, MADV_DONTNEED); /* malloc may have had small ones there */
        (void)madvise(ret, huge, MADV_HUGEPAGE);
    }
    return ret;
}

void *pages_zeroed(size_t align, size_t size)
{
    void *ret = pages_get(align, size);
    return ret != NULL ? memset(ret, 0, size) : NULL;
}
