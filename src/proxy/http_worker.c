/* What a worker keeps for HTTP beyond one request: the Date header of this second, and the peers whose metadata was decoded (the same few
 * workloads say the same few hundred bytes with every request). */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/hcm.h"
#include "proxy/peer_info.h"

#include <stdlib.h>

enum { PEERS_MAX = 1024 };

struct http_worker {
        int64_t date_s;
        char date[32];
        struct strmap peers; /* header value -> struct peer_info, or `broken` */
        struct arena arena;  /* theirs */
};

static struct peer_info broken;

static void http_worker_free(void *p)
{
        struct http_worker *w = p;

        strmap_fini(&w->peers);
        arena_fini(&w->arena);
        free(w);
}

static struct http_worker *http_worker(struct worker *worker)
{
        struct http_worker *w = worker->http;

        if (w)
                return w;
        w = MEM_NEW(struct http_worker);
        arena_init(&w->arena, 0);
        worker->http = w;
        worker->http_free = http_worker_free;
        return w;
}

struct str hcm_http_date(struct hcm_stream *s)
{
        struct http_worker *w = http_worker(s->worker);
        int64_t now = clock_real_s();

        if (w->date_s != now) {
                w->date_s = now;
                clock_http_date(now, w->date);
        }
        return arena_str(s->arena, str_make(w->date, 29));
}

const struct peer_info *hcm_peer_info(struct hcm_stream *s, struct str metadata)
{
        struct http_worker *w = http_worker(s->worker);
        struct peer_info *p;

        if (!metadata.n)
                return NULL;
        p = strmap_get(&w->peers, metadata);
        if (!p) {
                if (w->peers.live >= PEERS_MAX) {
                        strmap_fini(&w->peers);
                        w->peers = (struct strmap)STRMAP_INIT;
                        arena_fini(&w->arena);
                        arena_init(&w->arena, 0);
                }
                p = peer_metadata_decode(metadata, &w->arena);
                if (!p)
                        p = &broken;
                strmap_set(&w->peers, metadata, p);
        }
        return p == &broken ? NULL : p;
}
