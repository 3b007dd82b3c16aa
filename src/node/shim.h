/* The shim: one small process a running container. It holds the container's standard streams, writes its log, waits for its end and writes
 * that down, so that the node may stop, crash and start again while containers run.
 *
 * Its folder (RUN/ctr/UID/NAME-N) is the whole interface:
 *      lock      locked (flock) as long as the shim lives
 *      status    "key value" lines: pid, started_us; then exit_code, signal, oom, finished_us; or error (it never ran)
 *      sock      Unix socket: frames of u8 type, u32 little-endian length, payload
 */
#ifndef NODE_SHIM_H
#define NODE_SHIM_H

#include "base/buf.h"

enum shim_frame {
        SHIM_STDIN, /* to the shim: bytes for standard input; empty: its end */
        SHIM_STDOUT,
        SHIM_STDERR, /* from the shim, after SHIM_ATTACH */
        SHIM_RESIZE, /* to: u16 columns, u16 rows, little-endian */
        SHIM_KILL,   /* to: u8 signal number, for the container's first process */
        SHIM_ATTACH, /* to: send me the output from now on */
};

enum { SHIM_FRAME_MAX = 65536 };

struct shim_opts {
        const char *dir, *id, *bundle, *runtime_root, *log, *cgroup;
        bool open_stdin, stdin_once, tty;
};

/* Runs the role: creates and starts the container, tells the caller (who is our parent process) by returning 0 there; the rest happens in a
 * child of its own session. Returns 1 when the container could not be started: `status` then holds `error`. */
int shim_run(const struct shim_opts *o);

struct shim_status {
        bool known; /* there is a status file */
        int pid;
        uint64_t started_us, finished_us;
        bool finished, oom;
        int exit_code, signal;
        char *error; /* owned; NULL */
};

void shim_status_read(const char *dir, struct shim_status *s);
void shim_status_fini(struct shim_status *s);
/* Does a shim live in this folder? */
bool shim_alive(const char *dir);
/* Connects to the shim (blocking socket made non-blocking); the fd, or -errno. */
int shim_connect(const char *dir);
void shim_frame_put(struct buf *b, enum shim_frame type, struct str payload);
int shim_kill(const char *dir, int signo);

#endif
