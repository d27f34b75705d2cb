/* Host names that are looked up again.
 *
 * Happy path: when the TTL of a name's addresses has ended its lookup begins on the loop, which watches the lookup's sockets; when its addresses
 * differ from those in use the other set is filled and becomes the current one. A little later the old set is closed. Nothing waits for the network;
 * resolv.conf, the hosts file and TLS files are read on the loop's thread.
 *
 * Failure modes: no answer, an error, or no address in it: the old addresses stay, one line is logged, and the next attempt comes after
 * resolve_interval, then twice that, up to a minute. One family's question failed: the addresses of that family stay. An upstream
 * cannot be opened (memory, TLS files): the old set stays, and it is tried again every second. More addresses than a
 * stanza can have: what exceeds is left out, with a warning.
 */
#include "refresh.h"

#include "engine.h"
#include "error.h"
#include "forward.h"
#include "instance.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS UINT64_C(1000000)
#define NEVER UINT64_MAX

enum {
    MIN_WAIT_MS = 10, /* as between probes: `resolve_interval 1ns` must not spin */
    MAX_BACK_OFF_S = 60,
    LEFT_CHECK_MS = 100, /* how often it is looked whether queries have left the old set */
    REOPEN_S = 1,
    LIST_TEXT = 640,
};

/* An upstream that the stanza has or has had. */
struct handle {
    struct fwd_proxy proxy; /* first member */
    struct handle *next;
    struct config_to to;
    uint32_t sets; /* that it is in; open while in any */
    char text[];
};

static const struct services *services_of(const struct refresh *r)
{
    return &r->stanza->instance->services;
}

static uint64_t now_of(const struct refresh *r)
{
    return services_mono(services_of(r));
}

/* --- handles ------------------------------------------------------------------------------------------------------ */

static struct handle *find_handle(const struct refresh *r, const struct config_to *to)
{
    struct handle *h = r->handles;
    while (h != NULL && (strcmp(h->to.text, to->text) != 0 || strcmp(h->to.tls_servername, to->tls_servername) != 0 ||
                         h->to.proto != to->proto)) {
        h = h->next;
    }
    return h;
}

static struct handle *make_handle(struct refresh *r, const struct config_to *to)
{
    size_t size = strlen(to->text) + 1;
    struct handle *h = calloc(1, sizeof(*h) + size);
    if (h == NULL) {
        return NULL;
    }
    h->proxy.stanza = r->stanza;
    h->to = *to;
    h->to.text = memcpy(h->text, to->text, size); /* its other strings are the stanza's */
    h->next = r->handles;
    r->handles = h;
    return h;
}

static int use_handle(struct handle *h, struct fwd_error *error)
{
    int r = h->sets == 0 ? proxy_open(&h->proxy, &h->to, error) : FWD_OK;
    h->sets += r == FWD_OK;
    return r;
}

static void leave_handle(struct handle *h)
{
    if (--h->sets == 0) {
        proxy_close(&h->proxy);
    }
}

/* --- sets --------------------------------------------------------------------------------------------------------- */

/* Two loads: between them the set may have been exchanged, and the other filled anew by whoever saw no users; a set that is current after it has been
 * counted is not touched until it is left. */
struct proxy_set *refresh_take(struct refresh *r)
{
    for (;;) {
        uint32_t i = atomic_load(&r->current);
        atomic_fetch_add(&r->sets[i].users, 1);
        if (atomic_load(&r->current) == i) {
            return &r->sets[i];
        }
        atomic_fetch_sub(&r->sets[i].users, 1);
    }
}

static bool has(const struct proxy_set *set, const struct fwd_proxy *proxy)
{
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->items[i] == proxy) {
            return true;
        }
    }
    return false;
}

static void empty_set(struct proxy_set *set)
{
    while (set->count > 0) {
        leave_handle((struct handle *)set->items[--set->count]);
    }
}

static int fill_set(struct refresh *r, struct proxy_set *set, const struct to_list *list, struct fwd_error *error)
{
    for (uint32_t i = 0; i < list->count; i++) {
        struct handle *h = find_handle(r, &list->items[i]);
        h = h != NULL ? h : make_handle(r, &list->items[i]);
        int result = h != NULL ? use_handle(h, error) : error_set(error, FWD_ERR_NOMEM, NULL, "%s", error_text(FWD_ERR_NOMEM));
        if (result < 0) {
            empty_set(set);
            return result;
        }
        set->items[set->count++] = &h->proxy;
    }
    return FWD_OK;
}

