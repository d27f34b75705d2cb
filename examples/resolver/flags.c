/* The command line.
 *
 * Happy path: every argument is looked up in the table below and its value stored.
 * Failure modes: an unknown flag, a missing value or a bad boolean prints Go's message and the
 * usage on stderr and exits with 2; an argument that is no flag is CoreDNS's "extra command line
 * arguments" and exits with 1.
 */
#include "flags.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct flag_def {
    const char *name;
    const char *value; /**< what it is called in the usage; NULL for a boolean */
    size_t offset;
    const char *help;
    unsigned max; /**< of a number; 0: a text */
};

static const struct flag_def flag_defs[] = {
    {"conf", "string", offsetof(struct flags, conf),
     "Corefile to load, or stdin (default \"Corefile\")"},
    {"dns.port", "string", offsetof(struct flags, port), "Default port (default \"53\")"},
    {"json", NULL, offsetof(struct flags, json),
     "With -validate, print the effective configuration as JSON"},
    {"module", "string", offsetof(struct flags, module),
     "forward.so to load (default: $FWD_MODULE, the build tree's, the installed one)"},
    {"p", "string", offsetof(struct flags, port), "Default port (default \"53\")"},
    {"quiet", NULL, offsetof(struct flags, quiet), "Quiet mode (no initialization output)"},
    {"user", "string", offsetof(struct flags, user),
     "User to become once the listening sockets are open"},
    {"validate", NULL, offsetof(struct flags, validate), "Check the Corefile and exit"},
    {"version", NULL, offsetof(struct flags, version), "Show version"},
    {"workers", "number", offsetof(struct flags, workers),
     "Threads that read clients and upstreams (default: half of the CPUs, at least 1)",
     FLAGS_WORKERS_MAX},
};

static void usage_print(const char *program)
{
    (void)fprintf(stderr, "Usage of %s:\n", program);
    for (size_t i = 0; i < sizeof(flag_defs) / sizeof(flag_defs[0]); i++) {
        const struct flag_def *def = &flag_defs[i];
        (void)fprintf(stderr, "  -%s%s%s\n    \t%s\n", def->name, def->value != NULL ? " " : "",
                      def->value != NULL ? def->value : "", def->help);
    }
}

static const struct flag_def *flag_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(flag_defs) / sizeof(flag_defs[0]); i++) {
        if (strlen(flag_defs[i].name) == len && memcmp(flag_defs[i].name, name, len) == 0) {
            return &flag_defs[i];
        }
    }
    return NULL;
}

/* The spellings of strconv.ParseBool. */
static bool boolean_parse(const char *text, bool *ret)
{
    static const char *const words[2][6] = {{"0", "f", "F", "false", "FALSE", "False"},
                                            {"1", "t", "T", "true", "TRUE", "True"}};
    for (int value = 0; value < 2; value++) {
        for (size_t i = 0; i < 6; i++) {
            if (strcmp(text, words[value][i]) == 0) {
                *ret = value;
                return true;
            }
        }
    }
    return false;
}

static void extra_arguments_refuse(int argc, char **argv, int first)
{
    (void)fprintf(stderr, "extra command line arguments: [");
    for (int i = first; i < argc; i++) {
        (void)fprintf(stderr, "%s%s", i == first ? "" : " ", argv[i]);
    }
    (void)fprintf(stderr, "]\n");
    exit(1);
}

static _Noreturn void flags_refuse(const char *program, const char *format, const char *a,
                                   const char *b)
{
    (void)fprintf(stderr, format, a, b);
    (void)fputc('\n', stderr);
    usage_print(program);
    exit(2);
}

static void flag_store(struct flags *flags, const struct flag_def *def, const char *value,
                       const char *program)
{
    char *member = (char *)flags + def->offset;
    if (def->max > 0) {
        char *end;
        unsigned long number = strtoul(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != '\0' || number < 1 || number > def->max) {
            flags_refuse(program, "invalid value \"%s\" for flag -%s: parse error", value,
                         def->name);
        }
        *(unsigned *)member = (unsigned)number;
    } else if (def->value != NULL) {
        *(const char **)member = value;
    } else if (!boolean_parse(value, (bool *)member)) {
        flags_refuse(program, "invalid boolean value \"%s\" for -%s: parse error", value,
                     def->name);
    }
}

/** Parses the command line. */
void flags_parse(struct flags *flags, int argc, char **argv)
{
    *flags = (struct flags){.port = "53"};
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (argument[0] != '-' || argument[1] == '\0') {
            extra_arguments_refuse(argc, argv, i);
        }
        const char *name = argument + (argument[1] == '-' ? 2 : 1);
        if (name[0] == '\0') { /* "--" ends the flags */
            if (i + 1 < argc) {
                extra_arguments_refuse(argc, argv, i + 1);
            }
            return;
        }
        size_t len = strcspn(name, "=");
        if (name[0] == '-' || len == 0) {
            flags_refuse(argv[0], "bad flag syntax: %s%s", argument, "");
        }
        const char *value = name[len] == '=' ? name + len + 1 : NULL;
        const struct flag_def *def = flag_find(name, len);
        if (def == NULL) {
            if (strcmp(name, "help") == 0 || strcmp(name, "h") == 0) {
                usage_print(argv[0]);
                exit(0);
            }
            char bare[128];
            (void)snprintf(bare, sizeof(bare), "%.*s", (int)len, name);
            flags_refuse(argv[0], "flag provided but not defined: -%s%s", bare, "");
        }
        if (value == NULL && def->value == NULL) {
            value = "true";
        } else if (value == NULL && i + 1 < argc) {
            value = argv[++i];
        } else if (value == NULL) {
            flags_refuse(argv[0], "flag needs an argument: -%s%s", def->name, "");
        }
        flag_store(flags, def, value, argv[0]);
    }
}
