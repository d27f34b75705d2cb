/* One HTTP/2 session as a DoH client.
 *
 * Happy path: h2_submit queues a POST (or GET) to /dns-query; the response's status, media type and body are collected; when the stream closes it becomes
 * a result.
 *
 * Failure modes: another status than 2xx, another media type, a content encoding, no or too long a body: a result that says why. A stream that was reset as
 * refused, or lies above the last one of a GOAWAY: a result that may be repeated elsewhere. A protocol error or one of nghttp2's flood
 * limits: h2_feed says so. Redirects are an error like any other status; nothing is followed.
 */
#include "http.h"

#include <ctype.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_BODY = 65535,
    FIRST_CAPACITY = 100,             /* until the peer's SETTINGS are known (RFC 9113 6.5.2 recommends no less) */
    LAST_STREAM = 1 << 30,
    MAX_HEADER_LIST = 16 * 1024,
    HEADER_OVERHEAD = 32,
    GET_PATH = sizeof("/dns-query?dns=") + (MAX_BODY + 2) / 3 * 4,
    MAX_HEADERS = 9,
};

static const char MEDIA_TYPE[] = "application/dns-message";

struct stream {
    struct stream *prev, *next; /* all that are open */
    int32_t id;
    uint32_t status;
    uint32_t age;
    bool right_type;
    bool encoded;
    bool too_long;
    uint32_t header_octets; /* as RFC 9113 6.5.2 counts them */
    bool complete; /* END_STREAM has come */
    uint8_t *request; /* POST body */
    uint32_t request_len, request_at;
    uint8_t *body;
    uint32_t len, cap;
};

struct h2 {
    nghttp2_session *session;
    struct stream *streams;
    struct h2_result *results, **results_tail;
    uint32_t capacity;
    bool goaway;
    bool broken; /* we have said GOAWAY: the peer broke the protocol, and nghttp2 ignores what else it says */
    const uint8_t *rest; /* of what nghttp2 gave and h2_pull's caller had no room for */
    uint32_t rest_len;
};

/* --- streams ------------------------------------------------------------------------------------------------------ */

static void stream_free(struct h2 *h2, struct stream *s)
{
    *(s->prev != NULL ? &s->prev->next : &h2->streams) = s->next;
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    free(s->request);
    free(s->body);
    free(s);
}

static struct stream *stream_make(struct h2 *h2, const uint8_t *msg, uint32_t len)
{
    struct stream *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->request = malloc(len);
    if (s->request == NULL) {
        free(s);
        return NULL;
    }
    memcpy(s->request, msg, len);
    s->request_len = len;
    s->next = h2->streams;
    if (s->next != NULL) {
        s->next->prev = s;
    }
    h2->streams = s;
    return s;
}

static void judge(const struct stream *s, uint32_t error_code, struct h2_result *result)
{
    char *why = result->why;
    size_t cap = sizeof(result->why);
    result->refused = error_code == NGHTTP2_REFUSED_STREAM;
    if (error_code != NGHTTP2_NO_ERROR) {
        (void)snprintf(why, cap, "stream reset: %s", nghttp2_http2_strerror(error_code));
    } else if (!s->complete) {
        (void)snprintf(why, cap, "stream closed before its end");
    } else if (s->header_octets > MAX_HEADER_LIST) {
        (void)snprintf(why, cap, "headers longer than %d octets", MAX_HEADER_LIST);
    } else if (s->status < 200 || s->status > 299) {
        (void)snprintf(why, cap, "HTTP status %u", (unsigned)s->status);
    } else if (!s->right_type) {
        (void)snprintf(why, cap, "media type is not %s", MEDIA_TYPE);
    } else if (s->encoded) {
        (void)snprintf(why, cap, "content encoding was not asked for");
    } else if (s->too_long) {
        (void)snprintf(why, cap, "body longer than %d octets", MAX_BODY);
    } else if (s->len == 0) {
        (void)snprintf(why, cap, "empty body");
    }
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data)
{
    struct h2 *h2 = user_data;
    struct stream *s = nghttp2_session_get_stream_user_data(session, stream_id);
    if (s == NULL) {
        return 0;
    }
    struct h2_result *result = calloc(1, sizeof(*result) + s->len);
    if (result == NULL) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    judge(s, error_code, result);
    result->stream_id = stream_id;
    result->age = s->age;
    if (result->why[0] == '\0') {
        result->len = s->len;
        memcpy(result->body, s->body, s->len);
    }
    *h2->results_tail = result;
    h2->results_tail = &result->next;
    (void)nghttp2_session_set_stream_user_data(session, stream_id, NULL);
    stream_free(h2, s);
    return 0;
}

