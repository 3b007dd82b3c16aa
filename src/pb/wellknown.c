/* Messages whose JSON is not an object of their fields: Google's well-known types and Kubernetes' few. They are known by their names and
 * by their fields' numbers, so this file needs none of the generated headers. */
#include "base/base64.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <math.h>
#include <stdlib.h>

static const ProtobufCFieldDescriptor *field(const ProtobufCMessage *m, uint32_t id)
{
        const ProtobufCFieldDescriptor *f = pb_field_by_number(m->descriptor, id);

        if (!f)
                abort(); /* one of our own .proto files is not what its name says */
        return f;
}

static void set_int(ProtobufCMessage *m, uint32_t id, int64_t v)
{
        const ProtobufCFieldDescriptor *f = field(m, id);

        if (pb_elem_size(f->type) == 8)
                *(int64_t *)pb_at(m, f) = v;
        else
                *(int32_t *)pb_at(m, f) = (int32_t)v;
        pb_mark(m, f);
}

static int64_t get_int(const ProtobufCMessage *m, uint32_t id)
{
        const ProtobufCFieldDescriptor *f = field(m, id);

        if (!pb_present(m, f))
                return 0;
        return pb_elem_size(f->type) == 8 ? *(const int64_t *)pb_at(m, f) : *(const int32_t *)pb_at(m, f);
}

static struct str get_str(const ProtobufCMessage *m, uint32_t id)
{
        const ProtobufCFieldDescriptor *f = field(m, id);

        if (!pb_present(m, f))
                return STR("");
        if (f->type == PROTOBUF_C_TYPE_BYTES) {
                const ProtobufCBinaryData *b = pb_at(m, f);

                return str_make((const char *)b->data, b->len);
        }
        return str_of(*(char *const *)pb_at(m, f));
}

static void set_bytes(ProtobufCMessage *m, uint32_t id, struct arena *a, const struct buf *b)
{
        const ProtobufCFieldDescriptor *f = field(m, id);

        *(ProtobufCBinaryData *)pb_at(m, f) = (ProtobufCBinaryData){ .len = b->n, .data = arena_dup(a, b->p, b->n) };
        pb_mark(m, f);
}

static void expected(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, const char *want)
{
        if (n->kind == PB_STRING || n->kind == PB_NUMBER)
                pb_read_error(r, n, p, "expected %s, got \"" STR_FMT "\"", want, STR_ARG(str_sub(n->text, 0, 60)));
        else
                pb_read_error(r, n, p, "expected %s, got %s", want, pb_kind_name(n));
}

/* ---- reading ---- */

static void read_duration(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        int64_t s;
        int32_t ns;

        if (n->kind != PB_STRING || !pb_text_duration(n->text, r->go_durations, &s, &ns)) {
                expected(r, n, p,
                         r->go_durations ? "a duration such as \"5s\", \"250ms\" or \"1h30m\""
                                         : "a duration in seconds such as \"5s\" or \"0.250s\"");
                return;
        }
        set_int(m, 1, s);
        if (ns)
                set_int(m, 2, ns);
}

static void read_time(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        int64_t s;
        int32_t ns;

        if (n->kind != PB_STRING || !pb_text_time(n->text, &s, &ns)) {
                expected(r, n, p, "a time such as \"2026-11-24T06:05:00Z\"");
                return;
        }
        set_int(m, 1, s);
        if (ns)
                set_int(m, 2, ns);
}

static void read_value(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        static const uint32_t field_of[] = { [PB_NULL] = 1, [PB_NUMBER] = 2, [PB_STRING] = 3, [PB_BOOL] = 4, [PB_MAP] = 5, [PB_LIST] = 6 };
        const ProtobufCFieldDescriptor *f = field(m, field_of[n->kind]);
        double x;

        if (n->kind == PB_NULL) {
                set_int(m, 1, 0);
                return;
        }
        if (n->kind == PB_NUMBER && pb_text_double(n->text, &x) && !isfinite(x)) {
                pb_read_error(r, n, p, "infinity and not-a-number have no place in free-form data");
                return;
        }
        pb_read_field(r, m, pb_info(m->descriptor), f, n, p);
}

static void read_field_mask(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        const ProtobufCFieldDescriptor *f = field(m, 1);
        struct str rest = n->text, part;

        if (n->kind != PB_STRING) {
                expected(r, n, p, "field names with commas between them");
                return;
        }
        while (n->text.n && str_next(&rest, ',', &part)) {
                struct buf b = BUF_INIT;

                pb_snake(part, &b);
                *(char **)pb_elem_add(m, f, r->a) = arena_cstr(r->a, buf_view(&b));
                buf_fini(&b);
        }
}

