/* See match.h. The trap here is RE2's vocabulary: it allows nothing that needs back-tracking, so look-around and back-references are
 * refused at build time, and what remains is bounded at run time by PCRE2's match limit instead of by the algorithm. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "proxy/match.h"

#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/matcher.pb-c.h"
#include "envoy/route.pb-c.h"
#include "envoy/type.pb-c.h"
#include "proxy/ext.h"

#include <pcre2.h>

enum {
        REGEX_PATTERN_MAX = 8192,
        REGEX_MATCH_LIMIT = 200000, /* steps of one match; a path of 60 KiB against an ordinary pattern needs far fewer */
};

struct regex {
        pcre2_code *code;  /* as written, for replacing */
        pcre2_code *whole; /* anchored at both ends, for matching */
        unsigned groups;
};

struct header_match {
        struct str name;
        enum http_name id;
        enum { HM_PRESENT, HM_STRING, HM_RANGE } kind;
        bool present, invert, missing_is_empty;
        struct string_match string;
        int64_t start, end;
};

struct query_match {
        struct str name;
        bool has_string, present;
        struct string_match string;
};

static __thread pcre2_match_data *scratch;
static __thread pcre2_match_context *limits;

void regex_thread_fini(void)
{
        pcre2_match_data_free(scratch);
        pcre2_match_context_free(limits);
        scratch = NULL;
        limits = NULL;
}

static int regex_run(const pcre2_code *code, struct str s, size_t from, uint32_t options)
{
        if (!scratch) {
                scratch = pcre2_match_data_create(REGEX_GROUPS, NULL);
                limits = pcre2_match_context_create(NULL);
                pcre2_set_match_limit(limits, REGEX_MATCH_LIMIT);
                pcre2_set_heap_limit(limits, 4096);
        }
        return pcre2_match(code, (PCRE2_SPTR)(s.p ? s.p : ""), s.n, from, options, scratch, limits);
}

static void regex_free(void *p)
{
        struct regex *r = p;

        pcre2_code_free(r->code);
        pcre2_code_free(r->whole);
}

/* What RE2 does not have. Returns its name, or NULL. */
static const char *regex_foreign(struct str s)
{
        bool in_class = false;

        for (size_t i = 0; i + 1 < s.n; i++) {
                char c = s.p[i], e = s.p[i + 1];

                if (c == '\\') {
                        i++;
                        if (in_class)
                                continue;
                        if (e >= '1' && e <= '9')
                                return "a back-reference";
                        if (e == 'k' || e == 'g' || e == 'K' || e == 'G' || e == 'R' || e == 'X')
                                return "an escape that RE2 does not have";
                } else if (in_class) {
                        in_class = c != ']';
                } else if (c == '[') {
                        in_class = true;
                        if (e == '^')
                                i++;
                        if (i + 1 < s.n && s.p[i + 1] == ']')
                                i++;
                } else if (c == '(' && e == '?' && i + 2 < s.n) {
                        char k = s.p[i + 2], k2 = i + 3 < s.n ? s.p[i + 3] : 0;

                        if (k == '=' || k == '!' || (k == '<' && (k2 == '=' || k2 == '!')))
                                return "look-around";
                        if (k == '>' || k == '|' || k == '(' || k == 'R' || k == '&' || k == '#' || (k >= '0' && k <= '9'))
                                return "a group that RE2 does not have";
                } else if (c == '(' && e == '*') {
                        return "a verb that RE2 does not have";
                } else if ((c == '*' || c == '+' || c == '?' || c == '}') && e == '+') {
                        return "a possessive quantifier";
                }
        }
        return NULL;
}

struct regex *regex_build(struct config_mem *m, const struct Xds__RegexMatcher *p, const struct diag_at *at, struct diags *d)
{
        struct str text = str_of(p ? p->regex : NULL);
        struct diag_at here = at_path(&m->scratch, at, ".regex");
        const char *foreign;
        struct regex *r;
        PCRE2_UCHAR msg[256];
        PCRE2_SIZE off;
        int err;

