#include "base/log.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Atomic int log_level_now = LOG_INFO;

static const char *const names[] = { "trace", "debug", "info", "warning", "error", "critical", "off" };

void log_set_level(enum log_level l)
{
        log_level_now = (int)l;
}

bool log_level_parse(const char *name, enum log_level *l)
{
        if (strcmp(name, "warn") == 0)
                name = "warning";
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
                if (strcmp(name, names[i]) == 0) {
                        *l = (enum log_level)i;
                        return true;
                }
        }
        return false;
}

const char *log_level_name(enum log_level l)
{
        return (size_t)l < ARRAY_LEN(names) ? names[l] : "?";
}

void log_write(enum log_level l, const char *component, const char *fmt, ...)
{
        char line[2048];
        struct timespec ts;
        struct tm tm;
        va_list ap;
        size_t n;

        clock_gettime(CLOCK_REALTIME, &ts);
        gmtime_r(&ts.tv_sec, &tm);
        n = strftime(line, 32, "%Y-%m-%dT%H:%M:%S", &tm);
        n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %s %s: ", ts.tv_nsec / 1000000, log_level_name(l), component);
        va_start(ap, fmt);
        int m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
        va_end(ap);
        if (m > 0)
                n += (size_t)m < sizeof(line) - n - 1 ? (size_t)m : sizeof(line) - n - 2;
        for (size_t i = 0; i < n; i++) /* one event, one line, whatever a peer sent */
                if ((unsigned char)line[i] < 0x20)
                        line[i] = ' ';
        line[n++] = '\n';
        ssize_t w = write(STDERR_FILENO, line, n);
        (void)w;
}
