/* The log of a test. Failure modes: what does not fit is left out. */
#include "log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { LEVELS = 8 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char text[16384];
static unsigned lines[LEVELS];

static void write_line(void *arg, uint32_t level, const char *line, uint32_t len)
{
    pthread_mutex_lock(&mutex);
    size_t at = strlen(text);
    snprintf(text + at, sizeof(text) - at, "%u %.*s\n", level, (int)len, line);
    lines[level % LEVELS]++;
    pthread_mutex_unlock(&mutex);
}

const struct fwd_log log_table = {.struct_size = sizeof(log_table), .write = write_line};

unsigned logged(const char *what)
{
    unsigned count = 0;
    pthread_mutex_lock(&mutex);
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) {
        count++;
    }
    pthread_mutex_unlock(&mutex);
    return count;
}

unsigned logged_at(uint32_t level)
{
    pthread_mutex_lock(&mutex);
    unsigned count = lines[level % LEVELS];
    pthread_mutex_unlock(&mutex);
    return count;
}

void log_clear(void)
{
    pthread_mutex_lock(&mutex);
    text[0] = '\0';
    memset(lines, 0, sizeof(lines));
    pthread_mutex_unlock(&mutex);
}
