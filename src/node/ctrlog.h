/* A container's log on disk, in the form that Kubernetes' runtimes write (CRI): one line an output line,
 *
 *      2026-11-24T06:05:00.123456Z stdout F text
 *
 * with P in place of F where the line goes on in the next one (longer than 16 KiB, or ended by the end of output). Rotated by size:
 * N.log, N.log.1 (older), N.log.2 (oldest). */
#ifndef NODE_CTRLOG_H
#define NODE_CTRLOG_H

#include "base/buf.h"

enum { CTRLOG_LINE_MAX = 16384, CTRLOG_FILES = 3 };
#define CTRLOG_FILE_BYTES (10u << 20)

enum ctrlog_stream { CTRLOG_STDOUT, CTRLOG_STDERR };

struct ctrlog {
        char *path;
        int fd;
        uint64_t size, max_bytes;
        struct buf line[2]; /* not yet ended, one a stream */
        uint64_t dropped;   /* bytes that the disk did not take */
};

int ctrlog_open(struct ctrlog *l, const char *path, uint64_t max_bytes /* 0: CTRLOG_FILE_BYTES */);
void ctrlog_write(struct ctrlog *l, enum ctrlog_stream s, struct str bytes);
void ctrlog_close(struct ctrlog *l); /* writes unfinished lines */

/* Reading. One record; `text` without the newline. False: not a record. */
struct ctrlog_record {
        uint64_t time_us;
        struct str time; /* as written */
        enum ctrlog_stream stream;
        bool partial;
        struct str text;
};

bool ctrlog_parse(struct str line, struct ctrlog_record *r);

#endif
