/* Messages against messages: equal, hash, the paths that differ, copies. A map is the same in any order. */
#include "base/hash.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

static bool value_eq(const ProtobufCFieldDescriptor *f, const void *a, const void *b)
{
        switch (f->type) {
        case PROTOBUF_C_TYPE_STRING: {
                const char *s = *(char *const *)a, *t = *(char *const *)b;

                return s == t || (s && t && !strcmp(s, t));
        }
        case PROTOBUF_C_TYPE_BYTES: {
                const ProtobufCBinaryData *x = a, *y = b;

                return x->len == y->len && (!x->len || !memcmp(x->data, y->data, x->len));
        }
        case PROTOBUF_C_TYPE_MESSAGE:
                return pb_equal(*(ProtobufCMessage *const *)a, *(ProtobufCMessage *const *)b);
        case PROTOBUF_C_TYPE_BOOL:
                return !*(const protobuf_c_boolean *)a == !*(const protobuf_c_boolean *)b;
        default:
                return !memcmp(a, b, pb_elem_size(f->type));
        }
}

static bool map_eq(const ProtobufCMessage *a, const ProtobufCMessage *b, const ProtobufCFieldDescriptor *f)
{
        size_t n, m;
        ProtobufCMessage **x = pb_entries_sorted(a, f, &n), **y = pb_entries_sorted(b, f, &m);
        bool same = n == m;

        for (size_t i = 0; same && i < n; i++)
                same = pb_equal(x[i], y[i]);
        free(x);
        free(y);
        return same;
}

static bool field_eq(const ProtobufCMessage *a, const ProtobufCMessage *b, const ProtobufCFieldDescriptor *f)
{
        bool there = pb_present(a, f);

        if (there != pb_present(b, f))
                return false;
        if (!there)
                return true;
        if (f->label != PROTOBUF_C_LABEL_REPEATED)
                return value_eq(f, pb_at(a, f), pb_at(b, f));
        size_t n = pb_count(a, f), size = pb_elem_size(f->type);

        if (n != pb_count(b, f))
                return false;
        if (pb_field_entry(f))
                return map_eq(a, b, f);
        for (size_t i = 0; i < n; i++)
                if (!value_eq(f, pb_elems(a, f) + i * size, pb_elems(b, f) + i * size))
                        return false;
        return true;
}

static bool unknown_eq(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
        if (a->n_unknown_fields != b->n_unknown_fields)
                return false;
        for (unsigned i = 0; i < a->n_unknown_fields; i++) {
                const ProtobufCMessageUnknownField *x = &a->unknown_fields[i], *y = &b->unknown_fields[i];

                if (x->tag != y->tag || x->wire_type != y->wire_type || x->len != y->len || memcmp(x->data, y->data, x->len))
                        return false;
        }
        return true;
}

bool pb_equal(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
        if (a == b)
                return true;
        if (!a || !b || a->descriptor != b->descriptor)
                return false;
        for (unsigned i = 0; i < a->descriptor->n_fields; i++)
                if (!field_eq(a, b, &a->descriptor->fields[i]))
                        return false;
        return unknown_eq(a, b);
}

uint64_t pb_hash(const ProtobufCMessage *m)
{
        struct buf b = BUF_INIT;

        if (!m)
                return 0;
        pb_pack(m, &b);
        uint64_t h = hash_bytes(b.p, b.n, hash_bytes(m->descriptor->name, strlen(m->descriptor->name), 0));

        buf_fini(&b);
        return h;
}

ProtobufCMessage *pb_clone_message(const ProtobufCMessage *m, struct arena *a)
{
        struct buf b = BUF_INIT;

        if (!m)
                return NULL;
        pb_pack(m, &b);
        ProtobufCMessage *c = pb_unpack(m->descriptor, b.p, b.n, a, NULL);

        buf_fini(&b);
        return c;
}

/* ---- differences ---- */

struct differ {
        void (*fn)(void *arg, struct str path);
        void *arg;
        unsigned depth;
};

static void diff_messages(struct differ *df, const ProtobufCMessage *a, const ProtobufCMessage *b, const struct pb_path *p);

static void say(struct differ *df, const struct pb_path *p)
{
        struct buf b = BUF_INIT;

        pb_path_print(p, &b);
        df->fn(df->arg, str_make(buf_z(&b), b.n));
        buf_fini(&b);
}

static void diff_value(struct differ *df, const ProtobufCFieldDescriptor *f, const void *a, const void *b, const struct pb_path *p)
{
        if (value_eq(f, a, b))
                return;
        if (f->type == PROTOBUF_C_TYPE_MESSAGE)
                diff_messages(df, *(ProtobufCMessage *const *)a, *(ProtobufCMessage *const *)b, p);
        else
                say(df, p);
}

