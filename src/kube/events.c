/* Events: what the controllers have to say about an object. The same thing said again within the hour is one Event with a count. */
#include "kube/controllers.h"

#include "base/mem.h"

#include <stdio.h>

static void put_time(struct kube_api *api, struct arena *a, struct pb_node *e, const char *key)
{
        pb_put_str(a, e, key, kube_now_text(api, a));
}

static struct pb_node *fresh(struct kube_api *api, const struct kobj *about, const char *type, const char *reason, const char *source,
                             struct str message, struct str ns, struct str name, struct arena *a)
{
        struct pb_node *e = pb_new(a, PB_MAP, STR("")), *meta = kube_map(a, e, "metadata"), *obj = kube_map(a, e, "involvedObject");

        pb_put_str(a, e, "apiVersion", STR("v1"));
        pb_put_str(a, e, "kind", STR("Event"));
        pb_put_str(a, meta, "name", name);
        pb_put_str(a, meta, "namespace", ns);
        pb_put_str(a, obj, "kind", pb_get_str(about->node, "kind", STR("")));
        if (about->ns.n)
                pb_put_str(a, obj, "namespace", about->ns);
        pb_put_str(a, obj, "name", about->name);
        pb_put_str(a, obj, "uid", about->uid);
        pb_put_str(a, obj, "apiVersion", pb_get_str(about->node, "apiVersion", STR("")));
        pb_put_str(a, obj, "resourceVersion", pb_get_str(about->node, "metadata.resourceVersion", STR("")));
        pb_put_str(a, e, "reason", str_of(reason));
        pb_put_str(a, e, "message", message);
        pb_put_str(a, kube_map(a, e, "source"), "component", str_of(source));
        pb_put_str(a, e, "reportingComponent", str_of(source));
        pb_put_str(a, e, "reportingInstance", STR(""));
        pb_put_str(a, e, "type", str_of(type));
        kube_put_int(a, e, "count", 1);
        pb_put(a, e, STR("eventTime"), pb_new(a, PB_NULL, STR("null")));
        put_time(api, a, e, "firstTimestamp");
        put_time(api, a, e, "lastTimestamp");
        return e;
}

void kube_event(struct kube_api *api, const struct kobj *about, const char *type, const char *reason, const char *source, const char *fmt,
                ...)
{
        struct arena a;
        struct str ns = about->ns.n ? about->ns : STR("default"), why;
        va_list ap;

        arena_init(&a, 2048);
        va_start(ap, fmt);
        struct str message = arena_vprintf(&a, fmt, ap);
        va_end(ap);
        /* The name follows from what is said about whom, so that saying it again finds the first time. */
        uint64_t h = hash_bytes(message.p, message.n, hash_bytes(reason, strlen(reason), hash_bytes(about->uid.p, about->uid.n, 0)));
        struct str name = arena_printf(&a, STR_FMT ".%016llx", STR_ARG(str_sub(about->name, 0, 230)), (unsigned long long)h);
        struct kobj *old = kube_store_get(api->store, kube_b.events, ns, name);
        if (old) {
                struct pb_node *e = pb_clone(&a, old->node);

                kube_put_int(&a, e, "count", kube_int(e, "count", 1) + 1);
                put_time(api, &a, e, "lastTimestamp");
                kube_api_update(api, old, e, &a);
        } else {
                kube_api_create(api, kube_b.events, fresh(api, about, type, reason, source, message, ns, name, &a), &a, &why);
        }
        arena_fini(&a);
}
