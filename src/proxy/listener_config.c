/* Listener messages to listener_config. */
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/access_log.h"
#include "proxy/bootstrap.h"
#include "proxy/ext.h"
#include "proxy/listener.h"
#include "proxy/server.h"
#include "proxy/support.h"
#include "proxy/tls_inspector.h"

#include "envoy/core.pb-c.h"
#include "envoy/http_inspector.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/original_dst.pb-c.h"
#include "envoy/tls_inspector.pb-c.h"
#include "google/any.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <stdlib.h>

static const struct stat_def listener_defs[LS_COUNT] = {
        [LS_DOWNSTREAM_CX_DESTROY] = { "downstream_cx_destroy", STAT_COUNTER },
        [LS_DOWNSTREAM_CX_OVERFLOW] = { "downstream_cx_overflow", STAT_COUNTER },
        [LS_DOWNSTREAM_CX_OVERLOAD_REJECT] = { "downstream_cx_overload_reject", STAT_COUNTER },
        [LS_DOWNSTREAM_CX_TOTAL] = { "downstream_cx_total", STAT_COUNTER },
        [LS_DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT] = { "downstream_cx_transport_socket_connect_timeout", STAT_COUNTER },
        [LS_DOWNSTREAM_GLOBAL_CX_OVERFLOW] = { "downstream_global_cx_overflow", STAT_COUNTER },
        [LS_DOWNSTREAM_LISTENER_FILTER_ERROR] = { "downstream_listener_filter_error", STAT_COUNTER },
        [LS_DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE] = { "downstream_listener_filter_remote_close", STAT_COUNTER },
        [LS_DOWNSTREAM_PRE_CX_TIMEOUT] = { "downstream_pre_cx_timeout", STAT_COUNTER },
        [LS_NO_FILTER_CHAIN_MATCH] = { "no_filter_chain_match", STAT_COUNTER },
        [LS_DOWNSTREAM_CX_ACTIVE] = { "downstream_cx_active", STAT_GAUGE },
        [LS_DOWNSTREAM_PRE_CX_ACTIVE] = { "downstream_pre_cx_active", STAT_GAUGE },
        [LS_DOWNSTREAM_CX_LENGTH_MS] = { "downstream_cx_length_ms", STAT_HISTOGRAM },
};

struct build {
        struct server *server;
        struct listener_config *c;
        const Xds__Listener *p;
        const struct diag_at *at;
        struct diags *d;
};

static bool read_addresses(struct build *b)
{
        struct diag_at sub = at_path(&b->c->arena, b->at, ".address");

        if (!address_read(b->p->address, &b->c->addr[0], &sub, b->d))
                return false;
        b->c->naddr = 1;
        for (size_t i = 0; i < b->p->n_additional_addresses; i++) {
                sub = at_path(&b->c->arena, b->at, ".additional_addresses[%zu].address", i);
                if (b->c->naddr == LISTENER_ADDRESSES_MAX) {
                        diag_add(b->d, DIAG_ERROR, NULL, &sub, "more than %d addresses are not supported", LISTENER_ADDRESSES_MAX);
                        return false;
                }
                if (!address_read(b->p->additional_addresses[i]->address, &b->c->addr[b->c->naddr++], &sub, b->d))
                        return false;
        }
        return true;
}

static bool tls_inspector(struct build *b, struct listener_filter *f, const Xds__TlsInspector *t, const struct diag_at *at)
{
        f->kind = LF_TLS_INSPECTOR;
        f->max_hello = t->max_client_hello_size ? t->max_client_hello_size->value : TLS_HELLO_MAX;
        f->close_on_bad_hello = t->close_connection_on_client_hello_parsing_errors;
        if (f->max_hello < 256 || f->max_hello > TLS_HELLO_MAX) {
                diag_add(b->d, DIAG_ERROR, NULL, at, "max_client_hello_size must be in the range [256, %d]", TLS_HELLO_MAX);
                return false;
        }
        if ((t->enable_ja3_fingerprinting && t->enable_ja3_fingerprinting->value) ||
            (t->enable_ja4_fingerprinting && t->enable_ja4_fingerprinting->value)) {
                diag_add(b->d, DIAG_ERROR, NULL, at, "JA3 and JA4 fingerprinting are not supported");
                return false;
        }
        return true;
}

