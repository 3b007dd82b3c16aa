/* Messages to nodes and JSON text: fields in the order of their numbers, by their lowerCamelCase names; what is absent is not printed. */
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

static struct pb_node *write_value(const ProtobufCFieldDescriptor *f, const void *v, bool k8s, struct arena *a, unsigned depth)
{
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
                return pb_write_scalar(f, v, k8s, a);
        const ProtobufCMessage *sub = *(ProtobufCMessage *const *)v;

        return sub ? pb_write_message(sub, a, depth + 1) : pb_new(a, PB_MAP, (struct str){ 0 });
}

static struct pb_node *write_map(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct pb_info *ei, bool k8s,
                                 struct arena *a, unsigned depth)
{
        const ProtobufCFieldDescriptor *kf = &ei->t->fields[0], *vf = &ei->t->fields[1];
        size_t n;
        ProtobufCMessage **v = pb_entries_sorted(m, f, &n);
        struct pb_node *map = pb_new(a, PB_MAP, (struct str){ 0 });

        /* Filled by hand: pb_put() would look for each key among those before it. */
        map->v = arena_alloc(a, pb_node_cap(n) * sizeof(*map->v));
        map->keys = arena_alloc(a, pb_node_cap(n) * sizeof(*map->keys));
        map->key_at = arena_zalloc(a, pb_node_cap(n) * sizeof(*map->key_at));
        for (size_t i = 0; i < n; i++) {
                struct str key = pb_write_scalar(kf, pb_at(v[i], kf), k8s, a)->text;
                struct pb_node *e = write_value(vf, pb_at(v[i], vf), k8s, a, depth);

                if (map->n && str_eq(map->keys[map->n - 1], key)) {
                        map->v[map->n - 1] = e; /* a peer sent one key twice: the last counts */
                        continue;
                }
                map->keys[map->n] = key;
                map->v[map->n++] = e;
        }
        free(v);
        return map;
}

struct pb_node *pb_write_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, bool k8s, struct arena *a, unsigned depth)
{
        const struct pb_info *ei = pb_field_entry(f);

        if (ei)
                return write_map(m, f, ei, k8s, a, depth);
        if (f->label != PROTOBUF_C_LABEL_REPEATED)
                return write_value(f, pb_at(m, f), k8s, a, depth);
        struct pb_node *list = pb_new(a, PB_LIST, (struct str){ 0 });
        size_t n = pb_count(m, f), size = pb_elem_size(f->type);

        for (size_t i = 0; i < n; i++)
                pb_push(a, list, write_value(f, pb_elems(m, f) + i * size, k8s, a, depth));
        return list;
}

struct pb_node *pb_write_message(const ProtobufCMessage *m, struct arena *a, unsigned depth)
{
        const struct pb_info *ti = pb_info(m->descriptor);

        /* Three times what a reader takes in: a message made by hand may be deeper, one made by accident in a circle must end. */
        if (depth > 3 * PB_DEPTH_MAX)
                return pb_new(a, PB_NULL, STR("null"));
        if (ti->special)
                return pb_write_special(m, ti, a, depth);
        struct pb_node *map = pb_new(a, PB_MAP, (struct str){ 0 });

        for (unsigned i = 0; i < ti->t->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &ti->t->fields[i];

                if (pb_present(m, f))
                        pb_put(a, map, str_of(ti->json_names[i]), pb_write_field(m, f, ti->k8s, a, depth));
        }
        return map;
}

struct pb_node *pb_to_node(const ProtobufCMessage *m, struct arena *a)
{
        return pb_write_message(m, a, 0);
}

void pb_to_json(const ProtobufCMessage *m, unsigned indent, struct buf *out)
{
        struct arena a;

        arena_init(&a, 16384);
        pb_node_json_indent(pb_to_node(m, &a), indent, out);
        arena_fini(&a);
}
