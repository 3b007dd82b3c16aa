/* Discovery responses to updates. A resource's name is field 1 of all five kinds, so a resource that cannot be unpacked can still be named.
 */
#include "xds/decode.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"

#include <stdlib.h>

enum { ERROR_TEXT_MAX_BYTES = 4096, WARNED_MAX = 1000 };

static const struct str resource_url = { "type.googleapis.com/envoy.service.discovery.v3.Resource",
                                         sizeof("type.googleapis.com/envoy.service.discovery.v3.Resource") - 1 };

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
        *v = 0;
        for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
                uint8_t b = *(*p)++;

                *v |= (uint64_t)(b & 0x7f) << shift;
                if (!(b & 0x80))
                        return true;
        }
        return false;
}

/* The last field 1 of wire type "bytes" (protobuf: the last one counts); {"",0}: none, or not a message. */
static struct str name_on_wire(struct str value)
{
        const uint8_t *p = (const uint8_t *)value.p, *end = p + value.n;
        struct str name = STR("");
        uint64_t tag, n;

        while (p < end && varint(&p, end, &tag)) {
                switch (tag & 7) {
                case 0:
                        n = 0;
                        if (!varint(&p, end, &n))
                                return name;
                        n = 0;
                        break;
                case 1:
                        n = 8;
                        break;
                case 5:
                        n = 4;
                        break;
                case 2:
                        if (!varint(&p, end, &n))
                                return name;
                        break;
                default:
                        return name;
                }
                if (n > (uint64_t)(end - p))
                        return name;
                if (tag == (1 << 3 | 2))
                        name = str_make((const char *)p, n);
                p += n;
        }
        return name;
}

static struct str label(struct arena *a, enum xds_type t, const struct xds_resource *r)
{
        ptrdiff_t dot = str_rchr(str_of(xds_type_url(t)), '.');

        return arena_printf(a, "%s " STR_FMT, xds_type_url(t) + dot + 1, STR_ARG(r->name));
}

bool xds_decode_resource(struct xds_resource *r, enum xds_type t, struct arena *a, struct diags *d)
{
        struct diag_at at = { .resource = label(a, t, r) };

        if (!r->name.n) {
                diag_add(d, DIAG_ERROR, "PST0401", &at, "a resource without a name (or not a message of this type)");
                r->refused = true;
                return false;
        }
        r->msg = pb_unpack_any(str_of(xds_type_url(t)), r->value, a, &at, d);
        r->refused = r->msg == NULL;
        return r->msg != NULL;
}

/* Fills r from an Any. False: this is not of the type. */
static bool from_any(const Gp__Any *any, enum xds_type t, struct arena *a, struct xds_resource *r, struct diags *d)
{
        struct str url = str_of(any && any->type_url ? any->type_url : "");
        struct str value = any && any->value.data ? str_make((const char *)any->value.data, any->value.len) : STR("");

        if (str_eq(url, resource_url)) { /* wrapped, with a name of its own */
                const Xds__Resource *w = (const Xds__Resource *)pb_unpack(&xds__resource__descriptor, value.p, value.n, a, NULL);

                if (!w || !w->resource || !w->resource->type_url || str_eqc(resource_url, w->resource->type_url)) {
                        diag_add(d, DIAG_ERROR, "PST0402", NULL, "%s: a Resource wrapper that holds nothing", xds_type_name(t));
                        return false;
                }
                return from_any(w->resource, t, a, r, d);
        }
        if (xds_type_of(url) != (int)t) {
                diag_add(d, DIAG_ERROR, "PST0402", NULL, "%s: a resource of type \"" STR_FMT "\", not \"%s\"", xds_type_name(t),
                         STR_ARG(url), xds_type_url(t));
                return false;
        }
        r->value = value;
        r->name = name_on_wire(value);
        return true;
}

/* Each name once: the second of a kind is refused. */
static void check_duplicates(struct xds_update *u, struct arena *a, struct diags *d)
{
        struct strmap names = STRMAP_INIT;

        for (size_t i = 0; i < u->n; i++) {
                if (u->v[i].refused || !strmap_set(&names, u->v[i].name, u))
                        continue;
                struct diag_at at = { .resource = label(a, u->type, &u->v[i]) };
                diag_add(d, DIAG_ERROR, "PST0403", &at, "more than one resource of this name in one response");
                u->v[i].refused = true;
        }
        strmap_fini(&names);
}

bool xds_decode(const Xds__DiscoveryResponse *r, enum xds_type t, struct arena *a, struct xds_update *u, struct diags *d)
{
        *u = (struct xds_update){
                .type = t,
                .version = str_of(r->version_info ? r->version_info : ""),
                .full = xds_type_wildcard(t),
                .v = arena_zalloc(a, (r->n_resources + 1) * sizeof(*u->v)),
        };
        for (size_t i = 0; i < r->n_resources; i++) {
                struct xds_resource *x = &u->v[u->n++];

                if (!from_any(r->resources[i], t, a, x, d))
                        return false;
                x->version = u->version;
                xds_decode_resource(x, t, a, d);
        }
        check_duplicates(u, a, d);
        return true;
}

