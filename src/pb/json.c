/* JSON (RFC 8259) to nodes. Strict: one value, no comments, no trailing commas, valid UTF-8, no key twice.
 *
 * The text is copied into the arena once and strings are unescaped in place (an escape is never shorter than what it stands for), so
 * a string costs nothing but its node. */
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

struct json {
        char *p, *end, *line_start;
        unsigned line, depth;
        size_t nodes;
        struct arena *a;
        struct diags *d;
        struct str file;
        bool failed;
        /* Members of the objects and lists that are open, innermost last; moved to the arena when one closes and its size is known. */
        struct json_member {
                struct str key;
                struct pb_node key_at;
                struct pb_node *v;
        } * open;
        size_t n_open, cap_open;
};

static struct pb_node *value(struct json *j);

__attribute__((format(printf, 3, 4))) static void *fail(struct json *j, const char *at, const char *fmt, ...)
{
        if (!j->failed) {
                struct diag_at where = { .file = j->file, .line = j->line, .column = (unsigned)(at - j->line_start) + 1 };
                va_list ap;
                struct buf b = BUF_INIT;

                va_start(ap, fmt);
                buf_vprintf(&b, fmt, ap);
                va_end(ap);
                diag_add(j->d, DIAG_ERROR, NULL, &where, "%s", buf_z(&b));
                buf_fini(&b);
        }
        j->failed = true;
        return NULL;
}

static void blanks(struct json *j)
{
        for (; j->p < j->end; j->p++) {
                if (*j->p == '\n') {
                        j->line++;
                        j->line_start = j->p + 1;
                } else if (*j->p != ' ' && *j->p != '\t' && *j->p != '\r') {
                        return;
                }
        }
}

static struct pb_node *node(struct json *j, enum pb_kind kind, const char *at)
{
        if (++j->nodes > PB_JSON_NODES_MAX)
                return fail(j, at, "more than %d values in one text", PB_JSON_NODES_MAX);
        struct pb_node *n = ARENA_NEW(j->a, struct pb_node);

        n->kind = kind;
        n->quoted = true;
        n->line = j->line;
        n->column = (unsigned)(at - j->line_start) + 1;
        return n;
}

static bool hex4(const struct json *j, const char *p, uint32_t *v)
{
        uint64_t x;

        if (j->end - p < 4 || !str_hex64(str_make(p, 4), &x))
                return false;
        *v = (uint32_t)x;
        return true;
}

static char *utf8_put(char *o, uint32_t c)
{
        if (c < 0x80) {
                *o++ = (char)c;
        } else if (c < 0x800) {
                *o++ = (char)(0xc0 | c >> 6);
                *o++ = (char)(0x80 | (c & 0x3f));
        } else if (c < 0x10000) {
                *o++ = (char)(0xe0 | c >> 12);
                *o++ = (char)(0x80 | (c >> 6 & 0x3f));
                *o++ = (char)(0x80 | (c & 0x3f));
        } else {
                *o++ = (char)(0xf0 | c >> 18);
                *o++ = (char)(0x80 | (c >> 12 & 0x3f));
                *o++ = (char)(0x80 | (c >> 6 & 0x3f));
                *o++ = (char)(0x80 | (c & 0x3f));
        }
        return o;
}

/* At a backslash: writes what it stands for to *o and moves p behind it. */
static bool escape(struct json *j, char **o)
{
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *at = j->p++;
        char c = j->p < j->end ? *j->p++ : '\0';
        const char *k = c ? strchr(from, c) : NULL;
        uint32_t u, low;

        if (k) {
                *(*o)++ = to[k - from];
                return true;
        }
        if (c != 'u' || !hex4(j, j->p, &u)) {
                fail(j, at, "bad escape in a string");
                return false;
        }
        j->p += 4;
        if (u >= 0xd800 && u < 0xdc00) {
                if (j->end - j->p < 6 || j->p[0] != '\\' || j->p[1] != 'u' || !hex4(j, j->p + 2, &low) || low < 0xdc00 || low > 0xdfff) {
                        fail(j, at, "half of a surrogate pair in a string");
                        return false;
                }
                j->p += 6;
                u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
        } else if (u >= 0xdc00 && u <= 0xdfff) {
                fail(j, at, "half of a surrogate pair in a string");
                return false;
        }
        *o = utf8_put(*o, u);
        return true;
}

