/* YAML to nodes, on libyaml's events.
 *
 * A plain scalar keeps its text and gets the kind that Go's YAML 1.1 reader (kubectl's) would give it; the field that takes it may still
 * read it as its own type, so a string field sees `no` as "no" (pb_node.quoted is false for such scalars). An alias becomes a copy of
 * what it names, within a budget: ten small anchors that name each other ten times would otherwise be ten billion nodes. Tags other than
 * the core schema's are refused, for they ask a reader to make things up. */
#include "base/hash.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>
#include <yaml.h>

struct yaml_member {
        struct str key;
        struct pb_node key_at;
        struct pb_node *v;
        bool merge;
};

struct reader {
        yaml_parser_t parser;
        yaml_event_t event;
        struct arena *a;
        struct diags *d;
        struct str text, file;
        struct strmap anchors; /* of this document: name -> node; NULL while the node is being read */
        size_t nodes, alias_nodes;
        unsigned depth;
        bool failed;
        struct yaml_member *open;
        size_t n_open, cap_open;
};

static struct pb_node *node_of_event(struct reader *r);

__attribute__((format(printf, 4, 5))) static void *fail(struct reader *r, size_t line, size_t column, const char *fmt, ...)
{
        if (!r->failed) {
                struct diag_at at = { .file = r->file, .line = (unsigned)line, .column = (unsigned)column };
                struct buf b = BUF_INIT;
                va_list ap;

                va_start(ap, fmt);
                buf_vprintf(&b, fmt, ap);
                va_end(ap);
                diag_add(r->d, DIAG_ERROR, NULL, &at, "%s", buf_z(&b));
                buf_fini(&b);
        }
        r->failed = true;
        return NULL;
}

#define FAIL_HERE(r, ...) fail((r), (r)->event.start_mark.line + 1, (r)->event.start_mark.column + 1, __VA_ARGS__)

/* libyaml's reasons, and what they mean to a person. */
static const struct {
        const char *problem, *hint;
} hints[] = {
        { "mapping values are not allowed in this context",
          "a second ':' on the line, or wrong indentation above; quote the value when it contains \": \"" },
        { "found character that cannot start any token", "a tab cannot indent; '@', '`' and '%' need quotes" },
        { "did not find expected key", "the indentation does not match any line above" },
        { "did not find expected '-' indicator", "the list's lines are not indented alike" },
        { "could not find expected ':'", "a key without ':'" },
        { "did not find expected alphabetic or numeric character",
          "a value that begins with '*' or '&', such as \"*.example.com\", needs quotes" },
        { "found undefined tag handle", "tags are not used here" },
};

static void parser_failed(struct reader *r)
{
        const yaml_parser_t *p = &r->parser;
        const char *problem = p->problem ? p->problem : "cannot be read", *hint = NULL;

        for (size_t i = 0; i < ARRAY_LEN(hints); i++)
                if (!strcmp(problem, hints[i].problem))
                        hint = hints[i].hint;
        if (p->error == YAML_READER_ERROR) {
                size_t line = 1, column = 1;

                for (size_t i = 0; i < p->problem_offset && i < r->text.n; i++) {
                        line += r->text.p[i] == '\n';
                        column = r->text.p[i] == '\n' ? 1 : column + 1;
                }
                fail(r, line, column, "not YAML text: %s", problem);
        } else if (p->context && p->context_mark.line != p->problem_mark.line)
                fail(r, p->problem_mark.line + 1, p->problem_mark.column + 1, "bad YAML: %s, %s that begins at line %zu%s%s%s", problem,
                     p->context, p->context_mark.line + 1, hint ? " (" : "", hint ? hint : "", hint ? ")" : "");
        else
                fail(r, p->problem_mark.line + 1, p->problem_mark.column + 1, "bad YAML: %s%s%s%s", problem, hint ? " (" : "",
                     hint ? hint : "", hint ? ")" : "");
}

static bool next(struct reader *r)
{
        yaml_event_delete(&r->event);
        if (r->failed)
                return false;
        if (yaml_parser_parse(&r->parser, &r->event))
                return true;
        memset(&r->event, 0, sizeof(r->event));
        parser_failed(r);
        return false;
}

