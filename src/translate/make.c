/* See make.h. Messages are allocated whole in the arena, so nothing here is ever freed piece by piece. */
#include "translate/make.h"

#include "pb/pb.h"

#include <arpa/inet.h>

void *make_message(struct arena *a, const ProtobufCMessageDescriptor *d)
{
        ProtobufCMessage *m = arena_alloc(a, d->sizeof_message);

        d->message_init(m);
        return m;
}

void make_pack(const void *message, struct buf *out)
{
        pb_pack(message, out);
}

void make_pack_field(struct buf *out, unsigned number, struct str bytes)
{
        uint64_t v[2] = { (uint64_t)number << 3 | 2, bytes.n };

        buf_reserve(out, bytes.n + 20);
        for (int i = 0; i < 2; i++) {
                for (; v[i] >= 0x80; v[i] >>= 7)
                        buf_char(out, (char)(v[i] | 0x80));
                buf_char(out, (char)v[i]);
        }
        buf_str(out, bytes);
}

Gp__Any *make_any(struct arena *a, const void *message)
{
        const ProtobufCMessage *m = message;
        Gp__Any *any = MAKE(a, gp__any);
        struct buf b = BUF_INIT;

        make_pack(m, &b);
        any->type_url = (char *)arena_printf(a, "type.googleapis.com/%s", m->descriptor->name).p;
        any->has_value = true;
        any->value.len = b.n;
        any->value.data = b.n ? arena_dup(a, b.p, b.n) : NULL;
        buf_fini(&b);
        return any;
}

Gp__Duration *make_us(struct arena *a, int64_t us)
{
        Gp__Duration *d = MAKE(a, gp__duration);

        /* Zero is the default in proto3: an absent field, as Istio's own encoder writes it. */
        d->has_seconds = us / 1000000 != 0;
        d->seconds = us / 1000000;
        d->has_nanos = us % 1000000 != 0;
        d->nanos = (int32_t)(us % 1000000 * 1000);
        return d;
}

Gp__UInt32Value *make_u32(struct arena *a, uint32_t v)
{
        Gp__UInt32Value *m = MAKE(a, gp__uint32_value);

        m->has_value = v != 0;
        m->value = v;
        return m;
}

Gp__BoolValue *make_bool(struct arena *a, bool v)
{
        Gp__BoolValue *m = MAKE(a, gp__bool_value);

        m->has_value = v;
        m->value = v;
        return m;
}

Gp__Value *make_text(struct arena *a, struct str s)
{
        Gp__Value *v = MAKE(a, gp__value);

        v->kind_case = GP__VALUE__KIND_STRING_VALUE;
        v->string_value = arena_cstr(a, s);
        return v;
}

Gp__Value *make_flag(struct arena *a, bool b)
{
        Gp__Value *v = MAKE(a, gp__value);

        v->kind_case = GP__VALUE__KIND_BOOL_VALUE;
        v->bool_value = b;
        return v;
}

Gp__Value *make_object(struct arena *a, Gp__Struct *s)
{
        Gp__Value *v = MAKE(a, gp__value);

        v->kind_case = GP__VALUE__KIND_STRUCT_VALUE;
        v->struct_value = s;
        return v;
}

Gp__Value *make_array(struct arena *a, Gp__Value **values, size_t n)
{
        Gp__Value *v = MAKE(a, gp__value);

        v->kind_case = GP__VALUE__KIND_LIST_VALUE;
        v->list_value = MAKE(a, gp__list_value);
        v->list_value->values = values;
        v->list_value->n_values = n;
        return v;
}

void make_put(struct arena *a, Gp__Struct *s, const char *key, Gp__Value *value)
{
        Gp__Struct__FieldsEntry *e = MAKE(a, gp__struct__fields_entry), **v = MAKE_LIST(a, s->n_fields + 1);
        size_t at = s->n_fields;

        e->key = (char *)key;
        e->value = value;
        for (; at > 0 && strcmp(s->fields[at - 1]->key, key) > 0; at--)
                v[at] = s->fields[at - 1];
        if (at)
                memcpy(v, s->fields, at * sizeof(*v));
        v[at] = e;
        s->fields = v;
        s->n_fields++;
}

Gp__Struct *make_metadata(struct arena *a, Xds__Metadata **m, const char *key)
{
        Xds__Metadata__FilterMetadataEntry *e, **v;
        size_t at;

        if (!*m)
                *m = MAKE(a, xds__metadata);
        for (size_t i = 0; i < (*m)->n_filter_metadata; i++)
                if (strcmp((*m)->filter_metadata[i]->key, key) == 0)
                        return (*m)->filter_metadata[i]->value;
        e = MAKE(a, xds__metadata__filter_metadata_entry);
        e->key = (char *)key;
        e->value = MAKE(a, gp__struct);
        v = MAKE_LIST(a, (*m)->n_filter_metadata + 1);
        for (at = (*m)->n_filter_metadata; at > 0 && strcmp((*m)->filter_metadata[at - 1]->key, key) > 0; at--)
                v[at] = (*m)->filter_metadata[at - 1];
        if (at)
                memcpy(v, (*m)->filter_metadata, at * sizeof(*v));
        v[at] = e;
        (*m)->filter_metadata = v;
        (*m)->n_filter_metadata++;
        return e->value;
}

void make_origin(struct arena *a, Xds__Metadata **m, struct str config)
{
        if (config.n)
                make_put(a, make_metadata(a, m, "istio"), "config", make_text(a, config));
}

void make_reason(struct arena *a, Xds__Metadata **m, struct str reason)
{
        if (reason.n)
                make_put(a, make_metadata(a, m, "postern"), "reason", make_text(a, reason));
}

Xds__Address *make_address(struct arena *a, struct str address, uint32_t port)
{
        Xds__Address *m = MAKE(a, xds__address);

        if (str_starts(address, STR("unix://"))) {
                m->address_case = XDS__ADDRESS__ADDRESS_PIPE;
                m->pipe = MAKE(a, xds__pipe);
                m->pipe->path = arena_cstr(a, str_sub(address, 7, address.n));
                return m;
        }
        m->address_case = XDS__ADDRESS__ADDRESS_SOCKET_ADDRESS;
        m->socket_address = MAKE(a, xds__socket_address);
        m->socket_address->address = arena_cstr(a, address);
        m->socket_address->port_specifier_case = XDS__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
        m->socket_address->port_value = port;
        return m;
}

Xds__CidrRange *make_cidr(struct arena *a, struct str range)
{
        ptrdiff_t slash = str_chr(range, '/');
        struct str address = slash < 0 ? range : str_sub(range, 0, (size_t)slash);
        char *text = arena_cstr(a, address);
        unsigned char bin[16];
        uint64_t len;
        bool v4 = inet_pton(AF_INET, text, bin) == 1;
        Xds__CidrRange *m;

        if (!v4 && inet_pton(AF_INET6, text, bin) != 1)
                return NULL;
        len = v4 ? 32 : 128;
        if (slash >= 0 && (!str_u64(str_sub(range, (size_t)slash + 1, range.n), &len) || len > (v4 ? 32 : 128)))
                return NULL;
        m = MAKE(a, xds__cidr_range);
        m->address_prefix = text;
        m->prefix_len = make_u32(a, (uint32_t)len);
        return m;
}

Gp__Any *make_typed_struct(struct arena *a, const char *type_url, Gp__Struct *s)
{
        Xds__TypedStruct *t = MAKE(a, xds__typed_struct);

        t->type_url = (char *)type_url;
        t->value = s;
        return make_any(a, t);
}
