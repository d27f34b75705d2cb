/* A load generator that gives percentiles: UDP queries for names that are never repeated.
 *
 *   load [-q IN_FLIGHT] [-r PER_SECOND] [-l SECONDS] [-s SOCKETS] ADDRESS PORT
 *
 * Happy path: keeps IN_FLIGHT queries out (100), or fewer where -r says so, for SECONDS (3) over
 * SOCKETS (16) sockets, waits for the rest, and prints one line of JSON: rates, what was lost,
 * RCODEs other than NOERROR, and latency in microseconds.
 *
 * Failure modes: a query without an answer for 1 s counts as lost and its place is used again;
 * answers that nobody waits for are ignored.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, MESSAGE = 512, SUB = 64, OCTAVES = 26, SOCKETS_MAX = 64, PLACES_MAX = 65536 };

static const uint64_t lost_after_ns = 1000000000u;
static const uint64_t ramp_ns = 200000000u;

/* One socket and the queries that wait on it; a query's ID is the index of its place. */
struct client {
    int fd;
    uint32_t places, free_count;
    uint16_t *free;
    uint64_t *sent_ns; /* 0: free */
};

static struct {
    uint64_t sent, received, lost, bad;
    uint64_t max_ns;
    uint64_t histogram[OCTAVES * SUB];
} result;

static char run_name[9];
static uint64_t serial;
static uint64_t last_ns; /* the last answer's time */

static void require(bool holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Latency is kept in buckets that are 1/64 of their octave wide: 1.6 % exact from 1 us to more than
 * a minute. */

static unsigned bucket_of(uint64_t us)
{
    unsigned octave = 0;
    while (us >> octave >= 2 * SUB && octave + 2 < OCTAVES) {
        octave++;
    }
    uint64_t at = (us >> octave) + (uint64_t)octave * SUB;
    return at < OCTAVES * SUB ? (unsigned)at : OCTAVES * SUB - 1;
}

static double bucket_us(unsigned bucket)
{
    unsigned octave = bucket < 2 * SUB ? 0 : bucket / SUB - 1;
    return (double)((uint64_t)(bucket - octave * SUB) << octave) + 0.5 * (double)(1u << octave);
}

static double percentile(double share)
{
    uint64_t wanted = (uint64_t)((double)result.received * share), seen = 0;
    for (unsigned i = 0; i < OCTAVES * SUB; i++) {
        seen += result.histogram[i];
        if (seen > wanted) {
            return bucket_us(i);
        }
    }
    return 0;
}

static size_t make_query(uint8_t *buf, uint16_t id)
{
    char first[32];
    static const char rest[] = "\5bench\7example\0\0\1\0\1";
    int len = snprintf(first, sizeof(first), "%s%llx", run_name, (unsigned long long)serial++);
    memset(buf, 0, 12);
    buf[0] = (uint8_t)(id >> 8);
    buf[1] = (uint8_t)id;
    buf[2] = 1;
    buf[5] = 1;
    buf[12] = (uint8_t)len;
    memcpy(buf + 13, first, (size_t)len);
    memcpy(buf + 13 + len, rest, sizeof(rest) - 1);
    return 13 + (size_t)len + sizeof(rest) - 1;
}

/** Sends up to count queries, as many as there are free places. @return how many */
static uint32_t send_some(struct client *client, uint32_t count)
{
    static uint8_t data[BATCH][MESSAGE];
    struct mmsghdr out[BATCH];
    struct iovec vectors[BATCH];
    count = count < client->free_count ? count : client->free_count;
    count = count < BATCH ? count : BATCH;
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < count; i++) {
        uint16_t place = client->free[client->free_count - 1 - i];
        vectors[i] = (struct iovec){data[i], make_query(data[i], place)};
        out[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &vectors[i], .msg_iovlen = 1}};
        client->sent_ns[place] = now;
    }
    int sent = count == 0 ? 0 : sendmmsg(client->fd, out, count, MSG_DONTWAIT);
    sent = sent < 0 ? 0 : sent;
    for (uint32_t i = (uint32_t)sent; i < count; i++) {
        client->sent_ns[client->free[client->free_count - 1 - i]] = 0;
    }
    client->free_count -= (uint32_t)sent;
    result.sent += (uint64_t)sent;
    return (uint32_t)sent;
}

static void receive(struct client *client)
{
    static uint8_t data[BATCH][MESSAGE];
    struct mmsghdr in[BATCH];
    struct iovec vectors[BATCH];
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){data[i], MESSAGE};
        in[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &vectors[i], .msg_iovlen = 1}};
    }
    int got = recvmmsg(client->fd, in, BATCH, MSG_DONTWAIT, NULL);
    uint64_t now = now_ns();
    last_ns = got > 0 ? now : last_ns;
    for (int i = 0; i < got; i++) {
        uint16_t place = (uint16_t)(data[i][0] << 8 | data[i][1]);
        if (in[i].msg_len < 12 || place >= client->places || client->sent_ns[place] == 0) {
            continue;
        }
        uint64_t took = now - client->sent_ns[place];
        client->sent_ns[place] = 0;
        client->free[client->free_count++] = place;
        result.received++;
        result.bad += (data[i][3] & 15) != 0;
        result.max_ns = took > result.max_ns ? took : result.max_ns;
        result.histogram[bucket_of(took / 1000)]++;
    }
}

static void drop_lost(struct client *client)
{
    uint64_t now = now_ns();
    for (uint32_t place = 0; place < client->places; place++) {
        if (client->sent_ns[place] != 0 && now - client->sent_ns[place] > lost_after_ns) {
            client->sent_ns[place] = 0;
            client->free[client->free_count++] = (uint16_t)place;
            result.lost++;
        }
    }
}