static struct pb_node *node_new(struct reader *r, enum pb_kind kind)
{
        if (++r->nodes > PB_YAML_NODES_MAX)
                return FAIL_HERE(r, "more than %d values in one file: split it", PB_YAML_NODES_MAX);
        struct pb_node *n = ARENA_NEW(r->a, struct pb_node);

        n->kind = kind;
        n->line = (unsigned)r->event.start_mark.line + 1;
        n->column = (unsigned)r->event.start_mark.column + 1;
        return n;
}

/* A "!!str" and the like: says which kind is asked for, -1 for none; false refuses the tag. */
static bool tag_kind(struct reader *r, const yaml_char_t *tag, int *kind)
{
        static const struct {
                const char *tag;
                int kind;
        } core[] = { { YAML_STR_TAG, PB_STRING }, { YAML_INT_TAG, PB_NUMBER }, { YAML_FLOAT_TAG, PB_NUMBER }, { YAML_BOOL_TAG, PB_BOOL },
                     { YAML_NULL_TAG, PB_NULL },  { YAML_MAP_TAG, PB_MAP },    { YAML_SEQ_TAG, PB_LIST },     { "!", PB_STRING } };

        *kind = -1;
        if (!tag)
                return true;
        for (size_t i = 0; i < ARRAY_LEN(core); i++)
                if (!strcmp((const char *)tag, core[i].tag)) {
                        *kind = core[i].kind;
                        return true;
                }
        FAIL_HERE(r, "the tag \"%.60s\" is not supported: write the value without it", (const char *)tag);
        return false;
}

static struct pb_node *scalar(struct reader *r)
{
        const yaml_event_t *e = &r->event;
        struct str s = { (const char *)e->data.scalar.value, e->data.scalar.length };
        bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE, b;
        struct pb_node *n = node_new(r, PB_STRING);
        int tag;

        if (!n || !tag_kind(r, e->data.scalar.tag, &tag))
                return NULL;
        n->text = arena_str(r->a, s);
        n->quoted = !plain || tag == PB_STRING;
        if (!n->quoted) {
                if (pb_text_null(s))
                        n->kind = PB_NULL;
                else if (pb_text_bool(s, &b))
                        n->kind = PB_BOOL;
                else if (pb_text_is_number(s))
                        n->kind = PB_NUMBER;
        }
        if (tag < 0 || tag == (int)n->kind)
                return n;
        if ((tag == PB_BOOL && pb_text_bool(s, &b)) || (tag == PB_NUMBER && pb_text_is_number(s)) || (tag == PB_NULL && pb_text_null(s))) {
                n->kind = (enum pb_kind)tag;
                n->quoted = true;
                return n;
        }
        return FAIL_HERE(r, "\"" STR_FMT "\" is not what its tag says", STR_ARG(str_sub(s, 0, 60)));
}

/* A copy of what an alias names, at the alias's depth and on its budget. */
static struct pb_node *alias_copy(struct reader *r, const struct pb_node *n, unsigned depth)
{
        size_t budget = r->nodes * PB_ALIAS_FACTOR_MAX + PB_ALIAS_NODES_FREE;

        if (++r->alias_nodes > (budget < PB_ALIAS_NODES_MAX ? budget : PB_ALIAS_NODES_MAX))
                return FAIL_HERE(r, "aliases make this file more than %d times as large as it is written", PB_ALIAS_FACTOR_MAX);
        if (depth > PB_DEPTH_MAX)
                return FAIL_HERE(r, "more than %d levels deep", PB_DEPTH_MAX);
        struct pb_node *c = arena_dup(r->a, n, sizeof(*n));

        if (n->kind != PB_LIST && n->kind != PB_MAP)
                return c;
        size_t cap = pb_node_cap(n->n);

        c->v = arena_alloc(r->a, cap * sizeof(*c->v));
        for (size_t i = 0; i < n->n; i++)
                if (!(c->v[i] = alias_copy(r, n->v[i], depth + 1)))
                        return NULL;
        if (n->kind == PB_MAP && n->n) {
                struct str *keys = arena_alloc(r->a, cap * sizeof(*keys));
                struct pb_node *key_at = arena_alloc(r->a, cap * sizeof(*key_at));

                c->keys = memcpy(keys, n->keys, n->n * sizeof(*keys));
                c->key_at = memcpy(key_at, n->key_at, n->n * sizeof(*key_at));
        }
        return c;
}

