/* Extension points and wrappers. Every reader takes the place of what it reads, so that a diagnostic can name the field. */
#include "proxy/ext.h"

#include "base/mem.h"
#include "pb/pb.h"

#include "envoy/core.pb-c.h"
#include "envoy/udpa_type.pb-c.h"
#include "envoy/xds_type.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"

#include <errno.h>
#include <stdlib.h>

struct diag_at at_path(struct arena *a, const struct diag_at *at, const char *fmt, ...)
{
        struct diag_at r = *at;
        va_list ap;
        struct str tail;

        va_start(ap, fmt);
        tail = arena_vprintf(a, fmt, ap);
        va_end(ap);
        if (!at->path.n && tail.n && tail.p[0] == '.')
                tail = str_sub(tail, 1, tail.n);
        r.path = arena_printf(a, STR_FMT STR_FMT, STR_ARG(at->path), STR_ARG(tail));
        return r;
}

static struct str type_name(struct str url)
{
        ptrdiff_t slash = str_rchr(url, '/');

        return slash < 0 ? url : str_sub(url, (size_t)slash + 1, url.n);
}

static bool typed_struct_read(const char *url, const Gp__Struct *value, struct arena *a, const struct diag_at *at, struct diags *d,
                              struct ext *out)
{
        static const Gp__Struct empty = GP__STRUCT__INIT;
        const ProtobufCMessageDescriptor *t;

        out->type = type_name(str_of(url));
        t = pb_type(out->type);
        if (!t) {
                diag_add(d, DIAG_ERROR, NULL, at, "extension type \"" STR_FMT "\" is not supported", STR_ARG(out->type));
                return false;
        }
        struct diag_at sub = at_path(a, at, ".value");

        out->msg = pb_from_node(t, pb_to_node(value ? &value->base : &empty.base, a), 0, &sub, a, d);
        return out->msg != NULL;
}

bool ext_read(const struct Gp__Any *any, struct arena *a, const struct diag_at *at, struct diags *d, struct ext *out)
{
        if (!any || !any->type_url || !any->type_url[0]) {
                diag_add(d, DIAG_ERROR, NULL, at, "is missing; say what it is with \"@type\"");
                return false;
        }
        out->type = type_name(str_of(any->type_url));
        if (!pb_type(out->type)) {
                diag_add(d, DIAG_ERROR, NULL, at, "extension type \"" STR_FMT "\" is not supported", STR_ARG(out->type));
                return false;
        }
        out->msg = pb_unpack_any(str_of(any->type_url), str_make((const char *)any->value.data, any->value.len), a, at, d);
        if (!out->msg)
                return false;
        if (out->msg->descriptor == &xds__typed_struct__descriptor) {
                const Xds__TypedStruct *ts = (const Xds__TypedStruct *)out->msg;

                return typed_struct_read(ts->type_url, ts->value, a, at, d, out);
        }
        if (out->msg->descriptor == &xds_xt__typed_struct__descriptor) {
                const XdsXt__TypedStruct *ts = (const XdsXt__TypedStruct *)out->msg;

                return typed_struct_read(ts->type_url, ts->value, a, at, d, out);
        }
        return true;
}

uint64_t duration_ms(const struct Gp__Duration *d, uint64_t otherwise, const struct diag_at *at, struct diags *diags)
{
        if (!d)
                return otherwise;
        if (d->seconds < 0 || d->nanos < 0 || d->seconds > 315576000000 || d->nanos > 999999999) {
                diag_add(diags, DIAG_ERROR, NULL, at, "must be a duration of 0 s or more and at most 10,000 years");
                return otherwise;
        }
        return (uint64_t)d->seconds * 1000 + ((uint64_t)d->nanos + 999999) / 1000000;
}

const struct Gp__Struct *metadata_struct(const struct Xds__Metadata *m, const char *filter)
{
        for (size_t i = 0; m && i < m->n_filter_metadata; i++)
                if (m->filter_metadata[i]->key && strcmp(m->filter_metadata[i]->key, filter) == 0)
                        return m->filter_metadata[i]->value;
        return NULL;
}

