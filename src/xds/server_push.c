/* What is sent to a client, and in which order. A change goes out make before break:
 *
 *   clusters (with those that are to go kept) -> endpoints of the new ones -> listeners -> routes -> clusters without the old ones
 *
 * each step after the acknowledgement of the one before, so at no moment does a route name a cluster that is not there, whatever the client
 * does between two messages. (Envoy keeps a new cluster warming until its endpoints have come; a client that subscribes to them is given a
 * moment to do so.) Answers to a client's own questions never wait. */
#include "base/log.h"
#include "base/mem.h"
#include "xds/server.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { ACK_TIMEOUT_MS = 5000, EDS_EXPECT_MS = 200 };

static const struct xds_item *find(const struct xds_config *c, enum xds_type t, struct str name)
{
        size_t lo = 0, hi = c ? c->of[t].n : 0;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int r = str_cmp(c->of[t].v[mid].name, name);

                if (r == 0)
                        return &c->of[t].v[mid];
                if (r < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return NULL;
}

bool push_holds(const struct xds_config *c, enum xds_type t, struct str name)
{
        return find(c, t, name) != NULL;
}

/* ---- what differs ---- */

/* The items of one response, and names that are gone. */
struct batch {
        const struct xds_item **v;
        size_t n, cap;
        struct str *gone;
        size_t ngone, cap_gone;
        struct arena arena;
};

static void batch_fini(struct batch *b)
{
        free(b->v);
        free(b->gone);
        arena_fini(&b->arena);
}

static void add(struct batch *b, const struct xds_item *i)
{
        VEC_PUSH(b->v, b->n, b->cap) = i;
}

/* An endpoint assignment that does not exist is answered with an empty one: the cluster is there, and nobody in it. Without an answer
 * the client would wait for it. */
static const struct xds_item *empty_assignment(struct batch *b, struct str name)
{
        struct xds_item *i = ARENA_NEW(&b->arena, struct xds_item);
        struct buf w = BUF_INIT;

        buf_char(&w, 1 << 3 | 2); /* cluster_name */
        for (size_t n = name.n;; n >>= 7) {
                buf_char(&w, (char)((n & 0x7f) | (n > 0x7f ? 0x80 : 0)));
                if (n <= 0x7f)
                        break;
        }
        buf_str(&w, name);
        i->name = name;
        i->bytes = arena_str(&b->arena, buf_view(&w));
        i->hash = 1;
        buf_fini(&w);
        return i;
}

static void pick_named(struct xds_peer *p, enum xds_type t, struct batch *b)
{
        STRMAP_EACH (&p->type[t].names, it) {
                struct peer_name *n = it->value;
                const struct xds_item *i = find(p->config, t, it->key);

                /* A cluster on its way out keeps its endpoints until nothing names it. */
                if (!i && t == XDS_EDS && n->hash && !n->fresh && !push_holds(p->config, XDS_CDS, it->key))
                        continue;
                if (!i && t == XDS_EDS)
                        i = empty_assignment(b, it->key);
                if (i && (n->fresh || n->hash != i->hash)) {
                        add(b, i);
                } else if (!i && p->delta && (n->fresh || n->hash)) {
                        VEC_PUSH(b->gone, b->ngone, b->cap_gone) = it->key;
                }
        }
}

static bool client_has(const struct peer_type *ty, const struct xds_item *i)
{
        char version[20];
        const char *has = strmap_get(&ty->initial, i->name);

        snprintf(version, sizeof(version), "%016" PRIx64, i->hash);
        return has && strcmp(has, version) == 0;
}

/* Delta, all of a kind: both lists are sorted by name. */
static void pick_changed(struct xds_peer *p, enum xds_type t, struct batch *b)
{
        struct peer_type *ty = &p->type[t];
        const struct xds_item *old = ty->sent ? ty->sent->of[t].v : NULL, *now = p->config->of[t].v;
        size_t nold = ty->sent ? ty->sent->of[t].n : 0, nnow = p->config->of[t].n;

        for (size_t i = 0, k = 0; i < nold || k < nnow;) {
                int r = i == nold ? 1 : k == nnow ? -1 : str_cmp(old[i].name, now[k].name);

                if (r < 0) {
                        if (t != XDS_CDS) /* clusters go last: see push_clean() */
                                VEC_PUSH(b->gone, b->ngone, b->cap_gone) = old[i].name;
                        i++;
                } else {
                        if (r > 0 ? !client_has(ty, &now[k]) : old[i].hash != now[k].hash)
                                add(b, &now[k]);
                        i += r == 0;
                        k++;
                }
        }
        if (ty->sent)
                return;
        STRMAP_EACH (&ty->initial, it)
                if (!find(p->config, t, it->key))
                        VEC_PUSH(b->gone, b->ngone, b->cap_gone) = it->key;
}

static void pick_all(struct xds_peer *p, enum xds_type t, struct batch *b)
{
        for (size_t i = 0; i < p->config->of[t].n; i++)
                add(b, &p->config->of[t].v[i]);
        for (size_t i = 0; t == XDS_CDS && i < p->nstale; i++)
                add(b, p->stale[i].item);
}

/* Clusters that the client has, by the last response, and that are not in the configuration. */
static void note_stale(struct xds_peer *p)
{
        struct xds_config *sent = p->type[XDS_CDS].sent;
        size_t n = 0;

        for (size_t i = 0; i < p->nstale; i++) {
                if (push_holds(p->config, XDS_CDS, p->stale[i].item->name))
                        xds_config_unref(p->stale[i].owner);
                else
                        p->stale[n++] = p->stale[i];
        }
        p->nstale = n;
        for (size_t i = 0; sent && sent != p->config && i < sent->of[XDS_CDS].n; i++) {
                const struct xds_item *x = &sent->of[XDS_CDS].v[i];

                if (!push_holds(p->config, XDS_CDS, x->name))
                        VEC_PUSH(p->stale, p->nstale, p->cap_stale) = (struct stale){ x, xds_config_ref(sent) };
        }
}

static void drop_stale(struct xds_peer *p)
{
        for (size_t i = 0; i < p->nstale; i++)
                xds_config_unref(p->stale[i].owner);
        p->nstale = 0;
}

/* ---- responses ---- */

static void fill_any(Gp__Any *any, enum xds_type t, const struct xds_item *i)
{
        gp__any__init(any);
        any->type_url = (char *)xds_type_url(t);
        any->has_value = true;
        any->value = (ProtobufCBinaryData){ i->bytes.n, (uint8_t *)i->bytes.p };
}

static void send_packed(struct xds_peer *p, const ProtobufCMessage *m)
{
        size_t n = protobuf_c_message_get_packed_size(m);
        uint8_t *w = mem_alloc(n);

        protobuf_c_message_pack(m, w);
        grpc_send(p->call, str_make((char *)w, n));
        free(w);
}

static char *c_text(struct arena *a, struct str s)
{
        return arena_cstr(a, s);
}

static void send_sotw(struct xds_peer *p, enum xds_type t, struct batch *b, char *version, Xds__ControlPlane *cp)
{
        Xds__DiscoveryResponse r = XDS__DISCOVERY_RESPONSE__INIT;
        Gp__Any *any = arena_alloc(&b->arena, (b->n + 1) * sizeof(*any));

        r.resources = arena_alloc(&b->arena, (b->n + 1) * sizeof(*r.resources));
        for (size_t i = 0; i < b->n; i++) {
                fill_any(&any[i], t, b->v[i]);
                r.resources[r.n_resources++] = &any[i];
        }
        r.version_info = version;
        r.type_url = (char *)xds_type_url(t);
        r.nonce = p->type[t].nonce_text;
        r.control_plane = cp;
        send_packed(p, &r.base);
}

static void send_delta(struct xds_peer *p, enum xds_type t, struct batch *b, char *version, Xds__ControlPlane *cp)
{
        Xds__DeltaDiscoveryResponse r = XDS__DELTA_DISCOVERY_RESPONSE__INIT;
        Gp__Any *any = arena_alloc(&b->arena, (b->n + 1) * sizeof(*any));
        Xds__Resource *x = arena_alloc(&b->arena, (b->n + 1) * sizeof(*x));

        r.resources = arena_alloc(&b->arena, (b->n + 1) * sizeof(*r.resources));
        for (size_t i = 0; i < b->n; i++) {
                fill_any(&any[i], t, b->v[i]);
                xds__resource__init(&x[i]);
                x[i].name = c_text(&b->arena, b->v[i]->name);
                x[i].version = (char *)arena_printf(&b->arena, "%016" PRIx64, b->v[i]->hash).p;
                x[i].resource = &any[i];
                r.resources[r.n_resources++] = &x[i];
        }
        r.removed_resources = arena_alloc(&b->arena, (b->ngone + 1) * sizeof(*r.removed_resources));
        for (size_t i = 0; i < b->ngone; i++)
                r.removed_resources[r.n_removed_resources++] = c_text(&b->arena, b->gone[i]);
        r.system_version_info = version;
        r.type_url = (char *)xds_type_url(t);
        r.nonce = p->type[t].nonce_text;
        r.control_plane = cp;
        send_packed(p, &r.base);
}

static void send_batch(struct xds_peer *p, enum xds_type t, struct batch *b)
{
        struct peer_type *ty = &p->type[t];
        Xds__ControlPlane cp = XDS__CONTROL_PLANE__INIT;
        char version[48];

        snprintf(ty->nonce_text, sizeof(ty->nonce_text), "%d-%" PRIu64, (int)t, ++ty->nonce);
        if (t == XDS_CDS && p->nstale)
                snprintf(version, sizeof(version), "%016" PRIx64 "+%zu", p->config->of[t].hash, p->nstale);
        else
                snprintf(version, sizeof(version), "%016" PRIx64, p->config->of[t].hash);
        cp.identifier = p->server->identifier;
        if (p->delta)
                send_delta(p, t, b, version, &cp);
        else
                send_sotw(p, t, b, version, &cp);
        LOG(LOG_DEBUG, "xds", "%s: %s: sent %zu resources, %zu gone, version %s", p->id, xds_type_name(t), b->n, b->ngone, version);
        ty->waiting = true;
        ty->owed = false;
        ty->hash_sent = p->config->of[t].hash;
        if (ty->wildcard) {
                struct xds_config *before = ty->sent;

                ty->sent = xds_config_ref(p->config);
                xds_config_unref(before);
                STRMAP_EACH (&ty->initial, it)
                        free(it->value);
                strmap_fini(&ty->initial);
                ty->initial = (struct strmap)STRMAP_INIT;
                return;
        }
        for (size_t i = 0; i < b->n; i++) {
                struct peer_name *n = strmap_get(&ty->names, b->v[i]->name);

                n->hash = b->v[i]->hash;
                n->fresh = false;
        }
        for (size_t i = 0; i < b->ngone; i++)
                *(struct peer_name *)strmap_get(&ty->names, b->gone[i]) = (struct peer_name){ 0 };
}

/* State of the world: is there anything to say now? That clusters are gone is said later. */
static bool differs(struct xds_peer *p, enum xds_type t)
{
        struct batch b = { 0 };

        if (p->type[t].sent->of[t].hash == p->config->of[t].hash)
                return false;
        pick_changed(p, t, &b);
        bool any = b.n || b.ngone;
        batch_fini(&b);
        return any;
}

/* Sends what the client lacks of a type. False: nothing. */
static bool send_type(struct xds_peer *p, enum xds_type t)
{
        struct peer_type *ty = &p->type[t];
        struct batch b = { 0 };
        bool must = ty->owed, whole = false;

        if (!ty->subscribed || (!must && ty->wildcard && ty->sent == p->config))
                return false;
        arena_init(&b.arena, 16384);
        if (t == XDS_CDS)
                note_stale(p);
        if (!ty->wildcard)
                pick_named(p, t, &b);
        else if (p->delta)
                pick_changed(p, t, &b);
        else if ((whole = must || !ty->sent || differs(p, t)))
                pick_all(p, t, &b);
        /* "There are none" is an answer to a question for all there is, and news when the last one goes. A name that does not exist (yet)
         * is not answered, but for endpoints. */
        bool changed = b.n || b.ngone || (must && ty->wildcard) || (whole && ty->wildcard);
        ty->owed = false;
        if (changed) {
                send_batch(p, t, &b);
        } else if (ty->wildcard) {
                struct xds_config *before = ty->sent;

                ty->sent = xds_config_ref(p->config);
                xds_config_unref(before);
        }
        batch_fini(&b);
        return changed;
}

/* The last step: what nothing names any more. */
static bool push_clean(struct xds_peer *p)
{
        struct batch b = { 0 };

        if (!p->nstale || !p->type[XDS_CDS].subscribed)
                return false;
        arena_init(&b.arena, 16384);
        if (p->delta) {
                for (size_t i = 0; i < p->nstale; i++)
                        VEC_PUSH(b.gone, b.ngone, b.cap_gone) = arena_str(&b.arena, p->stale[i].item->name);
                drop_stale(p);
        } else {
                drop_stale(p);
                pick_all(p, XDS_CDS, &b);
        }
        send_batch(p, XDS_CDS, &b);
        batch_fini(&b);
        return true;
}

/* ---- the order ---- */

/* A new cluster with endpoints of its own that the client has not asked for yet. */
static bool endpoints_expected(struct xds_peer *p)
{
        const struct xds_config *c = p->config;

        if (!p->expect_eds || !p->type[XDS_EDS].subscribed)
                return false;
        for (size_t i = 0; i < c->of[XDS_EDS].n; i++) {
                struct str name = c->of[XDS_EDS].v[i].name;

                if (push_holds(c, XDS_CDS, name) && !strmap_has(&p->type[XDS_EDS].names, name))
                        return true;
        }
        return false;
}

static void on_timer(struct loop_timer *t)
{
        struct xds_peer *p = t->arg;

        p->expect_eds = false;
        for (int i = 0; i < XDS_TYPES; i++) {
                if (!p->type[i].waiting)
                        continue;
                LOG(LOG_WARN, "xds", "%s: %s has not been acknowledged for %d s; going on", p->id, xds_type_name(i), ACK_TIMEOUT_MS / 1000);
                p->type[i].waiting = false;
        }
        push_advance(p);
}

static void wait_for(struct xds_peer *p, unsigned ms)
{
        p->timer.fn = on_timer;
        p->timer.arg = p;
        if (!loop_timer_armed(&p->timer))
                loop_timer_arm(p->server->loop, &p->timer, ms);
}

static const enum xds_type phase_type[] = {
        [PUSH_CDS] = XDS_CDS, [PUSH_EDS] = XDS_EDS, [PUSH_LDS] = XDS_LDS,
        [PUSH_RDS] = XDS_RDS, [PUSH_SDS] = XDS_SDS, [PUSH_CLEAN] = XDS_CDS,
};

/* One step of the present phase. True: go on to the next. */
static bool step(struct xds_peer *p)
{
        enum xds_type t = phase_type[p->phase];

        if (p->type[t].waiting) {
                wait_for(p, ACK_TIMEOUT_MS);
                return false;
        }
        if (p->phase == PUSH_CLEAN ? push_clean(p) : send_type(p, t)) {
                if (t == XDS_CDS)
                        p->expect_eds = true;
                loop_timer_stop(p->server->loop, &p->timer);
                wait_for(p, ACK_TIMEOUT_MS);
                return false;
        }
        if (p->phase == PUSH_EDS && endpoints_expected(p)) {
                if (!p->eds_timer)
                        loop_timer_stop(p->server->loop, &p->timer);
                p->eds_timer = true;
                wait_for(p, EDS_EXPECT_MS);
                return false;
        }
        if (p->phase == PUSH_EDS)
                p->expect_eds = p->eds_timer = false;
        return true;
}

void push_advance(struct xds_peer *p)
{
        bool subscribed = false;

        if (!p->config || p->finished)
                return;
        for (int t = 0; t < XDS_TYPES; t++) { /* questions first */
                subscribed |= p->type[t].subscribed;
                if (p->type[t].owed)
                        send_type(p, t);
        }
        if (!subscribed)
                return;
        while (p->phase != PUSH_DONE) {
                if (grpc_blocked(p->call) || !step(p))
                        return;
                loop_timer_stop(p->server->loop, &p->timer);
                if (++p->phase == PUSH_DONE && p->server->ops->on_synced)
                        p->server->ops->on_synced(p->server->arg, p);
        }
}

void xds_peer_push(struct xds_peer *p, struct xds_config *c)
{
        struct xds_config *before = p->config;

        if (before == c)
                return;
        p->config = xds_config_ref(c);
        xds_config_unref(before);
        p->phase = PUSH_CDS;
        push_advance(p);
}

void push_fini(struct xds_peer *p)
{
        loop_timer_stop(p->server->loop, &p->timer);
        drop_stale(p);
        free(p->stale);
        xds_config_unref(p->config);
        p->config = NULL;
        for (int t = 0; t < XDS_TYPES; t++) {
                struct peer_type *ty = &p->type[t];

                STRMAP_EACH (&ty->names, it)
                        free(it->value);
                STRMAP_EACH (&ty->initial, it)
                        free(it->value);
                strmap_fini(&ty->names);
                strmap_fini(&ty->initial);
                xds_config_unref(ty->sent);
                free(ty->error);
        }
}
