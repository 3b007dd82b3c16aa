#include "kube/streams_spdy.h"

#include "base/mem.h"
#include "kube/streams_spdy_dict.h"

#include <stdlib.h>

enum {
        SYN_STREAM = 1,
        SYN_REPLY = 2,
        RST_STREAM = 3,
        SETTINGS = 4,
        PING = 6,
        GOAWAY = 7,
        HEADERS = 8,
        WINDOW_UPDATE = 9,
        HEAD_BYTES = 8,
        FRAME_BYTES = 32768,
        HEADERS_COUNT_MAX = 64,
        REFUSED_STREAM = 3,
};

static uint32_t be32(const void *p)
{
        const unsigned char *q = p;

        return (uint32_t)q[0] << 24 | (uint32_t)q[1] << 16 | (uint32_t)q[2] << 8 | q[3];
}

static void put32(unsigned char *p, uint32_t v)
{
        p[0] = (unsigned char)(v >> 24);
        p[1] = (unsigned char)(v >> 16);
        p[2] = (unsigned char)(v >> 8);
        p[3] = (unsigned char)v;
}

void spdy_init(struct spdy *s, struct chain *out)
{
        *s = (struct spdy){ .out = out };
        if (inflateInit(&s->inflate) != Z_OK || deflateInit(&s->deflate, Z_BEST_COMPRESSION) != Z_OK ||
            deflateSetDictionary(&s->deflate, spdy_dict, sizeof(spdy_dict)) != Z_OK)
                s->broken = true;
}

void spdy_fini(struct spdy *s)
{
        inflateEnd(&s->inflate);
        deflateEnd(&s->deflate);
        buf_fini(&s->in);
}

static void control(struct spdy *s, unsigned type, unsigned flags, const void *body, size_t n)
{
        unsigned char h[HEAD_BYTES] = { 0x80, 3, 0, (unsigned char)type };

        put32(h + 4, (uint32_t)n);
        h[4] = (unsigned char)flags;
        chain_append(s->out, h, sizeof(h));
        chain_append(s->out, body, n);
}

void spdy_reset(struct spdy *s, uint32_t id, uint32_t status)
{
        unsigned char b[8];

        put32(b, id);
        put32(b + 4, status);
        control(s, RST_STREAM, 0, b, sizeof(b));
}

/* A SYN_REPLY with no headers: four zero bytes through the connection's compressor. */
static void reply(struct spdy *s, uint32_t id)
{
        unsigned char none[4] = { 0 }, b[128];

        put32(b, id);
        s->deflate.next_in = none;
        s->deflate.avail_in = sizeof(none);
        s->deflate.next_out = b + 4;
        s->deflate.avail_out = sizeof(b) - 4;
        if (deflate(&s->deflate, Z_SYNC_FLUSH) != Z_OK || s->deflate.avail_in)
                s->broken = true;
        control(s, SYN_REPLY, 0, b, sizeof(b) - s->deflate.avail_out);
}

/* A header block, inflated. The compressor's state spans all blocks of the connection, so every block must go through here, used or not. */
static bool inflate_block(struct spdy *s, const char *p, size_t n, struct buf *out)
{
        s->inflate.next_in = (unsigned char *)p;
        s->inflate.avail_in = (uInt)n;
        s->inflate.avail_out = 0;
        while (s->inflate.avail_in || !s->inflate.avail_out) { /* a full output may leave more behind when all input is taken */
                buf_reserve(out, 4096);
                s->inflate.next_out = (unsigned char *)out->p + out->n;
                s->inflate.avail_out = (uInt)(out->cap - out->n);
                int rc = inflate(&s->inflate, Z_SYNC_FLUSH);

                out->n = out->cap - s->inflate.avail_out;
                if (rc == Z_NEED_DICT)
                        rc = inflateSetDictionary(&s->inflate, spdy_dict, sizeof(spdy_dict));
                if (rc == Z_BUF_ERROR && (!s->inflate.avail_in || !s->inflate.avail_out))
                        rc = Z_OK;
                if (rc != Z_OK || out->n > SPDY_HEADERS_MAX)
                        return false;
        }
        return true;
}

static bool next_string(struct str *in, struct str *out)
{
        if (in->n < 4)
                return false;
        size_t n = be32(in->p);

        if (n > in->n - 4)
                return false;
        *out = str_make(in->p + 4, n);
        *in = str_sub(*in, 4 + n, in->n);
        return true;
}