static bool read_filters(struct build *b)
{
        struct listener_config *c = b->c;
        bool ok = true;

        c->filters = arena_zalloc(&c->arena, (b->p->n_listener_filters + 1) * sizeof(*c->filters));
        /* use_original_dst adds the filter when the configuration does not, in front. */
        if (c->use_original_dst)
                c->filters[c->nfilters++].kind = LF_ORIGINAL_DST;
        for (size_t i = 0; i < b->p->n_listener_filters; i++) {
                const Xds__ListenerFilter *p = b->p->listener_filters[i];
                struct listener_filter *f = &c->filters[c->nfilters];
                struct diag_at at = at_path(&c->arena, b->at, ".listener_filters[%zu].typed_config", i);
                struct ext e;

                if (!ext_read(p->config_type_case == XDS__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG ? p->typed_config : NULL, &c->arena,
                              &at, b->d, &e)) {
                        ok = false;
                        continue;
                }
                f->disabled = p->filter_disabled;
                if (e.msg->descriptor == &xds__original_dst__descriptor) {
                        if (c->use_original_dst)
                                continue;
                        f->kind = LF_ORIGINAL_DST;
                } else if (e.msg->descriptor == &xds__tls_inspector__descriptor) {
                        ok = tls_inspector(b, f, (const Xds__TlsInspector *)e.msg, &at) && ok;
                } else if (e.msg->descriptor == &xds__http_inspector__descriptor) {
                        f->kind = LF_HTTP_INSPECTOR;
                } else {
                        diag_add(b->d, DIAG_ERROR, NULL, &at, "listener filter \"" STR_FMT "\" is not supported", STR_ARG(e.type));
                        ok = false;
                }
                c->nfilters++;
        }
        return ok;
}

static struct filter_chain *chain_reuse(const struct listener_config *before, const Xds__FilterChain *p)
{
        uint64_t hash;

        if (!before)
                return NULL;
        hash = pb_hash(&p->base);
        for (size_t i = 0; i < before->nchains; i++)
                if (before->chains[i]->hash == hash && pb_equal(&before->chains[i]->proto->base, &p->base))
                        return filter_chain_ref(before->chains[i]);
        if (before->fallback && before->fallback->hash == hash && pb_equal(&before->fallback->proto->base, &p->base))
                return filter_chain_ref(before->fallback);
        return NULL;
}

static struct filter_chain *chain_get(struct build *b, const struct listener_config *before, const Xds__FilterChain *p,
                                      const struct diag_at *at)
{
        struct filter_chain *f = chain_reuse(before, p);

        return f ? f : filter_chain_build(b->server, b->c, p, b->c->name, at, b->d);
}

static bool read_chains(struct build *b, const struct listener_config *before)
{
        struct listener_config *c = b->c;
        bool ok = true;

        c->chains = mem_calloc(b->p->n_filter_chains ? b->p->n_filter_chains : 1, sizeof(*c->chains));
        c->match = chain_match_new();
        for (size_t i = 0; i < b->p->n_filter_chains; i++) {
                struct diag_at at = at_path(&c->arena, b->at, ".filter_chains[%zu]", i);
                struct filter_chain *f = chain_get(b, before, b->p->filter_chains[i], &at);

                if (!f) {
                        ok = false;
                        continue;
                }
                c->chains[c->nchains++] = f;
                ok = chain_match_add(c->match, f, &at, b->d) && ok;
        }
        if (b->p->default_filter_chain) {
                struct diag_at at = at_path(&c->arena, b->at, ".default_filter_chain");

                c->fallback = chain_get(b, before, b->p->default_filter_chain, &at);
                ok = ok && c->fallback;
        }
        if (!b->p->n_filter_chains && !b->p->default_filter_chain) {
                diag_add(b->d, DIAG_ERROR, NULL, b->at, "no filter chains specified");
                ok = false;
        }
        return ok;
}

static struct str stat_address(struct arena *a, const struct addr *ad)
{
        char t[ADDR_TEXT_MAX];
        size_t n = addr_text(ad, t);

        for (size_t i = 0; i < n; i++)
                if (t[i] == ':')
                        t[i] = '_';
        return arena_str(a, str_make(t, n));
}

