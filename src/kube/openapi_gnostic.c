/* openapi.v2.Document on the wire. Every map of JSON (paths, definitions, properties) is a repeated message of name and value there, and
 * members that begin with "x-" are vendor extensions whose value is YAML text (JSON is YAML). Only what openapi.c writes is translated:
 * one table a message says which member becomes which field. */
#include "kube/openapi.h"

#include "base/mem.h"

enum wire {
        W_STRING,
        W_STRINGS,
        W_BOOL,
        W_DOUBLE,
        W_INT,
        W_MESSAGE,
        W_MESSAGES,
        W_MAP,
        W_ANYS,
        W_TYPE,
        W_ITEMS,
        W_ADDITIONAL,
        W_PARAMETERS,
        W_RESPONSES,
        W_SCHEMA_ITEM
};

struct field {
        const char *name;
        unsigned number;
        enum wire wire;
        const struct message *of;
};

struct message {
        const struct field *f;
        unsigned n;
        unsigned extensions; /* field number of vendor_extension; 0: none */
};

static const struct message schema, operation, path_item, parameter_fields;

static const struct field schema_fields[] = {
        { "$ref", 1, W_STRING, NULL },        { "format", 2, W_STRING, NULL },  { "title", 3, W_STRING, NULL },
        { "description", 4, W_STRING, NULL }, { "maximum", 7, W_DOUBLE, NULL }, { "minimum", 9, W_DOUBLE, NULL },
        { "maxLength", 11, W_INT, NULL },     { "minLength", 12, W_INT, NULL }, { "pattern", 13, W_STRING, NULL },
        { "required", 19, W_STRINGS, NULL },  { "enum", 20, W_ANYS, NULL },     { "additionalProperties", 21, W_ADDITIONAL, NULL },
        { "type", 22, W_TYPE, NULL },         { "items", 23, W_ITEMS, NULL },   { "allOf", 24, W_MESSAGES, &schema },
        { "properties", 25, W_MAP, &schema },
};
static const struct message schema = { schema_fields, ARRAY_LEN(schema_fields), 31 };

static const struct field parameter_list[] = {
        { "required", 1, W_BOOL, NULL },
        { "in", 2, W_STRING, NULL },
        { "description", 3, W_STRING, NULL },
        { "name", 4, W_STRING, NULL },
};
static const struct message parameter_fields = { parameter_list, ARRAY_LEN(parameter_list), 0 };

static const struct field operation_fields[] = {
        { "summary", 2, W_STRING, NULL },      { "description", 3, W_STRING, NULL }, { "operationId", 5, W_STRING, NULL },
        { "produces", 6, W_STRINGS, NULL },    { "consumes", 7, W_STRINGS, NULL },   { "parameters", 8, W_PARAMETERS, NULL },
        { "responses", 9, W_RESPONSES, NULL },
};
static const struct message operation = { operation_fields, ARRAY_LEN(operation_fields), 13 };

static const struct field path_item_fields[] = {
        { "get", 2, W_MESSAGE, &operation },    { "put", 3, W_MESSAGE, &operation },   { "post", 4, W_MESSAGE, &operation },
        { "delete", 5, W_MESSAGE, &operation }, { "patch", 8, W_MESSAGE, &operation }, { "parameters", 9, W_PARAMETERS, NULL },
};
static const struct message path_item = { path_item_fields, ARRAY_LEN(path_item_fields), 10 };

static const struct field info_fields[] = { { "title", 1, W_STRING, NULL }, { "version", 2, W_STRING, NULL } };
static const struct message info = { info_fields, ARRAY_LEN(info_fields), 0 };

static const struct field response_fields[] = { { "description", 1, W_STRING, NULL }, { "schema", 2, W_SCHEMA_ITEM, NULL } };
static const struct message response = { response_fields, ARRAY_LEN(response_fields), 0 };

/* ---- the wire ---- */

static void varint(struct buf *b, uint64_t v)
{
        for (; v >= 128; v >>= 7)
                buf_char(b, (char)(v | 128));
        buf_char(b, (char)v);
}

static void key(struct buf *b, unsigned number, unsigned type)
{
        varint(b, (uint64_t)number << 3 | type);
}

static void bytes(struct buf *b, unsigned number, struct str s)
{
        key(b, number, 2);
        varint(b, s.n);
        buf_str(b, s);
}

/* Ends a sub-message that was written into `sub`, and empties it. */
static void close_message(struct buf *b, unsigned number, struct buf *sub)
{
        bytes(b, number, buf_view(sub));
        buf_fini(sub);
}

static void encode(const struct message *m, const struct pb_node *n, struct buf *b);

static void message_field(struct buf *b, unsigned number, const struct message *of, const struct pb_node *n)
{
        struct buf sub = BUF_INIT;

        encode(of, n, &sub);
        close_message(b, number, &sub);
}

/* name = 1, value = 2 */
static void named_field(struct buf *b, unsigned number, struct str name, const struct message *of, const struct pb_node *n)
{
        struct buf sub = BUF_INIT;

        bytes(&sub, 1, name);
        message_field(&sub, 2, of, n);
        close_message(b, number, &sub);
}

/* Any { yaml = 2 } */
static void any_field(struct buf *b, unsigned number, const struct pb_node *n)
{
        struct buf sub = BUF_INIT, text = BUF_INIT;

        pb_node_json(n, &text);
        buf_char(&text, '\n');
        bytes(&sub, 2, buf_view(&text));
        buf_fini(&text);
        close_message(b, number, &sub);
}

