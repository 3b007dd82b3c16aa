/* Negotiation, and the pipe beneath both kinds of session. */
#include "kube/streams.h"

#include "base/mem.h"
#include "kube/streams_private.h"

enum { LINGER_MS = 5000 };

/* ---- negotiation ---- */

static bool list_has(struct str list, struct str want)
{
        struct str part;

        while (str_next(&list, ',', &part))
                if (str_eq(str_trim(part), want))
                        return true;
        return false;
}

static bool refuse(struct http_head *answer, struct kube_streams_choice *choice, int status, struct str text)
{
        answer->status = status;
        choice->text = text;
        return false;
}

static bool negotiate_ws(const struct http_head *req, enum kube_streams_kind kind, struct http_head *answer,
                         struct kube_streams_choice *choice)
{
        static const struct {
                enum kube_streams_kind kind;
                struct str name;
                enum kube_streams_transport transport;
                unsigned version;
        } known[] = {
                { KUBE_EXEC, STR("v5.channel.k8s.io"), KUBE_WEBSOCKET, 5 },
                { KUBE_EXEC, STR("v4.channel.k8s.io"), KUBE_WEBSOCKET, 4 },
                { KUBE_PORT_FORWARD, STR("SPDY/3.1+portforward.k8s.io"), KUBE_SPDY_IN_WEBSOCKET, 1 },
        };
        struct http_hdr *key = http_get_name(req, STR("sec-websocket-key")), *version = http_get_name(req, STR("sec-websocket-version"));
        char accept[29];

        if (!key || key->value.n != 24 || !version || !str_eqc(version->value, "13"))
                return refuse(answer, choice, 400, STR("not a WebSocket handshake of version 13 (RFC 6455)"));
        for (size_t k = 0; k < ARRAY_LEN(known); k++) {
                for (unsigned i = 0; i < req->n; i++) {
                        if (known[k].kind != kind || !str_eqc(req->h[i].name, "sec-websocket-protocol") ||
                            !list_has(req->h[i].value, known[k].name))
                                continue;
                        choice->transport = known[k].transport;
                        choice->version = known[k].version;
                        ws_accept(key->value, accept);
                        answer->status = 101;
                        answer->protocol = STR("websocket");
                        http_add_name(answer, STR("sec-websocket-accept"), arena_str(answer->arena, str_of(accept)));
                        http_add_name(answer, STR("sec-websocket-protocol"), known[k].name);
                        return true;
                }
        }
        return refuse(answer, choice, 400,
                      kind == KUBE_EXEC ? STR("no common WebSocket subprotocol: v5.channel.k8s.io and v4.channel.k8s.io are spoken here")
                                        : STR("no common WebSocket subprotocol: SPDY/3.1+portforward.k8s.io is spoken here"));
}

static bool negotiate_spdy(const struct http_head *req, enum kube_streams_kind kind, struct http_head *answer,
                           struct kube_streams_choice *choice)
{
        static const struct {
                struct str name;
                unsigned version;
        } known[] = { { STR("v4.channel.k8s.io"), 4 },
                      { STR("v3.channel.k8s.io"), 3 },
                      { STR("v2.channel.k8s.io"), 2 },
                      { STR("channel.k8s.io"), 1 } };
        bool any = false;

        choice->transport = KUBE_SPDY;
        answer->protocol = STR("SPDY/3.1");
        for (size_t k = 0; k < ARRAY_LEN(known) + 1; k++) {
                struct str name = kind == KUBE_PORT_FORWARD ? STR("portforward.k8s.io") : k < ARRAY_LEN(known) ? known[k].name : STR("");

                for (unsigned i = 0; i < req->n; i++) {
                        if (!str_eqc(req->h[i].name, "x-stream-protocol-version"))
                                continue;
                        any = true;
                        if (!name.n || !list_has(req->h[i].value, name))
                                continue;
                        answer->status = 101;
                        choice->version = kind == KUBE_PORT_FORWARD ? 1 : known[k].version;
                        http_add_name(answer, STR("x-stream-protocol-version"), name);
                        return true;
                }
        }
        if (any)
                return refuse(answer, choice, 403, STR("unable to upgrade: no common X-Stream-Protocol-Version"));
        answer->status = 101; /* clients from before versions were negotiated */
        choice->version = 1;
        return true;
}

bool kube_streams_negotiate(const struct http_head *req, enum kube_streams_kind kind, struct http_head *answer,
                            struct kube_streams_choice *choice)
{
        struct http_hdr *up = http_get(req, HN_UPGRADE);
        struct str token = req->protocol.n ? req->protocol : up ? up->value : STR("");

        *choice = (struct kube_streams_choice){ .kind = kind };
        if (str_eq_nocase(token, STR("websocket")))
                return negotiate_ws(req, kind, answer, choice);
        if (str_eq_nocase(token, STR("SPDY/3.1")))
                return negotiate_spdy(req, kind, answer, choice);
        return refuse(answer, choice, 400, STR("unable to upgrade: ask for websocket or SPDY/3.1 in Upgrade"));
}

