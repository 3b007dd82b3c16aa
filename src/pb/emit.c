/* Nodes to JSON and YAML text. */
#include "base/mem.h"
#include "pb/internal.h"

#include <math.h>

/* RFC 8259 §6. */
static bool is_json_number(struct str s)
{
        size_t i = s.n && s.p[0] == '-', from = i;
        bool zero = i < s.n && s.p[i] == '0';

        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
                i++;
        if (i == from || (zero && i > from + 1))
                return false;
        if (i < s.n && s.p[i] == '.') {
                for (from = ++i; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++)
                        ;
                if (i == from)
                        return false;
        }
        if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
                i++;
                i += i < s.n && (s.p[i] == '-' || s.p[i] == '+');
                for (from = i; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++)
                        ;
                if (i == from)
                        return false;
        }
        return i == s.n;
}

/* A number that JSON can write stands as it was written; YAML's other forms are turned into decimals. */
static void number_json(struct str text, struct buf *out)
{
        uint64_t u;
        int64_t v;
        double d;

        if (is_json_number(text))
                buf_str(out, text);
        else if (pb_text_i64(text, &v))
                buf_printf(out, "%lld", (long long)v);
        else if (pb_text_u64(text, &u))
                buf_u64(out, u);
        else if (!pb_text_double(text, &d))
                buf_json(out, text);
        else if (isfinite(d))
                pb_double_print(d, out);
        else
                buf_cstr(out, isnan(d) ? "\"NaN\"" : d > 0 ? "\"Infinity\"" : "\"-Infinity\"");
}

static void scalar_json(const struct pb_node *n, struct buf *out)
{
        bool b = false;

        switch (n->kind) {
        case PB_BOOL:
                pb_text_bool(n->text, &b);
                buf_cstr(out, b ? "true" : "false");
                return;
        case PB_NUMBER:
                number_json(n->text, out);
                return;
        case PB_STRING:
                buf_json(out, n->text);
                return;
        default:
                buf_cstr(out, "null");
                return;
        }
}

void pb_node_json(const struct pb_node *n, struct buf *out)
{
        if (!n || (n->kind != PB_LIST && n->kind != PB_MAP)) {
                scalar_json(n ? n : &(struct pb_node){ .kind = PB_NULL }, out);
                return;
        }
        buf_char(out, n->kind == PB_MAP ? '{' : '[');
        for (size_t i = 0; i < n->n; i++) {
                if (i)
                        buf_char(out, ',');
                if (n->kind == PB_MAP) {
                        buf_json(out, n->keys[i]);
                        buf_char(out, ':');
                }
                pb_node_json(n->v[i], out);
        }
        buf_char(out, n->kind == PB_MAP ? '}' : ']');
}

static void new_line(struct buf *out, size_t blanks)
{
        buf_char(out, '\n');
        buf_reserve(out, blanks);
        for (size_t i = 0; i < blanks; i++)
                buf_char(out, ' ');
}

static void json_indent(const struct pb_node *n, unsigned indent, size_t level, struct buf *out)
{
        if (!n || (n->kind != PB_LIST && n->kind != PB_MAP) || n->n == 0) {
                pb_node_json(n, out);
                return;
        }
        buf_char(out, n->kind == PB_MAP ? '{' : '[');
        for (size_t i = 0; i < n->n; i++) {
                if (i)
                        buf_char(out, ',');
                new_line(out, (level + 1) * indent);
                if (n->kind == PB_MAP) {
                        buf_json(out, n->keys[i]);
                        buf_cstr(out, ": ");
                }
                json_indent(n->v[i], indent, level + 1, out);
        }
        new_line(out, level * indent);
        buf_char(out, n->kind == PB_MAP ? '}' : ']');
}

void pb_node_json_indent(const struct pb_node *n, unsigned indent, struct buf *out)
{
        if (indent)
                json_indent(n, indent, 0, out);
        else
                pb_node_json(n, out);
}

/* ---- YAML ---- */

/* Whether a string may stand without quotes: it starts harmlessly, has no indicator inside and would not be read as something else. */
static bool plain_ok(struct str s)
{
        bool b;

        if (!s.n || s.n > 200 || pb_text_null(s) || pb_text_bool(s, &b) || pb_text_is_number(s) || str_eqc(s, "<<"))
                return false;
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];

                if (c < 0x20 || c >= 0x7f || (c == ':' && (i + 1 == s.n || s.p[i + 1] == ' ')) || (c == '#' && i && s.p[i - 1] == ' '))
                        return false;
        }
        /* A date looks like a number to some readers; "=" is a value indicator to YAML 1.1. */
        if ((s.p[0] >= '0' && s.p[0] <= '9' && (memchr(s.p, ':', s.n) || memchr(s.p, '-', s.n))) || s.p[0] == '=')
                return false;
        return !memchr("-?:,[]{}#&*!|>'\"%@` ~", s.p[0], 22) && s.p[s.n - 1] != ' ';
}

