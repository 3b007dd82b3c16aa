/* Selectors are compiled once a request and matched against trees; a watch keeps its own. */
#include "kube/selector.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdlib.h>

/* ---- names ---- */

static bool lower_alnum(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool alnum(char c)
{
        return lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool dns_label_shape(struct str s)
{
        if (!s.n || !lower_alnum(s.p[0]) || !lower_alnum(s.p[s.n - 1]))
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (!lower_alnum(s.p[i]) && s.p[i] != '-')
                        return false;
        return true;
}

const char *kube_check_dns_label(struct str s)
{
        if (s.n > 63)
                return "must be no more than 63 characters";
        if (!dns_label_shape(s))
                return "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
                       "an "
                       "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
                       "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        return NULL;
}

const char *kube_check_dns1035_label(struct str s)
{
        if (s.n > 63)
                return "must be no more than 63 characters";
        if (!dns_label_shape(s) || !(s.p[0] >= 'a' && s.p[0] <= 'z'))
                return "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
                       "and end "
                       "with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
                       "'[a-z]([-a-z0-9]*[a-z0-9])?')";
        return NULL;
}

const char *kube_check_dns_subdomain(struct str s)
{
        struct str rest = s, part;

        if (s.n > 253)
                return "must be no more than 253 characters";
        bool ok = s.n > 0;
        while (ok && str_next(&rest, '.', &part))
                ok = dns_label_shape(part);
        if (!ok)
                return "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
                       "end with "
                       "an alphanumeric character (e.g. 'example.com', regex used for validation is "
                       "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        return NULL;
}

static bool name_chars(struct str s)
{
        if (!s.n || !alnum(s.p[0]) || !alnum(s.p[s.n - 1]))
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (!alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
                        return false;
        return true;
}

const char *kube_check_label_value(struct str s)
{
        if (!s.n)
                return NULL;
        if (s.n > 63)
                return "must be no more than 63 characters";
        if (!name_chars(s))
                return "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
                       "end with "
                       "an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
                       "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        return NULL;
}

const char *kube_check_qualified_name(struct str s)
{
        ptrdiff_t slash = str_chr(s, '/');
        struct str name = s;

        if (slash >= 0) {
                struct str prefix = str_sub(s, 0, (size_t)slash);

                name = str_sub(s, (size_t)slash + 1, s.n);
                if (!prefix.n)
                        return "prefix part must be non-empty";
                if (kube_check_dns_subdomain(prefix))
                        return "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
                               "and must "
                               "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
                               "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        }
        if (!name.n)
                return "name part must be non-empty";
        if (name.n > 63)
                return "name part must be no more than 63 characters";
        if (!name_chars(name))
                return "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
                       "character "
                       "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
                       "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        return NULL;
}

/* ---- label selector text ---- */

struct lexer {
        struct str s;
        size_t i;
        struct arena *a;
        struct str *why;
};

static void blanks(struct lexer *l)
{
        while (l->i < l->s.n && isspace((unsigned char)l->s.p[l->i]))
                l->i++;
}

static char look(struct lexer *l)
{
        blanks(l);
        return l->i < l->s.n ? l->s.p[l->i] : 0;
}

static struct str word(struct lexer *l)
{
        blanks(l);
        size_t from = l->i;

        while (l->i < l->s.n && !isspace((unsigned char)l->s.p[l->i]) && !strchr("=!<>(),", l->s.p[l->i]))
                l->i++;
        return str_make(l->s.p + from, l->i - from);
}

static bool fail(struct lexer *l, const char *what, struct str at)
{
        *l->why = arena_printf(l->a, "unable to parse requirement: %s: \"" STR_FMT "\"", what, STR_ARG(at));
        return false;
}

static bool add_value(struct lexer *l, struct kube_sel_term *t, struct str v, size_t *cap)
{
        const char *bad = kube_check_label_value(v);

        if (bad)
                return fail(l, bad, v);
        if (t->n >= KUBE_SEL_MAX_VALUES)
                return fail(l, "too many values", t->key);
        if (t->n == *cap) {
                size_t c = *cap ? *cap * 4 : 4;
                struct str *nv = arena_alloc(l->a, c * sizeof(*nv));

                if (t->n)
                        memcpy(nv, t->v, t->n * sizeof(*nv));
                t->v = nv;
                *cap = c;
        }
        t->v[t->n++] = v;
        return true;
}

static bool parse_set(struct lexer *l, struct kube_sel_term *t)
{
        size_t cap = 0;

        if (look(l) != '(')
                return fail(l, "expected '('", str_sub(l->s, l->i, l->s.n));
        l->i++;
        for (;;) {
                if (!add_value(l, t, word(l), &cap))
                        return false;
                char c = look(l);
                if (!c)
                        return fail(l, "found end of string, expected ')' or ','", l->s);
                l->i++;
                if (c == ')')
                        return true;
                if (c != ',')
                        return fail(l, "expected ',' or ')'", str_sub(l->s, l->i - 1, l->s.n));
        }
}

static bool parse_operator(struct lexer *l, struct kube_sel_term *t)
{
        size_t cap = 0;
        char c = look(l);

        if (!c || c == ',') {
                t->op = KUBE_SEL_EXISTS;
                return true;
        }
        if (c == '=' || c == '!' || c == '<' || c == '>') {
                l->i++;
                if (c == '=' && l->i < l->s.n && l->s.p[l->i] == '=')
                        l->i++;
                if (c == '!' && (l->i >= l->s.n || l->s.p[l->i++] != '='))
                        return fail(l, "expected '=' after '!'", l->s);
                t->op = c == '!' ? KUBE_SEL_NOT_IN : c == '=' ? KUBE_SEL_IN : c == '>' ? KUBE_SEL_GREATER : KUBE_SEL_LESS;
                struct str v = word(l);
                int64_t num;
                if ((c == '<' || c == '>') && !str_i64(v, &num))
                        return fail(l, "for 'Gt', 'Lt' operators, the value must be an integer", v);
                return add_value(l, t, v, &cap);
        }
        struct str w = word(l);
        if (str_eqc(w, "in"))
                t->op = KUBE_SEL_IN;
        else if (str_eqc(w, "notin"))
                t->op = KUBE_SEL_NOT_IN;
        else
                return fail(l, "expected one of: in, notin, =, ==, !=, gt, lt", w);
        return parse_set(l, t);
}

bool kube_labels_parse(struct str text, struct arena *a, struct kube_selector *s, struct str *why)
{
        struct lexer l = { text, 0, a, why };

        s->n = 0;
        s->t = NULL;
        if (!look(&l))
                return true;
        s->t = arena_zalloc(a, KUBE_SEL_MAX_TERMS * sizeof(*s->t));
        for (;;) {
                if (s->n == KUBE_SEL_MAX_TERMS)
                        return fail(&l, "too many requirements", text);
                struct kube_sel_term *t = &s->t[s->n];
                bool negated = look(&l) == '!';

                if (negated)
                        l.i++;
                t->key = word(&l);
                const char *bad = kube_check_qualified_name(t->key);
                if (bad)
                        return fail(&l, bad, t->key);
                if (negated)
                        t->op = KUBE_SEL_NOT_EXISTS;
                else if (!parse_operator(&l, t))
                        return false;
                s->n++;
                char c = look(&l);
                if (!c)
                        return true;
                if (c != ',')
                        return fail(&l, "expected ','", str_sub(text, l.i, text.n));
                l.i++;
        }
}

/* ---- label selector objects ---- */

static bool from_expression(const struct pb_node *e, struct arena *a, struct kube_sel_term *t, struct str *why)
{
        struct str op = pb_get_str(e, "operator", STR(""));
        const struct pb_node *values = pb_get(e, "values");

        t->key = pb_get_str(e, "key", STR(""));
        if (str_eqc(op, "In"))
                t->op = KUBE_SEL_IN;
        else if (str_eqc(op, "NotIn"))
                t->op = KUBE_SEL_NOT_IN;
        else if (str_eqc(op, "Exists"))
                t->op = KUBE_SEL_EXISTS;
        else if (str_eqc(op, "DoesNotExist"))
                t->op = KUBE_SEL_NOT_EXISTS;
        else {
                *why = arena_printf(a, "\"" STR_FMT "\" is not a valid label selector operator", STR_ARG(op));
                return false;
        }
        bool set = t->op == KUBE_SEL_IN || t->op == KUBE_SEL_NOT_IN;
        size_t n = values && values->kind == PB_LIST ? values->n : 0;
        if (set != (n > 0)) {
                *why = set ? STR("for 'in', 'notin' operators, values set can't be empty")
                           : STR("values set must be empty for exists and does not exist");
                return false;
        }
        t->v = arena_alloc(a, (n + 1) * sizeof(*t->v));
        for (t->n = 0; t->n < n; t->n++)
                t->v[t->n] = values->v[t->n]->text;
        return true;
}

void kube_labels_from_map(const struct pb_node *map, struct arena *a, struct kube_selector *s)
{
        size_t n = map && map->kind == PB_MAP ? map->n : 0;

        s->t = arena_zalloc(a, (n + 1) * sizeof(*s->t));
        for (s->n = 0; s->n < n; s->n++) {
                struct kube_sel_term *t = &s->t[s->n];

                t->key = map->keys[s->n];
                t->op = KUBE_SEL_IN;
                t->v = &map->v[s->n]->text;
                t->n = 1;
        }
}

bool kube_labels_from_node(const struct pb_node *selector, struct arena *a, struct kube_selector *s, struct str *why)
{
        const struct pb_node *ml = pb_get(selector, "matchLabels"), *me = pb_get(selector, "matchExpressions");
        struct kube_selector plain;
        size_t n = me && me->kind == PB_LIST ? me->n : 0;

        kube_labels_from_map(ml, a, &plain);
        s->t = arena_zalloc(a, (plain.n + n + 1) * sizeof(*s->t));
        memcpy(s->t, plain.t, plain.n * sizeof(*s->t));
        s->n = plain.n;
        for (size_t i = 0; i < n; i++)
                if (!from_expression(me->v[i], a, &s->t[s->n++], why))
                        return false;
        return true;
}

/* ---- matching ---- */

static bool has_value(const struct kube_sel_term *t, struct str v)
{
        for (size_t i = 0; i < t->n; i++)
                if (str_eq(t->v[i], v))
                        return true;
        return false;
}

static bool compare(const struct kube_sel_term *t, struct str v)
{
        int64_t have, want;

        if (!str_i64(v, &have) || !str_i64(t->v[0], &want))
                return false;
        return t->op == KUBE_SEL_GREATER ? have > want : have < want;
}

static bool term_match(const struct kube_sel_term *t, bool present, struct str v)
{
        switch (t->op) {
        case KUBE_SEL_IN:
                return present && has_value(t, v);
        case KUBE_SEL_NOT_IN:
                return !present || !has_value(t, v);
        case KUBE_SEL_EXISTS:
                return present;
        case KUBE_SEL_NOT_EXISTS:
                return !present;
        default:
                return present && compare(t, v);
        }
}

bool kube_labels_match(const struct kube_selector *s, const struct pb_node *labels)
{
        for (size_t i = 0; i < s->n; i++) {
                const struct kube_sel_term *t = &s->t[i];
                bool present = false;
                struct str v = STR("");

                for (size_t k = 0; labels && labels->kind == PB_MAP && k < labels->n; k++)
                        if (str_eq(labels->keys[k], t->key)) {
                                present = true;
                                v = labels->v[k]->text;
                                break;
                        }
                if (!term_match(t, present, v))
                        return false;
        }
        return true;
}

/* ---- fields ---- */

static bool allowed_field(struct str key, const char *allowed)
{
        struct str rest = str_of(allowed), part;

        if (str_eqc(key, "metadata.name") || str_eqc(key, "metadata.namespace"))
                return true;
        while (str_next(&rest, ' ', &part))
                if (str_eq(part, key))
                        return true;
        return false;
}

/* One "key=value" part; a backslash quotes ',', '=' and itself in values. */
static bool field_term(struct str part, const char *allowed, struct arena *a, struct kube_sel_term *t, struct str *why)
{
        ptrdiff_t eq = str_chr(part, '=');

        if (eq <= 0) {
                *why = arena_printf(a, "invalid selector: \"" STR_FMT "\"; can't understand \"" STR_FMT "\"", STR_ARG(part), STR_ARG(part));
                return false;
        }
        bool negated = part.p[eq - 1] == '!';
        t->key = str_trim(str_sub(part, 0, (size_t)eq - (negated ? 1 : 0)));
        struct str v = str_sub(part, (size_t)eq + 1, part.n);
        if (!negated && v.n && v.p[0] == '=')
                v = str_sub(v, 1, v.n);
        if (!allowed_field(t->key, allowed)) {
                *why = arena_printf(a, "field label not supported: " STR_FMT, STR_ARG(t->key));
                return false;
        }
        char *out = arena_alloc(a, v.n + 1);
        size_t n = 0;
        for (size_t i = 0; i < v.n; i++) {
                if (v.p[i] == '\\' && i + 1 < v.n)
                        i++;
                out[n++] = v.p[i];
        }
        t->op = negated ? KUBE_SEL_NOT_IN : KUBE_SEL_IN;
        t->v = arena_alloc(a, sizeof(*t->v));
        t->v[0] = str_make(out, n);
        t->n = 1;
        return true;
}

bool kube_fields_parse(struct str text, const char *allowed, struct arena *a, struct kube_selector *s, struct str *why)
{
        size_t from = 0;

        s->n = 0;
        s->t = arena_zalloc(a, KUBE_SEL_MAX_TERMS * sizeof(*s->t));
        for (size_t i = 0; i <= text.n; i++) {
                if (i < text.n && text.p[i] == '\\') {
                        i++;
                        continue;
                }
                if (i < text.n && text.p[i] != ',')
                        continue;
                struct str part = str_trim(str_sub(text, from, i - from));
                from = i + 1;
                if (!part.n)
                        continue;
                if (s->n == KUBE_SEL_MAX_TERMS) {
                        *why = STR("too many field requirements");
                        return false;
                }
                if (!field_term(part, allowed, a, &s->t[s->n], why))
                        return false;
                s->n++;
        }
        return true;
}

static struct str field_value(const struct pb_node *object, struct str key)
{
        char path[128];

        if (str_eqc(key, "source")) /* an event's source.component, by the short name that Kubernetes gives it */
                key = STR("source.component");
        if (key.n >= sizeof(path))
                return STR("");
        memcpy(path, key.p, key.n);
        path[key.n] = 0;
        const struct pb_node *n = pb_get_path(object, path);
        if (n && (n->kind == PB_STRING || n->kind == PB_NUMBER || n->kind == PB_BOOL))
                return n->text;
        return str_ends(key, STR("unschedulable")) || str_ends(key, STR("hostNetwork")) ? STR("false") : STR("");
}

bool kube_fields_match(const struct kube_selector *s, const struct pb_node *object)
{
        for (size_t i = 0; i < s->n; i++)
                if (!term_match(&s->t[i], true, field_value(object, s->t[i].key)))
                        return false;
        return true;
}

struct str kube_fields_name(const struct kube_selector *s)
{
        for (size_t i = 0; i < s->n; i++)
                if (s->t[i].op == KUBE_SEL_IN && str_eqc(s->t[i].key, "metadata.name"))
                        return s->t[i].v[0];
        return (struct str){ NULL, 0 };
}
