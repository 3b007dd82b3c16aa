/* One pass over the bytes. Field names go through a table that validates and lower-cases at once; values are scanned sixteen bytes at a
 * time for the first control byte, which must be the CR of the line's end. The trap that shaped this file: a parser that is lenient
 * anywhere becomes the second opinion that request smuggling needs, so every line below either matches the grammar or fails. */
#include "http/h1_parse.h"

#include "http/codec.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { BLANK_LINES_MAX = 8, CHUNK_EXT_MAX = 4096 };

/* tchar (RFC 9110 §5.6.2) to its lower case; 0: not a token byte. */
static const unsigned char token_lower[256] = {
#define SAME(c)    [c] = c
#define PAIR(u, l) [u] = l, [l] = l
        SAME('!'),      SAME('#'),      SAME('$'),      SAME('%'),      SAME('&'),      SAME('\''),     SAME('*'),      SAME('+'),
        SAME('-'),      SAME('.'),      SAME('^'),      SAME('_'),      SAME('`'),      SAME('|'),      SAME('~'),      SAME('0'),
        SAME('1'),      SAME('2'),      SAME('3'),      SAME('4'),      SAME('5'),      SAME('6'),      SAME('7'),      SAME('8'),
        SAME('9'),      PAIR('A', 'a'), PAIR('B', 'b'), PAIR('C', 'c'), PAIR('D', 'd'), PAIR('E', 'e'), PAIR('F', 'f'), PAIR('G', 'g'),
        PAIR('H', 'h'), PAIR('I', 'i'), PAIR('J', 'j'), PAIR('K', 'k'), PAIR('L', 'l'), PAIR('M', 'm'), PAIR('N', 'n'), PAIR('O', 'o'),
        PAIR('P', 'p'), PAIR('Q', 'q'), PAIR('R', 'r'), PAIR('S', 's'), PAIR('T', 't'), PAIR('U', 'u'), PAIR('V', 'v'), PAIR('W', 'w'),
        PAIR('X', 'x'), PAIR('Y', 'y'), PAIR('Z', 'z'),
#undef SAME
#undef PAIR
};

void h1_parser_init(struct h1_parser *p, enum h1_kind kind)
{
        *p = (struct h1_parser){ .kind = kind, .content_length = -1, .version = HTTP_1_1 };
}

static enum h1_result fail(struct h1_parser *p, int answer, const char *details)
{
        p->answer = answer;
        p->details = details;
        return H1_FAIL;
}

/* The first byte in [s, end) that may not stand in a field value: controls but HTAB, and DEL. */
static char *value_end(char *s, char *end)
{
#ifdef __SSE2__
        const __m128i space = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);

        while (end - s >= 16) {
                __m128i v = _mm_loadu_si128((const __m128i *)(const void *)s);
                __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, space), v); /* v <= 0x1f */
                __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), low), _mm_cmpeq_epi8(v, del));
                int mask = _mm_movemask_epi8(bad);

                if (mask)
                        return s + __builtin_ctz((unsigned)mask);
                s += 16;
        }
#endif
        for (; s < end; s++) {
                unsigned char c = (unsigned char)*s;

                if ((c < 0x20 && c != '\t') || c == 0x7f)
                        return s;
        }
        return end;
}

/* The first byte that may not stand in a request target: everything but visible ASCII. */
static char *target_end(char *s, char *end)
{
        while (s < end && (unsigned char)(*s - 0x21) < 0x7f - 0x21)
                s++;
        return s;
}

bool h1_method_known(struct str m)
{
        static const struct str known[] = {
                STR("GET"),       STR("POST"),       STR("PUT"),    STR("HEAD"),       STR("DELETE"), STR("OPTIONS"),     STR("PATCH"),
                STR("CONNECT"),   STR("TRACE"),      STR("COPY"),   STR("LOCK"),       STR("MKCOL"),  STR("MOVE"),        STR("PROPFIND"),
                STR("PROPPATCH"), STR("SEARCH"),     STR("UNLOCK"), STR("BIND"),       STR("REBIND"), STR("UNBIND"),      STR("ACL"),
                STR("REPORT"),    STR("CHECKOUT"),   STR("MERGE"),  STR("M-SEARCH"),   STR("NOTIFY"), STR("SUBSCRIBE"),   STR("PURGE"),
                STR("LINK"),      STR("MKCALENDAR"), STR("UNLINK"), STR("MKACTIVITY"), STR("SOURCE"), STR("UNSUBSCRIBE"),
        };

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
                if (known[i].n == m.n && !memcmp(known[i].p, m.p, m.n))
                        return true;
        return false;
}

