/* Random numbers in bulk from the kernel, handed out two octets at a time.
 *
 * Happy path: a thread takes the next two octets of its own buffer; every 512 numbers the buffer is filled again by getrandom, or by
 * the host's fwd.random/1. Nothing is derived: what is handed out is what the source gave, and it is wiped as it is handed out.
 *
 * Failure modes: the source fails: the caller gets an error and must not send. fork: the child's copy of the buffer is dropped,
 * else parent and child would use the same IDs.
 */
#include "random.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

enum { BUFFER_SIZE = 1024 };

struct buffer {
    const struct fwd_random *source; /* whose octets these are: instances may have different hosts */
    uint32_t epoch;
    uint32_t left;
    uint8_t octets[BUFFER_SIZE];
};

static _Thread_local struct buffer tls_buffer;
static atomic_uint fork_epoch = 1;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void child_after_fork(void)
{
    atomic_fetch_add_explicit(&fork_epoch, 1, memory_order_relaxed);
}

static void watch_fork(void)
{
    (void)pthread_atfork(NULL, NULL, child_after_fork);
}

static int fill_from_kernel(uint8_t *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(buf, len, 0);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return FWD_ERR_SYSTEM;
        }
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

static int refill(struct buffer *b, const struct fwd_random *source, uint32_t epoch)
{
    (void)pthread_once(&fork_once, watch_fork);
    b->left = 0;
    int r = source != NULL ? source->fill(source->arg, b->octets, BUFFER_SIZE)
                           : fill_from_kernel(b->octets, BUFFER_SIZE);
    if (r < 0) {
        return FWD_ERR_SYSTEM;
    }
    b->source = source;
    b->epoch = epoch;
    b->left = BUFFER_SIZE;
    return 0;
}

int random_u16(const struct services *services, uint16_t *ret)
{
    struct buffer *b = &tls_buffer;
    uint32_t epoch = atomic_load_explicit(&fork_epoch, memory_order_relaxed);
    if (b->left < 2 || b->source != services->random || b->epoch != epoch) {
        int r = refill(b, services->random, epoch);
        if (r < 0) {
            return r;
        }
    }
    b->left -= 2;
    memcpy(ret, b->octets + b->left, 2);
    memset(b->octets + b->left, 0, 2);
    return 0;
}

int random_below(const struct services *services, uint16_t bound, uint16_t *ret)
{
    uint32_t usable = 65536U / bound * bound; /* numbers from here up would favour the low results */
    uint16_t n;
    do {
        int r = random_u16(services, &n);
        if (r < 0) {
            return r;
        }
    } while (n >= usable);
    *ret = (uint16_t)(n % bound);
    return 0;
}