static struct pb_node *alias(struct reader *r)
{
        struct str name = str_of((const char *)r->event.data.alias.anchor);

        if (!strmap_has(&r->anchors, name))
                return FAIL_HERE(r, "no anchor \"&" STR_FMT "\" above", STR_ARG(name));
        const struct pb_node *n = strmap_get(&r->anchors, name);

        if (!n)
                return FAIL_HERE(r, "the alias \"*" STR_FMT "\" stands inside of what it names", STR_ARG(name));
        return alias_copy(r, n, r->depth + 1);
}

static bool key_of_event(struct reader *r, struct yaml_member *m)
{
        const yaml_event_t *e = &r->event;

        if (e->type == YAML_ALIAS_EVENT) {
                const struct pb_node *n = alias(r);

                if (!n)
                        return false;
                if (n->kind == PB_LIST || n->kind == PB_MAP) {
                        FAIL_HERE(r, "a key must be a word, not a list or a map");
                        return false;
                }
                m->key = n->text;
                m->key_at = *n;
                return true;
        }
        if (e->type != YAML_SCALAR_EVENT) {
                FAIL_HERE(r, "a key must be a word, not a list or a map%s",
                          e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE
                                  ? " (a template's {{ }} must stand in quotes)"
                                  : "");
                return false;
        }
        const struct pb_node *n = scalar(r);

        if (!n)
                return false;
        if (n->kind == PB_NULL && !n->text.n) {
                FAIL_HERE(r, "a key is missing before ':'");
                return false;
        }
        m->key = n->text;
        m->key_at = *n;
        m->merge = !n->quoted && str_eq(n->text, STR("<<"));
        if (e->data.scalar.anchor)
                strmap_set(&r->anchors, str_of((const char *)e->data.scalar.anchor), (void *)n);
        return true;
}

/* Appends the members of what "<<" names, where their keys are not taken. Earlier sources win over later ones, written keys over all. */
static bool merge_one(struct reader *r, struct strmap *taken, const struct yaml_member *m, const struct pb_node *from)
{
        if (from->kind != PB_MAP) {
                fail(r, m->key_at.line, m->key_at.column, "\"<<\" takes a map or a list of maps");
                return false;
        }
        for (size_t i = 0; i < from->n; i++) {
                if (strmap_has(taken, from->keys[i]))
                        continue;
                strmap_set(taken, from->keys[i], NULL);
                VEC_PUSH(r->open, r->n_open,
                         r->cap_open) = (struct yaml_member){ .key = from->keys[i], .key_at = from->key_at[i], .v = from->v[i] };
        }
        return true;
}

static bool merge_all(struct reader *r, size_t base)
{
        struct strmap taken = STRMAP_INIT;
        size_t written = r->n_open, kept = base;
        bool ok = true, any = false;

        for (size_t i = base; i < written; i++)
                any |= r->open[i].merge;
        if (!any)
                return true;
        for (size_t i = base; i < written; i++)
                if (!r->open[i].merge)
                        strmap_set(&taken, r->open[i].key, NULL);
        for (size_t i = base; ok && i < written; i++) {
                struct yaml_member m = r->open[i]; /* a copy: the vector may move */

                if (!m.merge)
                        continue;
                if (m.v->kind != PB_LIST)
                        ok = merge_one(r, &taken, &m, m.v);
                for (size_t k = 0; m.v->kind == PB_LIST && ok && k < m.v->n; k++)
                        ok = merge_one(r, &taken, &m, m.v->v[k]);
        }
        for (size_t i = base; i < r->n_open; i++)
                if (!r->open[i].merge)
                        r->open[kept++] = r->open[i];
        r->n_open = kept;
        strmap_fini(&taken);
        return ok;
}

