/* See header_ops.h. */
#include "proxy/header_ops.h"

#include "envoy/core.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"
#include "proxy/format.h"

struct header_op {
        struct str name;
        enum http_name id;
        enum { OP_APPEND, OP_ADD_IF_ABSENT, OP_OVERWRITE, OP_OVERWRITE_IF_EXISTS } action;
        bool keep_empty;
        struct str literal; /* when there is nothing to format */
        struct format *format;
};

static void free_format(void *p)
{
        format_free(p);
}

static bool token_char(unsigned char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool name_ok(struct str s)
{
        size_t i = s.n && s.p[0] == ':';

        if (s.n == i)
                return false;
        for (; i < s.n; i++)
                if (!token_char((unsigned char)s.p[i]))
                        return false;
        return true;
}

static struct str lower_copy(struct arena *a, const char *c)
{
        struct str s = arena_str(a, str_of(c));

        for (size_t i = 0; i < s.n; i++)
                ((char *)s.p)[i] = ascii_lower(s.p[i]);
        return s;
}

static bool header_op_build(struct config_mem *m, struct header_op *o, const struct Xds__HeaderValueOption *p, const struct diag_at *at,
                            struct diags *d)
{
        struct diag_at here = at_path(&m->scratch, at, ".header");
        struct str text;

        if (!p->header || !p->header->key) {
                diag_add(d, DIAG_ERROR, NULL, &here, "a header to add needs a key");
                return false;
        }
        o->name = lower_copy(&m->arena, p->header->key);
        o->id = http_name_id(o->name);
        o->keep_empty = p->keep_empty_value;
        if (!name_ok(o->name)) {
                diag_add(d, DIAG_ERROR, NULL, &here, "\"" STR_FMT "\" is not a header name (RFC 9110 section 5.1)", STR_ARG(o->name));
                return false;
        }
        if (o->name.p[0] == ':' || o->id == HN_HOST) {
                diag_add(d, DIAG_ERROR, NULL, &here, ":-prefixed or host headers may not be modified");
                return false;
        }
        if (p->append) {
                if (p->has_append_action && p->append_action != XDS__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD) {
                        diag_add(d, DIAG_ERROR, NULL, at, "append and append_action may not both be set: use append_action");
                        return false;
                }
                o->action = p->append->value ? OP_APPEND : OP_OVERWRITE;
        } else {
                switch (p->append_action) {
                case XDS__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__ADD_IF_ABSENT:
                        o->action = OP_ADD_IF_ABSENT;
                        break;
                case XDS__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD:
                        o->action = OP_OVERWRITE;
                        break;
                case XDS__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS:
                        o->action = OP_OVERWRITE_IF_EXISTS;
                        break;
                default:
                        o->action = OP_APPEND;
                }
        }
        text = str_of(p->header->value);
        if (!text.n && p->header->has_raw_value)
                text = str_make((const char *)p->header->raw_value.data, p->header->raw_value.len);
        for (size_t i = 0; i < text.n; i++)
                if (text.p[i] == '\r' || text.p[i] == '\n' || text.p[i] == '\0') {
                        diag_add(d, DIAG_ERROR, NULL, &here, "the value holds a line break or NUL");
                        return false;
                }
        o->format = format_compile(text, true, &here, d);
        if (!o->format)
                return false;
        if (format_is_literal(o->format, &o->literal)) {
                o->literal = arena_str(&m->arena, o->literal);
                format_free(o->format);
                o->format = NULL;
        } else {
                config_mem_on_free(m, free_format, o->format);
        }
        return true;
}

bool header_ops_build(struct config_mem *m, struct header_ops *o, struct Xds__HeaderValueOption *const *add, size_t nadd,
                      char *const *remove, size_t nremove, const char *field, const struct diag_at *at, struct diags *d)
{
        bool ok = true;

        o->nadd = nadd;
        o->add = nadd ? arena_zalloc(&m->arena, nadd * sizeof(*o->add)) : NULL;
        for (size_t i = 0; i < nadd; i++) {
                struct diag_at here = at_path(&m->scratch, at, ".%s_to_add[%zu]", field, i);

                ok &= header_op_build(m, &o->add[i], add[i], &here, d);
        }
        o->nremove = nremove;
        o->remove = nremove ? arena_zalloc(&m->arena, nremove * sizeof(*o->remove)) : NULL;
        o->remove_id = nremove ? arena_zalloc(&m->arena, nremove * sizeof(*o->remove_id)) : NULL;
        for (size_t i = 0; i < nremove; i++) {
                o->remove[i] = lower_copy(&m->arena, remove[i]);
                o->remove_id[i] = (uint16_t)http_name_id(o->remove[i]);
                if (o->remove_id[i] == HN_HOST || !o->remove[i].n || o->remove[i].p[0] == ':') {
                        struct diag_at here = at_path(&m->scratch, at, ".%s_to_remove[%zu]", field, i);

                        diag_add(d, DIAG_ERROR, NULL, &here, ":-prefixed or host headers may not be removed");
                        ok = false;
                }
        }
        return ok;
}

static struct http_hdr *op_find(const struct http_head *m, const struct header_op *o)
{
        return o->id ? http_get(m, o->id) : http_get_name(m, o->name);
}

/* Control bytes that an operator brought in would split the message: Envoy's codecs refuse them, we drop the header. */
static bool value_ok(struct str v)
{
        for (size_t i = 0; i < v.n; i++) {
                unsigned char c = (unsigned char)v.p[i];

                if (c < 0x20 ? c != '\t' : c == 0x7f)
                        return false;
        }
        return true;
}

static bool op_value(const struct header_op *o, const struct http_head *m, const struct stream_info *si, struct buf *scratch, struct str *v)
{
        *v = o->literal;
        if (o->format) {
                scratch->n = 0;
                format_render_value(o->format, si, scratch);
                if (!value_ok(buf_view(scratch)))
                        return false;
                *v = arena_str(m->arena, buf_view(scratch));
        }
        return v->n || o->keep_empty;
}

void header_ops_apply(const struct header_ops *o, struct http_head *m, const struct stream_info *si)
{
        struct buf scratch = BUF_INIT;
        struct str few[8], *value = few;

        for (size_t i = 0; i < o->nremove; i++) {
                if (o->remove_id[i])
                        http_remove(m, o->remove_id[i]);
                else
                        http_remove_name(m, o->remove[i]);
        }
        if (!o->nadd)
                return;
        if (o->nadd > sizeof(few) / sizeof(few[0]))
                value = arena_alloc(m->arena, o->nadd * sizeof(*value));
        for (size_t i = 0; i < o->nadd; i++) {
                const struct header_op *op = &o->add[i];

                value[i].p = NULL;
                if ((op->action == OP_OVERWRITE_IF_EXISTS && !op_find(m, op)) || (op->action == OP_ADD_IF_ABSENT && op_find(m, op)))
                        continue;
                if (!op_value(op, m, si, &scratch, &value[i]))
                        value[i].p = NULL;
                else if (!value[i].p)
                        value[i].p = "";
        }
        buf_fini(&scratch);
        for (size_t i = 0; i < o->nadd; i++) {
                const struct header_op *op = &o->add[i];

                if (!value[i].p || (op->action != OP_OVERWRITE && op->action != OP_OVERWRITE_IF_EXISTS))
                        continue;
                if (op->id)
                        http_set(m, op->id, value[i]);
                else
                        http_set_name(m, op->name, value[i]);
        }
        for (size_t i = 0; i < o->nadd; i++) {
                const struct header_op *op = &o->add[i];

                if (!value[i].p || op->action == OP_OVERWRITE || op->action == OP_OVERWRITE_IF_EXISTS)
                        continue;
                if (op->id)
                        http_add(m, op->id, value[i]);
                else
                        http_add_name(m, op->name, value[i]);
        }
}
