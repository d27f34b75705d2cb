/* HTTP.
 *
 * Happy path: libmicrohttpd accepts on a socket of ours; a request's path and the roles of the
 * address choose the page; the page's text is handed over.
 * Failure modes: an address that cannot be opened is worded as Go words it; out of memory is a 500;
 * a role that the address does not have, as any other path, a 404. A client whose certificate is
 * not what the web configuration asks for is hung up on.
 */
#include "web.h"

#include "clock.h"
#include "info_page.h"
#include "listener.h"
#include "log.h"
#include "probe.h"
#include "scrape.h"
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_MICROHTTPD

#include "web_tls.h"

struct web_site {
    struct web_site *next;
    struct web *web;
    char *wanted;    /* as the Corefile has it */
    unsigned opener; /* with port 0 only this role shares it: each gets a port of its own */
    union address bound;
    atomic_uint roles;
    unsigned staged;
    int fd;      /* where it listens; the daemon has one of its own */
    bool opened; /* before what is staged now */
    struct MHD_Daemon *daemon;
    struct web_config tls;
    /* what web_settle makes of it */
    const char *staged_tls; /* the web configuration's name in staged's first role; borrowed */
    struct web_config next_tls;
};

struct page {
    unsigned status;
    const char *type;
    struct text text;
};

static void page_plain(struct page *page, unsigned status, const char *text)
{
    page->status = status;
    text_append(&page->text, text, strlen(text));
}

static void page_make(const struct web_site *site, const char *path, const char *format,
                      struct page *page)
{
    struct service *service = site->web->service;
    unsigned roles = atomic_load(&site->roles);
    if (strcmp(path, "/metrics") == 0 && (roles & WEB_METRICS) != 0) {
        page->type = "text/plain; version=0.0.4; charset=utf-8";
        scrape_write(service, &page->text);
    } else if (strcmp(path, "/health") == 0 && (roles & WEB_HEALTH) != 0) {
        page_plain(page, MHD_HTTP_OK, "OK");
    } else if (strcmp(path, "/ready") == 0 && (roles & WEB_READY) != 0) {
        bool ready = atomic_load(&site->web->ready);
        page_plain(page, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                   ready ? "OK" : "Shutting down");
    } else if (strcmp(path, "/forward") == 0 && (roles & WEB_HEALTH) != 0) {
        bool table = format != NULL && strcmp(format, "text") == 0;
        if (format != NULL && !table && strcmp(format, "json") != 0) {
            page_plain(page, MHD_HTTP_BAD_REQUEST, "format is json or text\n");
        } else if (table) {
            info_page_text(service, &page->text);
        } else {
            page->type = "application/json";
            info_page_json(service, &page->text);
        }
    } else {
        page_plain(page, MHD_HTTP_NOT_FOUND, "404 page not found\n");
    }
    if (page->text.failed) {
        text_fini(&page->text);
        page_plain(page, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    }
}

static enum MHD_Result request_answer(void *arg, struct MHD_Connection *connection,
                                      const char *path, const char *method, const char *version,
                                      const char *upload, size_t *upload_len, void **state)
{
    static char seen;
    if (*state == NULL) { /* the headers alone: the body, if any, comes first */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_len != 0) {
        *upload_len = 0;
        return MHD_YES;
    }
    const struct web_site *site = arg;
    if (!web_tls_welcome(&site->tls, connection)) {
        return MHD_NO;
    }
    struct page page = {.status = MHD_HTTP_OK, .type = "text/plain; charset=utf-8"};
    page_make(site, path, MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "format"),
              &page);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page.text.len, page.text.data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        text_fini(&page.text);
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page.type);
    enum MHD_Result result = MHD_queue_response(connection, page.status, response);
    MHD_destroy_response(response);
    return result;
}

/* Starts the thread that serves, over TLS if there is a certificate. */
static bool site_serve(struct web_site *site, struct failure *failure)
{
    struct MHD_OptionItem tls[WEB_TLS_OPTIONS];
    unsigned flags =
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | web_tls_options(&site->tls, tls);
    int fd = fcntl(site->fd, F_DUPFD_CLOEXEC, 0);
    site->daemon =
        fd < 0 ? NULL
               : MHD_start_daemon(flags, 0, NULL, NULL, request_answer, site,
                                  MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                                  (unsigned)WEB_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, 5u,
                                  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)8192,
                                  MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (site->daemon == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return failure_set(failure, "cannot serve HTTP on %s", site->wanted);
    }
    return true;
}