static void read_any(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        const struct pb_node *at = pb_get(n, "@type"), *value = pb_get(n, "value");
        struct buf b = BUF_INIT;

        if (n->kind != PB_MAP || (n->n && (!at || at->kind != PB_STRING || !at->text.n))) {
                pb_read_error(r, n, p,
                              "expected an object with \"@type\", such as \"type.googleapis.com/envoy.config.cluster.v3.Cluster\"");
                return;
        }
        if (!n->n)
                return;
        struct pb_path type_path = { .up = p, .name = STR("@type") };
        const ProtobufCMessageDescriptor *t = pb_type_url(at->text);

        if (!pb_read_scalar(r, field(m, 1), at, &type_path, pb_at(m, field(m, 1))))
                return;
        if (!t) {
                uint8_t *bytes;
                size_t len;

                /* The form that an Any of unknown type is printed in. */
                if (n->n == 2 && value && value->kind == PB_STRING && pb_text_base64(value->text, r->a, &bytes, &len)) {
                        set_bytes(m, 2, r->a, &(struct buf){ .p = (char *)bytes, .n = len });
                        return;
                }
                const char *near = pb_read_heard(r) ? pb_type_near(pb_url_name(at->text)) : NULL;

                (r->flags & PB_UNKNOWN_WARN ? pb_read_warning : pb_read_error)(r, at, &type_path,
                                                                               near ? "unknown type \"" STR_FMT "\" (did you mean \"%s\"?)"
                                                                                    : "type \"" STR_FMT "\" is not supported%s",
                                                                               STR_ARG(str_sub(at->text, 0, 200)), near ? near : "");
                return;
        }
        ProtobufCMessage *content = pb_msg_new(t, r->a);
        const struct pb_info *ti = pb_info(t);
        bool go = r->go_durations;

        if (ti->special) {
                if (n->n > 2 || !value)
                        pb_read_error(r, n, p, "a %s stands in \"value\" beside \"@type\"", t->short_name);
                else
                        pb_read_message(r, content, value, &(struct pb_path){ .up = p, .name = STR("value") });
        } else {
                r->go_durations = ti->go_durations;
                pb_read_fields(r, content, ti, n, p, true);
                r->go_durations = go;
        }
        pb_pack(content, &b);
        set_bytes(m, 2, r->a, &b);
        buf_fini(&b);
}

static void read_int_or_string(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        uint32_t id = n->kind == PB_NUMBER ? 2 : 3;

        if (n->kind != PB_NUMBER && n->kind != PB_STRING) {
                expected(r, n, p, "a number or a string");
                return;
        }
        if (!pb_read_scalar(r, field(m, id), n, p, pb_at(m, field(m, id))))
                return;
        pb_mark(m, field(m, id));
        set_int(m, 1, id == 3);
}