/* --- responses ---------------------------------------------------------------------------------------------------- */

static bool is(const uint8_t *name, size_t len, const char *wanted)
{
    return len == strlen(wanted) && memcmp(name, wanted, len) == 0;
}

/* The media type without parameters, in any case. */
static bool right_type(const uint8_t *value, size_t len)
{
    size_t wanted = sizeof(MEDIA_TYPE) - 1;
    if (len < wanted || strncasecmp((const char *)value, MEDIA_TYPE, wanted) != 0) {
        return false;
    }
    return len == wanted || value[wanted] == ';' || value[wanted] == ' ';
}

static uint32_t number(const uint8_t *value, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0; i < len && isdigit(value[i]); i++) {
        n = n < 100000000 ? n * 10 + (value[i] - '0') : n;
    }
    return n;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s == NULL) {
        return 0;
    }
    s->header_octets += (uint32_t)(name_len + value_len + HEADER_OVERHEAD);
    if (is(name, name_len, ":status")) {
        s->status = number(value, value_len);
    } else if (is(name, name_len, "content-type")) {
        s->right_type = right_type(value, value_len);
    } else if (is(name, name_len, "content-encoding")) {
        s->encoded = !is(value, value_len, "identity");
    } else if (is(name, name_len, "age")) {
        s->age = number(value, value_len);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t len,
                   void *user_data)
{
    struct stream *s = nghttp2_session_get_stream_user_data(session, stream_id);
    if (s == NULL || s->too_long) {
        return 0;
    }
    if (len > MAX_BODY - s->len) {
        s->too_long = true;
        return 0;
    }
    if (s->len + len > s->cap) {
        uint32_t cap = s->len + (uint32_t)len < 1024 ? 1024 : (s->len + (uint32_t)len) * 2;
        uint8_t *body = realloc(s->body, cap);
        if (body == NULL) {
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        s->body = body;
        s->cap = cap;
    }
    memcpy(s->body + s->len, data, len);
    s->len += (uint32_t)len;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h2 = user_data;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        h2->goaway = true;
    } else if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        h2->capacity = nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    } else if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
               (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (s != NULL) {
            s->complete = true;
        }
    }
    return 0;
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h2 = user_data;
    h2->broken |= frame->hd.type == NGHTTP2_GOAWAY;
    return 0;
}

/* --- session ------------------------------------------------------------------------------------------------------ */

static nghttp2_session *make_session(struct h2 *h2)
{
    nghttp2_session *session = NULL;
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0) {
        return NULL;
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    if (nghttp2_session_client_new(&session, callbacks, h2) != 0) {
        session = NULL;
    }
    nghttp2_session_callbacks_del(callbacks);
    return session;
}

struct h2 *h2_create(void)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, MAX_BODY + 1},
    };
    struct h2 *h2 = calloc(1, sizeof(*h2));
    if (h2 == NULL) {
        return NULL;
    }
    h2->results_tail = &h2->results;
    h2->capacity = FIRST_CAPACITY;
    h2->session = make_session(h2);
    if (h2->session == NULL ||
        nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0])) != 0) {
        h2_destroy(h2);
        return NULL;
    }
    /* the connection's window must not be what limits a hundred streams */
    (void)nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, 1 << 20);
    return h2;
}

void h2_destroy(struct h2 *h2)
{
    if (h2 == NULL) {
        return;
    }
    nghttp2_session_del(h2->session);
    while (h2->streams != NULL) {
        stream_free(h2, h2->streams);
    }
    while (h2->results != NULL) {
        struct h2_result *result = h2->results;
        h2->results = result->next;
        free(result);
    }
    free(h2);
}

