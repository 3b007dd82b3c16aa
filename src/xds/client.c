/* The ADS client: what is wanted, what is held, and the protocol between (Envoy's "xDS REST and gRPC protocol" page is its specification).
 *
 * Requests are never sent from inside a delivery: applying clusters makes the sink want endpoints, and so on; what is to be said is noted
 * and goes out at the end of the turn, in the order of the types, so that one request carries the acknowledgement and the new names. */
#include "xds/client.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"

#include <stdlib.h>

static void set_text(char **where, struct str s)
{
        free(*where);
        *where = s.p ? str_dup(s) : NULL;
}

static void soon(struct xds_client *c)
{
        loop_defer(c->loop, &c->task);
}

/* ---- what is held ---- */

void client_hold(struct xds_client *c, enum xds_type t, struct str name, struct str version, struct str value, bool from_disk)
{
        struct held *h = mem_alloc(sizeof(*h) + version.n + value.n);
        char *p = (char *)(h + 1);

        if (version.n)
                memcpy(p, version.p, version.n);
        if (value.n)
                memcpy(p + version.n, value.p, value.n);
        *h = (struct held){ { p, version.n }, { p + version.n, value.n }, clock_real_us(), from_disk };
        free(strmap_set(&c->type[t].held, name, h));
}

static void let_go(struct xds_client *c, enum xds_type t, struct str name)
{
        free(strmap_del(&c->type[t].held, name));
}

/* Keeps what the sink took of `u`. */
static void keep(struct xds_client *c, const struct xds_update *u)
{
        struct client_type *ty = &c->type[u->type];

        if (u->full) {
                struct strmap in = STRMAP_INIT;

                for (size_t i = 0; i < u->n; i++)
                        strmap_set(&in, u->v[i].name, c);
                for (size_t i = 0; i < ty->held.n; i++) {
                        struct strmap_entry *e = &ty->held.e[i];

                        if (e->key.p && !strmap_has(&in, e->key))
                                free(strmap_del(&ty->held, e->key));
                }
                strmap_fini(&in);
        }
        for (size_t i = 0; i < u->nremoved; i++)
                let_go(c, u->type, u->removed[i]);
        for (size_t i = 0; i < u->n; i++)
                if (!u->v[i].refused)
                        client_hold(c, u->type, u->v[i].name, u->v[i].version, u->v[i].value, false);
}

/* ---- what is wanted ---- */

static void on_sub_timeout(struct loop_timer *t)
{
        struct client_sub *s = t->arg;
        struct xds_client *c = s->client;

        if (s->answered)
                return;
        s->answered = true;
        LOG(LOG_WARN, "xds", "%s: no answer%s%s within the initial fetch timeout", xds_type_name(s->type), s->name.n ? " for " : "",
            s->name.p);
        if (c->sink.on_timeout)
                c->sink.on_timeout(c->sink.arg, s->type, s->name);
}

static void answered(struct xds_client *c, enum xds_type t, struct str name)
{
        struct client_sub *s = strmap_get(&c->type[t].subs, name);

        if (!s)
                return;
        s->answered = true;
        loop_timer_stop(c->loop, &s->timeout);
}

static void note_answers(struct xds_client *c, const struct xds_update *u)
{
        if (xds_type_wildcard(u->type)) {
                answered(c, u->type, STR(""));
                return;
        }
        for (size_t i = 0; i < u->n; i++)
                answered(c, u->type, u->v[i].name);
        for (size_t i = 0; i < u->nremoved; i++)
                answered(c, u->type, u->removed[i]);
}

void xds_client_want(struct xds_client *c, enum xds_type t, struct str name, unsigned timeout_ms)
{
        struct client_type *ty = &c->type[t];
        struct client_sub *s = strmap_get(&ty->subs, name);

        if (!s) {
                s = MEM_NEW(struct client_sub);
                s->client = c;
                s->type = t;
                s->name = str_of(str_dup(name));
                s->timeout = (struct loop_timer){ .fn = on_sub_timeout, .arg = s };
                strmap_set(&ty->subs, name, s);
                ty->must_ask = true;
        }
        if (s->refs++ == 0) {
                s->deliver = name.n ? strmap_has(&ty->held, name) : ty->held.live > 0;
                if (timeout_ms && !s->answered)
                        loop_timer_arm(c->loop, &s->timeout, timeout_ms);
                soon(c);
        }
}

void xds_client_unwant(struct xds_client *c, enum xds_type t, struct str name)
{
        struct client_sub *s = strmap_get(&c->type[t].subs, name);

        if (!s || !s->refs || --s->refs)
                return;
        loop_timer_stop(c->loop, &s->timeout);
        c->type[t].must_ask = true; /* it is forgotten when that is said, unless it is wanted again before */
        soon(c);
}