/* Several lines of plain text read best as a block. */
static bool block_ok(struct str s)
{
        if (!memchr(s.p ? s.p : "", '\n', s.n) || s.p[0] == ' ' || s.p[0] == '\n' || s.p[0] == '\t' || str_ends(s, STR("\n\n")))
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\n' && s.p[i] != '\t') || (unsigned char)s.p[i] >= 0x7f ||
                    (s.p[i] == '\n' && i && (s.p[i - 1] == ' ' || s.p[i - 1] == '\t')))
                        return false;
        return true;
}

/* A double-quoted string. JSON's form is YAML's too, but for characters that a YAML reader takes for line breaks or refuses. */
static void quoted_yaml(struct str s, struct buf *out)
{
        struct buf json = BUF_INIT;
        size_t done = 0;

        buf_json(&json, s);
        for (size_t i = 0; i + 1 < json.n; i++) {
                const unsigned char *p = (const unsigned char *)json.p + i;
                unsigned c = 0;

                if (*p == 0xc2 && p[1] < 0xa0)
                        c = p[1];
                else if ((*p & 0xf0) == 0xe0 && i + 2 < json.n)
                        c = (unsigned)(*p & 15) << 12 | (unsigned)(p[1] & 63) << 6 | (p[2] & 63);
                if (!(c >= 0x80 && c < 0xa0) && c != 0x2028 && c != 0x2029 && c != 0xfeff && c < 0xfffe)
                        continue;
                buf_append(out, json.p + done, i - done);
                buf_printf(out, "\\u%04x", c);
                i += c < 0x100 ? 1 : 2;
                done = i + 1;
        }
        buf_append(out, json.p + done, json.n - done);
        buf_fini(&json);
}

static void string_yaml(struct str s, size_t level, struct buf *out)
{
        if (plain_ok(s)) {
                buf_str(out, s);
        } else if (block_ok(s)) {
                bool ends = str_ends(s, STR("\n"));
                struct str rest = ends ? str_sub(s, 0, s.n - 1) : s, line;

                buf_cstr(out, ends ? "|" : "|-");
                while (str_next(&rest, '\n', &line)) {
                        if (line.n)
                                new_line(out, level * 2 + 2);
                        else
                                buf_char(out, '\n');
                        buf_str(out, line);
                }
        } else {
                quoted_yaml(s, out);
        }
}

static void key_yaml(struct str key, size_t level, struct buf *out)
{
        if (plain_ok(key)) {
                buf_str(out, key);
                return;
        }
        if (key.n < 500) {
                quoted_yaml(key, out);
                return;
        }
        /* YAML's short form of a key ends after 1024 characters. */
        buf_cstr(out, "? ");
        quoted_yaml(key, out);
        new_line(out, level * 2);
}

/* `level` is that of n's own lines; `inline_first`: the first of them goes on where the text stands (behind "- "). */
static void yaml(const struct pb_node *n, size_t level, bool inline_first, struct buf *out)
{
        if (n->kind == PB_STRING) {
                string_yaml(n->text, level ? level - 1 : 0, out);
                return;
        }
        if ((n->kind != PB_LIST && n->kind != PB_MAP) || n->n == 0) {
                pb_node_json(n, out);
                return;
        }
        for (size_t i = 0; i < n->n; i++) {
                const struct pb_node *e = n->v[i];
                bool nested = (e->kind == PB_LIST || e->kind == PB_MAP) && e->n > 0;

                if (i || !inline_first)
                        new_line(out, level * 2);
                if (n->kind == PB_LIST) {
                        buf_cstr(out, "- ");
                        yaml(e, level + 1, true, out);
                        continue;
                }
                key_yaml(n->keys[i], level, out);
                buf_char(out, ':');
                if (!nested)
                        buf_char(out, ' ');
                /* Lists stand at the level of their key, as kubectl prints them. */
                yaml(e, nested && e->kind == PB_LIST ? level : level + 1, false, out);
        }
}

void pb_node_yaml(const struct pb_node *n, struct buf *out)
{
        yaml(n, 0, true, out);
        buf_char(out, '\n');
}
