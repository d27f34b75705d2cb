/* Sockets of dnstap listeners.
 *
 * Happy path: bind and listen; known by their endpoints until nobody needs them. Failure modes: Go's
 * words, such as "listen unix /x: bind: address already in use".
 */
#include "tap_port.h"

#include "listener.h"
#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 16 };

struct tap_port {
    struct tap_port *next;
    unsigned refs;
    uint64_t generation; /* the newest that has it */
    bool local;
    int fd;
    char endpoint[];
};

static struct tap_port *ports;

static bool unix_refuse(const char *path, const char *call, int error, struct failure *failure)
{
    char why[128];
    (void)snprintf(why, sizeof(why), "%s", strerror(error));
    why[0] = (char)tolower((unsigned char)why[0]);
    return failure_set(failure, "listen unix %s: %s: %s", path, call, why);
}

static int unix_listen(const char *path, struct failure *failure)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        (void)unix_refuse(path, "bind", EINVAL, failure);
        return -1;
    }
    (void)strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const char *call = "socket";
    if (fd >= 0) {
        call = "bind";
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
            listen(fd, BACKLOG) == 0) {
            return fd;
        }
    }
    (void)unix_refuse(path, call, errno, failure);
    if (fd >= 0) {
        (void)close(fd);
    }
    return -1;
}

static int tcp_listen(const char *endpoint, struct failure *failure)
{
    union address address;
    bool all;
    if (!listener_lookup(endpoint, &address, &all, failure)) {
        return -1;
    }
    uint16_t wanted = address_port(&address);
    int fd = listener_stream(&address, all, failure);
    if (fd >= 0 && wanted == 0) {
        char text[ADDRESS_TEXT_MAX];
        socklen_t len = sizeof(address);
        (void)getsockname(fd, &address.any, &len);
        address_print(&address, false, text);
        log_print(FWD_LEVEL_INFO, "plugin/dnstap: listening on %s", text);
    }
    return fd;
}

static struct tap_port *port_open(const struct tap_config *config, struct failure *failure)
{
    struct tap_port *port = malloc(sizeof(*port) + strlen(config->endpoint) + 1);
    if (port == NULL) {
        (void)failure_set(failure, "out of memory");
        return NULL;
    }
    *port = (struct tap_port){.next = ports, .local = config->transport == TAP_UNIX};
    (void)strcpy(port->endpoint, config->endpoint);
    port->fd = port->local ? unix_listen(port->endpoint, failure)
                          : tcp_listen(port->endpoint, failure);
    if (port->fd < 0) {
        free(port);
        return NULL;
    }
    ports = port;
    return port;
}

/** Takes. */
struct tap_port *tap_port_take(const struct tap_config *config, uint64_t generation,
                               struct failure *failure)
{
    bool local = config->transport == TAP_UNIX;
    struct tap_port *port = ports;
    while (port != NULL && (port->local != local || strcmp(port->endpoint, config->endpoint) != 0)) {
        port = port->next;
    }
    if (port != NULL && port->generation == generation) {
        (void)failure_set(failure, "listen %s %s: bind: address already in use",
                          local ? "unix" : "tcp", config->endpoint);
        return NULL;
    }
    if (port == NULL) {
        port = port_open(config, failure);
    }
    if (port != NULL) {
        port->generation = generation;
        port->refs++;
    }
    return port;
}

/** The listening descriptor, which does not block. */
int tap_port_fd(const struct tap_port *port)
{
    return port->fd;
}

/** Lets go. */
void tap_port_drop(struct tap_port *port)
{
    if (port == NULL || --port->refs > 0) {
        return;
    }
    struct tap_port **at = &ports;
    while (*at != port) {
        at = &(*at)->next;
    }
    *at = port->next;
    (void)close(port->fd);
    if (port->local) {
        (void)unlink(port->endpoint);
    }
    free(port);
}
