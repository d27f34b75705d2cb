/* The server's side of one HTTP/2 connection that carries DNS queries: octets in, octets out,
 * requests and responses between.
 *
 * Threads: none of its own; one at a time. Ownership: the caller's. Failures that are defects of
 * the test abort. Standards: RFC 9113, RFC 8484.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;

/** A request as it came; base64 of a GET is decoded already. */
struct http_request {
    int32_t stream_id;
    char method[8];
    char path[2048]; /**< cut off if longer */
    char authority[128];
    char accept[64];
    char content_type[64];
    char content_length[16];
    uint8_t *wire; /**< the message, from the body or the path */
    size_t wire_len;
    size_t body_len; /**< of the body alone */
};

typedef void http_request_fn(void *arg, const struct http_request *request);

enum http_body {
    HTTP_BODY_WHOLE,
    HTTP_BODY_SHORT, /**< the first 10 octets of the answer */
    HTTP_BODY_NONE,  /**< END_STREAM on the headers */
    HTTP_BODY_HUGE,  /**< 65,536 octets and more */
    HTTP_BODY_OPEN,  /**< all of it, but no END_STREAM */
};

enum http_refusal {
    HTTP_ANSWERS,
    HTTP_REFUSES,       /**< RST_STREAM REFUSED_STREAM */
    HTTP_RESETS,        /**< RST_STREAM INTERNAL_ERROR */
    HTTP_LEAVES_BEFORE, /**< GOAWAY that leaves this stream out, and no answer */
    HTTP_LEAVES_AFTER,  /**< GOAWAY that covers this stream, then its answer */
};

/** What a response is like. All zero: 200, the right type, the whole answer. */
struct http_form {
    unsigned status;
    const char *media_type;                /**< NULL the right one, "" no header */
    const char *encoding, *age, *location; /**< headers, NULL for none */
    size_t padding;                        /**< octets of a header of no meaning */
    enum http_body body;
    enum http_refusal refusal;
    bool early_hints; /**< a 103 before the response */
    uint8_t raw[64];  /**< octets that are sent as they are, before the response; octets 5 to 8
                         become the stream's ID if they are ff */
    size_t raw_len;
};

/** @param max_streams of our SETTINGS, -1 for no such setting */
struct http_server *http_server_create(int64_t max_streams, http_request_fn *on_request, void *arg);
void http_server_destroy(struct http_server *server);

/** @return false when the client broke the protocol */
bool http_server_feed(struct http_server *server, const uint8_t *data, size_t len);

/** Changes our SETTINGS_MAX_CONCURRENT_STREAMS. */
void http_server_set_streams(struct http_server *server, unsigned max_streams);

/** Answers a stream. */
void http_server_respond(struct http_server *server, int32_t stream_id,
                         const struct http_form *form, const uint8_t *msg, size_t len);

/** What is to be sent. @return octets, 0 when nothing is */
size_t http_server_pull(struct http_server *server, const uint8_t **ret_data);

/** How often the client has reset a stream. */
unsigned http_server_resets(const struct http_server *server);
