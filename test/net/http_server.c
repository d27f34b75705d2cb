/* A scripted HTTP/2 server session on nghttp2.
 *
 * Happy path: headers and body of a stream are collected; with END_STREAM the request is handed to
 * the caller, who answers it when he likes. Failure modes: what the form asks for; anything else
 * that nghttp2 refuses is the client's fault and reported by http_server_feed.
 */
#include "http_server.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HUGE_BODY = 70000, MAX_NAMES = 8 };

struct reply {
    uint8_t *data;
    size_t len, at;
    bool open; /* no END_STREAM */
};

struct http_stream {
    struct http_stream *next;
    struct http_request request;
    struct reply reply;
};

struct http_server {
    nghttp2_session *session;
    struct http_stream *streams;
    http_request_fn *on_request;
    void *arg;
    unsigned resets;
    uint8_t raw[64]; /* goes out first */
    size_t raw_len;
};

static void require(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "http_server: %s\n", what);
        abort();
    }
}

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct http_server *server = user_data;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        struct http_stream *stream = calloc(1, sizeof(*stream));
        require(stream != NULL, "calloc");
        stream->request.stream_id = frame->hd.stream_id;
        stream->next = server->streams;
        server->streams = stream;
        (void)nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
    }
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user_data)
{
    struct http_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    struct http_request *request = &stream->request;
    const struct {
        const char *name;
        char *text;
        size_t cap;
    } kept[] = {
        {":method", request->method, sizeof(request->method)},
        {":path", request->path, sizeof(request->path)},
        {":authority", request->authority, sizeof(request->authority)},
        {"accept", request->accept, sizeof(request->accept)},
        {"content-type", request->content_type, sizeof(request->content_type)},
        {"content-length", request->content_length, sizeof(request->content_length)},
    };
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        if (strlen(kept[i].name) == name_len && memcmp(kept[i].name, name, name_len) == 0) {
            (void)snprintf(kept[i].text, kept[i].cap, "%.*s", (int)value_len, (const char *)value);
        }
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                   size_t len, void *user_data)
{
    struct http_stream *stream = nghttp2_session_get_stream_user_data(session, stream_id);
    struct http_request *request = &stream->request;
    request->wire = realloc(request->wire, request->wire_len + len + 1);
    require(request->wire != NULL, "realloc");
    memcpy(request->wire + request->wire_len, data, len);
    request->wire_len += len;
    request->body_len += len;
    return 0;
}

/** Decodes base64url without padding. */
static void decode(struct http_request *request, const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t value = 0;
    unsigned bits = 0;
    request->wire = malloc(strlen(text) + 1);
    require(request->wire != NULL, "malloc");
    for (; *text != '\0'; text++) {
        const char *digit = strchr(digits, *text);
        require(digit != NULL, "the path is not base64url without padding");
        value = value << 6 | (uint32_t)(digit - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            request->wire[request->wire_len++] = (uint8_t)(value >> bits);
        }
    }
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    static const char query[] = "/dns-query?dns=";
    struct http_server *server = user_data;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        server->resets++;
    }
    if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        return 0;
    }
    struct http_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (strncmp(stream->request.path, query, sizeof(query) - 1) == 0) {
        decode(&stream->request, stream->request.path + sizeof(query) - 1);
    }
    server->on_request(server->arg, &stream->request);
    return 0;
}

static void stream_free(struct http_stream *stream)
{
    free(stream->request.wire);
    free(stream->reply.data);
    free(stream);
}

static int on_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code,
                    void *user_data)
{
    struct http_server *server = user_data;
    struct http_stream *stream = nghttp2_session_get_stream_user_data(session, stream_id);
    if (stream == NULL) {
        return 0;
    }
    struct http_stream **at = &server->streams;
    while (*at != stream) {
        at = &(*at)->next;
    }
    *at = stream->next;
    stream_free(stream);
    return 0;
}

struct http_server *http_server_create(int64_t max_streams, http_request_fn *on_request, void *arg)
{
    struct http_server *server = calloc(1, sizeof(*server));
    nghttp2_session_callbacks *callbacks = NULL;
    require(server != NULL && nghttp2_session_callbacks_new(&callbacks) == 0, "memory");
    server->on_request = on_request;
    server->arg = arg;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    require(nghttp2_session_server_new(&server->session, callbacks, server) == 0, "session");
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry setting = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      (uint32_t)max_streams};
    require(nghttp2_submit_settings(server->session, NGHTTP2_FLAG_NONE, &setting,
                                    max_streams >= 0 ? 1 : 0) == 0,
            "settings");
    return server;
}

void http_server_destroy(struct http_server *server)
{
    if (server == NULL) {
        return;
    }
    nghttp2_session_del(server->session);
    while (server->streams != NULL) {
        struct http_stream *stream = server->streams;
        server->streams = stream->next;
        stream_free(stream);
    }
    free(server);
}

bool http_server_feed(struct http_server *server, const uint8_t *data, size_t len)
{
    return nghttp2_session_mem_recv(server->session, data, len) == (ssize_t)len;
}

