/* A TCP upstream's octets, cut anywhere: the client gets an answer exactly when the octets hold one
 * before anything that breaks the stream.
 *
 * The whole module runs, host-driven, against a socket of this program; one query per input. What
 * the stream holds is judged a second time by `judge`, which sees it in one piece.
 */
#include "fuzz.h"
#include "wire.h"

#include <forward/abi.h>

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENT_ID = 0x1234, STREAM_MAX = 8192 };

static const uint8_t question[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\7example\3org\0\0\1\0\1";
static const struct fwd_forward *forward;
static struct fwd_instance *instance;
static int listen_fd;
static struct fwd_completion last;
static unsigned ended;

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    (void)arg;
    require(count == 1);
    last = *completions;
    require(last.kind != FWD_KIND_ANSWER ||
            (wire_u16(last.wire) == CLIENT_ID &&
             memcmp(last.wire + 12, question + 12, sizeof(question) - 13) == 0));
    ended++;
}

static void open_instance(void)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(self);
    char json[256];
    struct fwd_host host = FWD_INIT(struct fwd_host);
    host.completion_size = sizeof(struct fwd_completion);
    host.done = done;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(bind(listen_fd, (struct sockaddr *)&self, size) == 0 && listen(listen_fd, 16) == 0);
    require(getsockname(listen_fd, (struct sockaddr *)&self, &size) == 0);
    int len = snprintf(
        json, sizeof(json),
        "{\"io_threads\":0,\"forward\":[{\"from\":\".\",\"to\":[{\"addr\":\"127.0.0.1:%u\","
        "\"transport\":\"dns\"}],"
        "\"force_tcp\":true,\"expire\":\"0s\",\"max_fails\":0,\"max_connect_attempts\":1}]}",
        ntohs(self.sin_port));
    forward = fwd_module_entry(FWD_ABI_MAJOR)->get_interface(FWD_FORWARD_ID);
    require(forward->create(&host, json, (uint64_t)len, &instance, NULL) == FWD_OK);
    require(forward->start(instance, NULL) == FWD_OK);
}

/** Lets the module do what is due, after waiting for it a little. */
static void turn(int timeout_ms)
{
    struct pollfd poll_fd = {.fd = forward->poll_fd(instance, 0), .events = POLLIN};
    (void)poll(&poll_fd, 1, timeout_ms);
    require(forward->run(instance, 0) >= 0);
}

/** Whether the stream holds an answer under this ID before anything that breaks it; *ret_end is
 * where the answer ends. */
static bool judge(const uint8_t *stream, size_t len, uint16_t id, size_t *ret_end)
{
    struct wire_query query;
    require(wire_query_parse(question, sizeof(question) - 1, &query) == 0);
    for (size_t at = 0; len - at >= 2;) {
        static uint8_t copy[65536];
        uint32_t size = wire_u16(stream + at);
        if (len - at - 2 < size) {
            return false;
        }
        memcpy(copy, stream + at + 2, size);
        at += 2 + size;
        enum wire_answer answer = wire_answer_check(copy, &size, question, &query, id);
        if (answer == ANSWER_GOOD || answer == ANSWER_BARE) {
            *ret_end = at;
            return true;
        }
        if (answer != ANSWER_ID) {
            return false;
        }
    }
    return false;
}

/** One input: pieces, each a length (one octet) and its octets. f0 1d stands for the ID of the
 * query that was sent. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t stream[STREAM_MAX];
    uint8_t sent[512];
    size_t pieces[STREAM_MAX], count = 0, len = 0;
    if (instance == NULL) {
        open_instance();
    }
    for (size_t at = 0; at < size && count < 64;) {
        size_t piece = data[at++];
        piece = piece < size - at ? piece : size - at;
        if (len + piece > STREAM_MAX) {
            break;
        }
        memcpy(stream + len, data + at, piece);
        len += piece;
        at += piece;
        pieces[count++] = piece;
    }

    struct fwd_query query = FWD_INIT(struct fwd_query);
    query.wire = question;
    query.wire_len = sizeof(question) - 1;
    ended = 0;
    require(forward->serve(instance, &query, 1) == FWD_OK && query.verdict == FWD_VERDICT_ACCEPTED);
    int fd = accept(listen_fd, NULL, NULL);
    require(fd >= 0);
    turn(1000);
    ssize_t got = recv(fd, sent, sizeof(sent), 0);
    require(got == (ssize_t)sizeof(question) + 1);
    for (size_t i = 0; i + 1 < len; i++) {
        if (stream[i] == 0xf0 && stream[i + 1] == 0x1d) {
            memcpy(stream + i, sent + 2, 2);
        }
    }

    size_t answer_end = 0, given = 0;
    bool expected = judge(stream, len, wire_u16(sent + 2), &answer_end);
    for (size_t i = 0, at = 0; i < count && ended == 0; at += pieces[i++]) {
        if (pieces[i] > 0 && send(fd, stream + at, pieces[i], MSG_NOSIGNAL) > 0) {
            given = at + pieces[i];
            turn(1000);
        }
    }
    close(fd);
    while (ended == 0) {
        turn(1000);
    }
    require(ended == 1);
    require((last.kind == FWD_KIND_ANSWER) == expected);
    require(!expected || given >= answer_end);
    turn(0);
    return 0;
}
