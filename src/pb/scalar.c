/* Scalar fields from nodes and back: numbers in range, enums by name or number, bytes as base64, strings that a C string can hold. */
#include "base/base64.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <float.h>
#include <math.h>

static bool wrong(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, const char *want)
{
        bool shown = n->kind == PB_STRING || n->kind == PB_NUMBER || n->kind == PB_BOOL;

        if (shown)
                pb_read_error(r, n, p, "expected %s, got %s \"" STR_FMT "\"", want, pb_kind_name(n), STR_ARG(str_sub(n->text, 0, 60)));
        else
                pb_read_error(r, n, p, "expected %s, got %s", want, pb_kind_name(n));
        return false;
}

static bool read_i64(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, int64_t lo, int64_t hi, int64_t *v)
{
        if ((n->kind != PB_NUMBER && n->kind != PB_STRING) || !pb_text_is_number(n->text))
                return wrong(r, n, p, "a whole number");
        if (!pb_text_i64(n->text, v)) {
                double x;

                if (pb_text_double(n->text, &x) && x == x && fabs(x) < 9e15 && trunc(x) != x)
                        return wrong(r, n, p, "a whole number");
                *v = n->text.p[0] == '-' ? INT64_MIN : INT64_MAX;
                if (lo != INT64_MIN)
                        *v = n->text.p[0] == '-' ? lo - 1 : hi + 1;
                else {
                        pb_read_error(r, n, p, "out of range: " STR_FMT " does not fit in 64 bits", STR_ARG(str_sub(n->text, 0, 60)));
                        return false;
                }
        }
        if (*v < lo || *v > hi) {
                pb_read_error(r, n, p, "out of range: " STR_FMT " is not between %lld and %lld", STR_ARG(str_sub(n->text, 0, 60)),
                              (long long)lo, (long long)hi);
                return false;
        }
        return true;
}

static bool read_u64(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, uint64_t hi, uint64_t *v)
{
        double x;

        if ((n->kind != PB_NUMBER && n->kind != PB_STRING) || !pb_text_is_number(n->text))
                return wrong(r, n, p, "a whole number");
        if (pb_text_u64(n->text, v) && *v <= hi)
                return true;
        if (pb_text_double(n->text, &x) && fabs(x) < 9e15 && trunc(x) != x)
                return wrong(r, n, p, "a whole number");
        pb_read_error(r, n, p, "out of range: " STR_FMT " is not between 0 and %llu", STR_ARG(str_sub(n->text, 0, 60)),
                      (unsigned long long)hi);
        return false;
}

static bool read_double(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, double *v)
{
        if (n->kind == PB_STRING && (str_eqc(n->text, "NaN") || str_eqc(n->text, "Infinity") || str_eqc(n->text, "-Infinity"))) {
                *v = n->text.p[0] == 'N' ? NAN : n->text.p[0] == '-' ? -INFINITY : INFINITY;
                return true;
        }
        if ((n->kind != PB_NUMBER && n->kind != PB_STRING) || !pb_text_double(n->text, v))
                return wrong(r, n, p, "a number");
        return true;
}

static bool read_bool(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, protobuf_c_boolean *v)
{
        bool b;

        /* Only a plain YAML word, or a map's key, may be other than true and false. */
        if (n->kind != PB_BOOL || !pb_text_bool(n->text, &b))
                return wrong(r, n, p, "true or false");
        *v = b;
        return true;
}

static bool read_string(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, char **v)
{
        /* A plain YAML scalar is what its field wants it to be; JSON's true and 1 are not strings. */
        if (n->kind != PB_STRING && (n->quoted || (n->kind != PB_NUMBER && n->kind != PB_BOOL)))
                return wrong(r, n, p, "a string");
        if (n->text.n && memchr(n->text.p, '\0', n->text.n)) {
                pb_read_error(r, n, p, "a string must not contain a NUL character");
                return false;
        }
        *v = arena_cstr(r->a, n->text);
        return true;
}

static const ProtobufCEnumValue *enum_by_name(const ProtobufCEnumDescriptor *e, struct str name)
{
        size_t lo = 0, hi = e->n_value_names;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int c = str_cmp(name, str_of(e->values_by_name[mid].name));

                if (c == 0)
                        return &e->values[e->values_by_name[mid].index];
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        /* str_cmp() and protoc-c agree on the order of ASCII names; nothing rests on it. */
        for (unsigned i = 0; i < e->n_value_names; i++)
                if (str_eqc(name, e->values_by_name[i].name))
                        return &e->values[e->values_by_name[i].index];
        return NULL;
}

