/* Upstreams of a stanza.
 *
 * Happy path: the stanza's options and the upstream's address make the key of a transport, which the engine has already or makes.
 *
 * Failure modes: the TLS files cannot be read, out of memory: what was taken is given back, and the error says which.
 */
#include "proxy.h"

#include "engine.h"
#include "error.h"
#include "forward.h"
#include "health.h"
#include "instance.h"
#include "transport.h"

#include <stdio.h>
#include <string.h>

static struct transport_key key_of(const struct config_options *options, const struct config_to *to, struct tls *tls)
{
    struct transport_key key;
    memset(&key, 0, sizeof(key)); /* compared octet by octet */
    key.addr = to->addr;
    if (options->has_source_address) {
        key.source = options->source_address;
    }
    key.proto = to->proto;
    key.tls = tls;
    key.port_budget = options->port_budget;
    key.expire_ns = options->expire_ns;
    key.max_age_ns = options->max_age_ns;
    key.max_idle = options->max_idle_conns;
    key.max_wait_ns = options->conn_wait_ns;
    key.connect_timeout_ns = options->connect_timeout_ns;
    key.handshake_timeout_ns = options->handshake_timeout_ns;
    key.keepalive_ns = options->tcp_keepalive_ns;
    key.places = options->pipeline;
    key.max_open = options->max_conns;
    key.max_dialling = options->max_handshakes;
    key.min_idle = options->min_idle_conns;
    key.max_uses = options->max_conn_uses;
    key.age_jitter = options->max_age_jitter;
    key.padding = (uint16_t)options->padding;
    key.edns_keepalive = options->edns_keepalive;
    key.doh_get = options->doh_get;
    return key;
}

static struct tls_settings tls_settings_of(const struct config_options *options, const struct config_to *to)
{
    return (struct tls_settings){
        .ca = options->tls_ca,
        .cert = options->tls_cert,
        .key = options->tls_key,
        .name = to->tls_servername[0] != '\0' ? to->tls_servername : options->tls_servername,
        .addr = to->addr,
        .proto = to->proto,
    };
}

/* The identity of an encrypted upstream, with a use of the caller's; NULL for a plain one. */
static int use_identity(const struct stanza *stanza, const struct config_to *to, struct tls **ret, struct fwd_error *error)
{
    *ret = NULL;
    if (to->proto == FWD_PROTO_UDP) {
        return 0;
    }
    char why[TLS_WHY];
    struct tls_settings settings = tls_settings_of(stanza->options, to);
    *ret = engine_use_tls(stanza->instance->engine, &settings, why);
    if (*ret != NULL) {
        return 0;
    }
    char pointer[64];
    (void)snprintf(pointer, sizeof(pointer), "/forward/%u/tls", (unsigned)stanza->index);
    struct error_place place = {.pointer = pointer};
    return error_set(error, FWD_ERR_CONFIG, &place, "%s", why);
}

int proxy_open(struct fwd_proxy *proxy, const struct config_to *to, struct fwd_error *error)
{
    const struct stanza *stanza = proxy->stanza;
    struct engine *engine = stanza->instance->engine;
    struct tls *tls;
    int r = use_identity(stanza, to, &tls, error);
    if (r < 0) {
        return r;
    }
    struct transport_key key = key_of(stanza->options, to, tls);
    struct transport *transport = engine_use_transport(engine, &key, to->text);
    if (tls != NULL) {
        engine_leave_tls(engine, tls); /* the transport has a use of its own */
    }
    struct health *health = transport != NULL ? health_use(engine, transport, stanza->options) : NULL;
    if (health == NULL) {
        if (transport != NULL) {
            engine_leave_transport(engine, transport);
        }
        return error_set(error, FWD_ERR_NOMEM, NULL, "%s", error_text(FWD_ERR_NOMEM));
    }
    if (proxy->text == NULL) { /* the second time it may be being read */
        proxy->text = transport->series->to;
    }
    proxy->transport = transport;
    proxy->health = health;
    return FWD_OK;
}

void proxy_close(struct fwd_proxy *proxy)
{
    health_leave(proxy->health);
    proxy->transport = NULL;
    proxy->health = NULL;
}

struct proxy_set *proxy_hold(struct fwd_proxy *proxy)
{
    struct proxy_set *set = stanza_take(proxy->stanza);
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->items[i] == proxy) {
            return set;
        }
    }
    stanza_leave(proxy->stanza, set);
    return NULL;
}
