/* Access logs: filters, formats and sinks built from envoy.config.accesslog.v3.AccessLog; and the writers behind them.
 *
 * A worker appends finished lines to a buffer of its own per sink and hands it over at the end of the loop's turn; a thread per file
 * writes. The queue of a sink is bounded in bytes: a disk that does not keep up costs lines (counted in access_log.<path>.dropped),
 * never a stalled request. SIGUSR1 makes every file sink reopen its path. */
#ifndef PROXY_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_H

#include "base/diag.h"
#include "proxy/stream_info.h"

struct worker;
struct server;
struct log_sinks; /* all writers of the process; in struct server */
struct Xds__AccessLog;

struct access_logs; /* immutable, shared by what was built from the same list; NULL: none */

/* Builds `n` loggers. NULL with n > 0 only on error, with diagnostics. Main thread. */
struct access_logs *access_logs_build(struct server *s, struct Xds__AccessLog *const *v, size_t n, const struct diag_at *at,
                                      struct diags *d);
void access_logs_free(struct access_logs *l); /* any thread; after the last use */
/* Runs the filters and writes lines. On the worker's thread, when `si` is complete. NULL is nothing. */
void access_logs_write(const struct access_logs *l, struct worker *w, const struct stream_info *si);

struct log_sinks *log_sinks_new(struct server *s);
void log_sinks_reopen(struct log_sinks *l); /* SIGUSR1 */
void log_sinks_free(struct log_sinks *l);   /* writes out what is queued (at most 2 s), then stops the threads */

/* A worker's side: buffers filled this turn. */
struct log_buffers;
struct log_buffers *log_buffers_new(struct worker *w);
void log_buffers_free(struct log_buffers *b); /* hands over what is left */

#endif
