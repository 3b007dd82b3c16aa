/* The wire format: messages to bytes and back.
 *
 * Not protobuf-c's own pair, for three reasons: its unpacker recurses as deep as a peer asks it to, it allocates a piece at a time from
 * malloc, and it cannot say by name what it did not know; its packer prints maps in whatever order they stand. Rules: the last of a
 * singular field wins, submessages merge, packed and unpacked lists are taken either way, unknown fields are kept and packed again,
 * strings are UTF-8 without NUL (they are C strings to the rest of the program). */
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_GROUP_END = 4, WIRE_32 = 5 };

static enum wire wire_of(ProtobufCType t)
{
        switch (t) {
        case PROTOBUF_C_TYPE_SFIXED32:
        case PROTOBUF_C_TYPE_FIXED32:
        case PROTOBUF_C_TYPE_FLOAT:
                return WIRE_32;
        case PROTOBUF_C_TYPE_SFIXED64:
        case PROTOBUF_C_TYPE_FIXED64:
        case PROTOBUF_C_TYPE_DOUBLE:
                return WIRE_64;
        case PROTOBUF_C_TYPE_STRING:
        case PROTOBUF_C_TYPE_BYTES:
        case PROTOBUF_C_TYPE_MESSAGE:
                return WIRE_BYTES;
        default:
                return WIRE_VARINT;
        }
}

/* ---- packing ---- */

static void put_varint(struct buf *b, uint64_t v)
{
        char t[10];
        size_t n = 0;

        while (v >= 0x80) {
                t[n++] = (char)(v | 0x80);
                v >>= 7;
        }
        t[n++] = (char)v;
        buf_append(b, t, n);
}

static void put_tag(struct buf *b, uint32_t id, enum wire w)
{
        put_varint(b, (uint64_t)id << 3 | w);
}

static uint64_t zigzag(int64_t v)
{
        return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

static void put_scalar(struct buf *b, ProtobufCType t, const void *v)
{
        switch (t) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_ENUM:
                put_varint(b, (uint64_t)(int64_t) * (const int32_t *)v);
                return;
        case PROTOBUF_C_TYPE_SINT32:
                put_varint(b, (uint32_t)zigzag(*(const int32_t *)v));
                return;
        case PROTOBUF_C_TYPE_SINT64:
                put_varint(b, zigzag(*(const int64_t *)v));
                return;
        case PROTOBUF_C_TYPE_UINT32:
                put_varint(b, *(const uint32_t *)v);
                return;
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_UINT64:
                put_varint(b, *(const uint64_t *)v);
                return;
        case PROTOBUF_C_TYPE_BOOL:
                put_varint(b, *(const protobuf_c_boolean *)v != 0);
                return;
        default: /* fixed; this machine and the wire are both little-endian */
                buf_append(b, v, pb_elem_size(t));
                return;
        }
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fixed-size fields are copied as they stand");

/* The length stands before what it counts: one byte is kept for it, and what follows is moved in the rarer case of a longer one. */
static void put_length(struct buf *b, size_t start)
{
        struct buf len = BUF_INIT;
        size_t n = b->n - start - 1;

        if (n < 0x80) {
                b->p[start] = (char)n;
                return;
        }
        put_varint(&len, n);
        buf_reserve(b, len.n - 1);
        memmove(b->p + start + len.n, b->p + start + 1, n);
        memcpy(b->p + start, len.p, len.n);
        b->n += len.n - 1;
        buf_fini(&len);
}

static void put_value(struct buf *b, const ProtobufCFieldDescriptor *f, const void *v)
{
        put_tag(b, f->id, wire_of(f->type));
        if (f->type == PROTOBUF_C_TYPE_STRING) {
                struct str s = str_of(*(char *const *)v);

                put_varint(b, s.n);
                buf_str(b, s);
        } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
                const ProtobufCBinaryData *d = v;

                put_varint(b, d->len);
                buf_append(b, d->data, d->len);
        } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
                size_t start = b->n;

                buf_char(b, 0);
                if (*(ProtobufCMessage *const *)v)
                        pb_pack(*(ProtobufCMessage *const *)v, b);
                put_length(b, start);
        } else {
                put_scalar(b, f->type, v);
        }
}

