/* Happy path: a new namespace, its loopback up. Failure modes: without the right to it the test is
 * told; what else fails aborts. */
#include "network.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void change(unsigned long what, struct ifreq *request)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || ioctl(fd, what, request) != 0) {
        abort();
    }
    (void)close(fd);
}

bool network_own(void)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    if (unshare(CLONE_NEWNET) != 0) {
        (void)fprintf(stderr, "# SKIPPED: no network namespace (%s); run as root to test this\n",
                      strerror(errno));
        return false;
    }
    change(SIOCSIFFLAGS, &lo);
    return true;
}

void network_rename(const char *from, const char *to)
{
    struct ifreq request = {.ifr_flags = 0};
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", from);
    change(SIOCSIFFLAGS, &request);
    (void)snprintf(request.ifr_newname, sizeof(request.ifr_newname), "%s", to);
    change(SIOCSIFNAME, &request);
}
