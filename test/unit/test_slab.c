/* Pieces of one size: what each is like, and how their chunks come and go. A chunk is told by its address, which is a multiple of its size.
 * walk.h says how to have the walk go on for longer. */
#include "slab.h"

#include "pages.h"
#include "suite.h"
#include "walk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ROOM = PAGES_HUGE - SLAB_ALIGN, /* of a chunk, behind its head */
    EXACT = ROOM / 127,             /* 127 pieces fill it to its last octet */
    CHUNKS = 3,
    CHUNKS_MOST = 16,
    MOST = 8 * 127, /* pieces of the walk */
    THREADS = 4,
};

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

static const size_t sizes[] = {SLAB_ALIGN, 3 * SLAB_ALIGN, EXACT, EXACT + SLAB_ALIGN, ROOM / 2 / SLAB_ALIGN * SLAB_ALIGN, ROOM};
enum { SIZES = sizeof(sizes) / sizeof(*sizes) };

static uintptr_t chunk_of(const void *piece)
{
    return (uintptr_t)piece / PAGES_HUGE;
}

static bool is_filled(const uint8_t *piece, size_t size, uint8_t with)
{
    return piece[0] == with && memcmp(piece, piece + 1, size - 1) == 0;
}

/* A piece, which must be of zeros; it is filled, so that one that overlaps another shows. */
static uint8_t *take(struct slab *slab, uint8_t with)
{
    uint8_t *piece = slab_take(slab);

    ck_assert_ptr_nonnull(piece);
    ck_assert_uint_eq((uintptr_t)piece % SLAB_ALIGN, 0);
    ck_assert(is_filled(piece, slab->size, 0));
    return memset(piece, with, slab->size);
}

static void give(struct slab *slab, uint8_t *piece, uint8_t with)
{
    ck_assert(is_filled(piece, slab->size, with));
    slab_give(slab, piece);
}

/* Pieces fill one chunk after the other; what comes back to full ones is used before there is another; empty ones go. */
START_TEST(chunks_fill_and_go)
{
    static uint8_t *pieces[CHUNKS * (ROOM / SLAB_ALIGN)];
    struct slab slab = SLAB_INIT(sizes[_i]);
    uint32_t each = (uint32_t)(ROOM / slab.size);
    uint32_t count = CHUNKS * each;

    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < count; i++) {
            pieces[i] = take(&slab, (uint8_t)(i | 1));
            ck_assert_uint_eq(chunk_of(pieces[i]), chunk_of(pieces[i / each * each]));
        }
        ck_assert_uint_ne(chunk_of(pieces[0]), chunk_of(pieces[each]));
        ck_assert_uint_ne(chunk_of(pieces[each]), chunk_of(pieces[2 * each]));
        ck_assert_ptr_null(slab.open); /* all are full */
        if (each > 1) {
            uint8_t *back[CHUNKS];

            for (uint32_t i = 0; i < CHUNKS; i++) {
                back[i] = pieces[i * each + each / 2];
                give(&slab, back[i], (uint8_t)((i * each + each / 2) | 1));
                ck_assert_ptr_nonnull(slab.open);
            }
            for (uint32_t i = CHUNKS; i-- > 0;) {
                ck_assert_ptr_eq(take(&slab, (uint8_t)((i * each + each / 2) | 1)), back[i]);
            }
            ck_assert_ptr_null(slab.open);
        }
        for (uint32_t i = 0; i < count; i++) { /* from all chunks in turn */
            uint32_t at = i % CHUNKS * each + i / CHUNKS;

            give(&slab, pieces[at], (uint8_t)(at | 1));
        }
        ck_assert_ptr_null(slab.open); /* none is left */
    }
}
END_TEST

/* How many pieces of the walk lie in each chunk. */
struct census {
    uintptr_t chunks[CHUNKS_MOST];
    uint32_t live[CHUNKS_MOST];
};

static uint32_t *census_of(struct census *census, const void *piece)
{
    uint32_t unused = CHUNKS_MOST;

    for (uint32_t i = 0; i < CHUNKS_MOST; i++) {
        if (census->live[i] > 0 && census->chunks[i] == chunk_of(piece)) {
            return &census->live[i];
        }
        unused = census->live[i] == 0 ? i : unused;
    }
    ck_assert_uint_lt(unused, CHUNKS_MOST);
    census->chunks[unused] = chunk_of(piece);
    return &census->live[unused];
}

/* A new chunk only comes when all others are full. */
static void check_census(const struct census *census, uint32_t each)
{
    for (uint32_t i = 0; i < CHUNKS_MOST; i++) {
        ck_assert(census->live[i] == 0 || census->live[i] == each);
    }
}