static void read_quantity(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p)
{
        static const char *const suffixes[] = { "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
        struct str s = n->text;
        size_t i = 0;

        if (n->kind != PB_NUMBER && n->kind != PB_STRING) {
                expected(r, n, p, "a quantity such as \"100m\" or \"64Mi\"");
                return;
        }
        while (i < s.n && ((s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.' || (i == 0 && (s.p[i] == '-' || s.p[i] == '+'))))
                i++;
        bool ok = pb_text_is_number(str_sub(s, 0, i)), suffix = pb_text_is_number(s);

        for (size_t k = 0; k < ARRAY_LEN(suffixes); k++)
                suffix |= str_eqc(str_sub(s, i, s.n), suffixes[k]);
        if (!ok || !suffix) {
                expected(r, n, p, "a quantity such as \"100m\" or \"64Mi\"");
                return;
        }
        *(char **)pb_at(m, field(m, 1)) = arena_cstr(r->a, s);
}

static void read_raw_json(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n)
{
        struct buf b = BUF_INIT;

        pb_node_json(n, &b);
        set_bytes(m, 1, r->a, &b);
        buf_fini(&b);
}

void pb_read_special(struct pb_reader *r, ProtobufCMessage *m, const struct pb_info *ti, const struct pb_node *n, const struct pb_path *p)
{
        const ProtobufCFieldDescriptor *value;

        switch (ti->special) {
        case PB_DURATION:
                read_duration(r, m, n, p);
                return;
        case PB_TIMESTAMP:
        case PB_K8S_TIME:
                read_time(r, m, n, p);
                return;
        case PB_STRUCT:
        case PB_LIST_VALUE:
                pb_read_field(r, m, ti, field(m, 1), n, p);
                return;
        case PB_VALUE:
                read_value(r, m, n, p);
                return;
        case PB_WRAPPER:
                value = field(m, 1);
                if (pb_read_scalar(r, value, n, p, pb_at(m, value)))
                        pb_mark(m, value);
                return;
        case PB_FIELD_MASK:
                read_field_mask(r, m, n, p);
                return;
        case PB_ANY:
                read_any(r, m, n, p);
                return;
        case PB_INT_OR_STRING:
                read_int_or_string(r, m, n, p);
                return;
        case PB_QUANTITY:
                read_quantity(r, m, n, p);
                return;
        case PB_RAW_JSON:
                read_raw_json(r, m, n);
                return;
        case PB_PLAIN:
                break;
        }
}

/* ---- writing ---- */

static struct pb_node *taken(struct buf *b, struct arena *a)
{
        struct pb_node *n = pb_new(a, PB_STRING, buf_view(b));

        buf_fini(b);
        return n;
}

/* The first field of a Struct, ListValue or wrapper as it stands in a message that is nothing special. */
static struct pb_node *write_only_field(const ProtobufCMessage *m, enum pb_kind empty, struct arena *a, unsigned depth)
{
        const ProtobufCFieldDescriptor *f = field(m, 1);
        struct pb_node *n;

        if (empty != PB_LIST && empty != PB_MAP)
                return pb_write_scalar(f, pb_at(m, f), false, a);
        n = pb_present(m, f) ? pb_write_field(m, f, false, a, depth) : pb_new(a, empty, (struct str){ 0 });
        return n;
}

static struct pb_node *write_value(const ProtobufCMessage *m, struct arena *a, unsigned depth)
{
        for (uint32_t id = 2; id <= 6; id++) {
                const ProtobufCFieldDescriptor *f = field(m, id);

                if (pb_present(m, f))
                        return pb_write_field(m, f, false, a, depth);
        }
        return pb_new(a, PB_NULL, STR("null"));
}

static struct pb_node *write_field_mask(const ProtobufCMessage *m, struct arena *a)
{
        const ProtobufCFieldDescriptor *f = field(m, 1);
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < pb_count(m, f); i++) {
                const char *snake = ((char **)pb_elems(m, f))[i];
                char *camel = mem_alloc(strlen(snake) + 1);

                pb_camel(snake, camel);
                buf_printf(&b, "%s%s", i ? "," : "", camel);
                free(camel);
        }
        return taken(&b, a);
}

static struct pb_node *write_any(const ProtobufCMessage *m, struct arena *a, unsigned depth)
{
        struct str url = get_str(m, 1), bytes = get_str(m, 2);
        const ProtobufCMessageDescriptor *t = pb_type_url(url);
        ProtobufCMessage *content = t ? pb_unpack(t, bytes.p, bytes.n, a, NULL) : NULL;
        struct pb_node *map = pb_new(a, PB_MAP, (struct str){ 0 });

        if (!url.n && !bytes.n)
                return map;
        pb_put_str(a, map, "@type", url);
        if (!content) {
                struct buf b = BUF_INIT;

                base64_print(&b, bytes.p, bytes.n);
                pb_put(a, map, STR("value"), taken(&b, a));
                return map;
        }
        struct pb_node *n = pb_write_message(content, a, depth + 1);

        if (pb_info(t)->special || n->kind != PB_MAP)
                pb_put(a, map, STR("value"), n);
        else
                for (size_t i = 0; i < n->n; i++)
                        pb_put(a, map, n->keys[i], n->v[i]);
        return map;
}

static struct pb_node *write_raw_json(const ProtobufCMessage *m, struct arena *a)
{
        struct pb_node *n;
        struct diags d;

        diags_init(&d);
        if (!pb_parse_json(get_str(m, 1), STR(""), a, &n, &d))
                n = pb_new(a, PB_NULL, STR("null"));
        diags_fini(&d);
        return n;
}

struct pb_node *pb_write_special(const ProtobufCMessage *m, const struct pb_info *ti, struct arena *a, unsigned depth)
{
        struct buf b = BUF_INIT;

        switch (ti->special) {
        case PB_DURATION:
                pb_duration_print(get_int(m, 1), (int32_t)get_int(m, 2), &b);
                return taken(&b, a);
        case PB_TIMESTAMP:
                pb_time_print(get_int(m, 1), (int32_t)get_int(m, 2), -1, &b);
                return taken(&b, a);
        case PB_K8S_TIME:
                pb_time_print(get_int(m, 1), (int32_t)get_int(m, 2), !strcmp(ti->t->short_name, "MicroTime") ? 6 : 0, &b);
                return taken(&b, a);
        case PB_STRUCT:
                return write_only_field(m, PB_MAP, a, depth);
        case PB_LIST_VALUE:
                return write_only_field(m, PB_LIST, a, depth);
        case PB_WRAPPER:
                return write_only_field(m, PB_NULL, a, depth);
        case PB_VALUE:
                return write_value(m, a, depth);
        case PB_FIELD_MASK:
                return write_field_mask(m, a);
        case PB_ANY:
                return write_any(m, a, depth);
        case PB_INT_OR_STRING:
                if (get_int(m, 1) == 1)
                        return pb_new(a, PB_STRING, get_str(m, 3));
                return pb_write_scalar(field(m, 2), pb_at(m, field(m, 2)), true, a);
        case PB_QUANTITY:
                return pb_new(a, PB_STRING, get_str(m, 1));
        case PB_RAW_JSON:
                return write_raw_json(m, a);
        case PB_PLAIN:
                break;
        }
        return pb_new(a, PB_NULL, STR("null"));
}