static void put_repeated(struct buf *b, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        size_t n = pb_count(m, f), size = pb_elem_size(f->type);

        if (pb_field_entry(f)) {
                ProtobufCMessage **v = pb_entries_sorted(m, f, &n);

                for (size_t i = 0; i < n; i++)
                        put_value(b, f, &v[i]);
                free(v);
        } else if (f->flags & PROTOBUF_C_FIELD_FLAG_PACKED) {
                put_tag(b, f->id, WIRE_BYTES);
                size_t start = b->n;

                buf_char(b, 0);
                for (size_t i = 0; i < n; i++)
                        put_scalar(b, f->type, pb_elems(m, f) + i * size);
                put_length(b, start);
        } else {
                for (size_t i = 0; i < n; i++)
                        put_value(b, f, pb_elems(m, f) + i * size);
        }
}

void pb_pack(const ProtobufCMessage *m, struct buf *out)
{
        const ProtobufCMessageDescriptor *t = m->descriptor;

        for (unsigned i = 0; i < t->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &t->fields[i];

                if (!pb_present(m, f))
                        continue;
                if (f->label == PROTOBUF_C_LABEL_REPEATED)
                        put_repeated(out, m, f);
                else
                        put_value(out, f, pb_at(m, f));
        }
        for (unsigned i = 0; i < m->n_unknown_fields; i++) {
                const ProtobufCMessageUnknownField *u = &m->unknown_fields[i];

                put_tag(out, u->tag, (enum wire)u->wire_type);
                buf_append(out, u->data, u->len);
        }
}

/* ---- unpacking ---- */

struct wire_in {
        const uint8_t *p, *end;
        struct arena *a;
        struct diags *d; /* may be NULL */
        unsigned depth;
};

static bool unpack_into(struct wire_in *w, ProtobufCMessage *m, const uint8_t *p, size_t n, const struct pb_path *path);

static bool get_varint(struct wire_in *w, uint64_t *v)
{
        uint64_t x = 0;

        for (unsigned shift = 0; shift < 70; shift += 7) {
                if (w->p >= w->end)
                        return false;
                uint8_t c = *w->p++;

                x |= shift < 64 ? (uint64_t)(c & 0x7f) << shift : 0;
                if (!(c & 0x80)) {
                        *v = x;
                        return shift < 63 || c <= 1;
                }
        }
        return false;
}

/* The bytes of a value, without its tag: its whole form as it stands on the wire. */
static bool skip_value(struct wire_in *w, enum wire type)
{
        uint64_t v;

        switch (type) {
        case WIRE_VARINT:
                return get_varint(w, &v);
        case WIRE_64:
                v = 8;
                break;
        case WIRE_32:
                v = 4;
                break;
        case WIRE_BYTES:
                if (!get_varint(w, &v))
                        return false;
                break;
        default:
                return false; /* groups: no protocol here has any */
        }
        if (v > (uint64_t)(w->end - w->p))
                return false;
        w->p += v;
        return true;
}

static bool get_scalar(struct wire_in *w, ProtobufCType t, void *out)
{
        uint64_t v;
        size_t size;

        if (wire_of(t) != WIRE_VARINT) {
                size = pb_elem_size(t);
                if ((size_t)(w->end - w->p) < size)
                        return false;
                memcpy(out, w->p, size);
                w->p += size;
                return true;
        }
        if (!get_varint(w, &v))
                return false;
        switch (t) {
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SINT64:
                v = (v >> 1) ^ (0 - (v & 1));
                break;
        case PROTOBUF_C_TYPE_BOOL:
                v = v != 0;
                break;
        default:
                break;
        }
        if (pb_elem_size(t) == 8)
                memcpy(out, &v, 8);
        else
                *(uint32_t *)out = (uint32_t)v;
        return true;
}

__attribute__((format(printf, 4, 5))) static void note(struct wire_in *w, enum diag_severity sev, const struct pb_path *p, const char *fmt,
                                                       ...)
{
        struct buf path = BUF_INIT, text = BUF_INIT;
        va_list ap;

        if (!w->d)
                return;
        va_start(ap, fmt);
        buf_vprintf(&text, fmt, ap);
        va_end(ap);
        pb_path_print(p, &path);
        diag_add(w->d, sev, NULL, &(struct diag_at){ .path = buf_view(&path) }, "%s", buf_z(&text));
        buf_fini(&path);
        buf_fini(&text);
}