/* "HTTP/1.1" and its kin at s, eight bytes. */
static enum h1_result version(struct h1_parser *p, const struct h1_limits *l, const char *s)
{
        if (memcmp(s, "HTTP/", 5) || s[5] < '0' || s[5] > '9' || s[6] != '.' || s[7] < '0' || s[7] > '9')
                return fail(p, 400, "http1.codec_error");
        if (s[5] == '1' && s[7] == '1')
                p->version = HTTP_1_1;
        else if (s[5] == '1' && s[7] == '0' && (p->kind == H1_RESPONSE || l->accept_http_10))
                p->version = HTTP_1_0;
        else
                return fail(p, 426, "low_version");
        return H1_DONE;
}

/* Ends a line at s: CR LF. MORE when the bytes have not come. */
static enum h1_result line_end(struct h1_parser *p, const char *s, const char *end, const char *details)
{
        if (s == end)
                return H1_MORE;
        if (*s != '\r')
                return fail(p, 400, details);
        if (s + 1 == end)
                return H1_MORE;
        return s[1] == '\n' ? H1_DONE : fail(p, 400, details);
}

static void span(struct str *s, const char *base, const char *from, size_t n)
{
        s->p = (const char *)(uintptr_t)(from - base);
        s->n = n;
}

static enum h1_result request_line(struct h1_parser *p, const struct h1_limits *l, char *base, char *end, struct http_head *m)
{
        char *s = base + p->at, *method = s;
        enum h1_result r;

        while (s < end && token_lower[(unsigned char)*s])
                s++;
        if (s == end)
                return s - method > 64 ? fail(p, 400, "http1.codec_error") : H1_MORE;
        if (*s != ' ' || s == method || (!l->custom_methods && !h1_method_known(str_make(method, (size_t)(s - method)))))
                return fail(p, 400, "http1.codec_error");
        span(&m->method, base, method, (size_t)(s - method));
        char *target = ++s;

        s = target_end(s, end);
        if (s == end)
                return H1_MORE;
        if (*s == '\r' && s > target) /* HTTP/0.9's simple request */
                return (r = line_end(p, s, end, "http1.codec_error")) == H1_DONE ? fail(p, 426, "low_version") : r;
        if (*s != ' ' || s == target)
                return fail(p, 400, "http1.codec_error");
        p->target_off = (size_t)(target - base);
        p->target_n = (size_t)(s - target);
        s++;
        if (end - s < 8)
                return memchr(s, '\n', (size_t)(end - s)) ? fail(p, 400, "http1.codec_error") : H1_MORE;
        if ((r = version(p, l, s)) == H1_FAIL)
                return r;
        s += 8;
        if ((r = line_end(p, s, end, "http1.codec_error")) == H1_DONE)
                p->at = (size_t)(s + 2 - base);
        return r;
}

static enum h1_result status_line(struct h1_parser *p, const struct h1_limits *l, char *base, char *end)
{
        char *s = base + p->at;
        enum h1_result r;

        if (end - s < 12)
                return memchr(s, '\n', (size_t)(end - s)) ? fail(p, 502, "http1.codec_error") : H1_MORE;
        if ((r = version(p, l, s)) == H1_FAIL)
                return r;
        if (s[8] != ' ' || s[9] < '1' || s[9] > '9' || s[10] < '0' || s[10] > '9' || s[11] < '0' || s[11] > '9')
                return fail(p, 502, "http1.codec_error");
        p->status = (s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0');
        s += 12;
        if (s < end && *s == ' ')
                s = value_end(s, end); /* the reason phrase, which nobody reads */
        if ((r = line_end(p, s, end, "http1.codec_error")) == H1_DONE)
                p->at = (size_t)(s + 2 - base);
        return r;
}

static enum h1_result content_length(struct h1_parser *p, struct str v)
{
        uint64_t n;

