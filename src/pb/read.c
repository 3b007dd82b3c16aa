/* Nodes to messages: the walk over fields. Scalars are in scalar.c, messages with a JSON form of their own in wellknown.c.
 *
 * Everything that is wrong is reported, not only the first: a reader who mends a file wants the whole list. */
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

static void vreport(struct pb_reader *r, enum diag_severity sev, const struct pb_node *n, const struct pb_path *p, const char *fmt,
                    va_list ap)
{
        struct diag_at at = r->base ? *r->base : (struct diag_at){ 0 };
        struct buf path = BUF_INIT, text = BUF_INIT;

        if (!r->d)
                return;
        buf_str(&path, at.path);
        pb_path_print(p, &path);
        at.path = buf_view(&path);
        if (n && n->line) {
                at.line = n->line;
                at.column = n->column;
        }
        buf_vprintf(&text, fmt, ap);
        diag_add(r->d, sev, NULL, &at, "%s", buf_z(&text));
        buf_fini(&path);
        buf_fini(&text);
}

void pb_read_error(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, const char *fmt, ...)
{
        va_list ap;

        r->failed = true;
        va_start(ap, fmt);
        vreport(r, DIAG_ERROR, n, p, fmt, ap);
        va_end(ap);
}

void pb_read_warning(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        vreport(r, DIAG_WARNING, n, p, fmt, ap);
        va_end(ap);
}

const char *pb_kind_name(const struct pb_node *n)
{
        static const char *const names[] = { [PB_NULL] = "null",       [PB_BOOL] = "a boolean", [PB_NUMBER] = "a number",
                                             [PB_STRING] = "a string", [PB_LIST] = "a list",    [PB_MAP] = "an object" };

        return names[n->kind];
}

static bool read_element(struct pb_reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct pb_node *n,
                         const struct pb_path *p)
{
        bool null_is_value = f->type == PROTOBUF_C_TYPE_MESSAGE && pb_info(f->descriptor)->special == PB_VALUE;

        if (n->kind == PB_NULL && !null_is_value) {
                pb_read_error(r, n, p, "an element of a list or map must not be null");
                return false;
        }
        if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
                ProtobufCMessage *sub = pb_msg_new(f->descriptor, r->a);

                *(ProtobufCMessage **)pb_elem_add(m, f, r->a) = sub;
                pb_read_message(r, sub, n, p);
                return true;
        }
        /* The element is read aside first: a list never holds one that failed. */
        union {
                uint64_t u;
                ProtobufCBinaryData bytes;
                void *p;
        } v = { 0 };

        if (!pb_read_scalar(r, f, n, p, &v))
                return false;
        memcpy(pb_elem_add(m, f, r->a), &v, pb_elem_size(f->type));
        return true;
}

static void read_map(struct pb_reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct pb_info *ei,
                     const struct pb_node *n, const struct pb_path *p)
{
        const ProtobufCFieldDescriptor *kf = &ei->t->fields[0], *vf = &ei->t->fields[1];

        if (n->kind != PB_MAP) {
                pb_read_error(r, n, p, "expected an object (a map of names to values), got %s", pb_kind_name(n));
                return;
        }
        for (size_t i = 0; i < n->n; i++) {
                struct pb_path here = { .up = p, .name = n->keys[i].p ? n->keys[i] : STR("") };
                struct pb_node key = { .kind = PB_STRING, .text = n->keys[i], .line = n->key_at[i].line, .column = n->key_at[i].column };
                ProtobufCMessage *e = pb_msg_new(ei->t, r->a);
                bool value = vf->type == PROTOBUF_C_TYPE_MESSAGE && pb_info(vf->descriptor)->special == PB_VALUE;

                if (kf->type == PROTOBUF_C_TYPE_BOOL)
                        key.kind = PB_BOOL;
                if (!pb_read_scalar(r, kf, &key, &here, pb_at(e, kf)))
                        continue;
                pb_mark(e, kf);
                if (n->v[i]->kind == PB_NULL && !value) {
                        /* Kubernetes reads `labels: {a: }` as an empty string; a message has no such reading. */
                        if (vf->type != PROTOBUF_C_TYPE_STRING || !r->go_durations) {
                                pb_read_error(r, n->v[i], &here, "a map's value must not be null");
                                continue;
                        }
                        *(char **)pb_at(e, vf) = arena_cstr(r->a, STR(""));
                } else if (vf->type == PROTOBUF_C_TYPE_MESSAGE) {
                        ProtobufCMessage *sub = pb_msg_new(vf->descriptor, r->a);

                        *(ProtobufCMessage **)pb_at(e, vf) = sub;
                        pb_read_message(r, sub, n->v[i], &here);
                } else if (!pb_read_scalar(r, vf, n->v[i], &here, pb_at(e, vf))) {
                        continue;
                }
                pb_mark(e, vf);
                *(ProtobufCMessage **)pb_elem_add(m, f, r->a) = e;
        }
}

static const char *oneof_taken(const ProtobufCMessage *m, const struct pb_info *ti, const ProtobufCFieldDescriptor *f)
{
        uint32_t id = pb_in_oneof(f) ? *(const uint32_t *)((const char *)m + f->quantifier_offset) : 0;
        const ProtobufCFieldDescriptor *other = id ? pb_field_by_number(ti->t, id) : NULL;

        return other ? ti->json_names[other - ti->t->fields] : NULL;
}

