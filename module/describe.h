/* The module's own document: what describe() returns and what is installed as forward.json.
 *
 * Threads: any. Ownership: the text belongs to the module and stays valid for ever. Limits: made
 * once, at the first call. Standards: JSON (RFC 8259); the config section lists options, it is not
 * JSON Schema.
 */
#pragma once

/** The document: UTF-8 JSON, NUL-terminated, ends with a line end; never NULL. */
const char *describe_text(void);
