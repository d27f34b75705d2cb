/* The rules of the pool, as plainly as they can be said: counts are counted anew each time, lists are numbers in order. Failure modes: none. */
#include "pool_model.h"

#include <string.h>

struct model model;

uint32_t model_open(void)
{
    uint32_t open = model.opening;
    for (int i = 0; i < NODES; i++) {
        open += model.nodes[i].in_books;
    }
    return open;
}

uint32_t model_dialling(void)
{
    uint32_t dialling = model.opening;
    for (int i = 0; i < NODES; i++) {
        dialling += model.nodes[i].in_books && !model.nodes[i].closing && model.nodes[i].state != READY;
    }
    return dialling;
}

uint32_t model_in_flight(void)
{
    uint32_t in_flight = 0;
    for (int i = 0; i < NODES; i++) {
        const struct model_node *n = &model.nodes[i];
        in_flight += n->in_books && !n->fresh_spare ? n->used : 0;
    }
    return in_flight;
}

uint32_t model_idle(void)
{
    uint32_t idle = 0;
    for (int i = 0; i < NODES; i++) {
        idle += model.nodes[i].idle;
    }
    return idle;
}

static bool model_room(const struct model_node *n)
{
    return !n->retired && n->used < n->limit && (model.limits.max_uses == 0 || n->used + n->uses < model.limits.max_uses);
}

bool model_may_open(void)
{
    return (model.limits.max_open == 0 || model_open() < model.limits.max_open) &&
           (model.limits.max_dialling == 0 || model_dialling() < model.limits.max_dialling);
}

int model_front(bool idle)
{
    int front = -1;
    for (int i = 0; i < NODES; i++) {
        const struct model_node *n = &model.nodes[i];
        if (n->order != 0 && n->idle == idle && (front < 0 || n->order < model.nodes[front].order)) {
            front = i;
        }
    }
    return front;
}

void model_unlist(int i)
{
    model.nodes[i].order = 0;
    model.nodes[i].idle = false;
}

static void model_list(int i, bool idle)
{
    model.nodes[i].order = ++model.order;
    model.nodes[i].idle = idle;
}

void model_share(int i)
{
    model_unlist(i);
    if (model_room(&model.nodes[i])) {
        model_list(i, false);
    }
}

void model_use(int i)
{
    model.nodes[i].used++;
    model.counts.hits++;
    model_share(i);
}

void model_close(int i, uint64_t *reason)
{
    model_unlist(i);
    model.nodes[i].retired = true;
    if (!model.nodes[i].closing) {
        model.nodes[i].closing = true;
        (*reason)++;
    }
}

uint32_t model_closing(void)
{
    uint32_t closing = 0;
    for (int i = 0; i < NODES; i++) {
        closing += model.nodes[i].closing;
    }
    return closing;
}

bool model_aged(int i)
{
    return model.now > model.nodes[i].until_ns;
}

bool model_expired(int i)
{
    uint64_t own = model.nodes[i].idle_ns, most = model.limits.expire_ns;
    return most == 0 || model.now > model.nodes[i].used_ns + (own > 0 && own < most ? own : most);
}

static bool model_spend(void)
{
    uint64_t token = SECOND / model.limits.fresh_per_s;
    if (model.budget_ns < model.now) {
        model.budget_ns = model.now;
    }
    bool there = model.budget_ns + token <= model.now + SECOND;
    model.budget_ns += there ? token : 0;
    return there;
}

static uint32_t model_most(void)
{
    const struct pool_limits *l = &model.limits;
    uint32_t budget = l->fresh_per_s == 0 ? UINT32_MAX : l->fresh_per_s < 2 ? 2 : l->fresh_per_s;
    return l->max_idle == 0 || l->max_idle > budget ? budget : l->max_idle;
}

/* More takes than the budget allows, and at least half of what may be idle is. */
static bool model_goes_round(uint32_t out)
{
    int front = model_front(true);
    uint32_t most = model_most() > 256 ? 256 : model_most();
    return front >= 0 && model_idle() + out >= most / 2 &&
           model.now < model.nodes[front].used_ns + model_idle() * (SECOND / model.limits.fresh_per_s);
}

