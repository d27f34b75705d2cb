/* Sending datagrams in batches.
 *
 * Happy path: queue per socket, one sendmmsg per batch and socket. On a socket for all addresses
 * each datagram says which address it is to leave from: the one that the client asked. Failure
 * modes: a datagram that the kernel refuses is dropped, as UDP may; the others of the batch still
 * go.
 */
#include "outbox.h"

#include "log.h"

#include <stdlib.h>
#include <string.h>

struct outbox {
    unsigned lane;
    int fd; /* of all that is queued */
    unsigned count;
    uint32_t room_used;
    struct text lines;
    struct mmsghdr messages[OUTBOX_MESSAGES];
    struct iovec data[OUTBOX_MESSAGES];
    union address remotes[OUTBOX_MESSAGES];
    struct address_control controls[OUTBOX_MESSAGES];
    uint8_t room[OUTBOX_ROOM];
};

/** Makes an outbox; its pages are touched only as far as they are used. */
struct outbox *outbox_create(unsigned lane)
{
    struct outbox *outbox = calloc(1, sizeof(*outbox));
    if (outbox != NULL) {
        outbox->lane = lane;
    }
    return outbox;
}

/** The thread's number. */
unsigned outbox_lane(const struct outbox *outbox)
{
    return outbox->lane;
}

/** Ends an outbox. */
void outbox_destroy(struct outbox *outbox)
{
    if (outbox != NULL) {
        outbox_flush(outbox);
        text_fini(&outbox->lines);
        free(outbox);
    }
}

/** Finds room. */
uint8_t *outbox_room(struct outbox *outbox, uint32_t need)
{
    if (need > OUTBOX_ROOM - outbox->room_used) {
        outbox_flush(outbox);
    }
    return outbox->room + outbox->room_used;
}

static void control_fill(struct msghdr *header, struct address_control *control,
                         const union address *local)
{
    header->msg_control = control;
    bool v4 = local->any.sa_family == AF_INET;
    header->msg_controllen =
        CMSG_SPACE(v4 ? sizeof(struct in_pktinfo) : sizeof(struct in6_pktinfo));
    struct cmsghdr *message = CMSG_FIRSTHDR(header);
    if (v4) {
        const struct in_pktinfo info = {.ipi_spec_dst = local->in.sin_addr};
        message->cmsg_level = IPPROTO_IP;
        message->cmsg_type = IP_PKTINFO;
        message->cmsg_len = CMSG_LEN(sizeof(info));
        memcpy(CMSG_DATA(message), &info, sizeof(info));
        return;
    }
    const struct in6_pktinfo info = {
        .ipi6_addr = local->in6.sin6_addr,
        .ipi6_ifindex = local->in6.sin6_scope_id,
    };
    message->cmsg_level = IPPROTO_IPV6;
    message->cmsg_type = IPV6_PKTINFO;
    message->cmsg_len = CMSG_LEN(sizeof(info));
    memcpy(CMSG_DATA(message), &info, sizeof(info));
}

/** Queues a datagram. */
void outbox_queue(struct outbox *outbox, int fd, const struct client *client, const uint8_t *data,
                  uint32_t len)
{
    bool in_room = data >= outbox->room && data < outbox->room + OUTBOX_ROOM;
    if (outbox->count > 0 && (outbox->fd != fd || outbox->count == OUTBOX_MESSAGES)) {
        /* What was just built in the room must outlive the flush: it stays where it is, the room
         * starts behind it. */
        outbox_flush(outbox);
        outbox->room_used = in_room ? (uint32_t)(data - outbox->room) : 0;
    }
    unsigned i = outbox->count++;
    outbox->fd = fd;
    outbox->room_used += in_room ? len : 0;
    outbox->remotes[i] = client->remote;
    outbox->data[i] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct msghdr *header = &outbox->messages[i].msg_hdr;
    *header = (struct msghdr){
        .msg_name = &outbox->remotes[i],
        .msg_namelen = address_len(&client->remote),
        .msg_iov = &outbox->data[i],
        .msg_iovlen = 1,
    };
    if (client->local.any.sa_family != AF_UNSPEC) {
        control_fill(header, &outbox->controls[i], &client->local);
    }
}

/** The lines' buffer. */
struct text *outbox_lines(struct outbox *outbox)
{
    return &outbox->lines;
}

/** Sends what is queued. */
void outbox_flush(struct outbox *outbox)
{
    for (unsigned sent = 0; sent < outbox->count;) {
        int n = sendmmsg(outbox->fd, outbox->messages + sent, outbox->count - sent, MSG_DONTWAIT);
        sent += n > 0 ? (unsigned)n : 1; /* an error belongs to the first one, which is skipped */
    }
    outbox->count = 0;
    outbox->room_used = 0;
    if (outbox->lines.len > 0) {
        log_write(outbox->lines.data, outbox->lines.len);
        outbox->lines.len = 0;
    }
}