/* At the opening quote. */
static bool string(struct json *j, struct str *out)
{
        char *start = ++j->p, *o = start;
        bool ascii = true;

        for (;;) {
                if (j->p >= j->end) {
                        fail(j, start - 1, "a string does not end");
                        return false;
                }
                unsigned char c = (unsigned char)*j->p;

                if (c == '"')
                        break;
                if (c < 0x20) {
                        fail(j, j->p, "a control character in a string: write it as \\u%04x", c);
                        return false;
                }
                if (c == '\\') {
                        if (!escape(j, &o))
                                return false;
                        continue;
                }
                ascii &= c < 0x80;
                *o++ = *j->p++;
        }
        *out = str_make(start, (size_t)(o - start));
        if (!ascii && !pb_utf8_valid(*out)) {
                fail(j, start - 1, "a string is not valid UTF-8");
                return false;
        }
        j->p++;
        return true;
}

static struct pb_node *number(struct json *j)
{
        char *s = j->p;
        struct pb_node *n = node(j, PB_NUMBER, s);
        size_t digits = 0;

        if (!n)
                return NULL;
        if (*s == '-')
                s++;
        char *first = s;

        for (; s < j->end && *s >= '0' && *s <= '9'; s++)
                digits++;
        if (!digits || (digits > 1 && *first == '0'))
                return fail(j, j->p, "bad number");
        if (s < j->end && *s == '.') {
                char *frac = ++s;

                while (s < j->end && *s >= '0' && *s <= '9')
                        s++;
                if (s == frac)
                        return fail(j, j->p, "bad number: digits must follow the point");
        }
        if (s < j->end && (*s == 'e' || *s == 'E')) {
                s++;
                if (s < j->end && (*s == '-' || *s == '+'))
                        s++;
                char *exp = s;

                while (s < j->end && *s >= '0' && *s <= '9')
                        s++;
                if (s == exp)
                        return fail(j, j->p, "bad number: digits must follow the exponent's sign");
        }
        n->text = str_make(j->p, (size_t)(s - j->p));
        if (n->text.n > 400)
                return fail(j, j->p, "a number of %zu characters", n->text.n);
        j->p = s;
        return n;
}

static struct pb_node *word(struct json *j)
{
        static const struct {
                struct str text;
                enum pb_kind kind;
        } words[] = { { { "true", 4 }, PB_BOOL }, { { "false", 5 }, PB_BOOL }, { { "null", 4 }, PB_NULL } };
        size_t n = 0;

        while (j->p + n < j->end && n < 32 && ((j->p[n] | 32) >= 'a' && (j->p[n] | 32) <= 'z'))
                n++;
        for (size_t i = 0; i < ARRAY_LEN(words); i++)
                if (str_eq(words[i].text, str_make(j->p, n))) {
                        struct pb_node *v = node(j, words[i].kind, j->p);

                        if (v)
                                v->text = words[i].text;
                        j->p += n;
                        return v;
                }
        if (n)
                return fail(j, j->p, "\"" STR_FMT "\" is no JSON value: strings stand in quotes", STR_ARG(str_make(j->p, n)));
        if ((unsigned char)*j->p < 0x20 || (unsigned char)*j->p >= 0x7f)
                return fail(j, j->p, "unexpected byte 0x%02x", (unsigned char)*j->p);
        return fail(j, j->p, "unexpected '%c'", *j->p);
}

static bool member(struct json *j)
{
        struct json_member m = { .key_at = { .kind = PB_STRING, .quoted = true, .line = j->line } };

        if (*j->p != '"') {
                fail(j, j->p, "expected a key in quotes");
                return false;
        }
        m.key_at.column = (unsigned)(j->p - j->line_start) + 1;
        if (!string(j, &m.key))
                return false;
        blanks(j);
        if (j->p >= j->end || *j->p != ':') {
                fail(j, j->p, "expected ':' behind the key \"" STR_FMT "\"", STR_ARG(m.key));
                return false;
        }
        j->p++;
        m.v = value(j);
        if (m.v)
                VEC_PUSH(j->open, j->n_open, j->cap_open) = m;
        return m.v != NULL;
}