        if (!text.n) {
                diag_add(d, DIAG_ERROR, NULL, &here, "the regular expression is empty: give a pattern");
                return NULL;
        }
        if (text.n > REGEX_PATTERN_MAX) {
                diag_add(d, DIAG_ERROR, NULL, &here, "the regular expression is longer than %d bytes", REGEX_PATTERN_MAX);
                return NULL;
        }
        foreign = regex_foreign(text);
        if (foreign) {
                diag_add(d, DIAG_ERROR, NULL, &here, "the regular expression uses %s: write it without, in RE2 syntax", foreign);
                return NULL;
        }
        r = ARENA_NEW(&m->arena, struct regex);
        r->code = pcre2_compile((PCRE2_SPTR)text.p, text.n, PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY, &err, &off, NULL);
        if (r->code)
                r->whole = pcre2_compile((PCRE2_SPTR)text.p, text.n,
                                         PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY | PCRE2_ANCHORED | PCRE2_ENDANCHORED |
                                                 PCRE2_NO_AUTO_CAPTURE,
                                         &err, &off, NULL);
        if (!r->code || !r->whole) {
                pcre2_get_error_message(err, msg, sizeof(msg));
                diag_add(d, DIAG_ERROR, NULL, &here, "bad regular expression at offset %zu: %s", (size_t)off, (const char *)msg);
                regex_free(r);
                return NULL;
        }
        pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &r->groups);
        config_mem_on_free(m, regex_free, r);
        return r;
}

bool regex_full_match(const struct regex *r, struct str s)
{
        return regex_run(r->whole, s, 0, 0) >= 0;
}

unsigned regex_groups(const struct regex *r)
{
        return r->groups;
}

static void regex_expand(struct str subject, struct str sub, int ngroups, struct buf *out)
{
        const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(scratch);

        for (size_t i = 0; i < sub.n; i++) {
                char c = sub.p[i];

                if (c != '\\' || i + 1 == sub.n) {
                        buf_char(out, c);
                        continue;
                }
                c = sub.p[++i];
                if (c >= '0' && c <= '9') {
                        int g = c - '0';

                        if (g < ngroups && ov[2 * g] != PCRE2_UNSET)
                                buf_append(out, subject.p + ov[2 * g], ov[2 * g + 1] - ov[2 * g]);
                } else {
                        buf_char(out, c);
                }
        }
}

struct str regex_replace_all(const struct regex *r, struct str s, struct str sub, struct arena *a)
{
        struct buf out = BUF_INIT;
        struct str result;
        size_t at = 0, copied = 0, last_end = SIZE_MAX;
        bool any = false;

        while (at <= s.n) {
                int n = regex_run(r->code, s, at, 0);
                const PCRE2_SIZE *ov;
                size_t from, to;

                if (n < 0)
                        break;
                if (n == 0)
                        n = REGEX_GROUPS;
                ov = pcre2_get_ovector_pointer(scratch);
                from = ov[0];
                to = ov[1];
                if (from == to && from == last_end) { /* an empty match right behind the last one */
                        if (from == s.n)
                                break;
                        buf_char(&out, s.p[from]);
                        copied = at = from + 1;
                        continue;
                }
                any = true;
                last_end = to;
                buf_append(&out, s.p + copied, from - copied);
                regex_expand(s, sub, n, &out);
                copied = to;
                if (from == to) {
                        if (to < s.n)
                                buf_char(&out, s.p[to]);
                        copied = to < s.n ? to + 1 : to;
                        at = to + 1;
                } else {
                        at = to;
                }
        }
        if (!any)
                return s;
        if (copied < s.n)
                buf_append(&out, s.p + copied, s.n - copied);
        result = arena_str(a, buf_view(&out));
        buf_fini(&out);
        return result;
}

