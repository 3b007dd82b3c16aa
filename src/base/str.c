#include "base/str.h"

#include "base/mem.h"

#include <stdlib.h>

bool str_eq_nocase(struct str a, struct str b)
{
        if (a.n != b.n)
                return false;
        for (size_t i = 0; i < a.n; i++)
                if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
                        return false;
        return true;
}

int str_cmp(struct str a, struct str b)
{
        size_t n = a.n < b.n ? a.n : b.n;
        int c = n ? memcmp(a.p, b.p, n) : 0;

        if (c)
                return c;
        return (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
        return s.n >= prefix.n && str_eq(str_make(s.p, prefix.n), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
        return s.n >= suffix.n && str_eq(str_make(s.p + (s.n - suffix.n), suffix.n), suffix);
}

bool str_starts_nocase(struct str s, struct str prefix)
{
        return s.n >= prefix.n && str_eq_nocase(str_make(s.p, prefix.n), prefix);
}

bool str_ends_nocase(struct str s, struct str suffix)
{
        return s.n >= suffix.n && str_eq_nocase(str_make(s.p + (s.n - suffix.n), suffix.n), suffix);
}

ptrdiff_t str_chr(struct str s, char c)
{
        const char *q = s.n ? memchr(s.p, c, s.n) : NULL;

        return q ? q - s.p : -1;
}

ptrdiff_t str_rchr(struct str s, char c)
{
        const char *q = s.n ? memrchr(s.p, c, s.n) : NULL;

        return q ? q - s.p : -1;
}

ptrdiff_t str_find(struct str s, struct str needle)
{
        if (!needle.n)
                return 0;
        const char *q = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;

        return q ? q - s.p : -1;
}

struct str str_trim(struct str s)
{
        while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
                s.p++;
                s.n--;
        }
        while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
                s.n--;
        return s;
}

struct str str_sub(struct str s, size_t from, size_t n)
{
        if (from > s.n)
                from = s.n;
        if (n > s.n - from)
                n = s.n - from;
        return str_make(s.p + from, n);
}

bool str_next(struct str *rest, char sep, struct str *part)
{
        if (!rest->p)
                return false;
        ptrdiff_t i = str_chr(*rest, sep);

        if (i < 0) {
                *part = *rest;
                *rest = (struct str){ NULL, 0 };
        } else {
                *part = str_make(rest->p, (size_t)i);
                *rest = str_make(rest->p + i + 1, rest->n - (size_t)i - 1);
        }
        return true;
}

bool str_u64(struct str s, uint64_t *v)
{
        uint64_t x = 0;

        if (!s.n)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                unsigned d = (unsigned)(s.p[i] - '0');

                if (d > 9 || __builtin_mul_overflow(x, 10u, &x) || __builtin_add_overflow(x, d, &x))
                        return false;
        }
        *v = x;
        return true;
}

bool str_i64(struct str s, int64_t *v)
{
        bool neg = s.n && s.p[0] == '-';
        uint64_t u;

        if (neg)
                s = str_sub(s, 1, s.n);
        if (!str_u64(s, &u))
                return false;
        if (u > (uint64_t)INT64_MAX + (neg ? 1u : 0u))
                return false;
        *v = neg ? (int64_t)(0 - u) : (int64_t)u;
        return true;
}

bool str_hex64(struct str s, uint64_t *v)
{
        uint64_t x = 0;

        if (!s.n || s.n > 16)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                char c = ascii_lower(s.p[i]);
                unsigned d;

                if (c >= '0' && c <= '9')
                        d = (unsigned)(c - '0');
                else if (c >= 'a' && c <= 'f')
                        d = (unsigned)(c - 'a' + 10);
                else
                        return false;
                x = x << 4 | d;
        }
        *v = x;
        return true;
}

char *str_dup(struct str s)
{
        return mem_strndup(s.p, s.n);
}

unsigned str_distance(struct str a, struct str b, unsigned max)
{
        enum { LONGEST = 64 };
        unsigned row[3][LONGEST + 1];

        if (a.n > LONGEST || b.n > LONGEST)
                return max + 1;
        for (unsigned j = 0; j <= b.n; j++)
                row[0][j] = j;
        for (unsigned i = 1; i <= a.n; i++) {
                unsigned *cur = row[i % 3], *prev = row[(i + 2) % 3], *prev2 = row[(i + 1) % 3];

                cur[0] = i;
                for (unsigned j = 1; j <= b.n; j++) {
                        unsigned d = prev[j - 1] + (a.p[i - 1] != b.p[j - 1]);

                        if (prev[j] + 1 < d)
                                d = prev[j] + 1;
                        if (cur[j - 1] + 1 < d)
                                d = cur[j - 1] + 1;
                        if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1] && prev2[j - 2] + 1 < d)
                                d = prev2[j - 2] + 1;
                        cur[j] = d;
                }
        }
        unsigned d = row[a.n % 3][b.n];

        return d > max ? max + 1 : d;
}
