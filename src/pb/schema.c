/* Schemas out of descriptors.
 *
 * The three dialects differ in little: v2 has no oneOf and no nullable and lets a description stand beside $ref; v3 wants allOf for that; a
 * structural schema has no $ref at all. Types with a JSON form of their own are written in line in all of them. */
#include "pb/schema.h"

#include "base/hash.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

struct pb_doc {
        const char *message, *field, *text;
};
extern const struct pb_doc pb_docs[];
extern const size_t pb_docs_n;

enum { INLINE_DEPTH_MAX = 32 };

struct printer {
        const struct pb_schema_opts *o;
        struct buf *out;
        const ProtobufCMessageDescriptor *stack[INLINE_DEPTH_MAX]; /* the types that a structural schema is inside of */
        unsigned depth;
};

static void message(struct printer *p, const ProtobufCMessageDescriptor *t, const char *doc);

const char *pb_schema_doc(const ProtobufCMessageDescriptor *t, const char *field)
{
        size_t lo = 0, hi = pb_docs_n;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int c = strcmp(t->name, pb_docs[mid].message);

                if (!c)
                        c = strcmp(field ? field : "", pb_docs[mid].field);
                if (!c)
                        return pb_docs[mid].text;
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return "";
}

void pb_schema_name(const ProtobufCMessageDescriptor *t, struct buf *out)
{
        struct str name = str_of(t->name);

        if (str_starts(name, STR("k8s.io.")))
                buf_printf(out, "io.k8s.%s", t->name + 7);
        else
                buf_str(out, name);
}

static void text(struct buf *out, const char *s)
{
        buf_json(out, str_of(s));
}

static void description(struct printer *p, const char *doc)
{
        if (doc && *doc) {
                buf_cstr(p->out, ",\"description\":");
                text(p->out, doc);
        }
}

static const char *integer_format(ProtobufCType t)
{
        switch (t) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
                return "\"type\":\"integer\",\"format\":\"int32\"";
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
                return "\"type\":\"integer\",\"minimum\":0,\"maximum\":4294967295";
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
                return "\"type\":\"integer\",\"minimum\":0";
        default:
                return "\"type\":\"integer\",\"format\":\"int64\"";
        }
}

/* The members of a scalar's schema, without braces. */
static void scalar(struct printer *p, const ProtobufCFieldDescriptor *f)
{
        switch (f->type) {
        case PROTOBUF_C_TYPE_BOOL:
                buf_cstr(p->out, "\"type\":\"boolean\"");
                return;
        case PROTOBUF_C_TYPE_STRING:
                buf_cstr(p->out, "\"type\":\"string\"");
                return;
        case PROTOBUF_C_TYPE_BYTES:
                buf_cstr(p->out, "\"type\":\"string\",\"format\":\"byte\"");
                return;
        case PROTOBUF_C_TYPE_DOUBLE:
                buf_cstr(p->out, "\"type\":\"number\",\"format\":\"double\"");
                return;
        case PROTOBUF_C_TYPE_FLOAT:
                buf_cstr(p->out, "\"type\":\"number\",\"format\":\"float\"");
                return;
        case PROTOBUF_C_TYPE_ENUM: {
                const ProtobufCEnumDescriptor *e = f->descriptor;

                buf_cstr(p->out, "\"type\":\"string\",\"enum\":[");
                for (unsigned i = 0; i < e->n_values; i++) {
                        if (i)
                                buf_char(p->out, ',');
                        text(p->out, e->values[i].name);
                }
                buf_char(p->out, ']');
                return;
        }
        default:
                buf_cstr(p->out, integer_format(f->type));
                return;
        }
}