bool regex_rewrite_build(struct config_mem *m, struct regex_rewrite *w, const struct Xds__RegexMatchAndSubstitute *p,
                         const struct diag_at *at, struct diags *d)
{
        struct diag_at here = at_path(&m->scratch, at, ".pattern");

        w->substitution = arena_str(&m->arena, str_of(p->substitution));
        w->regex = regex_build(m, p->pattern, &here, d);
        if (!w->regex)
                return false;
        for (size_t i = 0; i + 1 < w->substitution.n; i++) {
                char c = w->substitution.p[i + 1];

                if (w->substitution.p[i] != '\\')
                        continue;
                i++;
                if (c >= '0' && c <= '9' && (unsigned)(c - '0') > w->regex->groups) {
                        here = at_path(&m->scratch, at, ".substitution");
                        diag_add(d, DIAG_ERROR, NULL, &here, "group \\%c is used, but the pattern has only %u", c, w->regex->groups);
                        return false;
                }
        }
        return true;
}

bool string_match_build(struct config_mem *m, struct string_match *s, const struct Xds__StringMatcher *p, const struct diag_at *at,
                        struct diags *d)
{
        const char *text = "";

        memset(s, 0, sizeof(*s));
        s->ignore_case = p->ignore_case;
        switch (p->match_pattern_case) {
        case XDS__STRING_MATCHER__MATCH_PATTERN_EXACT:
                s->kind = STRING_EXACT;
                text = p->exact;
                break;
        case XDS__STRING_MATCHER__MATCH_PATTERN_PREFIX:
                s->kind = STRING_PREFIX;
                text = p->prefix;
                break;
        case XDS__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
                s->kind = STRING_SUFFIX;
                text = p->suffix;
                break;
        case XDS__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
                s->kind = STRING_CONTAINS;
                text = p->contains;
                break;
        case XDS__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX: {
                struct diag_at here = at_path(&m->scratch, at, ".safe_regex");

                s->kind = STRING_REGEX;
                s->regex = regex_build(m, p->safe_regex, &here, d);
                if (s->ignore_case) {
                        diag_add(d, DIAG_ERROR, NULL, at, "ignore_case has no effect on safe_regex: write (?i) in the pattern");
                        return false;
                }
                return s->regex != NULL;
        }
        default:
                diag_add(d, DIAG_ERROR, NULL, at, "a string matcher needs one of exact, prefix, suffix, contains or safe_regex");
                return false;
        }
        s->text = arena_str(&m->arena, str_of(text));
        if (s->kind != STRING_EXACT && !s->text.n) {
                diag_add(d, DIAG_ERROR, NULL, at, "the text to match is empty: give at least one character");
                return false;
        }
        return true;
}

static bool contains_nocase(struct str v, struct str needle)
{
        for (size_t i = 0; i + needle.n <= v.n; i++)
                if (str_eq_nocase(str_make(v.p + i, needle.n), needle))
                        return true;
        return false;
}

bool string_match(const struct string_match *s, struct str v)
{
        switch (s->kind) {
        case STRING_EXACT:
                return s->ignore_case ? str_eq_nocase(v, s->text) : str_eq(v, s->text);
        case STRING_PREFIX:
                return s->ignore_case ? str_starts_nocase(v, s->text) : str_starts(v, s->text);
        case STRING_SUFFIX:
                return s->ignore_case ? str_ends_nocase(v, s->text) : str_ends(v, s->text);
        case STRING_CONTAINS:
                return s->ignore_case ? contains_nocase(v, s->text) : str_find(v, s->text) >= 0;
        case STRING_REGEX:
                return regex_full_match(s->regex, v);
        }
        return false;
}

static struct str lower_copy(struct arena *a, const char *c)
{
        struct str s = arena_str(a, str_of(c));

        for (size_t i = 0; i < s.n; i++)
                ((char *)s.p)[i] = ascii_lower(s.p[i]);
        return s;
}

static bool header_match_build(struct config_mem *m, struct header_match *h, const struct Xds__HeaderMatcher *p, const struct diag_at *at,
                               struct diags *d)
{
        struct string_match *s = &h->string;