/* True when the set has the upstreams of the list, in whatever order. */
static bool same(const struct refresh *r, const struct proxy_set *set, const struct to_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const struct handle *h = find_handle(r, &list->items[i]);
        if (h == NULL || !has(set, &h->proxy)) {
            return false;
        }
    }
    return set->count == list->count;
}

/* --- exchange ----------------------------------------------------------------------------------------------------- */

static void log_upstreams(const struct refresh *r, const struct proxy_set *set)
{
    char text[LIST_TEXT] = "";
    size_t len = 0;
    for (uint32_t i = 0; i < set->count && len + 64 < sizeof(text); i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%.50s", i > 0 ? ", " : "", set->items[i]->text);
    }
    services_log(services_of(r), FWD_LEVEL_INFO, "forward: %s: %u upstreams from now on: %s", r->stanza->config->from.text,
                 (unsigned)set->count, text);
}

static void log_stuck(const struct refresh *r, const char *why)
{
    if (!r->stuck) {
        services_log(services_of(r), FWD_LEVEL_WARNING, "forward: %s: the upstreams stay as they are, the new ones cannot be opened: %s",
                     r->stanza->config->from.text, why);
    }
}

/* Fills the spare set and makes it the current one, unless that would change nothing. @return <0 when it cannot be filled */
static int put_in_use(struct refresh *r, struct proxy_set *spare, const struct to_list *list)
{
    uint32_t current = atomic_load(&r->current);
    char why[256] = "";
    struct fwd_error error = {.struct_size = sizeof(error), .msg = why, .msg_cap = sizeof(why)};
    bool many = list->count > QUERY_MAX_UPSTREAMS;
    struct to_list head = {.items = list->items, .count = many ? QUERY_MAX_UPSTREAMS : list->count};
    if (same(r, &r->sets[current], &head)) {
        return FWD_OK;
    }
    if (many) {
        services_log(services_of(r), FWD_LEVEL_WARNING, "forward: %s: only the first %u of %u upstreams are used",
                     r->stanza->config->from.text, (unsigned)head.count, (unsigned)list->count);
    }
    int result = fill_set(r, spare, &head, &error);
    if (result < 0) {
        log_stuck(r, why);
        return result;
    }
    atomic_store(&r->current, 1 - current);
    log_upstreams(r, spare);
    return FWD_OK;
}

static int exchange(struct refresh *r, struct proxy_set *spare)
{
    struct to_list list;
    int result = resolve_expand(r->stanza->config, r->hosts, &list);
    if (result < 0) {
        log_stuck(r, error_text(result));
        return result;
    }
    result = put_in_use(r, spare, &list);
    to_list_free(&list);
    return result;
}

/* Closes the set that is out of use as soon as it can, and exchanges the current one when names have other addresses. */
static void tend_sets(struct refresh *r, uint64_t now)
{
    struct proxy_set *spare = &r->sets[1 - atomic_load(&r->current)];
    if (spare->count > 0 && atomic_load(&spare->users) > 0) {
        r->exchange_ns = now + LEFT_CHECK_MS * MS_NS;
        return;
    }
    empty_set(spare);
    r->exchange_ns = NEVER;
    if (!r->stale) {
        return;
    }
    r->stuck = exchange(r, spare) < 0;
    r->stale = r->stuck;
    if (r->stuck) {
        r->exchange_ns = now + REOPEN_S * SECOND_NS;
    } else if (r->sets[1 - atomic_load(&r->current)].count > 0) {
        r->exchange_ns = now + LEFT_CHECK_MS * MS_NS;
    }
}

/* --- lookups ------------------------------------------------------------------------------------------------------ */

static uint64_t shortest_wait(const struct refresh *r)
{
    uint64_t interval = r->stanza->options->resolve_interval_ns;
    return interval > MIN_WAIT_MS * MS_NS ? interval : MIN_WAIT_MS * MS_NS;
}