static void client_open(struct client *client, const struct sockaddr_in *server, uint32_t places)
{
    const int room = 1 << 22;
    client->places = client->free_count = places;
    client->free = calloc(places, sizeof(*client->free));
    client->sent_ns = calloc(places, sizeof(*client->sent_ns));
    require(client->free != NULL && client->sent_ns != NULL, "calloc");
    for (uint32_t i = 0; i < places; i++) {
        client->free[i] = (uint16_t)i;
    }
    client->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    require(client->fd >= 0, "socket");
    (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    require(connect(client->fd, (const struct sockaddr *)server, sizeof(*server)) == 0, "connect");
}

/** How many may be sent now. Without a rate, the number in flight grows over the first 200 ms, lest
 * the start be a burst that overflows the forwarder's socket. With one, the share of a burst that
 * was missed is not made up for. */
static uint32_t allowed(double rate, uint32_t in_flight, uint64_t start_ns)
{
    static double credit_used;
    uint64_t passed = now_ns() - start_ns;
    if (rate <= 0) {
        uint64_t room = passed > ramp_ns ? in_flight : 1 + in_flight * passed / ramp_ns;
        uint64_t out = result.sent - result.received - result.lost;
        return out >= room ? 0 : room - out > BATCH ? BATCH : (uint32_t)(room - out);
    }
    double credit = (double)passed / 1e9 * rate;
    if (credit - credit_used > rate / 100 + BATCH) {
        credit_used = credit - rate / 100 - BATCH;
    }
    double left = credit - credit_used;
    uint32_t count = left > BATCH ? BATCH : (uint32_t)left;
    credit_used += count;
    return count;
}

/** Receives what is there, after waiting for it a little. */
static void receive_all(struct client *clients, uint32_t sockets, int timeout_ms)
{
    struct pollfd polls[SOCKETS_MAX];
    for (uint32_t i = 0; i < sockets; i++) {
        polls[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
    }
    (void)poll(polls, sockets, timeout_ms);
    for (uint32_t i = 0; i < sockets; i++) {
        if (polls[i].revents != 0) {
            receive(&clients[i]);
        }
    }
}

static void drop_all_lost(struct client *clients, uint32_t sockets)
{
    for (uint32_t i = 0; i < sockets; i++) {
        drop_lost(&clients[i]);
    }
}

/** Sends for so long, and waits for what is out then. @return seconds from the first query to the
 * last answer */
static double run(struct client *clients, uint32_t sockets, uint32_t in_flight, double rate,
                  double seconds)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), next_scan = start, now;
    uint32_t turn = 0;
    while ((now = now_ns()) < end) {
        uint32_t sent = 0;
        for (uint32_t i = 0; i < sockets; i++, turn++) {
            struct client *client = &clients[turn % sockets];
            if (client->free_count > 0) {
                sent += send_some(client, allowed(rate, in_flight, start));
            }
        }
        receive_all(clients, sockets, sent > 0 ? 0 : 1);
        if (now >= next_scan) {
            drop_all_lost(clients, sockets);
            next_scan = now + 100000000u;
        }
    }
    while (result.received + result.lost < result.sent) {
        receive_all(clients, sockets, 10);
        drop_all_lost(clients, sockets);
    }
    return (double)(last_ns - start) / 1e9;
}

int main(int argc, char **argv)
{
    static struct client clients[SOCKETS_MAX];
    struct sockaddr_in server = {.sin_family = AF_INET};
    uint32_t in_flight = 100, sockets = 16, random;
    double rate = 0, seconds = 3;
    int option;
    while ((option = getopt(argc, argv, "q:r:l:s:")) != -1) {
        double value = option == '?' ? 0 : atof(optarg);
        if (option == 'q') {
            in_flight = (uint32_t)value;
        } else if (option == 'r') {
            rate = value;
        } else if (option == 'l') {
            seconds = value;
        } else if (option == 's') {
            sockets = (uint32_t)value;
        }
    }
    sockets = sockets < in_flight ? sockets : in_flight;
    if (argc - optind != 2 || sockets < 1 || sockets > SOCKETS_MAX ||
        in_flight / sockets >= PLACES_MAX ||
        inet_pton(AF_INET, argv[optind], &server.sin_addr) != 1) {
        fprintf(
            stderr,
            "usage: load [-q IN_FLIGHT] [-r PER_SECOND] [-l SECONDS] [-s SOCKETS] ADDRESS PORT\n");
        return 1;
    }
    server.sin_port = htons((uint16_t)atoi(argv[optind + 1]));
    require(getrandom(&random, sizeof(random), 0) == sizeof(random), "getrandom");
    snprintf(run_name, sizeof(run_name), "%08x", random);
    for (uint32_t i = 0; i < sockets; i++) {
        client_open(&clients[i], &server, in_flight / sockets + (i < in_flight % sockets));
    }
    seconds = run(clients, sockets, in_flight, rate, seconds);
    printf(
        "{\"seconds\":%.3f,\"sent\":%llu,\"received\":%llu,\"lost\":%llu,\"bad\":%llu,\"qps\":%.0f,"
        "\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}\n",
        seconds, (unsigned long long)result.sent, (unsigned long long)result.received,
        (unsigned long long)result.lost, (unsigned long long)result.bad,
        (double)result.received / seconds, percentile(0.5), percentile(0.9), percentile(0.99),
        percentile(0.999), (double)result.max_ns / 1000);
    return 0;
}
