/* Where access log lines go: a writer thread for each file, with a bounded queue. See access_log.h. */
#ifndef PROXY_LOG_SINK_H
#define PROXY_LOG_SINK_H

#include "base/buf.h"
#include "base/diag.h"

struct log_sinks;
struct log_sink;
struct worker;

enum {
        LOG_SINKS_MAX = 64,
        LOG_QUEUE_BYTES = 4 << 20, /* of one sink, not yet taken by its writer; more is dropped and counted */
};

/* The sink of a path ("/dev/stdout" and "/dev/stderr" are the process's own); the same for the same path, until the process ends. NULL with
 * a diagnostic when the file cannot be opened. Main thread. */
struct log_sink *log_sink_get(struct log_sinks *l, const char *path, const struct diag_at *at, struct diags *d);
/* A buffer to append whole lines to; handed over at the end of the loop's turn. On the worker's thread. */
struct buf *log_buffer(struct worker *w, struct log_sink *s);

#endif
