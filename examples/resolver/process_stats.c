/* Reading /proc/self.
 *
 * Happy path: stat, fd, limits and net/netstat, each its series.
 * Failure modes: a file that cannot be read leaves its series out.
 */
#include "process_stats.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void number_write(struct text *out, const char *name, const char *type, const char *help,
                         double value)
{
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, type, name, value);
}

static bool file_read(const char *path, char *buffer, size_t cap)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    size_t len = fread(buffer, 1, cap - 1, file);
    (void)fclose(file);
    buffer[len] = '\0';
    return len > 0;
}

/* Seconds since 1970 at which the machine started. */
static double boot_time(void)
{
    char stat[16384];
    const char *line =
        file_read("/proc/stat", stat, sizeof(stat)) ? strstr(stat, "\nbtime ") : NULL;
    return line != NULL ? strtod(line + 7, NULL) : 0;
}

static void stat_write(struct text *out)
{
    char stat[2048];
    if (!file_read("/proc/self/stat", stat, sizeof(stat))) {
        return;
    }
    /* The second field, a name in parentheses, may hold anything; what follows is numbers. */
    char *at = strrchr(stat, ')');
    double fields[25] = {0};                      /* by their numbers in proc(5) */
    at = at != NULL ? strchr(at + 2, ' ') : NULL; /* behind the third field, a letter */
    for (size_t i = 4; at != NULL && i < sizeof(fields) / sizeof(fields[0]); i++) {
        fields[i] = strtod(at, &at);
    }
    double ticks = (double)sysconf(_SC_CLK_TCK);
    number_write(out, "process_cpu_seconds_total", "counter",
                 "Total user and system CPU time spent in seconds.",
                 (fields[14] + fields[15]) / ticks);
    number_write(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
                 fields[24] * (double)sysconf(_SC_PAGESIZE));
    number_write(out, "process_start_time_seconds", "gauge",
                 "Start time of the process since unix epoch in seconds.",
                 boot_time() + fields[22] / ticks);
    number_write(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
                 fields[23]);
}

static double limit_of(int resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) {
        return 0;
    }
    return limit.rlim_cur == RLIM_INFINITY ? 18446744073709551615.0 : (double)limit.rlim_cur;
}

static void descriptors_write(struct text *out)
{
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) {
        return;
    }
    double count = -1; /* the directory's own */
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    (void)closedir(directory);
    number_write(out, "process_open_fds", "gauge", "Number of open file descriptors.", count);
}

/* The column of a name in the IpExt lines, which are names first, then values. */
static double network_find(const char *names, const char *values, const char *wanted)
{
    size_t len = strlen(wanted);
    while (*names != '\n' && *names != '\0' && *values != '\0') {
        const char *name = names + strspn(names, " ");
        const char *value = values + strspn(values, " ");
        names = name + strcspn(name, " \n");
        values = value + strcspn(value, " \n");
        if ((size_t)(names - name) == len && memcmp(name, wanted, len) == 0) {
            return strtod(value, NULL);
        }
    }
    return 0;
}

static void network_write(struct text *out)
{
    char text[16384];
    if (!file_read("/proc/self/net/netstat", text, sizeof(text))) {
        return;
    }
    const char *names = strstr(text, "IpExt: ");
    const char *values = names != NULL ? strstr(names + 1, "\nIpExt: ") : NULL;
    if (values == NULL) {
        return;
    }
    number_write(out, "process_network_receive_bytes_total", "counter",
                 "Number of bytes received by the process over the network.",
                 network_find(names, values + 1, "InOctets"));
    number_write(out, "process_network_transmit_bytes_total", "counter",
                 "Number of bytes sent by the process over the network.",
                 network_find(names, values + 1, "OutOctets"));
}

/** Writes the series. */
void process_stats_write(struct text *out)
{
    stat_write(out);
    descriptors_write(out);
    number_write(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.",
                 limit_of(RLIMIT_NOFILE));
    number_write(out, "process_virtual_memory_max_bytes", "gauge",
                 "Maximum amount of virtual memory available in bytes.", limit_of(RLIMIT_AS));
    network_write(out);
}
