/* The three policies.
 *
 * Happy path: random gives a uniform permutation; round_robin starts one further each time, the first query with the second upstream, and
 * the others follow in configured order (case 61); sequential is the configured order.
 *
 * Failure modes: the random source fails: the caller ends the query.
 */
#include "policy.h"

#include "random.h"

static int shuffle(const struct services *services, uint32_t count, uint8_t *order)
{
    for (uint32_t i = count; i > 1; i--) {
        uint16_t j;
        int r = random_below(services, (uint16_t)i, &j);
        if (r < 0) {
            return r;
        }
        uint8_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
    return 0;
}

static void put_first(uint32_t first, uint8_t *order)
{
    for (uint32_t i = first; i > 0; i--) {
        order[i] = order[i - 1];
    }
    order[0] = (uint8_t)first;
}

int policy_order(enum config_policy policy, atomic_uint *turn, const struct services *services,
                 uint32_t count, uint8_t *order)
{
    for (uint32_t i = 0; i < count; i++) {
        order[i] = (uint8_t)i;
    }
    switch (policy) {
    case POLICY_RANDOM:
        return shuffle(services, count, order);
    case POLICY_ROUND_ROBIN:
        put_first((atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) + 1) % count, order);
        return 0;
    case POLICY_SEQUENTIAL:
        return 0;
    }
    return 0;
}