static void sub_free(struct client_sub *s)
{
        loop_timer_stop(s->client->loop, &s->timeout);
        free((char *)s->name.p);
        free(s);
}

/* Drops the names that nobody wants; returns them in `gone` (NULL: not interested). */
static void forget_unwanted(struct xds_client *c, enum xds_type t, struct arena *a, char **gone, size_t *ngone)
{
        struct client_type *ty = &c->type[t];

        for (size_t i = 0; i < ty->subs.n; i++) {
                struct strmap_entry *e = &ty->subs.e[i];
                struct client_sub *s = e->key.p ? e->value : NULL;

                if (!s || s->refs)
                        continue;
                if (s->announced && gone)
                        gone[(*ngone)++] = arena_cstr(a, s->name);
                if (s->name.n)
                        let_go(c, t, s->name);
                strmap_del(&ty->subs, s->name);
                sub_free(s);
        }
}

/* ---- asking ---- */

static char **wanted_names(struct client_type *ty, struct arena *a, bool only_new, size_t *n)
{
        char **v = arena_alloc(a, (ty->subs.live + 1) * sizeof(*v));

        *n = 0;
        STRMAP_EACH (&ty->subs, it) {
                struct client_sub *s = it->value;

                if (s->name.n && !(only_new && s->announced))
                        v[(*n)++] = (char *)s->name.p;
                s->announced = true;
        }
        return v;
}

static Xds__Status *error_detail(struct client_type *ty, struct arena *a)
{
        if (!ty->nack)
                return NULL;
        Xds__Status *s = arena_alloc(a, sizeof(*s));
        xds__status__init(s);
        s->has_code = true;
        s->code = GRPC_INVALID_ARGUMENT;
        s->message = ty->nack;
        return s;
}

static void send_message(struct xds_client *c, enum xds_type t, const ProtobufCMessage *m)
{
        struct buf b = BUF_INIT;

        pb_pack(m, &b);
        grpc_send(c->call, buf_view(&b));
        buf_fini(&b);
        c->node_sent = true;
        c->type[t].asked = true;
        c->type[t].stats.update_attempt++;
        set_text(&c->type[t].nack, (struct str){ NULL, 0 });
}

static void ask_sotw(struct xds_client *c, enum xds_type t, struct arena *a)
{
        struct client_type *ty = &c->type[t];
        Xds__DiscoveryRequest r = XDS__DISCOVERY_REQUEST__INIT;

        r.version_info = ty->version;
        r.node = c->node_sent ? NULL : (Xds__Node *)c->node;
        r.resource_names = wanted_names(ty, a, false, &r.n_resource_names);
        r.type_url = (char *)xds_type_url(t);
        r.response_nonce = ty->nonce;
        r.error_detail = error_detail(ty, a);
        send_message(c, t, &r.base);
}

/* What we hold already need not be sent again: told once a stream. */
static void add_initial_versions(struct client_type *ty, struct arena *a, Xds__DeltaDiscoveryRequest *r)
{
        r->initial_resource_versions = arena_alloc(a, (ty->held.live + 1) * sizeof(*r->initial_resource_versions));
        STRMAP_EACH (&ty->held, it) {
                const struct held *h = it->value;
                Xds__DeltaDiscoveryRequest__InitialResourceVersionsEntry *e = arena_alloc(a, sizeof(*e));

                if (!h->version.n)
                        continue;
                xds__delta_discovery_request__initial_resource_versions_entry__init(e);
                e->key = (char *)it->key.p;
                e->value = arena_cstr(a, h->version);
                r->initial_resource_versions[r->n_initial_resource_versions++] = e;
        }
}

static void ask_delta(struct xds_client *c, enum xds_type t, struct arena *a, char **gone, size_t ngone)
{
        struct client_type *ty = &c->type[t];
        Xds__DeltaDiscoveryRequest r = XDS__DELTA_DISCOVERY_REQUEST__INIT;

        r.node = c->node_sent ? NULL : (Xds__Node *)c->node;
        r.type_url = (char *)xds_type_url(t);
        r.resource_names_subscribe = wanted_names(ty, a, true, &r.n_resource_names_subscribe);
        r.resource_names_unsubscribe = gone;
        r.n_resource_names_unsubscribe = ngone;
        if (!ty->asked)
                add_initial_versions(ty, a, &r);
        r.response_nonce = ty->nonce;
        r.error_detail = error_detail(ty, a);
        if (ty->asked && !ty->nonce && !r.n_resource_names_subscribe && !ngone)
                return; /* says nothing */
        send_message(c, t, &r.base);
        set_text(&ty->nonce, (struct str){ NULL, 0 }); /* delta: a nonce is answered once */
}