        memset(h, 0, sizeof(*h));
        h->name = lower_copy(&m->arena, p->name);
        h->id = http_name_id(h->name);
        h->invert = p->invert_match;
        h->missing_is_empty = p->treat_missing_header_as_empty;
        h->kind = HM_STRING;
        if (!h->name.n) {
                diag_add(d, DIAG_ERROR, NULL, at, "a header matcher needs a name");
                return false;
        }
        switch (p->header_match_specifier_case) {
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_EXACT_MATCH:
                s->text = arena_str(&m->arena, str_of(p->exact_match));
                if (!s->text.n) { /* Envoy: an empty exact value matches any */
                        h->kind = HM_PRESENT;
                        h->present = true;
                }
                return true;
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PREFIX_MATCH:
                s->kind = STRING_PREFIX;
                s->text = arena_str(&m->arena, str_of(p->prefix_match));
                return true;
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SUFFIX_MATCH:
                s->kind = STRING_SUFFIX;
                s->text = arena_str(&m->arena, str_of(p->suffix_match));
                return true;
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_CONTAINS_MATCH:
                s->kind = STRING_CONTAINS;
                s->text = arena_str(&m->arena, str_of(p->contains_match));
                return true;
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SAFE_REGEX_MATCH: {
                struct diag_at here = at_path(&m->scratch, at, ".safe_regex_match");

                s->kind = STRING_REGEX;
                s->regex = regex_build(m, p->safe_regex_match, &here, d);
                return s->regex != NULL;
        }
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH: {
                struct diag_at here = at_path(&m->scratch, at, ".string_match");

                return string_match_build(m, s, p->string_match, &here, d);
        }
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_RANGE_MATCH:
                h->kind = HM_RANGE;
                h->start = p->range_match->start;
                h->end = p->range_match->end;
                return true;
        case XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
                h->kind = HM_PRESENT;
                h->present = p->present_match;
                return true;
        default:
                h->kind = HM_PRESENT;
                h->present = true;
                return true;
        }
}

bool header_matches_build(struct config_mem *m, struct header_matches *h, struct Xds__HeaderMatcher *const *v, size_t n,
                          const struct diag_at *at, struct diags *d)
{
        bool ok = true;

        h->n = n;
        h->v = n ? arena_zalloc(&m->arena, n * sizeof(*h->v)) : NULL;
        for (size_t i = 0; i < n; i++) {
                struct diag_at here = at_path(&m->scratch, at, "[%zu]", i);

                ok &= header_match_build(m, &h->v[i], v[i], &here, d);
        }
        return ok;
}

bool header_value(const struct http_head *head, struct str name, enum http_name id, struct arena *a, struct str *v)
{
        const struct http_hdr *first = NULL;
        size_t total = 0, count = 0;
        char *p;

        if (id == HN_HOST || (name.n && name.p[0] == ':')) {
                if (id == HN_HOST || str_eqc(name, ":authority"))
                        *v = head->authority;
                else if (str_eqc(name, ":path"))
                        *v = head->path;
                else if (str_eqc(name, ":method"))
                        *v = head->method;
                else if (str_eqc(name, ":scheme"))
                        *v = head->scheme;
                else if (str_eqc(name, ":protocol"))
                        *v = head->protocol;
                else if (str_eqc(name, ":status") && head->status)
                        *v = arena_printf(a, "%d", head->status);
                else
                        return false;
                return v->p != NULL;
        }
        for (unsigned i = 0; i < head->n; i++) {
                const struct http_hdr *x = &head->h[i];

                if (id ? x->id != id : (x->id || !str_eq(x->name, name)))
                        continue;
                if (!first)
                        first = x;
                count++;
                total += x->value.n + 1;
        }
        if (!first)
                return false;
        *v = first->value;
        if (count == 1)
                return true;
        p = arena_alloc(a, total);
        v->p = p;
        for (unsigned i = 0; i < head->n; i++) {
                const struct http_hdr *x = &head->h[i];

                if (id ? x->id != id : (x->id || !str_eq(x->name, name)))
                        continue;
                if (p != v->p)
                        *p++ = ',';
                memcpy(p, x->value.p, x->value.n);
                p += x->value.n;
        }
        v->n = (size_t)(p - v->p);
        return true;
}

