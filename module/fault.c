/* Wording and keeping failures.
 *
 * Happy path: whoever ends an attempt that failed notes its outcome; info reads the last one. Failure modes: none; a text that is too long is cut.
 */
#include "fault.h"

#include "error.h"

#include <stdio.h>

const char *fault_phase(enum phase phase)
{
    static const char *const names[] = {"wait", "dial", "handshake", "write", "read"};
    return names[phase];
}

const char *fault_proto(uint32_t proto)
{
    static const char *const names[] = {"none", "udp", "tcp", "tls", "https"};
    return proto < sizeof(names) / sizeof(names[0]) ? names[proto] : "?";
}

void fault_print(const struct outcome *outcome, const char *to, char *text, size_t size)
{
    char cause[96] = "";
    if (outcome->why != NULL) {
        (void)snprintf(cause, sizeof(cause), ": %s", outcome->why);
    } else if (outcome->sys_errno != 0 && outcome->error == FWD_ERR_SEND) {
        (void)snprintf(cause, sizeof(cause), ": errno %d", outcome->sys_errno);
    }
    (void)snprintf(text, size, "%s %s %s: %s%s after %.3f ms", fault_phase(outcome->phase), fault_proto(outcome->proto), to,
                   error_text(outcome->error), cause, (double)outcome->elapsed_ns / 1e6);
}

void fault_book_init(struct fault_book *book)
{
    *book = (struct fault_book){.last.error = FWD_OK};
    (void)pthread_mutex_init(&book->mutex, NULL);
}

void fault_book_fini(struct fault_book *book)
{
    (void)pthread_mutex_destroy(&book->mutex);
}

void fault_note(struct fault_book *book, const struct outcome *outcome, const char *text, uint64_t real_ns)
{
    struct fault fault = {
        .error = outcome->error,
        .phase = outcome->phase,
        .proto = outcome->proto,
        .elapsed_ns = outcome->elapsed_ns,
        .real_ns = real_ns,
    };
    (void)snprintf(fault.text, sizeof(fault.text), "%s", text);
    pthread_mutex_lock(&book->mutex);
    book->last = fault;
    pthread_mutex_unlock(&book->mutex);
}

void fault_get(struct fault_book *book, struct fault *ret)
{
    pthread_mutex_lock(&book->mutex);
    *ret = book->last;
    pthread_mutex_unlock(&book->mutex);
}