        /* One field with one number. A repeated one, even with the same number, is a list to some recipient. */
        if (p->content_length >= 0 || v.n > 18 || !str_u64(v, &n))
                return fail(p, 400, "http1.codec_error");
        p->content_length = (int64_t)n;
        return H1_DONE;
}

static enum h1_result transfer_encoding(struct h1_parser *p, struct str v)
{
        if (p->te_seen || !str_eq_nocase(v, STR("chunked")))
                return fail(p, 501, "http1.invalid_transfer_encoding");
        p->te_seen = p->chunked = true;
        return H1_DONE;
}

static void connection(struct h1_parser *p, struct str v)
{
        struct str t;

        while (str_next(&v, ',', &t)) {
                t = str_trim(t);
                if (str_eq_nocase(t, STR("close")))
                        p->close = true;
                else if (str_eq_nocase(t, STR("keep-alive")))
                        p->keep_alive = true;
                else if (str_eq_nocase(t, STR("upgrade")))
                        p->connection_upgrade = true;
                else if (t.n)
                        p->nominates = true;
        }
}

/* What a field means for the message's framing and the connection. */
static enum h1_result meaning(struct h1_parser *p, const char *base, enum http_name id, struct str v)
{
        switch (id) {
        case HN_CONTENT_LENGTH:
                return p->kind == H1_TRAILERS ? fail(p, 400, "http1.codec_error") : content_length(p, v);
        case HN_TRANSFER_ENCODING:
                return p->kind == H1_TRAILERS ? fail(p, 400, "http1.codec_error") : transfer_encoding(p, v);
        case HN_CONNECTION:
                connection(p, v);
                return H1_DONE;
        case HN_PROXY_CONNECTION:
                if (p->kind == H1_REQUEST)
                        connection(p, v);
                return H1_DONE;
        case HN_UPGRADE: {
                ptrdiff_t comma = str_chr(v, ',');

                if (comma >= 0)
                        v = str_trim(str_sub(v, 0, (size_t)comma));
                if (!p->upgrade.n)
                        span(&p->upgrade, base, v.p, v.n);
                return H1_DONE;
        }
        case HN_HOST:
                if (p->kind != H1_REQUEST)
                        return p->kind == H1_TRAILERS ? fail(p, 400, "http1.codec_error") : H1_DONE;
                if (p->host_seen)
                        return fail(p, 400, "http1.codec_error");
                p->host_seen = true;
                return H1_DONE;
        default:
                return H1_DONE;
        }
}

static enum h1_result field_line(struct h1_parser *p, const struct h1_limits *l, char *base, char *end, struct http_head *m)
{
        char *name = base + p->at, *s = name;
        unsigned char c;
        enum h1_result r;

        for (; s < end && (c = token_lower[(unsigned char)*s]) != 0; s++)
                *s = (char)c;
        if (s == end)
                return H1_MORE;
        if (*s != ':' || s == name)
                return fail(p, 400, "http1.codec_error");
        size_t name_n = (size_t)(s - name);
        char *v = s + 1;

        while (v < end && (*v == ' ' || *v == '\t'))
                v++;
        s = value_end(v, end);
        if (s < end && *s == '\n')
                return fail(p, 400, "http1.codec_error");
        if ((r = line_end(p, s, end, "http1.invalid_characters")) != H1_DONE)
                return r;
        /* A folded line begins with a blank; without the next byte nobody knows. It is looked at when the next line is parsed: a name
         * cannot begin with one. */
        size_t next = (size_t)(s + 2 - base);

        while (s > v && (s[-1] == ' ' || s[-1] == '\t'))
                s--;
        if (m->n >= l->max_headers)
                return fail(p, 431, p->kind == H1_TRAILERS ? "http1.trailers_too_large" : "http1.too_many_headers");
        struct str value = { v, (size_t)(s - v) };
        enum http_name id = http_name_id(str_make(name, name_n));

        if (id && (r = meaning(p, base, id, value)) == H1_FAIL)
                return r;
        p->at = next;
        if (id == HN_HOST && p->kind == H1_REQUEST) {
                span(&m->authority, base, value.p, value.n);
                return H1_DONE;
        }
        if (id)
                http_add(m, id, STR(""));
        else
                http_add_name(m, STR(""), STR(""));
        struct http_hdr *h = &m->h[m->n - 1];

        if (!id)
                span(&h->name, base, name, name_n);
        span(&h->value, base, value.p, value.n);
        return H1_DONE;
}

/* One line, or the end of the head: DONE with *last set. */
static enum h1_result line(struct h1_parser *p, const struct h1_limits *l, char *base, char *end, struct http_head *m, bool *last)
{
        char *s = base + p->at;
        enum h1_result r;

