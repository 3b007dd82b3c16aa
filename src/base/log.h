/* The process's own log: one line an event, to standard error, with a level and a component. Thread-safe; a line is one write(2).
 * The level and the component levels are the only process-wide mutable state in base. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL, LOG_OFF };

extern _Atomic int log_level_now;

void log_set_level(enum log_level l);
bool log_level_parse(const char *name, enum log_level *l); /* Envoy's names: trace debug info warning error critical off */
const char *log_level_name(enum log_level l);
void log_write(enum log_level l, const char *component, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define LOG(level, component, ...)                                    \
        do {                                                          \
                if ((int)(level) >= log_level_now)                    \
                        log_write((level), (component), __VA_ARGS__); \
        } while (0)

#endif