static void special(struct printer *p, const struct pb_info *ti)
{
        static const char any_object[] = "\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true";
        bool v2 = p->o->kind == PB_SCHEMA_V2, v3 = p->o->kind == PB_SCHEMA_V3;

        switch (ti->special) {
        case PB_DURATION:
                buf_cstr(p->out, "\"type\":\"string\"");
                return;
        case PB_TIMESTAMP:
        case PB_K8S_TIME:
                buf_cstr(p->out, "\"type\":\"string\",\"format\":\"date-time\"");
                return;
        case PB_WRAPPER:
                scalar(p, &ti->t->fields[0]);
                if (!v2)
                        buf_cstr(p->out, ",\"nullable\":true");
                return;
        case PB_FIELD_MASK:
                buf_cstr(p->out, "\"type\":\"string\"");
                return;
        case PB_LIST_VALUE:
                buf_printf(p->out, "\"type\":\"array\",\"items\":{%s}",
                           v2 ? "\"type\":\"object\"" : "\"x-kubernetes-preserve-unknown-fields\":true");
                return;
        case PB_INT_OR_STRING:
                buf_cstr(p->out, v2   ? "\"type\":\"string\",\"format\":\"int-or-string\""
                                 : v3 ? "\"format\":\"int-or-string\",\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]"
                                      : "\"x-kubernetes-int-or-string\":true,\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]");
                return;
        case PB_QUANTITY:
                buf_cstr(p->out, v2   ? "\"type\":\"string\""
                                 : v3 ? "\"oneOf\":[{\"type\":\"string\"},{\"type\":\"number\"}]"
                                      : "\"x-kubernetes-int-or-string\":true,\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]");
                return;
        case PB_VALUE:
        case PB_RAW_JSON:
                buf_cstr(p->out, v2 ? any_object : "\"x-kubernetes-preserve-unknown-fields\":true");
                return;
        default:
                buf_cstr(p->out, any_object);
                return;
        }
}

static void reference(struct printer *p, const char *before, const ProtobufCMessageDescriptor *t, const char *after)
{
        struct buf name = BUF_INIT;

        pb_schema_name(t, &name);
        buf_printf(p->out, "%s\"$ref\":\"%s%s\"%s", before, p->o->ref_prefix, buf_z(&name), after);
        buf_fini(&name);
}

/* The members of the schema of one value of field f, and its description. */
static void value(struct printer *p, const ProtobufCFieldDescriptor *f, const char *doc)
{
        const ProtobufCMessageDescriptor *t = pb_sub(f);

        if (!t) {
                scalar(p, f);
        } else if (pb_info(t)->special) {
                special(p, pb_info(t));
        } else if (p->o->kind == PB_SCHEMA_V2) {
                reference(p, "", t, "");
        } else if (p->o->kind == PB_SCHEMA_V3) {
                if (doc && *doc)
                        reference(p, "\"allOf\":[{", t, "}]");
                else
                        reference(p, "", t, "");
        } else {
                message(p, t, doc); /* brings its own description */
                return;
        }
        description(p, doc);
}

static void property(struct printer *p, const struct pb_info *ti, unsigned i)
{
        const ProtobufCFieldDescriptor *f = &ti->t->fields[i];
        const struct pb_info *ei = pb_field_entry(f);
        const char *doc = pb_schema_doc(ti->t, f->name);

        text(p->out, ti->json_names[i]);
        buf_cstr(p->out, ":{");
        if (ei) {
                buf_cstr(p->out, "\"type\":\"object\",\"additionalProperties\":{");
                value(p, &ei->t->fields[1], NULL);
                buf_char(p->out, '}');
                description(p, doc);
        } else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
                buf_cstr(p->out, "\"type\":\"array\",\"items\":{");
                value(p, f, NULL);
                buf_char(p->out, '}');
                description(p, doc);
        } else {
                value(p, f, doc);
        }
        if (p->o->extra)
                p->o->extra(p->o->arg, ti->t, f, ti->json_names[i], p->out);
        buf_char(p->out, '}');
}