static bool syn_stream(struct spdy *s, const char *p, size_t n, unsigned flags, const struct spdy_ops *ops, void *arg)
{
        struct spdy_header h[HEADERS_COUNT_MAX];
        struct buf block = BUF_INIT;
        bool ok = false;

        if (n < 10)
                return false;
        uint32_t id = be32(p) & 0x7fffffff;

        if (!inflate_block(s, p + 10, n - 10, &block) || block.n < 4 || !(id & 1) || id <= s->last_id)
                goto out;
        struct str rest = str_sub(buf_view(&block), 4, block.n);
        uint32_t count = be32(block.p);

        if (count > HEADERS_COUNT_MAX)
                goto out;
        for (uint32_t i = 0; i < count; i++) {
                if (!next_string(&rest, &h[i].name) || !next_string(&rest, &h[i].value))
                        goto out;
                for (size_t k = 0; k < h[i].name.n; k++)
                        ((char *)h[i].name.p)[k] = ascii_lower(h[i].name.p[k]);
        }
        ok = true;
        s->last_id = id;
        reply(s, id);
        if (!ops->on_stream(arg, id, h, count))
                spdy_reset(s, id, REFUSED_STREAM);
        else if (flags & SPDY_FIN)
                ops->on_data(arg, id, STR(""), true);
out:
        buf_fini(&block);
        return ok && !s->broken;
}

static bool frame(struct spdy *s, const char *p, size_t n, const struct spdy_ops *ops, void *arg)
{
        unsigned type = (unsigned)(unsigned char)p[2] << 8 | (unsigned char)p[3], flags = (unsigned char)p[4];
        const char *body = p + HEAD_BYTES;
        struct buf ignored = BUF_INIT;
        bool ok = true;

        if (!(p[0] & 0x80)) {
                ops->on_data(arg, be32(p), str_make(body, n), flags & SPDY_FIN);
                return true;
        }
        switch (type) {
        case SYN_STREAM:
                return syn_stream(s, body, n, flags, ops, arg);
        case RST_STREAM:
                if (n < 8)
                        return false;
                ops->on_reset(arg, be32(body) & 0x7fffffff);
                return true;
        case PING:
                if (n != 4)
                        return false;
                if (be32(body) & 1) /* the client's own; even ones would answer ours */
                        control(s, PING, 0, body, 4);
                return true;
        case GOAWAY:
                ops->on_goaway(arg);
                return true;
        case SYN_REPLY:
        case HEADERS:
                ok = n >= 4 && inflate_block(s, body + 4, n - 4, &ignored);
                buf_fini(&ignored);
                return ok;
        default: /* SETTINGS, WINDOW_UPDATE, and what later versions may add */
                return true;
        }
}

bool spdy_feed(struct spdy *s, struct chain *data, const struct spdy_ops *ops, void *arg)
{
        size_t at = 0;

        buf_reserve(&s->in, data->n);
        s->in.n += chain_peek(data, s->in.p + s->in.n, data->n);
        chain_fini(data);
        while (!s->broken && s->in.n - at >= HEAD_BYTES) {
                const char *p = s->in.p + at;
                size_t n = be32(p + 4) & 0xffffff;
                bool is_control = p[0] & 0x80;

                if (n > (is_control ? SPDY_CONTROL_MAX : SPDY_DATA_MAX) || (is_control && ((p[0] & 0x7f) || p[1] != 3))) {
                        s->broken = true;
                        break;
                }
                if (s->in.n - at < HEAD_BYTES + n)
                        break;
                if (!frame(s, p, n, ops, arg))
                        s->broken = true;
                at += HEAD_BYTES + n;
        }
        buf_consume(&s->in, at);
        if (!s->in.n)
                buf_fini(&s->in);
        return !s->broken;
}

void spdy_data(struct spdy *s, uint32_t id, struct chain *data, bool fin)
{
        do {
                size_t n = data && data->n ? (data->n < FRAME_BYTES ? data->n : FRAME_BYTES) : 0;
                unsigned char h[HEAD_BYTES];
                bool last = !data || data->n == n;

                put32(h, id);
                put32(h + 4, (uint32_t)n);
                h[4] = last && fin ? SPDY_FIN : 0;
                chain_append(s->out, h, sizeof(h));
                if (n)
                        chain_move_n(s->out, data, n);
        } while (data && data->n);
}
