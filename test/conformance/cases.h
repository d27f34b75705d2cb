/* Table-driven cases: a Corefile, or the text of forward directives, and what CoreDNS 1.14.7 makes
 * of it.
 *
 * In inputs and expectations @ stands for a scratch directory, the same for all rows of a program;
 * errors name the Corefile @/Corefile. Threads: none. Ownership: results are the caller's to free.
 */
#pragma once

#include <stdbool.h>

/** Makes the scratch directory. To be called in the test, since that is where it is removed again.
 */
void cases_open(void);
void cases_close(void);

/** Puts a file with this text, in which @ is replaced, into the scratch directory. */
void cases_file(const char *name, const char *text);

/** text with @ replaced. */
char *cases_text(const char *text);

/** Parses a Corefile. @return its error, or its blocks as `KEY KEY{directive[token token]
 * directive[token]}` one after the other, keys that are no zones as `!TEXT` */
char *cases_corefile(const char *text);

/** Parses the Corefile `. { TEXT }`. @return the error, or, with a member's name, that member of
 * the last forward stanza as JSON; without, all stanzas' from and upstreams as `FROM ADDR ADDR;` */
char *cases_stanza(const char *text, const char *member);