static bool header_match_one(const struct header_match *h, const struct http_head *head)
{
        struct str v = { "", 0 };
        bool has = header_value(head, h->name, h->id, head->arena, &v), hit;
        int64_t i;

        if (h->kind == HM_PRESENT)
                return ((has || h->missing_is_empty) == h->present) != h->invert;
        if (!has && !h->missing_is_empty)
                return false;
        if (h->kind == HM_RANGE)
                hit = str_i64(v, &i) && i >= h->start && i < h->end;
        else
                hit = string_match(&h->string, v);
        return hit != h->invert;
}

bool header_matches_all(const struct header_matches *h, const struct http_head *head)
{
        for (size_t i = 0; i < h->n; i++)
                if (!header_match_one(&h->v[i], head))
                        return false;
        return true;
}

bool header_matches_any(const struct header_matches *h, const struct http_head *head)
{
        for (size_t i = 0; i < h->n; i++)
                if (header_match_one(&h->v[i], head))
                        return true;
        return false;
}

bool query_matches_build(struct config_mem *m, struct query_matches *q, struct Xds__QueryParameterMatcher *const *v, size_t n,
                         const struct diag_at *at, struct diags *d)
{
        bool ok = true;

        q->n = n;
        q->v = n ? arena_zalloc(&m->arena, n * sizeof(*q->v)) : NULL;
        for (size_t i = 0; i < n; i++) {
                struct query_match *x = &q->v[i];

                x->name = arena_str(&m->arena, str_of(v[i]->name));
                x->present = true;
                if (v[i]->query_parameter_match_specifier_case ==
                    XDS__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH) {
                        struct diag_at here = at_path(&m->scratch, at, "[%zu].string_match", i);

                        x->has_string = true;
                        ok &= string_match_build(m, &x->string, v[i]->string_match, &here, d);
                } else if (v[i]->query_parameter_match_specifier_case ==
                           XDS__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH) {
                        x->present = v[i]->present_match;
                }
                if (!x->name.n) {
                        struct diag_at here = at_path(&m->scratch, at, "[%zu]", i);

                        diag_add(d, DIAG_ERROR, NULL, &here, "a query parameter matcher needs a name");
                        ok = false;
                }
        }
        return ok;
}

/* The first value of a parameter, not decoded, as Envoy compares it. */
static bool query_value(struct str path, struct str name, struct str *v)
{
        ptrdiff_t q = str_chr(path, '?'), f;
        struct str rest, part;

        if (q < 0)
                return false;
        rest = str_sub(path, (size_t)q + 1, path.n);
        f = str_chr(rest, '#');
        if (f >= 0)
                rest.n = (size_t)f;
        while (str_next(&rest, '&', &part)) {
                ptrdiff_t eq = str_chr(part, '=');
                struct str key = eq < 0 ? part : str_make(part.p, (size_t)eq);

                if (!str_eq(key, name))
                        continue;
                *v = eq < 0 ? str_make("", 0) : str_sub(part, (size_t)eq + 1, part.n);
                return true;
        }
        return false;
}

bool query_matches_all(const struct query_matches *q, struct str path)
{
        for (size_t i = 0; i < q->n; i++) {
                const struct query_match *x = &q->v[i];
                struct str v;
                bool has = query_value(path, x->name, &v);

                if (x->has_string ? !has || !string_match(&x->string, v) : has != x->present)
                        return false;
        }
        return true;
}

struct fraction fraction_of(const struct Xds__FractionalPercent *p)
{
        static const uint32_t denominator[] = { 100, 10000, 1000000 };
        struct fraction f = { 0, 0 };

        if (!p)
                return f;
        f.denominator = (unsigned)p->denominator < ARRAY_LEN(denominator) ? denominator[p->denominator] : 100;
        f.numerator = p->numerator > f.denominator ? f.denominator : p->numerator;
        return f;
}

struct fraction fraction_of_runtime(const struct Xds__RuntimeFractionalPercent *p)
{
        return fraction_of(p ? p->default_value : NULL);
}

bool fraction_hit(struct fraction f, uint64_t random)
{
        return !f.denominator || random % f.denominator < f.numerator;
}