static bool get_string(struct wire_in *w, const ProtobufCFieldDescriptor *f, void *out)
{
        uint64_t n;

        if (!get_varint(w, &n) || n > (uint64_t)(w->end - w->p))
                return false;
        struct str s = { (const char *)w->p, (size_t)n };

        w->p += n;
        if (f->type == PROTOBUF_C_TYPE_BYTES) {
                *(ProtobufCBinaryData *)out = (ProtobufCBinaryData){ .len = s.n, .data = arena_dup(w->a, s.p, s.n) };
                return true;
        }
        if (memchr(s.p, '\0', s.n) || !pb_utf8_valid(s))
                return false;
        *(char **)out = arena_cstr(w->a, s);
        return true;
}

static bool get_message(struct wire_in *w, const ProtobufCFieldDescriptor *f, ProtobufCMessage **out, const struct pb_path *path)
{
        uint64_t n;

        if (!get_varint(w, &n) || n > (uint64_t)(w->end - w->p))
                return false;
        const uint8_t *p = w->p;

        w->p += n;
        if (!*out)
                *out = pb_msg_new(f->descriptor, w->a);
        return unpack_into(w, *out, p, (size_t)n, path);
}

static bool get_element(struct wire_in *w, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct pb_path *path)
{
        struct pb_path here = { .up = path, .index = pb_count(m, f) };

        if (f->type == PROTOBUF_C_TYPE_MESSAGE)
                return get_message(w, f, pb_elem_add(m, f, w->a), &here);
        if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_BYTES)
                return get_string(w, f, pb_elem_add(m, f, w->a));
        return get_scalar(w, f->type, pb_elem_add(m, f, w->a));
}

static bool get_packed(struct wire_in *w, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        const uint8_t *end = w->end;
        uint64_t n;

        if (!get_varint(w, &n) || n > (uint64_t)(w->end - w->p))
                return false;
        w->end = w->p + n;
        bool ok = true;

        while (ok && w->p < w->end)
                ok = get_scalar(w, f->type, pb_elem_add(m, f, w->a));
        w->end = end;
        return ok;
}

/* Another member of the oneof may stand in the same memory. */
static void oneof_switch(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        if (*(const uint32_t *)((const char *)m + f->quantifier_offset) != f->id)
                memset(pb_at(m, f), 0, pb_elem_size(f->type));
}

static bool get_field(struct wire_in *w, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, enum wire type, const struct pb_path *path)
{
        struct pb_path here = { .up = path, .name = str_of(f->name) };
        enum wire want = wire_of(f->type);
        bool ok;

        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
                if (type == WIRE_BYTES && want != WIRE_BYTES)
                        return get_packed(w, m, f);
                return type == want && get_element(w, m, f, &here);
        }
        if (type != want)
                return false;
        if (pb_in_oneof(f))
                oneof_switch(m, f);
        if (f->type == PROTOBUF_C_TYPE_MESSAGE)
                ok = get_message(w, f, pb_at(m, f), &here);
        else if (want == WIRE_BYTES)
                ok = get_string(w, f, pb_at(m, f));
        else
                ok = get_scalar(w, f->type, pb_at(m, f));
        pb_mark(m, f);
        return ok;
}

static void keep_unknown(struct wire_in *w, ProtobufCMessage *m, uint32_t id, enum wire type, const uint8_t *value,
                         const struct pb_path *path)
{
        unsigned n = m->n_unknown_fields;

        if (n == 0 || (n >= 4 && (n & (n - 1)) == 0)) {
                ProtobufCMessageUnknownField *more = arena_alloc(w->a, sizeof(*more) * (n ? (size_t)n * 2 : 4));

                if (n)
                        memcpy(more, m->unknown_fields, n * sizeof(*more));
                m->unknown_fields = more;
        }
        m->unknown_fields[m->n_unknown_fields++] = (ProtobufCMessageUnknownField){
                .tag = id,
                .wire_type = (ProtobufCWireType)type,
                .len = (size_t)(w->p - value),
                .data = arena_dup(w->a, value, (size_t)(w->p - value)),
        };
        note(w, DIAG_WARNING, path, "unknown field number %u of %s", id, m->descriptor->name);
}