/* How long addresses with this TTL are good for. */
static uint64_t life_of(const struct refresh *r, uint32_t ttl)
{
    uint64_t hold = r->stanza->options->resolve_hold_ns, least = shortest_wait(r), life = ttl * SECOND_NS;
    life = hold > 0 && hold < life ? hold : life;
    return life > least ? life : least;
}

static uint64_t back_off(const struct refresh *r, uint32_t failures)
{
    uint64_t wait = shortest_wait(r);
    for (uint32_t i = 1; i < failures && wait < MAX_BACK_OFF_S * SECOND_NS; i++) {
        wait = wait < MAX_BACK_OFF_S * SECOND_NS / 2 ? 2 * wait : MAX_BACK_OFF_S * SECOND_NS;
    }
    return wait;
}

/* Whatever failed says nothing about the addresses of its family. */
static void keep_unsure(const struct renewal *n, struct lookup *lookup)
{
    const struct addresses *old = &n->host->addresses;
    for (uint32_t i = 0; i < old->count && lookup->found.count < LOOKUP_ADDRESSES; i++) {
        if (old->items[i].family == 4 ? lookup->unsure4 : lookup->unsure6) {
            lookup->found.items[lookup->found.count++] = old->items[i];
        }
    }
}

static void lookup_failed(struct refresh *r, struct renewal *n, uint64_t now)
{
    uint32_t failures = atomic_fetch_add(&n->failures, 1) + 1;
    atomic_fetch_add_explicit(&totals.lookup_failures, 1, memory_order_relaxed);
    n->due_ns = now + back_off(r, failures);
    if (failures == 1) {
        services_log(services_of(r), FWD_LEVEL_WARNING, "forward: %s: the addresses of %s stay as they are: %s", r->stanza->config->from.text,
                     n->host->name, n->lookup.why);
    }
}

static void lookup_ended(struct refresh *r, struct renewal *n, uint64_t now)
{
    if (n->lookup.found.count == 0) {
        lookup_failed(r, n, now);
        return;
    }
    if (atomic_exchange(&n->failures, 0) > 0) {
        services_log(services_of(r), FWD_LEVEL_INFO, "forward: %s: %s is found again", r->stanza->config->from.text, n->host->name);
    }
    keep_unsure(n, &n->lookup);
    n->host->addresses = n->lookup.found;
    atomic_store(&n->addresses, n->host->addresses.count);
    n->due_ns = now + life_of(r, n->lookup.ttl);
    r->stale = true;
    r->exchange_ns = r->exchange_ns < now ? r->exchange_ns : now;
}

static void watch_socket(void *arg, int fd, int readable, int writable)
{
    struct refresh *r = arg;
    loop_watch_fd(r->loop, &r->watch, fd, (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0));
}

/* Begins a lookup that is due, or goes on with it. @return when there will be something to do */
static uint64_t renew(struct refresh *r, struct renewal *n, uint64_t now)
{
    if (!n->asking && now < n->due_ns) {
        return n->due_ns;
    }
    if (!n->asking) {
        n->asking = true;
        atomic_fetch_add(&n->lookups, 1);
        atomic_fetch_add_explicit(&totals.lookups, 1, memory_order_relaxed);
        lookup_begin(&n->lookup, r->stanza->config, n->host->name, watch_socket, r);
    }
    if (!lookup_turn(&n->lookup, 0)) {
        return now + lookup_patience_ms(&n->lookup) * MS_NS;
    }
    n->asking = false;
    lookup_end(&n->lookup);
    lookup_ended(r, n, now);
    return n->due_ns;
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

/* Sets the timer, unless refresh_stop has set it. */
static void arm(struct refresh *r, uint64_t deadline_ns)
{
    bool wake = false;
    pthread_mutex_lock(&r->loop->lock);
    if (!r->stopping) {
        wheel_remove(&r->loop->wheel, &r->timer);
        wake = loop_arm_locked(r->loop, &r->timer, deadline_ns);
    }
    pthread_mutex_unlock(&r->loop->lock);
    if (wake) {
        loop_wake(r->loop);
    }
}

static void work(struct refresh *r)
{
    uint64_t now = now_of(r), next = NEVER;
    for (uint32_t i = 0; i < r->count; i++) {
        uint64_t at = renew(r, &r->names[i], now);
        next = at < next ? at : next;
    }
    if (now >= r->exchange_ns) {
        tend_sets(r, now);
    }
    arm(r, r->exchange_ns < next ? r->exchange_ns : next);
}

static void on_socket(struct loop_watch *watch)
{
    work((struct refresh *)((char *)watch - offsetof(struct refresh, watch)));
}

static void end(struct refresh *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->names[i].asking) {
            lookup_end(&r->names[i].lookup);
            r->names[i].asking = false;
        }
    }
    instance_rest(r->stanza->instance); /* r may be gone now */
}

