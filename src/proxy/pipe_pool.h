/* Pipes for splice(2), kept by a worker for whoever moves bytes right now. A connection that is idle holds none. */
#ifndef PROXY_PIPE_POOL_H
#define PROXY_PIPE_POOL_H

#include <stdbool.h>
#include <stddef.h>

enum { PIPE_POOL_MAX = 64, PIPE_BYTES = 256 * 1024 };

struct pipe {
        int rd, wr;
        size_t n; /* bytes in it */
};

struct pipe_pool;

struct pipe_pool *pipe_pool_new(void);
void pipe_pool_free(struct pipe_pool *p);
bool pipe_take(struct pipe_pool *p, struct pipe *out);  /* false: no descriptors left; copy instead */
void pipe_give(struct pipe_pool *p, struct pipe *pipe); /* one that still holds bytes is closed */

#endif