static void read_scalars(struct build *b)
{
        struct listener_config *c = b->c;
        const Xds__Listener *p = b->p;
        struct diag_at sub = at_path(&c->arena, b->at, ".listener_filters_timeout");

        c->bind = !p->bind_to_port || p->bind_to_port->value;
        c->use_original_dst = p->use_original_dst && p->use_original_dst->value;
        c->reuse_port = p->enable_reuse_port ? p->enable_reuse_port->value : true;
        c->transparent = p->transparent && p->transparent->value;
        c->freebind = p->freebind && p->freebind->value;
        c->inbound = p->traffic_direction == XDS__TRAFFIC_DIRECTION__INBOUND;
        c->outbound = p->traffic_direction == XDS__TRAFFIC_DIRECTION__OUTBOUND;
        c->modify_only = p->drain_type == XDS__LISTENER__DRAIN_TYPE__MODIFY_ONLY;
        c->continue_on_timeout = p->continue_on_listener_filters_timeout;
        c->ignore_global_limit = p->ignore_global_conn_limit;
        c->filters_timeout_ms = (unsigned)duration_ms(p->listener_filters_timeout, 15000, &sub, b->d);
        c->accept_max = p->max_connections_to_accept_per_socket_event ? p->max_connections_to_accept_per_socket_event->value : 16;
        if (!c->accept_max) {
                sub = at_path(&c->arena, b->at, ".max_connections_to_accept_per_socket_event");
                diag_add(b->d, DIAG_ERROR, NULL, &sub, "must be 1 or more");
        }
        c->backlog = p->tcp_backlog_size ? (int)p->tcp_backlog_size->value : 0;
        c->buffer_limit_bytes = p->per_connection_buffer_limit_bytes ? p->per_connection_buffer_limit_bytes->value : 1 << 20;
}

/* The hash of everything but the chains: the message without them, hashed. */
static uint64_t hash_but_chains(const Xds__Listener *p)
{
        Xds__Listener shallow = *p;

        shallow.n_filter_chains = 0;
        shallow.filter_chains = NULL;
        shallow.default_filter_chain = NULL;
        return pb_hash(&shallow.base);
}

struct listener_config *listener_config_build(struct server *s, const struct Xds__Listener *proto, const struct listener_config *before,
                                              const struct diag_at *at, struct diags *d)
{
        struct listener_config *c = MEM_NEW(struct listener_config);
        struct build b = { s, c, NULL, at, d };
        size_t errors = d->errors;

        arena_init(&c->arena, 2048);
        c->refs = 1;
        c->server = s;
        b.p = c->proto = (const Xds__Listener *)pb_clone_message(&proto->base, &c->arena);
        c->hash = pb_hash(&b.p->base);
        c->hash_but_chains = hash_but_chains(b.p);
        support_check(&b.p->base, at, &c->arena, d);
        if (d->errors == errors) {
                read_scalars(&b);
                read_addresses(&b);
        }
        if (d->errors == errors) {
                char t[ADDR_TEXT_MAX];

                c->name = b.p->name && b.p->name[0] ? str_of(b.p->name) : arena_str(&c->arena, str_make(t, addr_text(&c->addr[0], t)));
                struct str shown = b.p->stat_prefix && b.p->stat_prefix[0] ? str_of(b.p->stat_prefix)
                                                                           : stat_address(&c->arena, &c->addr[0]);
                struct stat_tag tag = { "envoy.listener_address", shown };

                c->stats = stats_scope(s->stats, arena_printf(&c->arena, "listener." STR_FMT ".", STR_ARG(shown)), STR("listener."), &tag,
                                       1, listener_defs, LS_COUNT);
                runtime_number(s->bootstrap,
                               arena_cstr(&c->arena, arena_printf(&c->arena, "envoy.resource_limits.listener." STR_FMT ".connection_limit",
                                                                  STR_ARG(c->name))),
                               &c->max_connections);
                if (c->max_connections) {
                        c->count = before && before->count ? before->count : MEM_NEW(struct conn_count);
                        atomic_fetch_add(&c->count->refs, 1);
                }
                read_filters(&b);
                read_chains(&b, before);
                struct diag_at sub = at_path(&c->arena, at, ".access_log");

                c->logs = access_logs_build(s, b.p->access_log, b.p->n_access_log, &sub, d);
        }
        if (d->errors != errors) {
                listener_config_unref(c);
                return NULL;
        }
        return c;
}

struct listener_config *listener_config_ref(const struct listener_config *c)
{
        struct listener_config *m = (struct listener_config *)c;

        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
        return m;
}

void listener_config_unref(const struct listener_config *cc)
{
        struct listener_config *c = (struct listener_config *)cc;

        if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
                return;
        for (size_t i = 0; i < c->nchains; i++)
                filter_chain_unref(c->chains[i]);
        filter_chain_unref(c->fallback);
        free(c->chains);
        chain_match_free(c->match);
        access_logs_free(c->logs);
        if (c->count && atomic_fetch_sub(&c->count->refs, 1) == 1)
                free(c->count);
        stats_scope_unref(c->server->stats, c->stats);
        arena_fini(&c->arena);
        free(c);
}
