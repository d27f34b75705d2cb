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

bool network_own(void)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    if (unshare(CLONE_NEWNET) != 0) {
        (void)fprintf(stderr, "# SKIPPED: no network namespace (%s); run as root to test this\n",
                      strerror(errno));
        return false;
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) != 0) {
        abort();
    }
    (void)close(fd);
    return true;
}
