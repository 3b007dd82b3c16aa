/* See path.h. Each function first looks whether there is anything to do: nearly every path on a real network is already in order, and is
 * then returned as it came. */
#include "proxy/path.h"

struct str path_only(struct str path)
{
        for (size_t i = 0; i < path.n; i++)
                if (path.p[i] == '?' || path.p[i] == '#')
                        return str_make(path.p, i);
        return path;
}

static int hex(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c = ascii_lower(c);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unreserved(int c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

static char upper_hex(int v)
{
        return "0123456789ABCDEF"[v];
}

/* What Chromium's URL code, which Envoy uses, writes as an escape in a path. */
static bool escaped(unsigned char c)
{
        static const bool yes[256] = {
                ['"'] = true, ['<'] = true, ['>'] = true, ['`'] = true, ['{'] = true, ['|'] = true, ['}'] = true, ['^'] = true
        };

        return c <= 0x20 || c >= 0x7f || yes[c];
}

static bool in_order(struct str p)
{
        for (size_t i = 0; i < p.n; i++) {
                unsigned char c = (unsigned char)p.p[i];

                if (c == '%' || c == '\\' || escaped(c))
                        return false;
                if (c == '.' && i && p.p[i - 1] == '/')
                        return false;
        }
        return p.n && p.p[0] == '/';
}

/* Decodes what must not be encoded, encodes what must be, and turns "\" into "/". Returns the length, or 0 for a broken escape's path. */
static size_t decode(struct str p, char *out)
{
        size_t n = 0;

        for (size_t i = 0; i < p.n; i++) {
                unsigned char c = (unsigned char)p.p[i];
                int h, l;

                if (!c)
                        return 0;
                if (c == '\\') {
                        out[n++] = '/';
                } else if (c == '%') {
                        h = i + 2 < p.n ? hex(p.p[i + 1]) : -1;
                        l = i + 2 < p.n ? hex(p.p[i + 2]) : -1;
                        if (h < 0 || l < 0) {
                                out[n++] = '%';
                                continue;
                        }
                        if (h * 16 + l == 0)
                                return 0;
                        if (unreserved(h * 16 + l)) {
                                out[n++] = (char)(h * 16 + l);
                        } else {
                                out[n++] = '%';
                                out[n++] = p.p[i + 1];
                                out[n++] = p.p[i + 2];
                        }
                        i += 2;
                } else if (escaped(c)) {
                        out[n++] = '%';
                        out[n++] = upper_hex(c >> 4);
                        out[n++] = upper_hex(c & 15);
                } else {
                        out[n++] = (char)c;
                }
        }
        return n;
}

/* RFC 3986 §5.2.4 in place. */
static size_t remove_dots(char *p, size_t n)
{
        size_t r = 0, w = 0;

        while (r < n) {
                size_t e = r + 1, len;

                while (e < n && p[e] != '/')
                        e++;
                len = e - r; /* "/segment" */
                if (len == 2 && p[r + 1] == '.') {
                        if (e == n)
                                p[w++] = '/';
                } else if (len == 3 && p[r + 1] == '.' && p[r + 2] == '.') {
                        while (w && p[--w] != '/')
                                ;
                        if (e == n)
                                p[w++] = '/';
                } else {
                        memmove(p + w, p + r, len);
                        w += len;
                }
                r = e;
        }
        if (!w)
                p[w++] = '/';
        return w;
}

bool path_normalize(struct arena *a, struct str path, struct str *out)
{
        struct str p = path_only(path);
        char *buf, *again;
        size_t n;

        *out = path;
        if (!p.n || p.p[0] != '/')
                return false;
        if (in_order(p))
                return true;
        buf = arena_alloc(a, 3 * p.n + (path.n - p.n) + 1);
        n = decode(p, buf);
        if (!n)
                return false;
        /* "%%32%65" decodes to "%2e": an escape that was not there before is somebody's trick on whoever decodes next. */
        again = arena_alloc(a, 3 * n + 1);
        if (decode(str_make(buf, n), again) != n || memcmp(buf, again, n) != 0)
                return false;
        n = remove_dots(buf, n);
        memcpy(buf + n, path.p + p.n, path.n - p.n);
        *out = str_make(buf, n + path.n - p.n);
        return true;
}

struct str path_merge_slashes(struct arena *a, struct str path)
{
        struct str p = path_only(path);
        size_t i, n = 0;
        char *buf;

        for (i = 1; i < p.n; i++)
                if (p.p[i] == '/' && p.p[i - 1] == '/')
                        break;
        if (i >= p.n)
                return path;
        buf = arena_alloc(a, path.n);
        for (i = 0; i < p.n; i++)
                if (!(p.p[i] == '/' && n && buf[n - 1] == '/'))
                        buf[n++] = p.p[i];
        memcpy(buf + n, path.p + p.n, path.n - p.n);
        return str_make(buf, n + path.n - p.n);
}

static char escaped_slash(struct str p, size_t i)
{
        if (p.p[i] != '%' || i + 2 >= p.n)
                return 0;
        if (p.p[i + 1] == '2' && ascii_lower(p.p[i + 2]) == 'f')
                return '/';
        return p.p[i + 1] == '5' && ascii_lower(p.p[i + 2]) == 'c' ? '\\' : 0;
}

bool path_has_escaped_slashes(struct str path)
{
        struct str p = path_only(path);

        for (size_t i = 0; i < p.n; i++)
                if (escaped_slash(p, i))
                        return true;
        return false;
}

struct str path_unescape_slashes(struct arena *a, struct str path)
{
        struct str p = path_only(path);
        char *buf = arena_alloc(a, path.n + 1);
        size_t n = 0;

        for (size_t i = 0; i < p.n; i++) {
                char c = escaped_slash(p, i);

                if (c)
                        i += 2;
                buf[n++] = c ? c : p.p[i];
        }
        memcpy(buf + n, path.p + p.n, path.n - p.n);
        return str_make(buf, n + path.n - p.n);
}

struct str host_without_port(struct str h, unsigned *port)
{
        ptrdiff_t colon = str_rchr(h, ':'), bracket = str_rchr(h, ']');
        uint64_t v;

        *port = 0;
        if (colon < 0 || colon < bracket)
                return h;
        if (bracket < 0 && str_chr(h, ':') != colon) /* a bare IPv6 address */
                return h;
        if (!str_u64(str_sub(h, (size_t)colon + 1, h.n), &v) || v > 65535)
                return h;
        *port = (unsigned)v;
        return str_make(h.p, (size_t)colon);
}