const struct Gp__Value *struct_value(const struct Gp__Struct *s, struct str key)
{
        for (size_t i = 0; s && i < s->n_fields; i++)
                if (str_eq(str_of(s->fields[i]->key), key))
                        return s->fields[i]->value;
        return NULL;
}

struct str struct_str(const struct Gp__Struct *s, const char *key)
{
        const Gp__Value *v = struct_value(s, str_of(key));

        return v && v->kind_case == GP__VALUE__KIND_STRING_VALUE ? str_of(v->string_value) : (struct str){ 0 };
}

bool address_read(const struct Xds__Address *a, struct addr *out, const struct diag_at *at, struct diags *d)
{
        const Xds__SocketAddress *sa;

        switch (a ? a->address_case : XDS__ADDRESS__ADDRESS__NOT_SET) {
        case XDS__ADDRESS__ADDRESS_SOCKET_ADDRESS:
                sa = a->socket_address;
                break;
        case XDS__ADDRESS__ADDRESS_PIPE:
                if (!a->pipe->path || !addr_unix(out, str_of(a->pipe->path))) {
                        diag_add(d, DIAG_ERROR, NULL, at, "pipe.path must be a path of at most 107 bytes");
                        return false;
                }
                return true;
        case XDS__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS:
                diag_add(d, DIAG_ERROR, NULL, at, "envoy_internal_address is not supported");
                return false;
        default:
                diag_add(d, DIAG_ERROR, NULL, at, "is missing: give socket_address or pipe");
                return false;
        }
        if (sa->has_protocol && sa->protocol != XDS__SOCKET_ADDRESS__PROTOCOL__TCP) {
                diag_add(d, DIAG_ERROR, NULL, at, "socket_address.protocol: UDP is not supported");
                return false;
        }
        if (sa->port_specifier_case == XDS__SOCKET_ADDRESS__PORT_SPECIFIER_NAMED_PORT) {
                diag_add(d, DIAG_ERROR, NULL, at, "socket_address.named_port is not supported; give port_value");
                return false;
        }
        uint32_t port = sa->port_specifier_case == XDS__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE ? sa->port_value : 0;

        if (port > 65535) {
                diag_add(d, DIAG_ERROR, NULL, at, "socket_address.port_value: %u is not a port (0 to 65535)", port);
                return false;
        }
        if (!sa->address || !addr_parse_ip(out, str_of(sa->address), (uint16_t)port)) {
                diag_add(d, DIAG_ERROR, NULL, at, "socket_address.address: \"%s\" is not an IP address", sa->address ? sa->address : "");
                return false;
        }
        return true;
}

bool data_source_read(const struct Xds__DataSource *ds, struct arena *a, const struct diag_at *at, struct diags *d, struct str *out)
{
        struct buf b = BUF_INIT;
        const char *v;
        int rc;

        switch (ds ? ds->specifier_case : XDS__DATA_SOURCE__SPECIFIER__NOT_SET) {
        case XDS__DATA_SOURCE__SPECIFIER_INLINE_STRING:
                *out = str_of(ds->inline_string);
                return true;
        case XDS__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
                *out = str_make((const char *)ds->inline_bytes.data, ds->inline_bytes.len);
                return true;
        case XDS__DATA_SOURCE__SPECIFIER_FILENAME:
                rc = buf_read_file(&b, ds->filename, 1 << 20);
                if (rc) {
                        diag_add(d, DIAG_ERROR, NULL, at, "filename: cannot read \"%s\": %s", ds->filename, strerror(-rc));
                        buf_fini(&b);
                        return false;
                }
                *out = arena_str(a, buf_view(&b));
                buf_fini(&b);
                return true;
        case XDS__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE:
                v = getenv(ds->environment_variable);
                if (!v) {
                        diag_add(d, DIAG_ERROR, NULL, at, "environment_variable: %s is not set", ds->environment_variable);
                        return false;
                }
                *out = str_of(v);
                return true;
        default:
                diag_add(d, DIAG_ERROR, NULL, at, "is empty: give inline_string, inline_bytes, filename or environment_variable");
                return false;
        }
}