        if (s == end)
                return H1_MORE;
        if (!p->first_done && p->kind != H1_TRAILERS) {
                if (p->kind == H1_REQUEST && *s == '\r') { /* RFC 9112 §2.2: some clients send an empty line too many */
                        if ((r = line_end(p, s, end, "http1.codec_error")) == H1_DONE) {
                                p->at += 2;
                                if (++p->blank_lines > BLANK_LINES_MAX)
                                        return fail(p, 400, "http1.codec_error");
                        }
                        return r;
                }
                r = p->kind == H1_REQUEST ? request_line(p, l, base, end, m) : status_line(p, l, base, end);
                if (r == H1_DONE)
                        p->first_done = true;
                return r;
        }
        if (*s == '\r') {
                if ((r = line_end(p, s, end, "http1.codec_error")) == H1_DONE) {
                        p->at += 2;
                        *last = true;
                }
                return r;
        }
        return field_line(p, l, base, end, m);
}

static enum h1_result too_large(struct h1_parser *p)
{
        return fail(p, 431, p->kind == H1_TRAILERS ? "http1.trailers_too_large" : "http1.headers_too_large");
}

enum h1_result h1_parse(struct h1_parser *p, const struct h1_limits *l, char *base, size_t n, struct http_head *m)
{
        bool last = false;
        enum h1_result r;

