/* What kind of answer a message is, in CoreDNS's words: the log's classes, and cases of denial.
 *
 * Threads: any. Ownership: a view into the caller's octets.
 */
#pragma once

#include "message.h"

enum answer_type {
    ANSWER_NOERROR,
    ANSWER_NXDOMAIN,
    ANSWER_SERVERERROR,
    ANSWER_NODATA,
    ANSWER_DELEGATION,
    ANSWER_META,
    ANSWER_UPDATE,
    ANSWER_OTHERERROR,
};

/** Classes of an answer, as bits. */
enum { CLASS_SUCCESS = 1, CLASS_DENIAL = 2, CLASS_ERROR = 4, CLASS_ALL = 7 };

/** A reply's type. rcode is the extended one; signatures are looked at when the reply has DO. */
enum answer_type answer_type_of(const struct message *query, unsigned rcode, const uint8_t *reply,
                                uint32_t len);
const char *answer_type_name(enum answer_type type);

unsigned answer_class_of(enum answer_type type);
const char *answer_class_name(unsigned answer_class);