/* What an Any holds, looked through for what is not known; only when somebody listens. */
static bool look_into_any(struct wire_in *w, const ProtobufCMessage *m, const struct pb_path *path)
{
        const ProtobufCFieldDescriptor *uf = pb_field_by_number(m->descriptor, 1), *vf = pb_field_by_number(m->descriptor, 2);
        const ProtobufCMessageDescriptor *t = pb_present(m, uf) ? pb_type_url(str_of(*(char *const *)pb_at(m, uf))) : NULL;
        const ProtobufCBinaryData *v = pb_at(m, vf);
        struct wire_in in = { .d = w->d, .depth = w->depth };
        struct arena scratch;

        if (!t || !pb_present(m, vf))
                return true;
        arena_init(&scratch, 4096);
        in.a = &scratch;
        bool ok = unpack_into(&in, pb_msg_new(t, &scratch), v->data, v->len, path);

        arena_fini(&scratch);
        return ok;
}

static bool unpack_into(struct wire_in *w, ProtobufCMessage *m, const uint8_t *p, size_t n, const struct pb_path *path)
{
        const uint8_t *outer = w->p, *outer_end = w->end;
        const ProtobufCMessageDescriptor *t = m->descriptor;
        const ProtobufCFieldDescriptor *f = NULL;
        bool ok = true;

        if (++w->depth > PB_DEPTH_MAX) {
                note(w, DIAG_ERROR, path, "more than %d levels deep", PB_DEPTH_MAX);
                return false;
        }
        w->p = p;
        w->end = p + n;
        while (ok && w->p < w->end) {
                uint64_t tag;
                size_t errors = w->d ? w->d->errors : 0;

                if (!get_varint(w, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
                        note(w, DIAG_ERROR, path, "not the bytes of a %s", t->short_name);
                        ok = false;
                        break;
                }
                uint32_t id = (uint32_t)(tag >> 3);
                const uint8_t *value = w->p;

                /* Fields mostly come in the order of their numbers, and lists in one run. */
                if (!f || f->id != id)
                        f = f && f + 1 < t->fields + t->n_fields && f[1].id == id ? f + 1 : pb_field_by_number(t, id);
                if (f) {
                        ok = get_field(w, m, f, tag & 7, path);
                        if (!ok && w->d && w->d->errors == errors)
                                note(w, DIAG_ERROR, &(struct pb_path){ .up = path, .name = str_of(f->name) },
                                     "the bytes of field %u are not a %s", f->id,
                                     f->type == PROTOBUF_C_TYPE_MESSAGE  ? ((const ProtobufCMessageDescriptor *)f->descriptor)->short_name
                                     : f->type == PROTOBUF_C_TYPE_STRING ? "string (UTF-8 without NUL)"
                                                                         : "value of its type");
                } else {
                        ok = skip_value(w, tag & 7);
                        if (ok)
                                keep_unknown(w, m, id, tag & 7, value, path);
                        else
                                note(w, DIAG_ERROR, path, "the bytes of unknown field number %u of %s do not end", id, t->name);
                }
        }
        if (ok && w->d && pb_info(t)->special == PB_ANY)
                ok = look_into_any(w, m, path);
        w->p = outer;
        w->end = outer_end;
        w->depth--;
        return ok;
}

ProtobufCMessage *pb_unpack(const ProtobufCMessageDescriptor *t, const void *p, size_t n, struct arena *a, struct diags *d)
{
        struct wire_in w = { .a = a, .d = d };
        ProtobufCMessage *m = pb_msg_new(t, a);

        return unpack_into(&w, m, p ? p : (const void *)"", n, NULL) ? m : NULL;
}

ProtobufCMessage *pb_unpack_any(struct str type_url, struct str value, struct arena *a, const struct diag_at *at, struct diags *d)
{
        const ProtobufCMessageDescriptor *t = pb_type_url(type_url);
        ProtobufCMessage *m = t ? pb_unpack(t, value.p, value.n, a, NULL) : NULL;

        if (!t)
                diag_add(d, DIAG_ERROR, NULL, at, "type \"" STR_FMT "\" is not supported", STR_ARG(str_sub(type_url, 0, 200)));
        else if (!m)
                diag_add(d, DIAG_ERROR, NULL, at, "the bytes are not a %s", t->name);
        return m;
}
