/* Matching of strings, headers, query parameters and fractions, as envoy.type.matcher.v3 and envoy.config.route.v3 describe it. Built
 * once, immutable, safe to use from any thread.
 *
 * Regular expressions are PCRE2 where Envoy has RE2: the syntax that both know means the same, a match is always of the whole text, and the
 * work of one match is bounded (a pattern that runs into the bound does not match). */
#ifndef PROXY_MATCH_H
#define PROXY_MATCH_H

#include "http/http.h"
#include "proxy/config_mem.h"

struct regex;
struct Xds__RegexMatcher;
struct Xds__RegexMatchAndSubstitute;
struct Xds__StringMatcher;
struct Xds__HeaderMatcher;
struct Xds__QueryParameterMatcher;
struct Xds__RuntimeFractionalPercent;
struct Xds__FractionalPercent;

enum { REGEX_GROUPS = 10 };

/* NULL with a diagnostic. Registered for release with m. */
struct regex *regex_build(struct config_mem *m, const struct Xds__RegexMatcher *r, const struct diag_at *at, struct diags *d);
bool regex_full_match(const struct regex *r, struct str s);
/* Every match in s replaced by `substitution`, in which \1 to \9 are groups, \0 the match, and \\ a backslash (RE2::GlobalReplace). The
 * result is in a; s itself when nothing matched. */
struct str regex_replace_all(const struct regex *r, struct str s, struct str substitution, struct arena *a);
/* The number of groups that a pattern has. */
unsigned regex_groups(const struct regex *r);
void regex_thread_fini(void); /* frees the calling thread's scratch memory. At thread exit */

struct regex_rewrite {
        struct regex *regex; /* NULL: none */
        struct str substitution;
};

bool regex_rewrite_build(struct config_mem *m, struct regex_rewrite *w, const struct Xds__RegexMatchAndSubstitute *p,
                         const struct diag_at *at, struct diags *d);

enum string_match_kind { STRING_EXACT, STRING_PREFIX, STRING_SUFFIX, STRING_CONTAINS, STRING_REGEX };

struct string_match {
        enum string_match_kind kind;
        bool ignore_case;
        struct str text; /* lower case with ignore_case and STRING_CONTAINS */
        struct regex *regex;
};

bool string_match_build(struct config_mem *m, struct string_match *s, const struct Xds__StringMatcher *p, const struct diag_at *at,
                        struct diags *d);
bool string_match(const struct string_match *s, struct str v);

struct header_match; /* a list of them: all must match */

struct header_matches {
        struct header_match *v;
        size_t n;
};

bool header_matches_build(struct config_mem *m, struct header_matches *h, struct Xds__HeaderMatcher *const *v, size_t n,
                          const struct diag_at *at, struct diags *d);
bool header_matches_all(const struct header_matches *h, const struct http_head *head);
bool header_matches_any(const struct header_matches *h, const struct http_head *head);
/* All values of a header joined by commas, pseudo-headers (":path") and "host" included. False when there is none. Joined values live in a.
 */
bool header_value(const struct http_head *head, struct str lower_name, enum http_name id, struct arena *a, struct str *v);

struct query_match;

struct query_matches {
        struct query_match *v;
        size_t n;
};

bool query_matches_build(struct config_mem *m, struct query_matches *q, struct Xds__QueryParameterMatcher *const *v, size_t n,
                         const struct diag_at *at, struct diags *d);
bool query_matches_all(const struct query_matches *q, struct str path);

/* numerator of denominator; denominator 0: not set, which is always true. */
struct fraction {
        uint32_t numerator, denominator;
};

struct fraction fraction_of(const struct Xds__FractionalPercent *p);
struct fraction fraction_of_runtime(const struct Xds__RuntimeFractionalPercent *p);
bool fraction_hit(struct fraction f, uint64_t random);

#endif
