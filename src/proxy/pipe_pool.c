#include "proxy/pipe_pool.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct pipe_pool {
        unsigned n;
        struct pipe v[PIPE_POOL_MAX];
};

struct pipe_pool *pipe_pool_new(void)
{
        return MEM_NEW(struct pipe_pool);
}

static void pipe_close(struct pipe *p)
{
        close(p->rd);
        close(p->wr);
        *p = (struct pipe){ -1, -1, 0 };
}

void pipe_pool_free(struct pipe_pool *p)
{
        if (!p)
                return;
        while (p->n)
                pipe_close(&p->v[--p->n]);
        free(p);
}

bool pipe_take(struct pipe_pool *p, struct pipe *out)
{
        int fd[2];

        if (p->n) {
                *out = p->v[--p->n];
                return true;
        }
        if (pipe2(fd, O_NONBLOCK | O_CLOEXEC) < 0)
                return false;
        fcntl(fd[1], F_SETPIPE_SZ, PIPE_BYTES); /* refused past the user's limit: the default of 64 KiB does too */
        *out = (struct pipe){ fd[0], fd[1], 0 };
        return true;
}

void pipe_give(struct pipe_pool *p, struct pipe *pipe)
{
        if (pipe->rd < 0)
                return;
        if (pipe->n || p->n == PIPE_POOL_MAX) {
                pipe_close(pipe);
                return;
        }
        p->v[p->n++] = *pipe;
        *pipe = (struct pipe){ -1, -1, 0 };
}