bool xds_decode_delta(const Xds__DeltaDiscoveryResponse *r, enum xds_type t, struct arena *a, struct xds_update *u, struct diags *d)
{
        *u = (struct xds_update){
                .type = t,
                .version = str_of(r->system_version_info ? r->system_version_info : ""),
                .v = arena_zalloc(a, (r->n_resources + 1) * sizeof(*u->v)),
        };
        for (size_t i = 0; i < r->n_resources; i++) {
                struct xds_resource *x = &u->v[u->n];

                if (!r->resources[i]->resource) /* a heartbeat: nothing new */
                        continue;
                u->n++;
                if (!from_any(r->resources[i]->resource, t, a, x, d))
                        return false;
                if (r->resources[i]->name && *r->resources[i]->name)
                        x->name = str_of(r->resources[i]->name);
                x->version = str_of(r->resources[i]->version ? r->resources[i]->version : "");
                xds_decode_resource(x, t, a, d);
        }
        check_duplicates(u, a, d);
        struct str *removed = arena_alloc(a, (r->n_removed_resources + r->n_removed_resource_names + 1) * sizeof(*removed));
        for (size_t i = 0; i < r->n_removed_resources; i++)
                removed[u->nremoved++] = str_of(r->removed_resources[i]);
        for (size_t i = 0; i < r->n_removed_resource_names; i++)
                if (r->removed_resource_names[i]->name)
                        removed[u->nremoved++] = str_of(r->removed_resource_names[i]->name);
        u->removed = removed;
        return true;
}

void xds_errors_text(const struct diags *d, struct buf *out)
{
        size_t shown = 0;

        for (size_t i = 0; i < d->n && out->n < ERROR_TEXT_MAX_BYTES; i++) {
                if (d->v[i].severity != DIAG_ERROR)
                        continue;
                if (out->n)
                        buf_cstr(out, "; ");
                diag_format(&d->v[i], out);
                shown++;
        }
        if (out->n > ERROR_TEXT_MAX_BYTES)
                out->n = ERROR_TEXT_MAX_BYTES;
        if (shown < d->errors)
                buf_printf(out, "; and %zu more", d->errors - shown);
}

/* Moves what can be shown to the sink to the front; returns how many. The refused ones stay behind them. */
static size_t partition(struct xds_update *u)
{
        size_t k = 0;

        for (size_t i = 0; i < u->n; i++) {
                if (u->v[i].refused)
                        continue;
                struct xds_resource x = u->v[k];
                u->v[k++] = u->v[i];
                u->v[i] = x;
        }
        return k;
}

static void note_version(struct xds_stats *s, struct str version)
{
        free((char *)s->version_text.p);
        s->version_text = str_of(str_dup(version));
        s->version = version.n ? hash_bytes(version.p, version.n, 0) : 0;
        s->update_time_ms = clock_real_us() / 1000;
}

bool xds_deliver(const struct xds_sink *sink, struct xds_update *u, struct xds_stats *s, struct diags *d)
{
        size_t all = u->n, marked = 0, before = d->errors;

        u->n = partition(u);
        sink->apply(sink->arg, u, d);
        for (size_t i = 0; i < u->n; i++)
                marked += u->v[i].refused;
        if (d->errors > before && !marked)
                for (size_t i = 0; i < u->n; i++)
                        u->v[i].refused = true;
        u->n = all;
        free((char *)s->error.p);
        s->error = (struct str){ NULL, 0 };
        if (!d->errors) {
                s->update_success++;
                note_version(s, u->version);
                return true;
        }
        struct buf b = BUF_INIT;
        xds_errors_text(d, &b);
        s->error.n = b.n;
        s->error.p = buf_take(&b);
        s->update_rejected++;
        return false;
}

void xds_warn_once(struct xds_warned *w, const struct diags *d)
{
        for (size_t i = 0; i < d->n; i++) {
                struct buf b = BUF_INIT;

                if (d->v[i].severity != DIAG_WARNING || w->seen.live >= WARNED_MAX)
                        continue;
                /* The same field of another resource is no news: the key leaves the resource out. */
                buf_str(&b, d->v[i].path);
                buf_char(&b, ' ');
                buf_str(&b, d->v[i].text);
                bool known = strmap_set(&w->seen, buf_view(&b), w) != NULL;
                b.n = 0;
                diag_format(&d->v[i], &b);
                if (!known)
                        LOG(LOG_WARN, "xds", "%s", buf_z(&b));
                buf_fini(&b);
        }
}

void xds_warned_fini(struct xds_warned *w)
{
        strmap_fini(&w->seen);
}

void xds_stats_fini(struct xds_stats *s)
{
        free((char *)s->version_text.p);
        free((char *)s->error.p);
}