/* ---- the pipe ---- */

static void lost(struct pipe *p)
{
        if (p->lost)
                return;
        p->lost = true;
        p->ops->on_lost(p->arg);
}

void pipe_flush(struct pipe *p)
{
        struct chain frame = CHAIN_INIT;

        if (!p->out.n || !p->stream || p->ended) {
                chain_fini(&p->out);
                return;
        }
        if (p->transport == KUBE_SPDY_IN_WEBSOCKET)
                ws_frame(&frame, WS_BINARY, NULL, 0, &p->out);
        else
                chain_move(&frame, &p->out);
        http_send_data(p->stream, &frame, false);
}

void pipe_channel(struct pipe *p, uint8_t channel, struct chain *payload)
{
        struct chain frame = CHAIN_INIT;

        if (!p->stream || p->ended) {
                chain_fini(payload);
                return;
        }
        ws_frame(&frame, WS_BINARY, &channel, 1, payload);
        http_send_data(p->stream, &frame, false);
}

static void end_with(struct pipe *p, int code)
{
        struct chain last = CHAIN_INIT;

        if (p->ended || !p->stream)
                return;
        pipe_flush(p);
        p->ended = true;
        if (p->transport != KUBE_SPDY)
                ws_close_frame(&last, code);
        http_send_data(p->stream, &last, true);
        loop_timer_arm(p->loop, &p->linger, LINGER_MS);
}

void pipe_end(struct pipe *p)
{
        end_with(p, WS_OK);
}

void pipe_abort(struct pipe *p)
{
        if (p->stream)
                http_reset(p->stream, HTTP_RESET_LOCAL);
}

static void on_linger(struct loop_timer *t)
{
        pipe_abort(t->arg);
}

static void on_ws(void *arg, enum ws_opcode op, struct str payload)
{
        struct pipe *p = arg;
        struct chain bytes = CHAIN_INIT, out = CHAIN_INIT;

        chain_str(&bytes, payload);
        if (op == WS_PING && !p->ended) {
                ws_frame(&out, WS_PONG, NULL, 0, &bytes);
                http_send_data(p->stream, &out, false);
        } else if (op == WS_CLOSE) {
                lost(p);
                pipe_end(p);
        } else if ((op == WS_BINARY || op == WS_TEXT) && p->transport == KUBE_SPDY_IN_WEBSOCKET) {
                if (!spdy_feed(&p->spdy, &bytes, p->ops->spdy, p->arg))
                        lost(p);
        } else if (op == WS_BINARY || op == WS_TEXT) {
                p->ops->on_channel(p->arg, payload);
        }
        chain_fini(&bytes);
}

static void on_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct pipe *p = arg;

        (void)s;
        if (p->lost) {
                chain_fini(data);
                return;
        }
        if (p->transport == KUBE_SPDY) {
                if (!spdy_feed(&p->spdy, data, p->ops->spdy, p->arg)) {
                        lost(p);
                        end_with(p, WS_PROTOCOL_ERROR);
                }
        } else {
                int wrong = ws_feed(&p->ws, data, on_ws, p);

                if (wrong) {
                        lost(p);
                        end_with(p, wrong);
                }
        }
        pipe_flush(p);
        if (end)
                lost(p);
}

static void on_drain(struct http_stream *s, void *arg)
{
        struct pipe *p = arg;

        (void)s;
        if (!p->ended)
                p->ops->on_drain(p->arg);
}

static void on_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct pipe *p = arg;

        (void)reset;
        loop_timer_stop(p->loop, &p->linger);
        (void)s;
        lost(p);
        p->stream = NULL;
        chain_fini(&p->out);
        ws_fini(&p->ws);
        if (p->transport != KUBE_WEBSOCKET)
                spdy_fini(&p->spdy);
        p->ops->on_close(p->arg);
}

static void on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        (void)s;
        (void)arg;
        (void)m;
        (void)end;
}

static void on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        (void)s;
        (void)t;
        lost(arg);
}

void pipe_start(struct pipe *p, struct http_stream *s, enum kube_streams_transport t, const struct pipe_ops *ops, void *arg)
{
        static const struct http_stream_ops stream_ops = { on_head, on_data, on_trailers, on_drain, on_close };

        *p = (struct pipe){ .stream = s,
                            .loop = conn_loop(http_conn_io(http_stream_conn(s))),
                            .transport = t,
                            .ops = ops,
                            .arg = arg,
                            .linger = { .fn = on_linger, .arg = p } };
        if (t != KUBE_WEBSOCKET)
                spdy_init(&p->spdy, &p->out);
        http_stream_set_ops(s, &stream_ops, p);
}