static void extension_field(struct buf *b, unsigned number, struct str name, const struct pb_node *n)
{
        struct buf sub = BUF_INIT;

        bytes(&sub, 1, name);
        any_field(&sub, 2, n);
        close_message(b, number, &sub);
}

static void map_field(struct buf *b, unsigned number, const struct message *of, const struct pb_node *n)
{
        struct buf sub = BUF_INIT;

        for (size_t i = 0; i < n->n; i++)
                named_field(&sub, 1, n->keys[i], of, n->v[i]);
        close_message(b, number, &sub);
}

/* ParametersItem { Parameter { NonBodyParameter { query 3 | path 4 } } }; the sub-schemas differ in the number of `type`. */
static void parameter_field(struct buf *b, unsigned number, const struct pb_node *n)
{
        struct buf in = BUF_INIT, non_body = BUF_INIT, parameter = BUF_INIT, item = BUF_INIT;
        bool query = str_eqc(pb_get_str(n, "in", STR("")), "query");

        encode(&parameter_fields, n, &in);
        bytes(&in, query ? 6 : 5, pb_get_str(n, "type", STR("string")));
        close_message(&non_body, query ? 3 : 4, &in);
        close_message(&parameter, 2, &non_body);
        close_message(&item, 1, &parameter);
        close_message(b, number, &item);
}

/* Responses { NamedResponseValue { name, ResponseValue { Response } } } */
static void responses_field(struct buf *b, unsigned number, const struct pb_node *n)
{
        struct buf all = BUF_INIT;

        for (size_t i = 0; i < n->n; i++) {
                struct buf value = BUF_INIT, entry = BUF_INIT;

                message_field(&value, 1, &response, n->v[i]);
                bytes(&entry, 1, n->keys[i]);
                close_message(&entry, 2, &value);
                close_message(&all, 1, &entry);
        }
        close_message(b, number, &all);
}

static void schema_in(struct buf *b, unsigned number, const struct pb_node *n)
{
        struct buf sub = BUF_INIT;

        if (n->kind == PB_BOOL) { /* additionalProperties: true */
                key(&sub, 2, 0);
                varint(&sub, str_eqc(n->text, "true"));
        } else {
                message_field(&sub, 1, &schema, n);
        }
        close_message(b, number, &sub);
}

static void number_field(struct buf *b, const struct field *f, const struct pb_node *n)
{
        int64_t i = 0;
        double d;

        str_i64(n->text, &i);
        if (f->wire == W_DOUBLE) {
                d = (double)i;
                key(b, f->number, 1);
                buf_append(b, &d, sizeof(d));
        } else {
                key(b, f->number, 0);
                varint(b, f->wire == W_BOOL ? str_eqc(n->text, "true") : (uint64_t)i);
        }
}

static void list_field(struct buf *b, const struct field *f, const struct pb_node *n)
{
        for (size_t i = 0; i < n->n; i++) {
                if (f->wire == W_STRINGS)
                        bytes(b, f->number, n->v[i]->text);
                else if (f->wire == W_MESSAGES)
                        message_field(b, f->number, f->of, n->v[i]);
                else if (f->wire == W_ANYS)
                        any_field(b, f->number, n->v[i]);
                else
                        parameter_field(b, f->number, n->v[i]);
        }
}

static void type_field(struct buf *b, unsigned number, const struct pb_node *n)
{
        struct buf sub = BUF_INIT;

        bytes(&sub, 1, n->text);
        close_message(b, number, &sub);
}

static void member(const struct field *f, const struct pb_node *n, struct buf *b)
{
        switch (f->wire) {
        case W_STRING:
                bytes(b, f->number, n->text);
                break;
        case W_BOOL:
        case W_DOUBLE:
        case W_INT:
                number_field(b, f, n);
                break;
        case W_MESSAGE:
                message_field(b, f->number, f->of, n);
                break;
        case W_MAP:
                map_field(b, f->number, f->of, n);
                break;
        case W_TYPE:
                type_field(b, f->number, n);
                break;
        case W_ITEMS:
        case W_ADDITIONAL:
        case W_SCHEMA_ITEM:
                schema_in(b, f->number, n);
                break;
        case W_RESPONSES:
                responses_field(b, f->number, n);
                break;
        default:
                list_field(b, f, n);
        }
}

static void encode(const struct message *m, const struct pb_node *n, struct buf *b)
{
        for (size_t i = 0; n->kind == PB_MAP && i < n->n; i++) {
                if (m->extensions && str_starts(n->keys[i], STR("x-"))) {
                        extension_field(b, m->extensions, n->keys[i], n->v[i]);
                        continue;
                }
                for (unsigned k = 0; k < m->n; k++)
                        if (str_eqc(n->keys[i], m->f[k].name))
                                member(&m->f[k], n->v[i], b);
        }
}

void openapi_gnostic(const struct pb_node *doc, struct buf *out)
{
        const struct pb_node *ps = pb_get(doc, "paths"), *defs = pb_get(doc, "definitions");
        struct buf all = BUF_INIT;

        bytes(out, 1, pb_get_str(doc, "swagger", STR("")));
        message_field(out, 2, &info, pb_get(doc, "info"));
        for (size_t i = 0; ps && i < ps->n; i++) /* Paths { NamedPathItem path = 2 } */
                named_field(&all, 2, ps->keys[i], &path_item, ps->v[i]);
        close_message(out, 8, &all);
        map_field(out, 9, &schema, defs);
}