/* The first idle node that is good; those before it are closed and set in the mask. */
static int model_good_idle(uint64_t *closed)
{
    int i;
    while ((i = model_front(true)) >= 0 && (model_expired(i) || model_aged(i))) {
        model_close(i, model_expired(i) ? &model.counts.expired : &model.counts.aged);
        *closed |= UINT64_C(1) << i;
    }
    return i;
}

int model_shared(void)
{
    int i;
    while ((i = model_front(false)) >= 0 && model_aged(i)) {
        model.nodes[i].retired = true;
        model_unlist(i);
    }
    return i;
}

enum pool_take model_take(bool fresh, int *ret, uint64_t *closed)
{
    *ret = -1;
    if (model.stopped) {
        return POOL_STOPPED;
    }
    if (model.queued == 0) {
        bool own = fresh || (model.limits.fresh_per_s > 0 &&
                             ((!model_goes_round(0) && model_spend()) || (model_front(true) >= 0 && model_front(true) == model.last_given && model.limits.max_idle != 1)));
        if (!own) {
            *ret = model_shared();
            *ret = *ret >= 0 ? *ret : model_good_idle(closed);
        }
        if (*ret < 0 && model_may_open()) {
            model.opening++;
            model.counts.misses++;
            return POOL_OPEN;
        }
        if (*ret < 0) {
            int idle = model_good_idle(closed);
            *ret = fresh ? -1 : idle;
        }
        if (*ret >= 0) {
            model_use(*ret);
            return POOL_HIT;
        }
    }
    model.counts.refused += model.limits.never_wait;
    return model.limits.never_wait ? POOL_REFUSED : POOL_WAIT;
}

int model_pop(void)
{
    int first = model.queue[0];
    model.queued--;
    memmove(model.queue, model.queue + 1, (size_t)model.queued * sizeof(int));
    return first;
}

int model_turn(void)
{
    if (model.stopped || model.queued == 0 || !model_may_open() || (model.starved && model_open() > model_closing())) {
        return -1;
    }
    model.opening++;
    model.counts.misses++;
    return model_pop();
}

bool model_wait(int w, bool again)
{
    if (model.stopped || (model.queued == 0 && (model_front(true) >= 0 || model_front(false) >= 0 || model_may_open()))) {
        return false;
    }
    int at = again ? 0 : model.queued;
    memmove(model.queue + at + 1, model.queue + at, (size_t)(model.queued - at) * sizeof(int));
    model.queue[at] = w;
    model.queued++;
    model.counts.waits += !again;
    return true;
}

static uint64_t *model_why_close(int i, bool success)
{
    const struct pool_limits *l = &model.limits;
    const struct model_node *n = &model.nodes[i];
    if (model.stopped) {
        return &model.counts.stopped;
    }
    if (!success) {
        return &model.counts.died;
    }
    if (l->expire_ns == 0) {
        return &model.counts.expired;
    }
    if (l->max_uses > 0 && n->uses >= l->max_uses) {
        return &model.counts.used_up;
    }
    if (n->retired) {
        return &model.counts.aged;
    }
    if (l->fresh_per_s > 0 && model.budget_ns + SECOND / l->fresh_per_s <= model.now + SECOND / 2 && !model_goes_round(1)) {
        return &model.counts.renewed;
    }
    return model_idle() >= model_most() ? &model.counts.overflow : NULL;
}

enum pool_gave model_give(int i, bool success, int *ret_waiter)
{
    struct model_node *n = &model.nodes[i];
    model_unlist(i);
    model.epoch += success && n->state == READY && !n->fresh_spare;
    n->used--;
    n->uses += !n->fresh_spare;
    n->fresh_spare = false;
    n->used_ns = model.now;
    if (model_aged(i) || (model.limits.max_uses > 0 && n->uses + n->used >= model.limits.max_uses)) {
        n->retired = true;
    }
    bool shared = n->used > 0;
    if (model.queued > 0 && !model.stopped && !n->retired && (success || shared) && (model.limits.expire_ns > 0 || shared)) {
        *ret_waiter = model_pop();
        model_use(i);
        return GAVE_WAITER;
    }
    if (shared) {
        model_share(i);
        return GAVE_KEPT;
    }
    uint64_t *reason = model_why_close(i, success);
    model.last_given = reason == NULL ? i : -1;
    if (reason != NULL) {
        model_close(i, reason);
        return GAVE_CLOSE;
    }
    model_list(i, true);
    return GAVE_KEPT;
}