        /* Only a line that has been waiting is searched for its end first, so that bytes that drip in cost one look each. */
        if (p->scanned > p->at) {
                if (n > p->scanned && !memchr(base + p->scanned, '\n', n - p->scanned)) {
                        p->scanned = n;
                        return n > l->max_bytes ? too_large(p) : H1_MORE;
                }
        }
        do {
                r = line(p, l, base, base + n, m, &last);
                if (p->at > l->max_bytes && r != H1_FAIL)
                        return too_large(p);
        } while (r == H1_DONE && !last);
        if (r == H1_MORE) {
                p->scanned = n;
                if (n > l->max_bytes)
                        return too_large(p);
        }
        return r;
}

/* absolute-form: http://authority[/path] */
static bool absolute_target(struct h1_parser *p, struct str t, struct http_head *m)
{
        struct str scheme = str_starts_nocase(t, STR("http://"))    ? STR("http")
                            : str_starts_nocase(t, STR("https://")) ? STR("https")
                                                                    : STR("");

        if (!scheme.n) {
                ptrdiff_t colon = str_find(t, STR("://"));

                fail(p, 400, colon > 0 ? "http1.invalid_scheme" : "http1.invalid_url");
                return false;
        }
        t = str_sub(t, scheme.n + 3, t.n);
        size_t end = 0;

        while (end < t.n && t.p[end] != '/' && t.p[end] != '?' && t.p[end] != '#')
                end++;
        struct str authority = str_sub(t, 0, end), path = str_sub(t, end, t.n);

        if (!authority.n || !http_authority_ok(authority)) {
                fail(p, 400, "http1.invalid_url");
                return false;
        }
        if (path.n && path.p[0] == '?')
                path = arena_printf(m->arena, "/" STR_FMT, STR_ARG(path));
        m->scheme = scheme;
        m->authority = authority;
        m->path = path.n ? path : STR("/");
        return true;
}

/* authority-form: host:port (RFC 9112 §3.2.3) */
static bool connect_target(struct h1_parser *p, struct str t, struct http_head *m)
{
        ptrdiff_t colon = str_rchr(t, ':');
        uint64_t port;

        if (colon <= 0 || !str_u64(str_sub(t, (size_t)colon + 1, t.n), &port) || !port || port > 65535 || !http_authority_ok(t) ||
            str_chr(t, '@') >= 0) {
                fail(p, 400, "http1.invalid_url");
                return false;
        }
        m->authority = t;
        m->path = STR("");
        return true;
}

static bool finish_request(struct h1_parser *p, char *base, struct http_head *m, bool absolute_url, bool secure)
{
        struct str t = { base + p->target_off, p->target_n };

        m->scheme = secure ? STR("https") : STR("http");
        if (!p->host_seen && p->version == HTTP_1_1) {
                fail(p, 400, "missing_host_header");
                return false;
        }
        if (!http_authority_ok(m->authority)) {
                fail(p, 400, "http.invalid_authority");
                return false;
        }
        if (str_eq(m->method, STR("CONNECT")))
                return connect_target(p, t, m);
        if (t.p[0] == '/' || (t.n == 1 && t.p[0] == '*' && str_eq(m->method, STR("OPTIONS")))) {
                m->path = t;
                return true;
        }
        if (absolute_url)
                return absolute_target(p, t, m);
        fail(p, 400, "http1.invalid_url");
        return false;
}

bool h1_parser_finish(struct h1_parser *p, char *base, struct http_head *m, bool absolute_url, bool secure)
{
        for (unsigned i = 0; i < m->n; i++) {
                struct http_hdr *h = &m->h[i];

                if (!h->id)
                        h->name.p = base + (uintptr_t)h->name.p;
                h->value.p = base + (uintptr_t)h->value.p;
        }
        if (p->kind == H1_TRAILERS)
                return true;
        if (p->chunked && p->content_length >= 0) {
                fail(p, 400, "http1.content_length_and_chunked_not_allowed");
                return false;
        }
        if (p->chunked && p->version == HTTP_1_0) {
                fail(p, 400, "http1.codec_error");
                return false;
        }
        m->version = p->version;
        m->status = p->status;
        m->content_length = p->content_length;
        if (p->nominates)
                http_drop_nominated(m);
        if (p->upgrade.n && p->connection_upgrade && p->version == HTTP_1_1) {
                m->protocol = str_make(base + (uintptr_t)p->upgrade.p, p->upgrade.n);
                if (str_eq_nocase(m->protocol, STR("h2c"))) /* RFC 9113 §3.1: no longer; the request is a plain one, as for Envoy */
                        m->protocol = STR("");
        }
        if (p->kind == H1_RESPONSE)
                return true;
        m->method.p = base + (uintptr_t)m->method.p;
        m->authority.p = m->authority.n ? base + (uintptr_t)m->authority.p : "";
        return finish_request(p, base, m, absolute_url, secure);
}

/* ---- chunks ---- */

enum { CHUNK_SIZE, CHUNK_EXT, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF, CHUNK_END };

static int hex(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c = ascii_lower(c);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A byte of the chunk's first line. False: refused. */
static bool chunk_line_byte(struct h1_chunk *p, char c)
{
        if (p->state == CHUNK_SIZE) {
                int h = hex(c);

                if (h >= 0) {
                        if (++p->digits > 15) /* 60 bits: no sum of sizes wraps */
                                return false;
                        p->left = p->left << 4 | (unsigned)h;
                        return true;
                }
                if (!p->digits || (c != '\r' && c != ';'))
                        return false;
                p->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXT;
                return true;
        }
        if (p->state == CHUNK_EXT) {
                if (c == '\r') {
                        p->state = CHUNK_SIZE_LF;
                        return true;
                }
                return ++p->ext_bytes <= CHUNK_EXT_MAX && ((unsigned char)c >= 0x20 || c == '\t') && c != 0x7f;
        }
        return c == '\n';
}

enum h1_chunk_event h1_chunk_feed(struct h1_chunk *p, const char *d, size_t n, size_t *used)
{
        size_t i = 0;

        while (i < n || (p->state == CHUNK_DATA && p->left)) {
                if (p->state == CHUNK_DATA) {
                        if (p->left) {
                                *used = i;
                                return H1_CHUNK_DATA;
                        }
                        p->state = CHUNK_DATA_CR;
                        continue;
                }
                char c = d[i++];

                if (p->state == CHUNK_DATA_CR || p->state == CHUNK_DATA_LF) {
                        if (c != (p->state == CHUNK_DATA_CR ? '\r' : '\n'))
                                goto bad;
                        p->state = p->state == CHUNK_DATA_CR ? CHUNK_DATA_LF : CHUNK_SIZE;
                        p->digits = 0;
                        continue;
                }
                bool lf = p->state == CHUNK_SIZE_LF;

                if (p->state == CHUNK_END || !chunk_line_byte(p, c))
                        goto bad;
                if (lf && !p->left) {
                        p->state = CHUNK_END;
                        *used = i;
                        return H1_CHUNK_LAST;
                }
                if (lf)
                        p->state = CHUNK_DATA;
        }
        *used = i;
        return H1_CHUNK_MORE;
bad:
        *used = i;
        return H1_CHUNK_FAIL;
}