void http_server_set_streams(struct http_server *server, unsigned max_streams)
{
    nghttp2_settings_entry setting = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams};
    require(nghttp2_submit_settings(server->session, NGHTTP2_FLAG_NONE, &setting, 1) == 0,
            "settings");
}

static ssize_t read_reply(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t len,
                          uint32_t *data_flags, nghttp2_data_source *source, void *user_data)
{
    struct reply *reply = source->ptr;
    size_t n = reply->len - reply->at < len ? reply->len - reply->at : len;
    memcpy(buf, reply->data + reply->at, n);
    reply->at += n;
    if (reply->at == reply->len) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF | (reply->open ? NGHTTP2_DATA_FLAG_NO_END_STREAM : 0u);
    }
    return (ssize_t)n;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NONE};
}

static void submit(struct http_server *server, int32_t stream_id, const struct http_form *form,
                   struct reply *reply)
{
    char status[16];
    char *padding = calloc(1, form->padding + 1);
    require(padding != NULL, "calloc");
    memset(padding, 'x', form->padding);
    (void)snprintf(status, sizeof(status), "%u", form->status != 0 ? form->status : 200);
    const char *type = form->media_type != NULL ? form->media_type : "application/dns-message";
    nghttp2_nv headers[MAX_NAMES] = {header(":status", status)};
    size_t count = 1;
    const char *const optional[][2] = {
        {"content-type", *type != '\0' ? type : NULL},
        {"content-encoding", form->encoding},
        {"age", form->age},
        {"location", form->location},
        {"x-padding", form->padding > 0 ? padding : NULL},
    };
    for (size_t i = 0; i < sizeof(optional) / sizeof(*optional); i++) {
        if (optional[i][1] != NULL) {
            headers[count++] = header(optional[i][0], optional[i][1]);
        }
    }
    nghttp2_data_provider body = {.source.ptr = reply, .read_callback = read_reply};
    bool empty = form->body == HTTP_BODY_NONE;
    (void)nghttp2_submit_response(server->session, stream_id, headers, count, empty ? NULL : &body);
    free(padding);
}

static void fill(struct reply *reply, enum http_body body, const uint8_t *msg, size_t len)
{
    reply->len = body == HTTP_BODY_HUGE                ? HUGE_BODY
                 : body == HTTP_BODY_SHORT && len > 10 ? 10
                                                       : len;
    reply->data = calloc(1, reply->len + 1);
    require(reply->data != NULL, "calloc");
    memcpy(reply->data, msg, len < reply->len ? len : reply->len);
    reply->at = 0;
    reply->open = body == HTTP_BODY_OPEN;
}

static void add_raw(struct http_server *server, int32_t stream_id, const struct http_form *form)
{
    memcpy(server->raw, form->raw, form->raw_len);
    server->raw_len = form->raw_len;
    if (form->raw_len >= 9 && memcmp(form->raw + 5, "\xff\xff\xff\xff", 4) == 0) {
        for (int i = 0; i < 4; i++) {
            server->raw[5 + i] = (uint8_t)((uint32_t)stream_id >> (24 - 8 * i));
        }
    }
}

void http_server_respond(struct http_server *server, int32_t stream_id,
                         const struct http_form *form, const uint8_t *msg, size_t len)
{
    struct http_stream *stream = nghttp2_session_get_stream_user_data(server->session, stream_id);
    if (stream == NULL) {
        return; /* given up by the client */
    }
    add_raw(server, stream_id, form);
    switch (form->refusal) {
    case HTTP_REFUSES:
    case HTTP_RESETS:
        (void)nghttp2_submit_rst_stream(server->session, NGHTTP2_FLAG_NONE, stream_id,
                                        form->refusal == HTTP_REFUSES ? NGHTTP2_REFUSED_STREAM
                                                                      : NGHTTP2_INTERNAL_ERROR);
        return;
    case HTTP_LEAVES_BEFORE:
        (void)nghttp2_submit_goaway(server->session, NGHTTP2_FLAG_NONE,
                                    stream_id > 2 ? stream_id - 2 : 0, NGHTTP2_NO_ERROR, NULL, 0);
        return;
    case HTTP_LEAVES_AFTER:
        (void)nghttp2_submit_goaway(server->session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_NO_ERROR,
                                    NULL, 0);
        break;
    case HTTP_ANSWERS:
        break;
    }
    if (form->early_hints) {
        nghttp2_nv hints[] = {header(":status", "103"), header("link", "</x>; rel=preload")};
        (void)nghttp2_submit_headers(server->session, NGHTTP2_FLAG_NONE, stream_id, NULL, hints, 2,
                                     NULL);
    }
    fill(&stream->reply, form->body, msg, len);
    submit(server, stream_id, form, &stream->reply);
}

size_t http_server_pull(struct http_server *server, const uint8_t **ret_data)
{
    if (server->raw_len > 0) {
        size_t len = server->raw_len;
        server->raw_len = 0;
        *ret_data = server->raw;
        return len;
    }
    ssize_t n = nghttp2_session_mem_send(server->session, ret_data);
    return n > 0 ? (size_t)n : 0;
}

unsigned http_server_resets(const struct http_server *server)
{
    return server->resets;
}
