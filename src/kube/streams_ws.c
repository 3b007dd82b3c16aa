#include "kube/streams_ws.h"

#include "base/mem.h"

#include <openssl/evp.h>
#include <stdlib.h>

static uint64_t be(const unsigned char *p, unsigned n)
{
        uint64_t v = 0;

        while (n--)
                v = v << 8 | *p++;
        return v;
}

struct frame {
        bool fin;
        enum ws_opcode op;
        size_t head, n; /* bytes before the payload, and of it */
        unsigned char mask[4];
};

/* 1: a whole head is there; 0: more is needed; -code: wrong. */
static int head_of(struct str in, struct frame *f)
{
        const unsigned char *p = (const unsigned char *)in.p;

        if (in.n < 2)
                return 0;
        unsigned len = p[1] & 0x7f, ext = len == 126 ? 2 : len == 127 ? 8 : 0;

        f->fin = p[0] & 0x80;
        f->op = p[0] & 0x0f;
        if ((p[0] & 0x70) || !(p[1] & 0x80)) /* extensions were not negotiated; a client must mask (§5.1) */
                return -WS_PROTOCOL_ERROR;
        if (f->op > WS_BINARY && (f->op < WS_CLOSE || f->op > WS_PONG || !f->fin || ext))
                return -WS_PROTOCOL_ERROR;
        if (in.n < 2 + ext)
                return 0;
        uint64_t n = ext ? be(p + 2, ext) : len;

        if (n > WS_MESSAGE_MAX)
                return -WS_TOO_BIG;
        f->head = 2 + ext + 4;
        f->n = (size_t)n;
        if (in.n < f->head)
                return 0;
        memcpy(f->mask, p + 2 + ext, 4);
        return 1;
}

static int take(struct ws *w, const struct frame *f, char *payload, ws_fn *fn, void *arg)
{
        struct str whole = str_make(payload, f->n);

        for (size_t i = 0; i < f->n; i++)
                payload[i] = (char)(payload[i] ^ (char)f->mask[i & 3]);
        if (f->op >= WS_CLOSE) {
                if (f->op == WS_CLOSE)
                        w->closed = true;
                fn(arg, f->op, whole);
                return 0;
        }
        if ((f->op == WS_CONTINUATION) != w->in_message)
                return WS_PROTOCOL_ERROR;
        if (f->fin && !w->in_message) {
                fn(arg, f->op, whole);
                return 0;
        }
        if (w->message.n + f->n > WS_MESSAGE_MAX)
                return WS_TOO_BIG;
        buf_str(&w->message, whole);
        w->in_message = !f->fin;
        if (f->fin) {
                fn(arg, WS_BINARY, buf_view(&w->message));
                w->message.n = 0;
        }
        return 0;
}

int ws_feed(struct ws *w, struct chain *data, ws_fn *fn, void *arg)
{
        size_t at = 0;
        int rc = 0;

        buf_reserve(&w->in, data->n);
        w->in.n += chain_peek(data, w->in.p + w->in.n, data->n);
        chain_fini(data);
        while (!rc && !w->closed) {
                struct frame f;
                int have = head_of(str_make(w->in.p + at, w->in.n - at), &f);

                if (have < 0)
                        rc = -have;
                if (have <= 0 || w->in.n - at < f.head + f.n)
                        break;
                rc = take(w, &f, w->in.p + at + f.head, fn, arg);
                at += f.head + f.n;
        }
        buf_consume(&w->in, at);
        if (!w->in.n)
                buf_fini(&w->in);
        return rc;
}

void ws_fini(struct ws *w)
{
        buf_fini(&w->in);
        buf_fini(&w->message);
}

void ws_frame(struct chain *out, enum ws_opcode op, const void *prefix, size_t nprefix, struct chain *payload)
{
        size_t n = nprefix + (payload ? payload->n : 0), head = 2;
        unsigned char h[10] = { (unsigned char)(0x80u | op) };

        if (n < 126) {
                h[1] = (unsigned char)n;
        } else {
                unsigned ext = n < 65536 ? 2 : 8;

                h[1] = ext == 2 ? 126 : 127;
                for (unsigned i = 0; i < ext; i++)
                        h[2 + i] = (unsigned char)((uint64_t)n >> 8 * (ext - 1 - i));
                head += ext;
        }
        chain_append(out, h, head);
        chain_append(out, prefix, nprefix);
        if (payload)
                chain_move(out, payload);
}

void ws_close_frame(struct chain *out, int code)
{
        const unsigned char c[2] = { (unsigned char)(code >> 8), (unsigned char)code };

        ws_frame(out, WS_CLOSE, c, 2, NULL);
}

void ws_accept(struct str key, char out[29])
{
        unsigned char sha[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        char *text = mem_printf(STR_FMT "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", STR_ARG(key));

        EVP_Digest(text, strlen(text), sha, &n, EVP_sha1(), NULL);
        free(text);
        EVP_EncodeBlock((unsigned char *)out, sha, 20);
}
