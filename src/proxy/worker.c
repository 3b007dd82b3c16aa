#include "proxy/worker.h"

#include "base/chain.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/access_log.h"
#include "proxy/cluster_manager.h"
#include "proxy/cluster_private.h"
#include "proxy/listener.h"
#include "proxy/match.h"
#include "proxy/pipe_pool.h"
#include "proxy/rds.h"
#include "proxy/server.h"
#include "proxy/worker_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

uint64_t worker_conn_id(struct worker *w)
{
        return w->next_conn++ * w->server->nworkers + w->index;
}

void worker_post(struct worker *w, void (*fn)(void *arg), void *arg)
{
        loop_post(w->loop, fn, arg);
}

struct worker *worker_new(struct server *s, unsigned index)
{
        struct worker *w = MEM_NEW(struct worker);

        w->server = s;
        w->index = index;
        w->loop = loop_new();
        w->stats = stats_local_new(s->stats);
        w->pipes = pipe_pool_new();
        w->relay = mem_alloc(WORKER_RELAY_BYTES);
        w->logs = log_buffers_new(w);
        w->next_conn = 1;
        w->snapshot = cluster_manager_snapshot(s->clusters);
        return w;
}

static void *worker_main(void *arg)
{
        struct worker *w = arg;
        char name[16];

        snprintf(name, sizeof(name), "worker_%u", w->index);
        prctl(PR_SET_NAME, name);
        loop_run(w->loop);
        for (unsigned i = 0; i < 8; i++) /* what was deferred by the teardown */
                loop_turn(w->loop, 0);
        http_thread_fini();
        regex_thread_fini();
        chain_thread_fini();
        return NULL;
}

bool worker_start(struct worker *w)
{
        int rc = pthread_create(&w->thread, NULL, worker_main, w);

        if (rc)
                LOG(LOG_CRITICAL, "main", "cannot start a worker: %s", strerror(rc));
        w->running = rc == 0;
        return w->running;
}

static void stop(void *arg)
{
        struct worker *w = arg;

        worker_listeners_fini(w);
        if (w->http)
                w->http_free(w->http);
        w->http = NULL;
        worker_clusters_fini(w);
        loop_stop(w->loop);
}

void worker_stop(struct worker *w)
{
        if (w->running) {
                worker_post(w, stop, w);
                pthread_join(w->thread, NULL);
        } else {
                stop(w);
                for (unsigned i = 0; i < 8; i++)
                        loop_turn(w->loop, 0);
        }
}

void worker_free(struct worker *w)
{
        if (!w)
                return;
        log_buffers_free(w->logs);
        for (size_t i = 0; i < w->nroutes; i++)
                if (w->routes[i])
                        route_table_unref(w->routes[i]);
        free(w->routes);
        pipe_pool_free(w->pipes);
        free(w->relay);
        loop_free(w->loop);
        stats_local_free(w->stats);
        free(w);
}
