/* The table of metric families: one row each, read by metrics.c and by describe(). */
#pragma once

#include <stddef.h>

struct metric_def {
    const char *name;
    const char *type; /**< "counter", "gauge", "histogram" */
    const char *help;
    const char *labels[4]; /**< ended by NULL when fewer */
};

extern const struct metric_def metric_defs[];
extern const size_t metric_defs_count;
