/* A string view: bytes that somebody else owns, not NUL-terminated. Passed by value. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
        const char *p;
        size_t n;
};

#define STR(lit)   ((struct str){ "" lit, sizeof(lit) - 1 })
#define STR_FMT    "%.*s"
#define STR_ARG(s) ((int)(s).n), ((s).p ? (s).p : "")

static inline struct str str_of(const char *c)
{
        return (struct str){ c, c ? strlen(c) : 0 };
}

static inline struct str str_make(const char *p, size_t n)
{
        return (struct str){ p, n };
}

static inline bool str_eq(struct str a, struct str b)
{
        return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_eqc(struct str a, const char *c)
{
        return str_eq(a, str_of(c));
}

bool str_eq_nocase(struct str a, struct str b); /* ASCII */
int str_cmp(struct str a, struct str b);        /* bytewise, shorter first */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_starts_nocase(struct str s, struct str prefix);
bool str_ends_nocase(struct str s, struct str suffix);
ptrdiff_t str_chr(struct str s, char c); /* index, or -1 */
ptrdiff_t str_rchr(struct str s, char c);
ptrdiff_t str_find(struct str s, struct str needle);     /* index, or -1 */
struct str str_trim(struct str s);                       /* spaces and tabs on both sides */
struct str str_sub(struct str s, size_t from, size_t n); /* clamped to s */
/* Takes the part before `sep` off the front of *rest; without `sep`, takes all. False when *rest.p is NULL (nothing left). */
bool str_next(struct str *rest, char sep, struct str *part);
/* Decimal; no sign, no blanks, no overflow. False leaves *v alone. */
bool str_u64(struct str s, uint64_t *v);
bool str_i64(struct str s, int64_t *v); /* optional leading '-' */
bool str_hex64(struct str s, uint64_t *v);
char *str_dup(struct str s); /* malloc'd, NUL-terminated */

/* Edit distance (insert, delete, replace, swap of neighbours), capped at `max` + 1. For "did you mean". */
unsigned str_distance(struct str a, struct str b, unsigned max);

static inline char ascii_lower(char c)
{
        return (c >= 'A' && c <= 'Z') ? (char)(c + 32) : c;
}

#endif