static struct refresh *refresh_of(struct timer *timer)
{
    return (struct refresh *)((char *)timer - offsetof(struct refresh, timer));
}

static bool claim(struct timer *timer)
{
    refresh_of(timer)->firing = true;
    return true;
}

static void on_timer(struct timer *timer)
{
    struct refresh *r = refresh_of(timer);
    pthread_mutex_lock(&r->loop->lock);
    r->firing = false;
    bool stopping = r->stopping;
    pthread_mutex_unlock(&r->loop->lock);
    if (stopping) {
        end(r);
    } else {
        work(r);
    }
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static int open_first(struct refresh *r, const char *pointer, struct fwd_error *error)
{
    struct error_place place = {.pointer = pointer};
    struct to_list list;
    int result = resolve_expand(r->stanza->config, r->hosts, &list);
    if (result < 0) {
        return error_set(error, result, &place, "%s", error_text(result));
    }
    result = instance_count_supported(list.count, pointer, error);
    if (result == FWD_OK) {
        result = fill_set(r, &r->sets[0], &list, error);
    }
    to_list_free(&list);
    return result;
}

int refresh_create(struct stanza *stanza, const char *pointer, struct refresh **ret, struct fwd_error *error)
{
    struct engine *engine = stanza->instance->engine;
    struct host_name *hosts;
    uint32_t count;
    int result = resolve_hosts(stanza->config, pointer, &hosts, &count, error);
    if (result < 0) {
        return result;
    }
    struct refresh *r = calloc(1, sizeof(*r) + count * sizeof(*r->names));
    if (r == NULL) {
        free(hosts);
        return error_set(error, FWD_ERR_NOMEM, NULL, "%s", error_text(FWD_ERR_NOMEM));
    }
    *r = (struct refresh){.stanza = stanza, .loop = engine_loop(engine, stanza->index), .hosts = hosts, .count = count, .exchange_ns = NEVER};
    r->timer.claim = claim;
    r->timer.fire = on_timer;
    r->watch.event = on_socket;
    r->sets[0].items = r->items[0];
    r->sets[1].items = r->items[1];
    for (uint32_t i = 0; i < count; i++) {
        r->names[i].host = &hosts[i];
        r->names[i].due_ns = now_of(r) + life_of(r, hosts[i].ttl);
        atomic_store(&r->names[i].addresses, hosts[i].addresses.count);
    }
    result = open_first(r, pointer, error);
    if (result < 0) {
        refresh_destroy(r);
        return result;
    }
    *ret = r;
    return FWD_OK;
}

void refresh_start(struct refresh *r)
{
    uint64_t next = NEVER;
    for (uint32_t i = 0; i < r->count; i++) {
        next = r->names[i].due_ns < next ? r->names[i].due_ns : next;
    }
    arm(r, next);
}

void refresh_stop(struct refresh *r)
{
    pthread_mutex_lock(&r->loop->lock);
    r->stopping = true;
    if (!r->firing) { /* else it lies in the loop's list of those that are going to fire */
        wheel_remove(&r->loop->wheel, &r->timer);
        (void)loop_arm_locked(r->loop, &r->timer, 0);
    }
    pthread_mutex_unlock(&r->loop->lock);
    loop_wake(r->loop);
}

void refresh_destroy(struct refresh *r)
{
    if (r == NULL) {
        return;
    }
    empty_set(&r->sets[0]);
    empty_set(&r->sets[1]);
    while (r->handles != NULL) {
        struct handle *h = r->handles;
        r->handles = h->next;
        free(h);
    }
    free(r->hosts);
    free(r);
}
