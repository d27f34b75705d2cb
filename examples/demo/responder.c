/* demo-responder: a tiny DNS server for demo.test, so that the resolver has something to forward to
 * on a machine without network.
 *
 * Happy path: binds 127.0.0.1 on a port of the kernel's choice, prints the port, answers every name
 * below demo.test over UDP and TCP until its stdin ends (so it never outlives who started it): A
 * and AAAA of the documentation's addresses, TXT with a word of greeting, 40 of them for
 * big.demo.test (which shows truncation), NXDOMAIN for nx.demo.test. Failure modes: what is no
 * query gets no answer; a TCP client that does not read or write within a second is dropped.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    HEADER = 12,
    TYPE_A = 1,
    TYPE_TXT = 16,
    TYPE_AAAA = 28,
    MESSAGE = 4096,
    UDP_MAX = 512,
    FDS = 64
};

static const char greeting[] = "hello from the bundled responder";

/* The question's name as text, without escapes; returns where it ends, 0 when it does not parse. */
static size_t question_name(const uint8_t *query, size_t len, char name[256])
{
    size_t at = HEADER;
    size_t out = 0;
    while (at < len && query[at] != 0) {
        size_t label = query[at++];
        if (label > 63 || at + label >= len || out + label + 1 >= 255) {
            return 0;
        }
        memcpy(name + out, query + at, label);
        out += label;
        name[out++] = '.';
        at += label;
    }
    name[out] = '\0';
    return at + 5 <= len ? at + 1 : 0;
}

static size_t record_put(uint8_t *reply, size_t at, uint16_t type, const void *data, size_t len)
{
    const uint8_t head[12] = {0xc0, HEADER, (uint8_t)(type >> 8), (uint8_t)type, 0, 1, 0, 0, 0,
                              60,   0,      (uint8_t)len};
    memcpy(reply + at, head, sizeof(head));
    memcpy(reply + at + sizeof(head), data, len);
    reply[7]++; /* ANCOUNT stays below 256 */
    return at + sizeof(head) + len;
}

/* Builds the reply to a query; 0 when it gets none. */
static size_t answer(const uint8_t *query, size_t len, uint8_t reply[MESSAGE])
{
    char name[256];
    size_t end = len >= HEADER && (query[2] & 0xf8) == 0 ? question_name(query, len, name) : 0;
    if (end == 0) {
        return 0;
    }
    size_t at = end + 4;
    uint16_t type = (uint16_t)(query[end] << 8 | query[end + 1]);
    memcpy(reply, query, at);
    memcpy(reply + 2, (const uint8_t[10]){0x84 | (query[2] & 1), 0, 0, 1}, 10);
    size_t length = strlen(name);
    bool below = length == 10 || (length > 10 && name[length - 11] == '.');
    if (!below || strcasecmp(name + length - 10, "demo.test.") != 0) {
        reply[3] = 5; /* REFUSED */
    } else if (strcasecmp(name, "nx.demo.test.") == 0) {
        reply[3] = 3; /* NXDOMAIN */
    } else if (type == TYPE_A) {
        at = record_put(reply, at, type, (const uint8_t[4]){192, 0, 2, 1}, 4);
    } else if (type == TYPE_AAAA) {
        at = record_put(reply, at, type, (const uint8_t[16]){0x20, 1, 0xd, 0xb8, [15] = 1}, 16);
    } else if (type == TYPE_TXT) {
        char text[sizeof(greeting) + 8];
        int many = strcasecmp(name, "big.demo.test.") == 0 ? 40 : 1;
        for (int i = 1; i <= many; i++) {
            int size = snprintf(text + 1, sizeof(text) - 1, many > 1 ? "%s %d" : "%s", greeting, i);
            text[0] = (char)size;
            at = record_put(reply, at, type, text, (size_t)size + 1);
        }
    }
    return at;
}

static void serve_udp(int fd)
{
    uint8_t query[MESSAGE];
    uint8_t reply[MESSAGE];
    struct sockaddr_in client;
    socklen_t len = sizeof(client);
    ssize_t got = recvfrom(fd, query, sizeof(query), 0, (struct sockaddr *)&client, &len);
    size_t size = got > 0 ? answer(query, (size_t)got, reply) : 0;
    if (size > UDP_MAX) { /* only the question, and TC */
        size_t end = HEADER;
        while (reply[end] != 0) {
            end += reply[end] + 1u;
        }
        size = end + 5;
        reply[2] |= 2;
        reply[7] = 0;
    }
    if (size > 0) {
        (void)sendto(fd, reply, size, 0, (struct sockaddr *)&client, len);
    }
}

static void tcp_add(struct pollfd fds[FDS], int listener)
{
    int fd = accept(listener, NULL, NULL);
    const struct timeval second = {.tv_sec = 1};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second));
    for (int i = 3; i < FDS; i++) {
        if (fds[i].fd < 0) {
            fds[i].fd = fd;
            return;
        }
    }
    (void)close(fd);
}

/* One query of a connection. False when the connection is at its end. */
static bool serve_tcp(int fd)
{
    uint8_t query[2 + MESSAGE];
    uint8_t reply[2 + MESSAGE];
    if (recv(fd, query, 2, MSG_WAITALL) != 2) {
        return false;
    }
    size_t len = (size_t)(query[0] << 8 | query[1]);
    if (len > MESSAGE || recv(fd, query + 2, len, MSG_WAITALL) != (ssize_t)len) {
        return false;
    }
    size_t size = answer(query + 2, len, reply + 2);
    reply[0] = (uint8_t)(size >> 8);
    reply[1] = (uint8_t)size;
    return size != 0 && send(fd, reply, size + 2, MSG_NOSIGNAL) >= 0;
}

static bool listen_on(struct sockaddr_in *address, int tcp, int udp)
{
    socklen_t len = sizeof(*address);
    return bind(tcp, (struct sockaddr *)address, len) == 0 && listen(tcp, FDS) == 0 &&
           getsockname(tcp, (struct sockaddr *)address, &len) == 0 &&
           bind(udp, (struct sockaddr *)address, len) == 0;
}

int main(void)
{
    struct pollfd fds[FDS];
    for (int i = 0; i < FDS; i++) {
        fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    }
    fds[0].fd = STDIN_FILENO;
    fds[1].fd = socket(AF_INET, SOCK_DGRAM, 0);
    fds[2].fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!listen_on(&address, fds[2].fd, fds[1].fd)) {
        perror("demo-responder");
        return 1;
    }
    (void)printf("%u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    while (poll(fds, FDS, -1) > 0) {
        char unused;
        if (fds[0].revents != 0 && read(STDIN_FILENO, &unused, 1) <= 0) {
            return 0;
        }
        if (fds[1].revents != 0) {
            serve_udp(fds[1].fd);
        }
        for (int i = 3; i < FDS; i++) {
            if (fds[i].fd >= 0 && fds[i].revents != 0 && !serve_tcp(fds[i].fd)) {
                (void)close(fds[i].fd);
                fds[i].fd = -1;
            }
        }
        if (fds[2].revents != 0) {
            tcp_add(fds, fds[2].fd);
        }
    }
    return 1;
}
