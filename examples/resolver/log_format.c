/* Formats.
 *
 * Happy path: a format is cut into labels and literal text once, when the Corefile is read; a line
 * is their values one after the other. Failure modes: out of memory when it is cut; a label that is
 * not known is literal text.
 */
#include "log_format.h"

#include "answer_type.h"
#include "mnemonic.h"
#include "name.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const labels[] = {
    "{type}",  "{name}",  "{class}",    "{proto}",   "{size}", "{remote}",
    "{port}",  "{local}", "{>id}",      "{>opcode}", "{>do}",  "{>bufsize}",
    "{rcode}", "{rsize}", "{duration}", "{>rflags}", "{/",
};

static const char *label_find(const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        size_t want = strlen(labels[i]);
        bool metadata = labels[i][1] == '/';
        if ((metadata ? len >= want : len == want) && memcmp(labels[i], text, want) == 0) {
            return labels[i];
        }
    }
    return NULL;
}

static bool node_add(struct log_format *format, const char *label, const char *literal, size_t len)
{
    struct log_node *nodes = reallocarray(format->nodes, format->count + 1, sizeof(*nodes));
    if (nodes == NULL) {
        return false;
    }
    format->nodes = nodes;
    struct log_node *node = &nodes[format->count];
    *node = (struct log_node){.label = label};
    if (literal != NULL) {
        node->literal = strndup(literal, len);
        if (node->literal == NULL) {
            return false;
        }
    }
    format->count++;
    return true;
}

/** A label is what lies between a closing brace and the last opening brace before it; anything else
 * is literal. */
bool log_format_parse(struct log_format *format, const char *text)
{
    const char *literal = text;
    for (const char *close = strchr(text, '}'); close != NULL; close = strchr(close + 1, '}')) {
        const char *open = memrchr(literal, '{', (size_t)(close - literal));
        const char *label = open != NULL ? label_find(open, (size_t)(close - open) + 1) : NULL;
        if (label == NULL) {
            continue;
        }
        if (open > literal && !node_add(format, NULL, literal, (size_t)(open - literal))) {
            return false;
        }
        bool metadata = label[1] == '/';
        if (!node_add(format, label, metadata ? open + 2 : NULL, (size_t)(close - open) - 2)) {
            return false;
        }
        literal = close + 1;
    }
    return *literal == '\0' || node_add(format, NULL, literal, strlen(literal));
}

/* The IP address in brackets if it is IPv6, "-" when it is not known. */
static void address_append(struct text *line, const union address *address)
{
    char host[INET6_ADDRSTRLEN] = "-";
    struct fwd_addr plain = address_to_abi(address);
    if (address->any.sa_family != AF_UNSPEC) {
        (void)inet_ntop(plain.family == 4 ? AF_INET : AF_INET6, plain.ip, host, sizeof(host));
    }
    text_printf(line, strchr(host, ':') != NULL ? "[%s]" : "%s", host);
}

static void flags_append(struct text *line, const uint8_t *wire)
{
    static const struct {
        uint8_t octet;
        uint8_t bit;
        const char *name;
    } flags[] = {{2, BIT_QR, "qr"}, {2, BIT_AA, "aa"}, {2, BIT_TC, "tc"}, {2, BIT_RD, "rd"},
                 {3, BIT_RA, "ra"}, {3, BIT_Z, "z"},   {3, BIT_AD, "ad"}, {3, BIT_CD, "cd"}};
    const char *comma = "";
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if ((wire[flags[i].octet] & flags[i].bit) != 0) {
            text_printf(line, "%s%s", comma, flags[i].name);
            comma = ",";
        }
    }
}

/* Seconds with as many decimals as are needed. */
static void duration_append(struct text *line, uint64_t ns)
{
    char fraction[16];
    int len = snprintf(fraction, sizeof(fraction), ".%09u", (unsigned)(ns % 1000000000u));
    while (len > 0 && (fraction[len - 1] == '0' || fraction[len - 1] == '.')) {
        len--;
        if (fraction[len] == '.') {
            break;
        }
    }
    text_printf(line, "%llu%.*ss", (unsigned long long)(ns / 1000000000u), len, fraction);
}

