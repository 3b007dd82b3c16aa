/* Events. The same thing said again is counted on the first one's object instead of making another, as Kubernetes' recorders do. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/pod.h"

#include <stdio.h>
#include <stdlib.h>

enum { EVENTS_A_POD = 64, EVENT_TEXT_MAX = 1024 };

struct said {
        char *name; /* of the Event object */
        unsigned count;
};

static void on_answer(void *arg, const struct kube_response *r)
{
        (void)arg;
        if (r->status >= 300 || r->status == 0)
                LOG(LOG_DEBUG, "node", "an event was not taken: %d %s", r->status, r->error ? r->error : "");
}

static void put(struct buf *b, const char *name, struct str value)
{
        buf_printf(b, "\"%s\":", name);
        buf_json(b, value);
        buf_char(b, ',');
}

static void event_create(struct node *n, const char *ns, const char *event_name, struct buf *object, bool warning, const char *reason,
                         struct str text)
{
        struct buf path = BUF_INIT, body = BUF_INIT;
        char now[40];

        clock_rfc3339(clock_real_us(), 0, now);
        buf_printf(&path, "/api/v1/namespaces/%s/events", ns);
        buf_printf(&body,
                   "{\"apiVersion\":\"v1\",\"kind\":\"Event\",\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\"},\"involvedObject\":{%s},",
                   event_name, ns, buf_z(object));
        put(&body, "reason", str_of(reason));
        put(&body, "message", text);
        put(&body, "type", warning ? STR("Warning") : STR("Normal"));
        buf_printf(
                &body,
                "\"source\":{\"component\":\"kubelet\",\"host\":\"%s\"},\"reportingComponent\":\"kubelet\",\"reportingInstance\":\"%s\",",
                n->node_name, n->node_name);
        buf_printf(&body, "\"firstTimestamp\":\"%s\",\"lastTimestamp\":\"%s\",\"count\":1}", now, now);
        kube_request(n->client, "POST", buf_view(&path), STR("application/json"), buf_view(&body), on_answer, NULL);
        buf_fini(&path);
        buf_fini(&body);
}

static void event_count(struct pod *p, struct said *s)
{
        struct buf path = BUF_INIT, body = BUF_INIT;
        char now[40];

        s->count++;
        /* 1, 2, 3, 4, ... and ever fewer: a probe that fails each second for a day is not worth 86,400 writes. */
        if (s->count > 16 && s->count % (s->count > 128 ? 64 : 8))
                return;
        clock_rfc3339(clock_real_us(), 0, now);
        buf_printf(&path, "/api/v1/namespaces/%s/events/%s", p->ns, s->name);
        buf_printf(&body, "{\"count\":%u,\"lastTimestamp\":\"%s\"}", s->count, now);
        kube_request(p->node->client, "PATCH", buf_view(&path), STR("application/merge-patch+json"), buf_view(&body), on_answer, NULL);
        buf_fini(&path);
        buf_fini(&body);
}

void event_pod(struct pod *p, const struct ctr *c, bool warning, const char *reason, const char *fmt, ...)
{
        struct buf text = BUF_INIT, key = BUF_INIT, object = BUF_INIT;
        va_list ap;

        va_start(ap, fmt);
        buf_vprintf(&text, fmt, ap);
        va_end(ap);
        if (text.n > EVENT_TEXT_MAX)
                text.n = EVENT_TEXT_MAX;
        buf_printf(&key, "%s %s ", c ? c->name : "", reason);
        buf_str(&key, buf_view(&text));
        struct said *s = strmap_get(&p->events, buf_view(&key));
        if (s) {
                event_count(p, s);
        } else if (p->events.live < EVENTS_A_POD && !p->node->closing) {
                s = MEM_NEW(struct said);
                s->name = mem_printf("%.200s.%016llx", p->name, (unsigned long long)rand_u64());
                s->count = 1;
                strmap_set(&p->events, buf_view(&key), s);
                buf_printf(&object, "\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"namespace\":\"%s\",\"name\":\"%s\",\"uid\":\"%s\"", p->ns,
                           p->name, p->uid);
                if (c)
                        buf_printf(&object, ",\"fieldPath\":\"spec.%s{%s}\"", c->kind == CTR_MAIN ? "containers" : "initContainers",
                                   c->name);
                event_create(p->node, p->ns, s->name, &object, warning, reason, buf_view(&text));
        }
        buf_fini(&text);
        buf_fini(&key);
        buf_fini(&object);
}

void event_node(struct node *n, bool warning, const char *reason, const char *fmt, ...)
{
        struct buf text = BUF_INIT, object = BUF_INIT;
        char name[280];
        va_list ap;

        va_start(ap, fmt);
        buf_vprintf(&text, fmt, ap);
        va_end(ap);
        snprintf(name, sizeof(name), "%.200s.%016llx", n->node_name, (unsigned long long)rand_u64());
        buf_printf(&object, "\"kind\":\"Node\",\"apiVersion\":\"v1\",\"name\":\"%s\",\"uid\":\"%s\"", n->node_name, n->node_name);
        event_create(n, "default", name, &object, warning, reason, buf_view(&text));
        buf_fini(&text);
        buf_fini(&object);
}

void events_free(struct pod *p)
{
        STRMAP_EACH (&p->events, e) {
                struct said *s = e->value;
                free(s->name);
                free(s);
        }
        strmap_fini(&p->events);
}
