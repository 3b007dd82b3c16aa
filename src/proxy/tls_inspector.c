/* The parser starts from the first byte each time more arrives: a hello is small, comes in one or two reads, and a parser without state
 * is one that is easy to be sure of. Only the handshake message is copied, and only when it is split over records. */
#include "proxy/tls_inspector.h"

enum { RECORD_HANDSHAKE = 22, CLIENT_HELLO = 1, RECORD_MAX = 16384, EXT_SERVER_NAME = 0, EXT_ALPN = 16 };

struct reader {
        const unsigned char *p;
        size_t n;
};

static bool take(struct reader *r, size_t n, struct reader *out)
{
        if (r->n < n)
                return false;
        out->p = r->p;
        out->n = n;
        r->p += n;
        r->n -= n;
        return true;
}

static bool number(struct reader *r, unsigned bytes, size_t *v)
{
        struct reader b;

        if (!take(r, bytes, &b))
                return false;
        *v = 0;
        for (unsigned i = 0; i < bytes; i++)
                *v = *v << 8 | b.p[i];
        return true;
}

static bool vector(struct reader *r, unsigned bytes, struct reader *out)
{
        size_t n;

        return number(r, bytes, &n) && take(r, n, out);
}

static bool read_server_name(struct reader ext, struct tls_hello *out)
{
        struct reader list, name;
        size_t type;

        if (!vector(&ext, 2, &list) || ext.n)
                return false;
        while (list.n) {
                if (!number(&list, 1, &type) || !vector(&list, 2, &name))
                        return false;
                if (type != 0)
                        continue;
                if (!name.n || name.n > 255 || memchr(name.p, 0, name.n))
                        return false;
                if (out->sni_len) /* one of a kind, RFC 6066 §3 */
                        return false;
                for (size_t i = 0; i < name.n; i++)
                        out->sni[i] = ascii_lower((char)name.p[i]);
                out->sni_len = name.n;
        }
        return true;
}

static bool read_alpn(struct reader ext, struct tls_hello *out)
{
        struct reader list, name;

        if (!vector(&ext, 2, &list) || ext.n || !list.n)
                return false;
        while (list.n) {
                if (!vector(&list, 1, &name) || !name.n)
                        return false;
                if (out->nalpn == TLS_HELLO_ALPN_MAX || memchr(name.p, 0, name.n))
                        continue;
                memcpy(out->alpn[out->nalpn], name.p, name.n);
                out->alpn[out->nalpn++][name.n] = 0;
        }
        return true;
}

static bool read_hello(struct reader r, struct tls_hello *out)
{
        struct reader skip, exts, ext;
        size_t version, type;
        bool seen_sni = false, seen_alpn = false;

        if (!number(&r, 2, &version) || version >> 8 != 3 || !take(&r, 32, &skip) || !vector(&r, 1, &skip) || skip.n > 32)
                return false;
        if (!vector(&r, 2, &skip) || !skip.n || skip.n % 2 || !vector(&r, 1, &skip) || !skip.n)
                return false;
        if (!r.n)
                return true; /* no extensions: TLS 1.2 allows it */
        if (!vector(&r, 2, &exts) || r.n)
                return false;
        while (exts.n) {
                if (!number(&exts, 2, &type) || !vector(&exts, 2, &ext))
                        return false;
                if (type == EXT_SERVER_NAME) {
                        if (seen_sni || !read_server_name(ext, out))
                                return false;
                        seen_sni = true;
                } else if (type == EXT_ALPN) {
                        if (seen_alpn || !read_alpn(ext, out))
                                return false;
                        seen_alpn = true;
                }
        }
        return true;
}

enum tls_hello_result tls_hello_parse(const void *p, size_t n, size_t max, unsigned char *scratch, struct tls_hello *out)
{
        struct reader in = { p, n };
        size_t have = 0, need = 4, type, version, len;
        const unsigned char *msg = scratch;

        out->sni_len = 0;
        out->nalpn = 0;
        if (n >= 1 && in.p[0] != RECORD_HANDSHAKE)
                return TLS_HELLO_NOT_TLS;
        if (n >= 2 && in.p[1] != 3)
                return TLS_HELLO_NOT_TLS;
        if (n >= 6 && in.p[5] != CLIENT_HELLO)
                return TLS_HELLO_NOT_TLS;
        for (;;) {
                struct reader rec;

                if (!number(&in, 1, &type) || !number(&in, 2, &version) || !number(&in, 2, &len))
                        break;
                if (type != RECORD_HANDSHAKE || version >> 8 != 3 || !len || len > RECORD_MAX)
                        return TLS_HELLO_BAD;
                if (!take(&in, len, &rec)) {
                        rec = in; /* what is there of it */
                        in.n = 0;
                }
                if (!have) {
                        msg = rec.p; /* in place, as long as one record holds it */
                } else {
                        if (have + rec.n > max)
                                return TLS_HELLO_TOO_LARGE;
                        if (msg != scratch)
                                memmove(scratch, msg, have);
                        msg = scratch;
                        memcpy(scratch + have, rec.p, rec.n);
                }
                have += rec.n;
                if (have >= 4) {
                        need = 4 + ((size_t)msg[1] << 16 | (size_t)msg[2] << 8 | msg[3]);
                        if (need > max) /* it will never be whole */
                                return TLS_HELLO_BAD;
                }
                if (have >= need && have >= 4) {
                        struct reader body = { msg + 4, need - 4 };

                        return read_hello(body, out) ? TLS_HELLO_OK : TLS_HELLO_BAD;
                }
                if (rec.n < len)
                        break;
        }
        return n >= max ? TLS_HELLO_TOO_LARGE : TLS_HELLO_MORE;
}