START_TEST(walk_of_takes_and_gives)
{
    static uint8_t *pieces[MOST];
    struct slab slab = SLAB_INIT(EXACT);
    struct census census = {.chunks = {0}};
    struct random random = {.state = walk.seed};
    uint32_t count = 0, goal = 0;

    for (uint64_t step = 0; step < walk.steps; step++) {
        goal = count == goal ? below(&random, MOST + 1) : goal;
        if (count < goal) {
            uint8_t *piece = slab_take(&slab);
            uint32_t *live = census_of(&census, piece);

            ck_assert_uint_eq(((uintptr_t)piece % PAGES_HUGE - SLAB_ALIGN) % EXACT, 0);
            ck_assert(is_filled(piece, 64, 0));
            memset(piece, (int)(step % 255) + 1, 64);
            if (*live == 0) {
                check_census(&census, 127);
            }
            ++*live;
            pieces[count++] = piece;
        } else if (count > 0) {
            uint32_t at = below(&random, count);
            uint32_t *live = census_of(&census, pieces[at]);

            ck_assert_uint_gt(*live, 0);
            --*live;
            ck_assert(is_filled(pieces[at], 64, pieces[at][0]));
            slab_give(&slab, pieces[at]);
            pieces[at] = pieces[--count];
        }
    }
    while (count > 0) {
        slab_give(&slab, pieces[--count]);
    }
    ck_assert_ptr_null(slab.open);
}
END_TEST

static struct slab shared = SLAB_INIT(EXACT);
static atomic_uint faults;

/* Each thread fills its pieces with its own number. */
static void *take_and_give(void *arg)
{
    struct random random = {.state = (uintptr_t)arg};
    uint8_t mine = (uint8_t)(uintptr_t)arg;
    uint8_t *pieces[200];
    uint32_t count = 0;

    for (int step = 0; step < 5000; step++) {
        if (count < 200 && below(&random, 2 + count / 100) == 0) {
            uint8_t *piece = slab_take(&shared);

            if (piece == NULL || !is_filled(piece, 64, 0)) {
                atomic_fetch_add(&faults, 1);
                break;
            }
            pieces[count++] = memset(piece, mine, 64);
        } else if (count > 0) {
            uint32_t at = below(&random, count);

            atomic_fetch_add(&faults, !is_filled(pieces[at], 64, mine));
            slab_give(&shared, pieces[at]);
            pieces[at] = pieces[--count];
        }
    }
    while (count > 0) {
        slab_give(&shared, pieces[--count]);
    }
    return NULL;
}

START_TEST(threads)
{
    pthread_t ids[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&ids[i], NULL, take_and_give, (void *)(i + 1)), 0);
    }
    for (uintptr_t i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
    }
    ck_assert_uint_eq(faults, 0);
    ck_assert_ptr_null(shared.open);
}
END_TEST

#ifdef WITH_ASAN
/* Who goes on using a piece that he gave back is caught, though its memory is not free; so is who leaves his piece. */
START_TEST(only_taken_pieces_may_be_touched)
{
    struct slab slab = SLAB_INIT(sizes[_i]);
    bool several = ROOM / slab.size > 1;
    uint8_t *kept = slab_take(&slab), *gone = several ? slab_take(&slab) : NULL;

    ck_assert_ptr_null(__asan_region_is_poisoned(kept, slab.size));
    if (several) {
        slab_give(&slab, gone);
        bool all = true;
        for (size_t at = sizeof(void *); at < slab.size; at++) { /* before it lies what links it */
            all &= __asan_address_is_poisoned(gone + at) == 1;
        }
        ck_assert(all);
        ck_assert_ptr_eq(slab_take(&slab), gone);
        ck_assert_ptr_null(__asan_region_is_poisoned(gone, slab.size));
    }
    if (ROOM / slab.size > 2) {
        ck_assert_int_eq(__asan_address_is_poisoned(gone + slab.size), 1);
    }
    if (several) {
        slab_give(&slab, gone);
    }
    slab_give(&slab, kept);
}
END_TEST
#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("slab");
    TCase *tcase = tcase_create("slab");

    walk_read(argc, argv);
    tcase_add_loop_test(tcase, chunks_fill_and_go, 0, SIZES);
    tcase_add_test(tcase, walk_of_takes_and_gives);
    tcase_add_test(tcase, threads);
#ifdef WITH_ASAN
    tcase_add_loop_test(tcase, only_taken_pieces_may_be_touched, 0, SIZES);
#endif
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