/* "At most one of these": what a oneof is in OpenAPI 3, for each oneof of the message. */
static void oneofs(struct printer *p, const struct pb_info *ti)
{
        const ProtobufCMessageDescriptor *t = ti->t;
        unsigned groups = 0;

        for (unsigned i = 0; i < t->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &t->fields[i];
                unsigned members = 0;
                bool first = pb_in_oneof(f);

                for (unsigned k = 0; k < t->n_fields; k++) {
                        bool same = pb_in_oneof(&t->fields[k]) && t->fields[k].quantifier_offset == f->quantifier_offset;

                        members += same;
                        first &= !(same && k < i);
                }
                if (!first || members < 2)
                        continue;
                buf_cstr(p->out, groups++ ? ",{\"oneOf\":[{\"not\":{\"anyOf\":[" : ",\"allOf\":[{\"oneOf\":[{\"not\":{\"anyOf\":[");
                for (int round = 0; round < 2; round++) {
                        bool any = false;

                        for (unsigned k = i; k < t->n_fields; k++) {
                                if (!pb_in_oneof(&t->fields[k]) || t->fields[k].quantifier_offset != f->quantifier_offset)
                                        continue;
                                buf_printf(p->out, "%s{\"required\":[\"%s\"]}", any ? "," : "", ti->json_names[k]);
                                any = true;
                        }
                        buf_cstr(p->out, round ? "]}" : "]}},");
                }
        }
        if (groups)
                buf_char(p->out, ']');
}

static void fields(struct printer *p, const struct pb_info *ti, bool comma)
{
        for (unsigned i = 0; i < ti->t->n_fields; i++) {
                if (i || comma)
                        buf_char(p->out, ',');
                property(p, ti, i);
        }
}

/* The members of a message's own schema, without braces. */
static void message(struct printer *p, const ProtobufCMessageDescriptor *t, const char *doc)
{
        const struct pb_info *ti = pb_info(t);
        bool again = p->depth == INLINE_DEPTH_MAX;

        for (unsigned i = 0; i < p->depth; i++)
                again |= p->stack[i] == t;
        if (again) {
                buf_cstr(p->out, "\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true");
                description(p, doc);
                return;
        }
        p->stack[p->depth++] = t;
        if (ti->special) {
                special(p, ti);
        } else {
                buf_cstr(p->out, "\"type\":\"object\"");
                if (t->n_fields) {
                        buf_cstr(p->out, ",\"properties\":{");
                        fields(p, ti, false);
                        buf_char(p->out, '}');
                }
                if (p->o->kind != PB_SCHEMA_V2)
                        oneofs(p, ti);
        }
        description(p, doc && *doc ? doc : pb_schema_doc(t, NULL));
        p->depth--;
}

void pb_schema_json(const ProtobufCMessageDescriptor *t, const struct pb_schema_opts *o, struct buf *out)
{
        struct printer p = { .o = o, .out = out };

        buf_char(out, '{');
        message(&p, t, NULL);
        buf_char(out, '}');
}

/* ---- Kubernetes objects ---- */

#define META "k8s.io.apimachinery.pkg.apis.meta.v1."
static const char type_meta[] =
        "\"apiVersion\":{\"type\":\"string\",\"description\":\"The version of the schema that this object is written "
        "in.\"},\"kind\":{\"type\":\"string\",\"description\":\"What this object is.\"}";

static void gvk(const struct pb_schema_object *ob, const char *suffix, struct buf *out)
{
        buf_printf(out, ",\"x-kubernetes-group-version-kind\":[{\"group\":\"%s\",\"kind\":\"%s%s\",\"version\":\"%s\"}]", ob->group,
                   ob->kind, suffix, ob->version);
}

static void metadata(struct printer *p, const char *short_name)
{
        struct buf name = BUF_INIT;

        buf_printf(&name, META "%s", short_name);
        const ProtobufCMessageDescriptor *t = pb_type(buf_view(&name));

        buf_fini(&name);
        buf_cstr(p->out, ",\"metadata\":{");
        if (t && p->o->kind != PB_SCHEMA_STRUCTURAL)
                reference(p, "", t, "");
        else
                buf_cstr(p->out, "\"type\":\"object\"");
        buf_char(p->out, '}');
}

