/* How the upstreams are, for people and programs: the module's info of every server block.
 *
 * Threads: any.
 */
#pragma once

#include "text.h"

struct service;

/** {"servers": [{"zones", "listen", "forward"}]}, forward being the module's document or null. */
void info_page_json(struct service *service, struct text *out);

/** The same as a table, one line per upstream, and its troubles below it. */
void info_page_text(struct service *service, struct text *out);
