/* A network of the test's own: ports that nobody else has, limits that touch nobody else. */
#pragma once

#include <stdbool.h>

/** Moves this thread, and those that it starts from here on, into a network with loopback alone.
 * @return false, and says so, where that is not allowed */
bool network_own(void);

/** Gives an interface of that network another name; it is down then. */
void network_rename(const char *from, const char *to);