static void query_append(struct text *line, const char *label, const struct log_event *event)
{
    const struct message *query = event->query;
    char buffer[MNEMONIC_MAX];
    char name[NAME_TEXT_MAX];
    if (strcmp(label, "{type}") == 0) {
        text_printf(line, "%s", type_name(query->qtype, buffer));
    } else if (strcmp(label, "{name}") == 0) {
        name_to_text(query->wire + HEADER_LEN, name);
        text_printf(line, "%s", name);
    } else if (strcmp(label, "{class}") == 0) {
        text_printf(line, "%s", class_name(query->qclass, buffer));
    } else if (strcmp(label, "{proto}") == 0) {
        text_printf(line, "%s", event->stream ? "tcp" : "udp");
    } else if (strcmp(label, "{size}") == 0) {
        text_printf(line, "%u", query->len);
    } else if (strcmp(label, "{remote}") == 0) {
        address_append(line, event->client);
    } else if (strcmp(label, "{port}") == 0) {
        text_printf(line, "%u", address_port(event->client));
    } else if (strcmp(label, "{local}") == 0) {
        address_append(line, event->local);
    } else if (strcmp(label, "{>id}") == 0) {
        text_printf(line, "%u", get16(query->wire));
    } else if (strcmp(label, "{>opcode}") == 0) {
        text_printf(line, "%u", query->wire[2] >> 3 & 15);
    } else if (strcmp(label, "{>do}") == 0) {
        text_printf(line, "%s", (query->opt_ttl & 0x8000) != 0 ? "true" : "false");
    } else if (strcmp(label, "{>bufsize}") == 0) {
        text_printf(line, "%u", message_reply_limit(query, event->stream));
    }
}

/* What is known once there is a reply. */
static void reply_append(struct text *line, const char *label, const struct log_event *event)
{
    char buffer[MNEMONIC_MAX];
    if (event->reply == NULL) {
        text_append(line, "-", 1);
    } else if (strcmp(label, "{rcode}") == 0) {
        text_printf(line, "%s", rcode_name(event->rcode, buffer));
    } else if (strcmp(label, "{rsize}") == 0) {
        text_printf(line, "%u", event->reply_len);
    } else if (strcmp(label, "{duration}") == 0) {
        duration_append(line, event->duration_ns);
    } else {
        flags_append(line, event->reply);
    }
}

static void metadata_append(struct text *line, const char *name, const struct log_event *event)
{
    const char *value = "-";
    if (event->metadata && strcmp(name, "forward/upstream") == 0 && event->upstream != NULL) {
        value = event->upstream;
    } else if (event->metadata && event->reply != NULL && strncmp(name, "log/", 4) == 0) {
        enum answer_type type =
            answer_type_of(event->query, event->rcode, event->reply, event->reply_len);
        value = strcmp(name, "log/type") == 0    ? answer_type_name(type)
                : strcmp(name, "log/class") == 0 ? answer_class_name(answer_class_of(type))
                                                 : value;
    }
    text_append(line, value, strlen(value));
}

/** Appends the values. */
void log_format_append(const struct log_format *format, const struct log_event *event,
                       struct text *line)
{
    for (size_t n = 0; n < format->count; n++) {
        const struct log_node *node = &format->nodes[n];
        const char *label = node->label;
        if (label == NULL) {
            text_append(line, node->literal, strlen(node->literal));
        } else if (label[1] == '/') {
            metadata_append(line, node->literal, event);
        } else if (strcmp(label, "{rcode}") == 0 || strcmp(label, "{rsize}") == 0 ||
                   strcmp(label, "{duration}") == 0 || strcmp(label, "{>rflags}") == 0) {
            reply_append(line, label, event);
        } else {
            query_append(line, label, event);
        }
    }
}

/** Frees. */
void log_format_fini(struct log_format *format)
{
    for (size_t n = 0; n < format->count; n++) {
        free(format->nodes[n].literal);
    }
    free(format->nodes);
    *format = (struct log_format){0};
}