static void ask(struct xds_client *c, enum xds_type t)
{
        struct client_type *ty = &c->type[t];
        char **gone;
        size_t ngone = 0;
        struct arena a;

        arena_init(&a, 4096);
        gone = arena_alloc(&a, (ty->subs.live + 1) * sizeof(*gone));
        forget_unwanted(c, t, &a, gone, &ngone);
        if (c->call && (ty->asked || ty->subs.live)) {
                if (c->delta)
                        ask_delta(c, t, &a, gone, ngone);
                else
                        ask_sotw(c, t, &a);
        }
        ty->must_ask = false;
        arena_fini(&a);
}

/* ---- delivering ---- */

static bool deliver(struct xds_client *c, struct xds_update *u, struct diags *d)
{
        bool ok = xds_deliver(&c->sink, u, &c->type[u->type].stats, d);

        xds_warn_once(&c->warned, d);
        if (!ok)
                LOG(LOG_WARN, "xds", "%s %s refused: " STR_FMT, xds_type_name(u->type), u->from_disk ? "from the state file" : "update",
                    STR_ARG(c->type[u->type].stats.error));
        return ok;
}

/* What is held already, of the names that have just been wanted. */
static void deliver_held(struct xds_client *c, enum xds_type t)
{
        struct client_type *ty = &c->type[t];
        bool all = xds_type_wildcard(t), any = false;
        struct xds_update u = { .type = t, .full = all, .from_disk = true, .version = str_of(ty->version ? ty->version : "") };
        struct arena a;
        struct diags d;

        STRMAP_EACH (&ty->subs, it) {
                struct client_sub *s = it->value;
                any |= s->deliver;
        }
        if (!any)
                return;
        arena_init(&a, 65536);
        diags_init(&d);
        u.v = arena_zalloc(&a, (ty->held.live + 1) * sizeof(*u.v));
        STRMAP_EACH (&ty->held, it) {
                struct held *h = it->value;
                struct client_sub *s = strmap_get(&ty->subs, all ? STR("") : it->key);

                if (!s || !s->deliver)
                        continue;
                u.v[u.n] = (struct xds_resource){ .name = arena_str(&a, it->key), .version = arena_str(&a, h->version), .value = h->value };
                u.from_disk &= h->from_disk;
                xds_decode_resource(&u.v[u.n++], t, &a, &d);
        }
        STRMAP_EACH (&ty->subs, it)
                ((struct client_sub *)it->value)->deliver = false;
        if (!deliver(c, &u, &d))
                for (size_t i = 0; i < u.n; i++)
                        if (u.v[i].refused)
                                let_go(c, t, u.v[i].name);
        note_answers(c, &u);
        diags_fini(&d);
        arena_fini(&a);
}

static void on_task(struct loop_task *task)
{
        struct xds_client *c = task->arg;

        for (int t = 0; t < XDS_TYPES; t++)
                deliver_held(c, t);
        for (int t = 0; t < XDS_TYPES; t++)
                if (c->type[t].must_ask)
                        ask(c, t);
}

/* A response that could not even be shown to the sink: whoever waits for it goes on without. */
static void give_up_waiting(struct xds_client *c, enum xds_type t)
{
        struct client_sub *s = strmap_get(&c->type[t].subs, STR(""));

        if (!xds_type_wildcard(t) || !s || s->answered)
                return;
        answered(c, t, STR(""));
        if (c->sink.on_timeout)
                c->sink.on_timeout(c->sink.arg, t, STR(""));
}

/* Envoy ignores what was not asked for, too: it may have been unsubscribed while the answer was under way. */
static void drop_unwanted(struct xds_client *c, struct xds_update *u)
{
        size_t n = 0;

        if (xds_type_wildcard(u->type))
                return;
        for (size_t i = 0; i < u->n; i++)
                if (strmap_has(&c->type[u->type].subs, u->v[i].name))
                        u->v[n++] = u->v[i];
        u->n = n;
}

static void take(struct xds_client *c, struct xds_update *u, bool decoded, struct str nonce, struct diags *d)
{
        struct client_type *ty = &c->type[u->type];
        struct buf error = BUF_INIT;

        if (ty->must_ask && (ty->nonce || ty->nack))
                ask(c, u->type); /* the response before this one gets its own answer */
        if (decoded) {
                drop_unwanted(c, u);
                bool ok = deliver(c, u, d);
                note_answers(c, u);
                keep(c, u);
                if (ok)
                        set_text(&ty->version, u->version);
                client_state_changed(c);
        } else {
                ty->stats.update_rejected++;
                give_up_waiting(c, u->type);
        }
        set_text(&ty->nonce, nonce);
        if (d->errors) {
                xds_errors_text(d, &error);
                set_text(&ty->nack, buf_view(&error));
                if (!decoded)
                        LOG(LOG_WARN, "xds", "%s update refused: %s", xds_type_name(u->type), ty->nack);
        }
        buf_fini(&error);
        ty->must_ask = true;
        soon(c);
}