void pb_read_field(struct pb_reader *r, ProtobufCMessage *m, const struct pb_info *ti, const ProtobufCFieldDescriptor *f,
                   const struct pb_node *n, const struct pb_path *p)
{
        const struct pb_info *ei = pb_field_entry(f);
        bool null_is_value = f->type == PROTOBUF_C_TYPE_MESSAGE && pb_info(f->descriptor)->special == PB_VALUE;

        if (n->kind == PB_NULL && !(null_is_value && f->label != PROTOBUF_C_LABEL_REPEATED))
                return; /* null is absent */
        if (ei) {
                read_map(r, m, f, ei, n, p);
                return;
        }
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
                if (n->kind != PB_LIST) {
                        pb_read_error(r, n, p, "expected a list, got %s (is a \"- \" missing?)", pb_kind_name(n));
                        return;
                }
                for (size_t i = 0; i < n->n; i++)
                        read_element(r, m, f, n->v[i], &(struct pb_path){ .up = p, .index = i });
                return;
        }
        const char *other = oneof_taken(m, ti, f);

        if (other) {
                pb_read_error(r, n, p, "only one of \"%s\" and \"%s\" can be set", other, ti->json_names[f - ti->t->fields]);
                return;
        }
        if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
                ProtobufCMessage *sub = pb_msg_new(f->descriptor, r->a);

                *(ProtobufCMessage **)pb_at(m, f) = sub;
                pb_mark(m, f);
                pb_read_message(r, sub, n, p);
        } else if (pb_read_scalar(r, f, n, p, pb_at(m, f))) {
                pb_mark(m, f);
        }
}

static void unknown_field(struct pb_reader *r, const struct pb_info *ti, const struct pb_node *key, const struct pb_path *p)
{
        const char *near = pb_read_heard(r) ? pb_field_near(ti, p->name) : NULL;
        void (*say)(struct pb_reader *, const struct pb_node *, const struct pb_path *, const char *,
                    ...) = r->flags & PB_UNKNOWN_WARN ? pb_read_warning : pb_read_error;

        if (near)
                say(r, key, p, "unknown field (did you mean \"%s\"?)", near);
        else
                say(r, key, p, "unknown field of %s", ti->t->short_name);
}

void pb_read_fields(struct pb_reader *r, ProtobufCMessage *m, const struct pb_info *ti, const struct pb_node *n, const struct pb_path *p,
                    bool skip_type)
{
        uint64_t seen_bits[8] = { 0 };

        for (size_t i = 0; i < n->n; i++) {
                struct pb_path here = { .up = p, .name = n->keys[i].p ? n->keys[i] : STR("") };

                if (skip_type && str_eqc(n->keys[i], "@type"))
                        continue;
                int k = pb_field_index(ti, n->keys[i]);

                if (k < 0) {
                        unknown_field(r, ti, &n->key_at[i], &here);
                        continue;
                }
                /* "fooBar" and "foo_bar" are one field; a text cannot give one key twice, but both names it can. */
                if (k < 512) {
                        if (seen_bits[k / 64] >> (k % 64) & 1) {
                                pb_read_error(r, &n->key_at[i], &here, "this field is there twice, by its two names: remove one");
                                continue;
                        }
                        seen_bits[k / 64] |= (uint64_t)1 << (k % 64);
                }
                pb_read_field(r, m, ti, &ti->t->fields[k], n->v[i], &here);
        }
        for (unsigned i = 0; i < ti->t->n_fields; i++)
                if (ti->t->fields[i].label == PROTOBUF_C_LABEL_REQUIRED && !(i < 512 && seen_bits[i / 64] >> (i % 64) & 1))
                        pb_read_error(r, n, &(struct pb_path){ .up = p, .name = str_of(ti->json_names[i]) }, "this field is required");
}

/* A message of few fields is best explained by their names. */
static void want_object(struct pb_reader *r, const struct pb_info *ti, const struct pb_node *n, const struct pb_path *p)
{
        struct buf b = BUF_INIT;
        unsigned count = ti->t->n_fields;

        for (unsigned i = 0; i < count && count <= 4; i++)
                buf_printf(&b, "%s\"%s\"", i == 0 ? "" : i + 1 < count ? ", " : " or ", ti->json_names[i]);
        if (b.n)
                pb_read_error(r, n, p, "expected an object with %s, got %s", buf_z(&b), pb_kind_name(n));
        else
                pb_read_error(r, n, p, "expected an object (%s), got %s", ti->t->short_name, pb_kind_name(n));
        buf_fini(&b);
}

void pb_read_message(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        const struct pb_info *ti = pb_info(m->descriptor);
        bool go = r->go_durations;

        if (r->depth >= PB_DEPTH_MAX) {
                pb_read_error(r, n, p, "more than %d levels deep", PB_DEPTH_MAX);
                return;
        }
        r->depth++;
        if (ti->special) {
                pb_read_special(r, m, ti, n, p);
        } else if (n->kind != PB_MAP) {
                want_object(r, ti, n, p);
        } else {
                r->go_durations = ti->go_durations;
                pb_read_fields(r, m, ti, n, p, false);
                r->go_durations = go;
        }
        r->depth--;
}

ProtobufCMessage *pb_from_node(const ProtobufCMessageDescriptor *t, const struct pb_node *n, unsigned flags, const struct diag_at *base,
                               struct arena *a, struct diags *d)
{
        struct pb_reader r = { .a = a, .d = d, .base = base, .flags = flags };
        ProtobufCMessage *m = pb_msg_new(t, a);

        if (!n || (n->kind == PB_NULL && pb_info(t)->special != PB_VALUE))
                return m; /* nothing given: a message without fields */
        pb_read_message(&r, m, n, NULL);
        return r.failed ? NULL : m;
}