void pb_schema_object_json(const struct pb_schema_object *ob, const struct pb_schema_opts *o, struct buf *out)
{
        struct printer p = { .o = o, .out = out };

        buf_printf(out, "{\"type\":\"object\",\"properties\":{%s", type_meta);
        if (ob->custom) {
                metadata(&p, "ObjectMeta");
                buf_cstr(out, ",\"spec\":{");
                if (o->kind == PB_SCHEMA_STRUCTURAL)
                        message(&p, ob->type, NULL);
                else
                        reference(&p, "", ob->type, "");
                buf_cstr(out, "},\"status\":{\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true}}");
        } else {
                fields(&p, pb_info(ob->type), true);
                buf_char(out, '}');
        }
        description(&p, pb_schema_doc(ob->type, NULL));
        if (o->kind != PB_SCHEMA_STRUCTURAL)
                gvk(ob, "", out);
        buf_char(out, '}');
}

void pb_schema_object_name(const struct pb_schema_object *ob, bool list, struct buf *out)
{
        struct str group = str_of(ob->group), part;
        size_t parts = 0;
        struct str v[16];

        if (!ob->custom) {
                pb_schema_name(ob->type, out);
        } else {
                /* networking.istio.io is io.istio.networking. */
                while (parts < ARRAY_LEN(v) && str_next(&group, '.', &part))
                        v[parts++] = part;
                while (parts--)
                        buf_printf(out, STR_FMT ".", STR_ARG(v[parts]));
                buf_printf(out, "%s.%s", ob->version, ob->kind);
        }
        if (list)
                buf_cstr(out, "List");
}

void pb_schema_list_json(const struct pb_schema_object *ob, const struct pb_schema_opts *o, struct buf *out)
{
        struct printer p = { .o = o, .out = out };
        struct buf name = BUF_INIT;

        pb_schema_object_name(ob, false, &name);
        buf_printf(out, "{\"type\":\"object\",\"required\":[\"items\"],\"properties\":{%s", type_meta);
        metadata(&p, "ListMeta");
        buf_printf(out, ",\"items\":{\"type\":\"array\",\"items\":{\"$ref\":\"%s%s\"}}},\"description\":\"A list of %s.\"", o->ref_prefix,
                   buf_z(&name), ob->kind);
        gvk(ob, "List", out);
        buf_char(out, '}');
        buf_fini(&name);
}

/* ---- which types there are ---- */

struct closure {
        struct strmap seen;
        const ProtobufCMessageDescriptor **v;
        size_t n, cap;
};

static void closure_add(struct closure *c, const ProtobufCMessageDescriptor *t)
{
        if (!t || pb_info(t)->special || pb_info(t)->entry || strmap_has(&c->seen, str_of(t->name)))
                return;
        strmap_set(&c->seen, str_of(t->name), NULL);
        VEC_PUSH(c->v, c->n, c->cap) = t;
}

static int type_cmp(const void *a, const void *b)
{
        return strcmp((*(const ProtobufCMessageDescriptor *const *)a)->name, (*(const ProtobufCMessageDescriptor *const *)b)->name);
}

const ProtobufCMessageDescriptor **pb_schema_closure(const ProtobufCMessageDescriptor *const *roots, size_t n, size_t *n_all)
{
        struct closure c = { .seen = STRMAP_INIT };

        for (size_t i = 0; i < n; i++)
                closure_add(&c, roots[i]);
        closure_add(&c, pb_type(STR(META "ObjectMeta")));
        closure_add(&c, pb_type(STR(META "ListMeta")));
        for (size_t i = 0; i < c.n; i++) /* c.n grows on the way */
                for (unsigned k = 0; k < c.v[i]->n_fields; k++) {
                        const ProtobufCFieldDescriptor *f = &c.v[i]->fields[k];
                        const struct pb_info *ei = pb_field_entry(f);

                        closure_add(&c, pb_sub(ei ? &ei->t->fields[1] : f));
                }
        strmap_fini(&c.seen);
        qsort(c.v, c.n, sizeof(*c.v), type_cmp);
        *n_all = c.n;
        return c.v;
}
