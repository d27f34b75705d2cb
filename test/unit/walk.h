/* A random walk: how many steps, and the seed that repeats it.
 *
 *   unit_NAME [STEPS [SEED]]     (20,000 steps unless the argument or FWD_MODEL_STEPS says otherwise)
 *   CK_FORK=no CK_DEFAULT_TIMEOUT=0 unit_NAME 10000000     (for long)
 */
#pragma once

#include <stdint.h>
#include <stdlib.h>

enum { WALK_STEPS = 20000 };

static struct {
    uint64_t steps, seed;
} walk = {WALK_STEPS, 1};

static inline void walk_read(int argc, char **argv)
{
    const char *steps = argc > 1 ? argv[1] : getenv("FWD_MODEL_STEPS");
    walk.steps = steps != NULL ? strtoull(steps, NULL, 10) : walk.steps;
    walk.seed = argc > 2 ? strtoull(argv[2], NULL, 10) : walk.seed;
}

struct random {
    uint64_t state;
};

static inline uint32_t below(struct random *r, uint32_t n)
{
    r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(r->state >> 33) % n;
}