static ssize_t read_request(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t len, uint32_t *data_flags,
                            nghttp2_data_source *source, void *user_data)
{
    struct stream *s = source->ptr;
    uint32_t rest = s->request_len - s->request_at;
    uint32_t n = rest < len ? rest : (uint32_t)len;
    memcpy(buf, s->request + s->request_at, n);
    s->request_at += n;
    if (s->request_at == s->request_len) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return n;
}

static void base64url(const uint8_t *in, uint32_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t i = 0;
    for (; i < len; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < len ? (uint32_t)in[i + 1] << 8 : 0) | (i + 2 < len ? in[i + 2] : 0);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        if (i + 1 < len) {
            *out++ = digits[v >> 6 & 63];
        }
        if (i + 2 < len) {
            *out++ = digits[v & 63];
        }
    }
    *out = '\0';
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static int32_t submit(struct h2 *h2, const struct h2_target *target, const char *path, struct stream *s)
{
    char length[16];
    (void)snprintf(length, sizeof(length), "%u", (unsigned)s->request_len);
    nghttp2_nv headers[MAX_HEADERS] = {
        header(":method", target->get ? "GET" : "POST"),
        header(":scheme", "https"),
        header(":authority", target->authority),
        header(":path", path),
        header("accept", MEDIA_TYPE),
        header("content-type", MEDIA_TYPE),
        header("content-length", length),
    };
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_request};
    return nghttp2_submit_request(h2->session, NULL, headers, target->get ? 6 : 7, target->get ? NULL : &body, s);
}

int32_t h2_submit(struct h2 *h2, const struct h2_target *target, const uint8_t *msg, uint32_t len)
{
    if (h2_capacity(h2) == 0) {
        return -1;
    }
    struct stream *s = stream_make(h2, msg, len);
    if (s == NULL) {
        return -1;
    }
    char *path = target->get ? malloc(GET_PATH) : NULL;
    if (path != NULL) {
        memcpy(path, "/dns-query?dns=", sizeof("/dns-query?dns=") - 1);
        base64url(msg, len, path + sizeof("/dns-query?dns=") - 1);
    }
    s->id = target->get && path == NULL ? -1 : submit(h2, target, path != NULL ? path : "/dns-query", s);
    free(path);
    if (s->id < 0) {
        stream_free(h2, s);
        return -1;
    }
    return s->id;
}

void h2_cancel(struct h2 *h2, int32_t stream_id)
{
    struct stream *s = nghttp2_session_get_stream_user_data(h2->session, stream_id);
    for (struct stream *queued = h2->streams; s == NULL && queued != NULL; queued = queued->next) {
        s = queued->id == stream_id ? queued : NULL; /* not sent yet, so nghttp2 has no stream */
    }
    if (s != NULL) {
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
    }
}

int h2_feed(struct h2 *h2, const uint8_t *data, uint32_t len)
{
    ssize_t n = nghttp2_session_mem_recv(h2->session, data, len);
    return n == (ssize_t)len ? 0 : -1;
}

uint32_t h2_pull(struct h2 *h2, uint8_t *buf, uint32_t cap)
{
    uint32_t at = 0;
    while (at < cap) {
        if (h2->rest_len == 0) {
            ssize_t n = nghttp2_session_mem_send(h2->session, &h2->rest);
            if (n <= 0) {
                break;
            }
            h2->rest_len = (uint32_t)n;
        }
        uint32_t n = h2->rest_len < cap - at ? h2->rest_len : cap - at;
        memcpy(buf + at, h2->rest, n);
        at += n;
        h2->rest += n;
        h2->rest_len -= n;
    }
    return at;
}

bool h2_broken(const struct h2 *h2)
{
    return h2->broken;
}

struct h2_result *h2_results(struct h2 *h2)
{
    struct h2_result *results = h2->results;
    h2->results = NULL;
    h2->results_tail = &h2->results;
    return results;
}

uint32_t h2_capacity(const struct h2 *h2)
{
    bool over = h2->goaway || nghttp2_session_get_next_stream_id(h2->session) > LAST_STREAM;
    return over ? 0 : h2->capacity;
}