/* Goes over to what was staged of TLS: files may have changed though their names have not. */
static void site_renew(struct web_site *site)
{
    struct failure failure;
    if (site->tls.cert == NULL && site->next_tls.cert == NULL) {
        return;
    }
    if (site->daemon != NULL) {
        int fd = MHD_quiesce_daemon(site->daemon); /* who connects now waits in the backlog */
        MHD_stop_daemon(site->daemon);
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    web_config_fini(&site->tls);
    site->tls = site->next_tls;
    site->next_tls = (struct web_config){0};
    if (!site_serve(site, &failure)) {
        log_print(FWD_LEVEL_ERROR, "plugin/prometheus: %s", failure.text);
    }
}

static bool site_open(struct web_site *site, struct failure *failure)
{
    bool all = false;
    if (!listener_lookup(site->wanted, &site->bound, &all, failure)) {
        return false;
    }
    site->fd = listener_stream(&site->bound, all, failure);
    if (site->fd < 0) {
        return false;
    }
    socklen_t len = sizeof(site->bound);
    (void)getsockname(site->fd, &site->bound.any, &len);
    return site_serve(site, failure);
}

static void site_close(struct web_site *site)
{
    if (site->daemon != NULL) {
        MHD_stop_daemon(site->daemon);
    }
    if (site->fd >= 0) {
        (void)close(site->fd);
    }
    web_config_fini(&site->tls);
    web_config_fini(&site->next_tls);
    free(site->wanted);
    free(site);
}

static const char *role_name(unsigned role)
{
    return role == WEB_METRICS ? "prometheus" : role == WEB_HEALTH ? "health" : "ready";
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* For a site that is there. The first role of a configuration says how it is served. */
static bool site_stage(struct web_site *site, const char *tls, struct failure *failure)
{
    if (site->staged != 0) {
        return same_text(site->staged_tls, tls) ||
               failure_set(failure, "listen tcp %s: bind: address already in use", site->wanted);
    }
    site->staged_tls = tls;
    web_config_fini(&site->next_tls);
    return tls == NULL || web_tls_read(tls, &site->next_tls, failure);
}

/* The site of an address, opened when it is new. @param tls the web configuration's name, or NULL */
static struct web_site *site_take(struct web *web, const char *wanted, const char *tls,
                                  unsigned role, struct failure *failure)
{
    size_t len = strlen(wanted);
    bool any_port = len >= 2 && strcmp(wanted + len - 2, ":0") == 0;
    for (struct web_site *site = web->sites; site != NULL; site = site->next) {
        if (strcmp(site->wanted, wanted) == 0 && (!any_port || site->opener == role)) {
            return site_stage(site, tls, failure) ? site : NULL;
        }
    }
    struct web_site *site = calloc(1, sizeof(*site));
    if (site != NULL) {
        site->web = web;
        site->opener = role;
        site->staged_tls = tls;
        site->fd = -1;
        site->wanted = strdup(wanted);
    }
    if (site == NULL || site->wanted == NULL) {
        free(site);
        failure_set(failure, "out of memory");
        return NULL;
    }
    if ((tls != NULL && !web_tls_read(tls, &site->tls, failure)) || !site_open(site, failure)) {
        site_close(site);
        return NULL;
    }
    if (any_port) {
        char text[ADDRESS_TEXT_MAX];
        address_print(&site->bound, false, text);
        log_print(FWD_LEVEL_INFO, "plugin/%s: listening on %s", role_name(role), text);
    }
    site->next = web->sites;
    web->sites = site;
    return site;
}

/** Opens. */
bool web_stage(struct web *web, const struct config *config, struct failure *failure)
{
    for (size_t s = 0; s < config->count; s++) {
        const struct endpoints *endpoints = &config->servers[s].endpoints;
        const char *const wanted[] = {endpoints->metrics, endpoints->health, endpoints->ready};
        const char *const tls[] = {endpoints->metrics_tls, NULL, NULL};
        for (unsigned i = 0; i < 3; i++) {
            struct web_site *site =
                wanted[i] != NULL ? site_take(web, wanted[i], tls[i], 1u << i, failure) : NULL;
            if (site != NULL) {
                site->staged |= 1u << i;
            } else if (wanted[i] != NULL && 1u << i == WEB_HEALTH) {
                return false;
            } else if (wanted[i] != NULL) {
                log_print(FWD_LEVEL_ERROR, "plugin/%s: Failed to start handler: %s",
                          role_name(1u << i), failure->text);
            }
        }
    }
    return true;
}

/** Settles. */
void web_settle(struct web *web, bool keep)
{
    struct web_site **at = &web->sites;
    union address probed[PROBE_TARGETS];
    unsigned count = 0;
    while (*at != NULL) {
        struct web_site *site = *at;
        unsigned roles = keep ? atomic_load(&site->roles) : site->staged;
        bool renew = !keep && site->opened;
        site->staged = 0;
        site->opened = true;
        atomic_store(&site->roles, roles);
        if (roles == 0) {
            *at = site->next;
            site_close(site);
            continue;
        }
        if (renew) {
            site_renew(site);
        }
        if ((roles & WEB_HEALTH) != 0 && count < PROBE_TARGETS) {
            probed[count++] = site->bound;
        }
        at = &site->next;
    }
    probe_targets(probed, count);
}

/** Closes everything. */
void web_fini(struct web *web)
{
    for (struct web_site *site = web->sites; site != NULL; site = site->next) {
        atomic_store(&site->roles, 0);
    }
    web_settle(web, true);
}

#else /* the directives are refused when they are read, so there is nothing to open */

bool web_stage(struct web *web, const struct config *config, struct failure *failure)
{
    return true;
}

void web_settle(struct web *web, bool keep)
{
}

void web_fini(struct web *web)
{
}

#endif

/** Nothing is served yet. */
void web_init(struct web *web, struct service *service)
{
    *web = (struct web){.service = service};
}