static void close_map(struct json *j, struct pb_node *n, size_t base)
{
        size_t dup;

        if (n->kind == PB_MAP) {
                n->keys = arena_alloc(j->a, pb_node_cap(n->n) * sizeof(*n->keys));
                n->key_at = arena_alloc(j->a, pb_node_cap(n->n) * sizeof(*n->key_at));
        }
        n->v = arena_alloc(j->a, pb_node_cap(n->n) * sizeof(*n->v));
        for (size_t i = 0; i < n->n; i++) {
                n->v[i] = j->open[base + i].v;
                if (n->kind == PB_MAP) {
                        n->keys[i] = j->open[base + i].key;
                        n->key_at[i] = j->open[base + i].key_at;
                }
        }
        if (n->kind == PB_MAP && !pb_keys_unique(n->keys, n->n, &dup)) {
                struct diag_at at = { .file = j->file, .line = n->key_at[dup].line, .column = n->key_at[dup].column };

                if (!j->failed)
                        diag_add(j->d, DIAG_ERROR, NULL, &at, "the key \"" STR_FMT "\" is there twice: remove one",
                                 STR_ARG(str_sub(n->keys[dup], 0, 100)));
                j->failed = true;
        }
}

/* An object or a list: '{' or '['. */
static struct pb_node *compound(struct json *j)
{
        bool map = *j->p == '{';
        char close = map ? '}' : ']';
        size_t base = j->n_open;
        struct pb_node *n = node(j, map ? PB_MAP : PB_LIST, j->p);

        if (!n)
                return NULL;
        if (++j->depth > PB_DEPTH_MAX)
                return fail(j, j->p, "more than %d levels deep", PB_DEPTH_MAX);
        j->p++;
        blanks(j);
        if (j->p < j->end && *j->p == close) {
                j->p++;
                j->depth--;
                return n;
        }
        for (;;) {
                blanks(j);
                if (j->p >= j->end)
                        return fail(j, j->end, "the text ends inside %s that begins at line %u", map ? "an object" : "a list", n->line);
                if (map) {
                        if (!member(j))
                                return NULL;
                } else {
                        struct pb_node *e = value(j);

                        if (!e)
                                return NULL;
                        VEC_PUSH(j->open, j->n_open, j->cap_open) = (struct json_member){ .v = e };
                }
                blanks(j);
                if (j->p < j->end && *j->p == ',') {
                        j->p++;
                        continue;
                }
                if (j->p < j->end && *j->p == close)
                        break;
                if (j->p >= j->end)
                        return fail(j, j->end, "the text ends inside %s that begins at line %u", map ? "an object" : "a list", n->line);
                return fail(j, j->p, "expected ',' or '%c'", close);
        }
        j->p++;
        j->depth--;
        n->n = j->n_open - base;
        close_map(j, n, base);
        j->n_open = base;
        return j->failed ? NULL : n;
}

static struct pb_node *value(struct json *j)
{
        blanks(j);
        if (j->p >= j->end)
                return fail(j, j->end, "the text ends where a value is expected");
        switch (*j->p) {
        case '{':
        case '[':
                return compound(j);
        case '"': {
                struct pb_node *n = node(j, PB_STRING, j->p);

                return n && string(j, &n->text) ? n : NULL;
        }
        default:
                return *j->p == '-' || (*j->p >= '0' && *j->p <= '9') ? number(j) : word(j);
        }
}

bool pb_parse_json(struct str text, struct str file, struct arena *a, struct pb_node **root, struct diags *d)
{
        struct json j = { .a = a, .d = d, .file = file, .line = 1 };

        j.p = j.line_start = arena_cstr(a, text);
        j.end = j.p + text.n;
        *root = value(&j);
        if (*root) {
                blanks(&j);
                if (j.p < j.end) {
                        fail(&j, j.p, "something follows the end of the JSON value");
                        *root = NULL;
                }
        }
        free(j.open);
        return *root != NULL;
}
