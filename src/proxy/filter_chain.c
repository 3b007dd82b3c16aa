/* Filter chains: the table of network filters, and chains built from configuration. */
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/ext.h"
#include "proxy/format.h"
#include "proxy/listener.h"
#include "proxy/rds.h"
#include "proxy/server.h"

#include "envoy/core.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/raw_buffer.pb-c.h"
#include "google/any.pb-c.h"

#include <stdlib.h>

const struct network_filter *const network_filters[] = {
        &network_filter_tcp_proxy, &network_filter_hcm, &network_filter_metadata_exchange, &network_filter_istio_stats, NULL,
};

struct diag_at filter_path(struct filter_build *b, const char *fmt, ...)
{
        struct diag_at r = b->at;
        va_list ap;
        struct str tail;

        va_start(ap, fmt);
        tail = arena_vprintf(b->arena, fmt, ap);
        va_end(ap);
        r.path = arena_printf(b->arena, STR_FMT STR_FMT, STR_ARG(b->at.path), STR_ARG(tail));
        return r;
}

static const struct network_filter *filter_find(struct str type)
{
        for (size_t i = 0; network_filters[i]; i++)
                if (str_eqc(type, network_filters[i]->type))
                        return network_filters[i];
        return NULL;
}

static bool filter_build(struct filter_build *b, struct filter_chain *c, const Xds__Filter *p, bool last)
{
        struct chain_filter *f = &c->filters[c->nfilters];
        struct diag_at outer = b->at;
        struct ext e;
        bool ok = false;

        b->at = filter_path(b, ".typed_config");
        if (!ext_read(p->config_type_case == XDS__FILTER__CONFIG_TYPE_TYPED_CONFIG ? p->typed_config : NULL, b->arena, &b->at, b->diags,
                      &e))
                goto out;
        f->def = filter_find(e.type);
        if (!f->def) {
                diag_add(b->diags, DIAG_ERROR, NULL, &outer, "network filter \"%s\" (" STR_FMT ") is not supported", p->name ? p->name : "",
                         STR_ARG(e.type));
                goto out;
        }
        if (f->def->terminal != last) {
                diag_add(b->diags, DIAG_ERROR, NULL, &outer,
                         last ? "non-terminal filter named %s of type %s is the last filter in a network filter chain"
                              : "terminal filter named %s of type %s must be the last filter in a network filter chain",
                         p->name ? p->name : "", f->def->name);
                goto out;
        }
        f->config = f->def->build(b, e.msg);
        if (f->config) {
                c->nfilters++;
                ok = true;
        }
out:
        b->at = outer;
        return ok;
}

static bool transport_ok(struct filter_build *b, const Xds__FilterChain *p)
{
        struct diag_at at = filter_path(b, ".transport_socket"), sub = filter_path(b, ".transport_socket.typed_config");
        struct ext e;

        if (!p->transport_socket)
                return true;
        if (!ext_read(p->transport_socket->config_type_case ? p->transport_socket->typed_config : NULL, b->arena, &sub, b->diags, &e))
                return false;
        if (e.msg->descriptor == &xds__raw_buffer__descriptor)
                return true;
        diag_add(b->diags, DIAG_ERROR, NULL, &at, "\"" STR_FMT "\" is not supported: this version terminates no TLS at listeners",
                 STR_ARG(e.type));
        return false;
}

struct filter_chain *filter_chain_build(struct server *s, const struct listener_config *l, const struct Xds__FilterChain *proto,
                                        struct str stat_prefix, const struct diag_at *at, struct diags *d)
{
        struct filter_chain *c = MEM_NEW(struct filter_chain);
        struct filter_build b = { .server = s, .diags = d, .at = *at, .arena = &c->arena, .listener = l, .stat_prefix = stat_prefix };
        const Xds__FilterChain *p;
        struct str reason;
        bool ok = true;

        arena_init(&c->arena, 1024);
        c->refs = 1;
        p = (const Xds__FilterChain *)pb_clone_message(&proto->base, &c->arena);
        c->proto = p;
        c->hash = pb_hash(&p->base);
        c->name = p->name ? str_of(p->name) : (struct str){ 0 };
        c->filters = arena_zalloc(&c->arena, (p->n_filters + 1) * sizeof(*c->filters));
        for (size_t i = 0; i < p->n_filters; i++) {
                struct diag_at outer = b.at;

                b.at = filter_path(&b, ".filters[%zu]", i);
                ok = filter_build(&b, c, p->filters[i], i + 1 == p->n_filters) && ok;
                b.at = outer;
        }
        ok = transport_ok(&b, p) && ok;
        reason = struct_str(metadata_struct(p->metadata, "postern"), "reason");
        if (reason.n) {
                struct diag_at sub = filter_path(&b, ".metadata.filter_metadata[\"postern\"].reason");

                c->reason = format_compile(reason, false, &sub, d);
                ok = c->reason && ok;
        }
        c->needs = b.needs;
        c->nneeds = b.nneeds;
        if (!ok) {
                filter_chain_unref(c);
                return NULL;
        }
        return c;
}

struct filter_chain *filter_chain_ref(const struct filter_chain *c)
{
        struct filter_chain *m = (struct filter_chain *)c;

        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
        return m;
}

void filter_chain_unref(const struct filter_chain *cc)
{
        struct filter_chain *c = (struct filter_chain *)cc;

        if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
                return;
        for (unsigned i = 0; i < c->nfilters; i++)
                if (c->filters[i].def->free)
                        c->filters[i].def->free(c->filters[i].config);
        for (size_t i = 0; i < c->nneeds; i++)
                rds_slot_unref(c->needs[i]);
        free(c->needs);
        format_free(c->reason);
        arena_fini(&c->arena);
        free(c);
}