bool client_on_message(struct xds_client *c, struct str msg)
{
        const ProtobufCMessageDescriptor *kind = c->delta ? &xds__delta_discovery_response__descriptor
                                                          : &xds__discovery_response__descriptor;
        struct xds_update u = { 0 };
        struct arena a;
        struct diags d;
        const char *url, *nonce;
        bool decoded = false;

        arena_init(&a, 65536);
        diags_init(&d);
        const ProtobufCMessage *m = pb_unpack(kind, msg.p, msg.n, &a, NULL);
        if (m) {
                const Xds__DiscoveryResponse *sotw = (const Xds__DiscoveryResponse *)m;
                const Xds__DeltaDiscoveryResponse *delta = (const Xds__DeltaDiscoveryResponse *)m;

                url = c->delta ? delta->type_url : sotw->type_url;
                nonce = c->delta ? delta->nonce : sotw->nonce;
                int t = xds_type_of(str_of(url ? url : ""));
                if (t < 0) {
                        LOG(LOG_WARN, "xds", "ignored a response of type \"%s\", which was not asked for", url ? url : "");
                } else {
                        u.type = t;
                        decoded = c->delta ? xds_decode_delta(delta, t, &a, &u, &d) : xds_decode(sotw, t, &a, &u, &d);
                        take(c, &u, decoded, str_of(nonce ? nonce : ""), &d);
                }
        }
        diags_fini(&d);
        arena_fini(&a);
        return m != NULL;
}

/* ---- the stream's life ---- */

void client_stream_up(struct xds_client *c)
{
        c->node_sent = false;
        for (int t = 0; t < XDS_TYPES; t++)
                c->type[t].must_ask = c->type[t].subs.live > 0;
        soon(c);
}

void client_stream_down(struct xds_client *c)
{
        for (int t = 0; t < XDS_TYPES; t++) {
                struct client_type *ty = &c->type[t];

                set_text(&ty->nonce, (struct str){ NULL, 0 });
                set_text(&ty->nack, (struct str){ NULL, 0 });
                ty->asked = ty->must_ask = false;
                ty->stats.update_failure += ty->subs.live > 0;
                STRMAP_EACH (&ty->subs, it)
                        ((struct client_sub *)it->value)->announced = false;
        }
}

struct xds_client *xds_client_new(struct loop *l, const struct xds_client_opts *o, const struct xds_sink *sink)
{
        struct xds_client *c = MEM_NEW(struct xds_client);

        c->loop = l;
        c->sink = *sink;
        c->node = o->node;
        c->delta = o->delta;
        c->task = (struct loop_task){ .fn = on_task, .arg = c };
        c->state_path = o->state_path.n ? str_dup(o->state_path) : NULL;
        client_state_load(c);
        client_link_init(c, o);
        return c;
}

void xds_client_free(struct xds_client *c)
{
        if (!c)
                return;
        client_state_fini(c);
        client_link_fini(c);
        loop_undefer(c->loop, &c->task);
        for (int t = 0; t < XDS_TYPES; t++) {
                struct client_type *ty = &c->type[t];

                STRMAP_EACH (&ty->subs, it)
                        sub_free(it->value);
                STRMAP_EACH (&ty->held, it)
                        free(it->value);
                strmap_fini(&ty->subs);
                strmap_fini(&ty->held);
                free(ty->version);
                free(ty->nonce);
                free(ty->nack);
                xds_stats_fini(&ty->stats);
        }
        xds_warned_fini(&c->warned);
        free(c->trouble);
        free(c);
}

bool xds_client_connected(const struct xds_client *c)
{
        return c->call && c->answered;
}

const char *xds_client_trouble(const struct xds_client *c)
{
        return c->trouble ? c->trouble : "";
}

const struct xds_stats *xds_client_stats(const struct xds_client *c, enum xds_type t)
{
        return &c->type[t].stats;
}

bool xds_client_get(const struct xds_client *c, enum xds_type t, struct str name, struct str *value, struct str *version,
                    uint64_t *updated_real_us)
{
        const struct held *h = strmap_get(&c->type[t].held, name);

        if (!h)
                return false;
        *value = h->value;
        *version = h->version;
        *updated_real_us = h->updated_us;
        return true;
}