static bool close_node(struct reader *r, struct pb_node *n, size_t base)
{
        size_t dup, cap;

        n->n = r->n_open - base;
        cap = pb_node_cap(n->n);
        n->v = arena_alloc(r->a, cap * sizeof(*n->v));
        if (n->kind == PB_MAP) {
                n->keys = arena_alloc(r->a, cap * sizeof(*n->keys));
                n->key_at = arena_alloc(r->a, cap * sizeof(*n->key_at));
        }
        for (size_t i = 0; i < n->n; i++) {
                n->v[i] = r->open[base + i].v;
                if (n->kind == PB_MAP) {
                        n->keys[i] = r->open[base + i].key;
                        n->key_at[i] = r->open[base + i].key_at;
                }
        }
        if (n->kind == PB_MAP && !pb_keys_unique(n->keys, n->n, &dup)) {
                fail(r, n->key_at[dup].line, n->key_at[dup].column, "the key \"" STR_FMT "\" is there twice: remove one",
                     STR_ARG(str_sub(n->keys[dup], 0, 100)));
                return false;
        }
        return true;
}

/* A map or a list, up to its end event. */
static struct pb_node *compound(struct reader *r, bool map)
{
        const yaml_char_t *tag = map ? r->event.data.mapping_start.tag : r->event.data.sequence_start.tag;
        const char *anchor = (const char *)(map ? r->event.data.mapping_start.anchor : r->event.data.sequence_start.anchor);
        struct pb_node *n = node_new(r, map ? PB_MAP : PB_LIST);
        size_t base = r->n_open;
        struct str name = { NULL, 0 };
        int kind;

        if (!n || !tag_kind(r, tag, &kind))
                return NULL;
        if (kind >= 0 && kind != (int)n->kind && kind != PB_STRING)
                return FAIL_HERE(r, "the value is not what its tag says");
        if (++r->depth > PB_DEPTH_MAX)
                return FAIL_HERE(r, "more than %d levels deep", PB_DEPTH_MAX);
        if (anchor) {
                name = arena_str(r->a, str_of(anchor));
                strmap_set(&r->anchors, name, NULL);
        }
        for (;;) {
                struct yaml_member m = { .v = NULL };

                if (!next(r))
                        return NULL;
                if (r->event.type == (map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT))
                        break;
                if (map && (!key_of_event(r, &m) || !next(r)))
                        return NULL;
                if (!(m.v = node_of_event(r)))
                        return NULL;
                VEC_PUSH(r->open, r->n_open, r->cap_open) = m;
        }
        if (map && !merge_all(r, base))
                return NULL;
        if (!close_node(r, n, base))
                return NULL;
        r->n_open = base;
        r->depth--;
        if (name.p)
                strmap_set(&r->anchors, name, n);
        return n;
}

static struct pb_node *node_of_event(struct reader *r)
{
        switch (r->event.type) {
        case YAML_ALIAS_EVENT:
                return alias(r);
        case YAML_SEQUENCE_START_EVENT:
                return compound(r, false);
        case YAML_MAPPING_START_EVENT:
                return compound(r, true);
        case YAML_SCALAR_EVENT: {
                struct pb_node *n = scalar(r);

                if (n && r->event.data.scalar.anchor)
                        strmap_set(&r->anchors, str_of((const char *)r->event.data.scalar.anchor), n);
                return n;
        }
        default:
                return FAIL_HERE(r, "a value is expected here");
        }
}

bool pb_parse_yaml(struct str text, struct str file, struct arena *a, struct pb_node ***docs, size_t *ndocs, struct diags *d)
{
        struct reader r = { .a = a, .d = d, .text = text, .file = file, .anchors = STRMAP_INIT };
        struct pb_node **v = NULL;
        size_t n = 0, cap = 0;

        *docs = NULL;
        *ndocs = 0;
        if (!yaml_parser_initialize(&r.parser))
                abort();
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
        while (next(&r) && r.event.type != YAML_STREAM_END_EVENT) {
                if (r.event.type != YAML_DOCUMENT_START_EVENT)
                        continue; /* the stream's start, a document's end */
                strmap_fini(&r.anchors);
                r.anchors = (struct strmap)STRMAP_INIT;
                r.depth = 0;
                r.n_open = 0;
                if (!next(&r))
                        break;
                struct pb_node *root = node_of_event(&r);

                /* A document of nothing but comments is no document. */
                if (root && !(root->kind == PB_NULL && !root->text.n))
                        VEC_PUSH(v, n, cap) = root;
        }
        yaml_event_delete(&r.event);
        yaml_parser_delete(&r.parser);
        strmap_fini(&r.anchors);
        free(r.open);
        if (!r.failed) {
                *docs = arena_dup(a, v, n * sizeof(*v));
                *ndocs = n;
        }
        free(v);
        return !r.failed;
}
