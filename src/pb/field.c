/* Members of a message by their descriptors: presence, elements, map entries. The one file that knows protobuf-c's memory layout:
 * proto2 scalars have a `protobuf_c_boolean has_x`, a repeated field an `n_x` and an array, a oneof a case that holds the field's number,
 * and strings and messages are absent when NULL. */
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

bool pb_present(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
                return pb_count(m, f) > 0;
        if (pb_in_oneof(f) && *(const uint32_t *)((const char *)m + f->quantifier_offset) != f->id)
                return false;
        if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE) {
                const void *p = *(void *const *)pb_at(m, f);

                return p && p != f->default_value;
        }
        if (pb_in_oneof(f) || f->label == PROTOBUF_C_LABEL_REQUIRED)
                return true;
        return *(const protobuf_c_boolean *)((const char *)m + f->quantifier_offset);
}

void pb_mark(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        if (pb_in_oneof(f))
                *(uint32_t *)((char *)m + f->quantifier_offset) = f->id;
        else if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
                *(protobuf_c_boolean *)((char *)m + f->quantifier_offset) = 1;
}

size_t pb_elem_size(ProtobufCType type)
{
        switch (type) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
        case PROTOBUF_C_TYPE_FLOAT:
        case PROTOBUF_C_TYPE_ENUM:
                return 4;
        case PROTOBUF_C_TYPE_BOOL:
                return sizeof(protobuf_c_boolean);
        case PROTOBUF_C_TYPE_BYTES:
                return sizeof(ProtobufCBinaryData);
        default:
                return 8;
        }
}

/* Capacity is implied: an array is moved when its count reaches a power of two. */
void *pb_elem_add(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct arena *a)
{
        size_t *n = (size_t *)((char *)m + f->quantifier_offset), size = pb_elem_size(f->type);
        char **v = pb_at(m, f);

        if (*n == 0 || (*n >= 4 && (*n & (*n - 1)) == 0)) {
                char *more = arena_alloc(a, size * (*n ? *n * 2 : 4));

                if (*n)
                        memcpy(more, *v, *n * size);
                *v = more;
        }
        char *e = *v + (*n)++ * size;

        memset(e, 0, size);
        return e;
}

ProtobufCMessage *pb_msg_new(const ProtobufCMessageDescriptor *t, struct arena *a)
{
        ProtobufCMessage *m = arena_alloc(a, t->sizeof_message);

        protobuf_c_message_init(t, m);
        return m;
}

static int key_cmp(const void *pa, const void *pb)
{
        const ProtobufCMessage *a = *(ProtobufCMessage *const *)pa, *b = *(ProtobufCMessage *const *)pb;
        const ProtobufCFieldDescriptor *k = &a->descriptor->fields[0];
        const void *x = pb_at(a, k), *y = pb_at(b, k);

        switch (k->type) {
        case PROTOBUF_C_TYPE_STRING: {
                const char *s = *(char *const *)x, *t = *(char *const *)y;

                return strcmp(s ? s : "", t ? t : "");
        }
        case PROTOBUF_C_TYPE_BOOL:
                return *(const protobuf_c_boolean *)x - *(const protobuf_c_boolean *)y;
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32: {
                uint32_t u = *(const uint32_t *)x, v = *(const uint32_t *)y;

                return (u > v) - (u < v);
        }
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64: {
                uint64_t u = *(const uint64_t *)x, v = *(const uint64_t *)y;

                return (u > v) - (u < v);
        }
        default: {
                bool wide = pb_elem_size(k->type) == 8;
                int64_t u = wide ? *(const int64_t *)x : *(const int32_t *)x, v = wide ? *(const int64_t *)y : *(const int32_t *)y;

                return (u > v) - (u < v);
        }
        }
}

ProtobufCMessage **pb_entries_sorted(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t *n)
{
        *n = pb_count(m, f);
        ProtobufCMessage **v = mem_dup(pb_elems(m, f), *n * sizeof(*v));
        bool sorted = true;

        for (size_t i = 1; sorted && i < *n; i++)
                sorted = key_cmp(&v[i - 1], &v[i]) < 0;
        if (!sorted)
                qsort(v, *n, sizeof(*v), key_cmp);
        return v;
}

/* A map key that is no plain word stands in brackets, as Kubernetes writes it: metadata.labels[app.kubernetes.io/name]. */
static bool plain_word(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = ascii_lower(s.p[i]);

                if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '@'))
                        return false;
        }
        return s.n > 0;
}

void pb_path_print(const struct pb_path *p, struct buf *out)
{
        if (!p)
                return;
        pb_path_print(p->up, out);
        if (!p->name.p)
                buf_printf(out, "[%zu]", p->index);
        else if (plain_word(p->name))
                buf_printf(out, "%s" STR_FMT, out->n ? "." : "", STR_ARG(p->name));
        else
                buf_printf(out, "[" STR_FMT "]", STR_ARG(str_sub(p->name, 0, 100)));
}