static void diff_map(struct differ *df, const ProtobufCMessage *a, const ProtobufCMessage *b, const ProtobufCFieldDescriptor *f,
                     const struct pb_path *p)
{
        const struct pb_info *ei = pb_field_entry(f);
        const ProtobufCFieldDescriptor *kf = &ei->t->fields[0], *vf = &ei->t->fields[1];
        size_t n, m;
        ProtobufCMessage **x = pb_entries_sorted(a, f, &n), **y = pb_entries_sorted(b, f, &m);
        struct arena scratch;

        arena_init(&scratch, 1024);
        for (size_t i = 0, j = 0; i < n || j < m;) {
                struct str k = i < n ? pb_write_scalar(kf, pb_at(x[i], kf), false, &scratch)->text : STR("");
                struct str l = j < m ? pb_write_scalar(kf, pb_at(y[j], kf), false, &scratch)->text : STR("");
                bool same = i < n && j < m && str_eq(k, l);
                int order = same ? 0 : i >= n ? 1 : j >= m ? -1 : str_cmp(k, l);
                struct pb_path here = { .up = p, .name = order <= 0 ? k : l };

                if (same)
                        diff_value(df, vf, pb_at(x[i], vf), pb_at(y[j], vf), &here);
                else
                        say(df, &here);
                i += order <= 0;
                j += order >= 0;
        }
        arena_fini(&scratch);
        free(x);
        free(y);
}

/* Two Any of one known type differ where their contents do. */
static bool diff_any(struct differ *df, const ProtobufCMessage *a, const ProtobufCMessage *b, const struct pb_path *p)
{
        const ProtobufCFieldDescriptor *uf = &a->descriptor->fields[0], *vf = &a->descriptor->fields[1];
        const ProtobufCBinaryData *x = pb_at(a, vf), *y = pb_at(b, vf);
        const ProtobufCMessageDescriptor *t;
        struct arena scratch;

        if (!pb_present(a, uf) || !field_eq(a, b, uf) || !(t = pb_type_url(str_of(*(char *const *)pb_at(a, uf)))))
                return false;
        arena_init(&scratch, 4096);
        ProtobufCMessage *m = pb_unpack(t, x->data, x->len, &scratch, NULL), *n = pb_unpack(t, y->data, y->len, &scratch, NULL);
        bool done = m && n && !pb_equal(m, n);

        if (done)
                diff_messages(df, m, n, p);
        arena_fini(&scratch);
        return done;
}

static void diff_field(struct differ *df, const ProtobufCMessage *a, const ProtobufCMessage *b, const ProtobufCFieldDescriptor *f,
                       const struct pb_path *up)
{
        struct pb_path here = { .up = up, .name = str_of(f->name) };
        bool list = f->label == PROTOBUF_C_LABEL_REPEATED;

        if (field_eq(a, b, f))
                return;
        if (!list && pb_present(a, f) && pb_present(b, f)) {
                diff_value(df, f, pb_at(a, f), pb_at(b, f), &here);
        } else if (!list) {
                say(df, &here);
        } else if (pb_field_entry(f)) {
                diff_map(df, a, b, f, &here);
        } else {
                size_t n = pb_count(a, f), m = pb_count(b, f), size = pb_elem_size(f->type);

                for (size_t i = 0; i < n || i < m; i++) {
                        struct pb_path e = { .up = &here, .index = i };

                        if (i < n && i < m)
                                diff_value(df, f, pb_elems(a, f) + i * size, pb_elems(b, f) + i * size, &e);
                        else
                                say(df, &e);
                }
        }
}

static void diff_messages(struct differ *df, const ProtobufCMessage *a, const ProtobufCMessage *b, const struct pb_path *p)
{
        if (!a || !b || a->descriptor != b->descriptor || df->depth > 3 * PB_DEPTH_MAX) {
                if (a != b)
                        say(df, p);
                return;
        }
        df->depth++;
        if (pb_info(a->descriptor)->special == PB_ANY ? !diff_any(df, a, b, p) : pb_info(a->descriptor)->special && p) {
                if (!pb_equal(a, b))
                        say(df, p); /* a duration differs as a whole */
        } else if (pb_info(a->descriptor)->special != PB_ANY) {
                for (unsigned i = 0; i < a->descriptor->n_fields; i++)
                        diff_field(df, a, b, &a->descriptor->fields[i], p);
                if (!unknown_eq(a, b))
                        say(df, &(struct pb_path){ .up = p, .name = STR("unknown fields") });
        }
        df->depth--;
}

void pb_diff(const ProtobufCMessage *a, const ProtobufCMessage *b, void (*fn)(void *arg, struct str path), void *arg)
{
        struct differ df = { .fn = fn, .arg = arg };

        diff_messages(&df, a, b, NULL);
}
