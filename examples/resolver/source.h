/* What an epoll event of a worker points to: the first member of every such object.
 *
 * Threads: constant once made.
 */
#pragma once

enum source_kind { SOURCE_WAKE, SOURCE_MODULE, SOURCE_UDP, SOURCE_TCP_LISTEN, SOURCE_TCP_CONN };

struct source {
    enum source_kind kind;
};
