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

static const size_t HUGE_PAGE = (size_t)2 << 20;

void *pages_zeroed(size_t align, size_t size)
{
    size_t huge = size & ~(HUGE_PAGE - 1);
    align = huge > 0 ? HUGE_PAGE : align;
    void *ret = aligned_alloc(align, (size + align - 1) & ~(align - 1));
    if (ret != NULL && huge > 0) {
        (void)madvise(ret, huge, MADV_DONTNEED); /* malloc may have had small ones there */
        (void)madvise(ret, huge, MADV_HUGEPAGE);
    }
    return ret != NULL ? memset(ret, 0, size) : NULL;
}