static bool read_enum(struct pb_reader *r, const ProtobufCEnumDescriptor *e, const struct pb_node *n, const struct pb_path *p, int *v)
{
        const ProtobufCEnumValue *ev = NULL;
        int64_t i;
        const char *near = NULL;
        unsigned best = 4;

        if (n->kind == PB_NUMBER && pb_text_i64(n->text, &i) && i >= INT32_MIN && i <= INT32_MAX)
                ev = protobuf_c_enum_descriptor_get_value(e, (int)i);
        else if (n->kind == PB_STRING || n->kind == PB_NUMBER || (n->kind == PB_BOOL && !n->quoted))
                ev = enum_by_name(e, n->text); /* `mode: off` is a word where an enum takes it */
        else
                return wrong(r, n, p, "one of an enum's names");
        if (ev) {
                *v = ev->value;
                return true;
        }
        struct buf names = BUF_INIT;

        for (unsigned k = 0; k < e->n_values && pb_read_heard(r); k++) {
                struct str have = str_of(e->values[k].name);
                unsigned dist = str_eq_nocase(have, n->text) ? 0 : str_distance(have, n->text, 3);

                if (dist < best && dist <= (n->text.n <= 4 ? 1 : 3)) {
                        best = dist;
                        near = e->values[k].name;
                }
                if (k < 24)
                        buf_printf(&names, "%s%s", k ? ", " : "", e->values[k].name);
                else if (k == 24)
                        buf_cstr(&names, ", ...");
        }
        if (near)
                pb_read_error(r, n, p, "unknown value \"" STR_FMT "\" (did you mean \"%s\"?)", STR_ARG(str_sub(n->text, 0, 60)), near);
        else
                pb_read_error(r, n, p, "unknown value \"" STR_FMT "\": it is one of %s", STR_ARG(str_sub(n->text, 0, 60)), buf_z(&names));
        buf_fini(&names);
        return false;
}

bool pb_read_scalar(struct pb_reader *r, const ProtobufCFieldDescriptor *f, const struct pb_node *n, const struct pb_path *p, void *out)
{
        int64_t i;
        uint64_t u;
        double x;

        switch (f->type) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
                if (!read_i64(r, n, p, INT32_MIN, INT32_MAX, &i))
                        return false;
                *(int32_t *)out = (int32_t)i;
                return true;
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
                return read_i64(r, n, p, INT64_MIN, INT64_MAX, out);
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
                if (!read_u64(r, n, p, UINT32_MAX, &u))
                        return false;
                *(uint32_t *)out = (uint32_t)u;
                return true;
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
                return read_u64(r, n, p, UINT64_MAX, out);
        case PROTOBUF_C_TYPE_FLOAT:
                if (!read_double(r, n, p, &x))
                        return false;
                if (isfinite(x) && fabs(x) > FLT_MAX) {
                        pb_read_error(r, n, p, "out of range: " STR_FMT " does not fit in a float", STR_ARG(str_sub(n->text, 0, 60)));
                        return false;
                }
                *(float *)out = (float)x;
                return true;
        case PROTOBUF_C_TYPE_DOUBLE:
                return read_double(r, n, p, out);
        case PROTOBUF_C_TYPE_BOOL:
                return read_bool(r, n, p, out);
        case PROTOBUF_C_TYPE_ENUM:
                return read_enum(r, f->descriptor, n, p, out);
        case PROTOBUF_C_TYPE_STRING:
                return read_string(r, n, p, out);
        case PROTOBUF_C_TYPE_BYTES: {
                ProtobufCBinaryData *b = out;

                if ((n->kind != PB_STRING && (n->quoted || n->kind != PB_NUMBER)) || !pb_text_base64(n->text, r->a, &b->data, &b->len))
                        return wrong(r, n, p, "base64 text");
                return true;
        }
        default:
                return wrong(r, n, p, "a scalar");
        }
}

static struct pb_node *made(struct arena *a, enum pb_kind kind, struct buf *b)
{
        struct pb_node *n = pb_new(a, kind, buf_view(b));

        buf_fini(b);
        return n;
}

static struct pb_node *write_double(double v, bool is_float, struct arena *a)
{
        struct buf b = BUF_INIT;

        if (!isfinite(v))
                return pb_new(a, PB_STRING, str_of(isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity"));
        if (is_float)
                pb_float_print((float)v, &b);
        else
                pb_double_print(v, &b);
        return made(a, PB_NUMBER, &b);
}

struct pb_node *pb_write_scalar(const ProtobufCFieldDescriptor *f, const void *v, bool k8s, struct arena *a)
{
        struct buf b = BUF_INIT;

        switch (f->type) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
                buf_printf(&b, "%d", *(const int32_t *)v);
                return made(a, PB_NUMBER, &b);
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
                buf_printf(&b, "%u", *(const uint32_t *)v);
                return made(a, PB_NUMBER, &b);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
                buf_printf(&b, "%lld", (long long)*(const int64_t *)v);
                return made(a, k8s ? PB_NUMBER : PB_STRING, &b);
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
                buf_u64(&b, *(const uint64_t *)v);
                return made(a, k8s ? PB_NUMBER : PB_STRING, &b);
        case PROTOBUF_C_TYPE_FLOAT:
                return write_double((double)*(const float *)v, true, a);
        case PROTOBUF_C_TYPE_DOUBLE:
                return write_double(*(const double *)v, false, a);
        case PROTOBUF_C_TYPE_BOOL:
                return pb_new(a, PB_BOOL, *(const protobuf_c_boolean *)v ? STR("true") : STR("false"));
        case PROTOBUF_C_TYPE_ENUM: {
                const ProtobufCEnumValue *ev = protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)v);

                if (ev)
                        return pb_new(a, PB_STRING, str_of(ev->name));
                buf_printf(&b, "%d", *(const int *)v);
                return made(a, PB_NUMBER, &b);
        }
        case PROTOBUF_C_TYPE_STRING: {
                const char *s = *(char *const *)v;

                return pb_new(a, PB_STRING, str_of(s ? s : ""));
        }
        case PROTOBUF_C_TYPE_BYTES: {
                const ProtobufCBinaryData *d = v;

                base64_print(&b, d->data, d->len);
                if (!b.p)
                        return pb_new(a, PB_STRING, STR(""));
                return made(a, PB_STRING, &b);
        }
        default:
                return pb_new(a, PB_NULL, STR("null"));
        }
}
