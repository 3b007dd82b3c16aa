/* exec and attach: up to five channels between kubectl and a process. Over a WebSocket a channel is the first byte of a message; over SPDY
 * it is a stream that the client opens and names by its header streamType, and the session begins when all are there. */
#include "base/mem.h"
#include "kube/streams_private.h"

#include <stdio.h>
#include <stdlib.h>

enum channel { CH_STDIN, CH_STDOUT, CH_STDERR, CH_ERROR, CH_RESIZE, CH_COUNT, CH_CLOSE = 255 };

enum { READY_TIMEOUT_MS = 30000, RESIZE_MAX_BYTES = 4096 };

static const char *const channel_names[CH_COUNT] = { "stdin", "stdout", "stderr", "error", "resize" };

struct kube_exec {
        struct pipe pipe;
        struct kube_exec_opts o;
        const struct kube_exec_ops *ops;
        void *arg;
        unsigned version;
        uint32_t ids[CH_COUNT]; /* SPDY streams; 0: not open */
        struct loop_timer ready_timer;
        struct loop_task start;
        struct buf resize; /* a JSON object that is not complete yet */
        bool ready, done, stdin_ended;
};

static bool wanted(const struct kube_exec *e, enum channel c)
{
        switch (c) {
        case CH_STDIN:
                return e->o.in;
        case CH_STDOUT:
                return e->o.out;
        case CH_STDERR:
                return e->o.err && !e->o.tty;
        case CH_ERROR:
                return true;
        case CH_RESIZE:
                return e->o.tty && e->version >= 3;
        default:
                return false;
        }
}

static void become_ready(struct kube_exec *e)
{
        if (e->ready || e->pipe.lost)
                return;
        e->ready = true;
        loop_timer_stop(e->pipe.loop, &e->ready_timer);
        e->ops->on_ready(e, e->arg);
}

static void end_stdin(struct kube_exec *e)
{
        struct chain none = CHAIN_INIT;

        if (e->stdin_ended || !e->ready)
                return;
        e->stdin_ended = true;
        e->ops->on_stdin(e, e->arg, &none, true);
        chain_fini(&none);
}

/* {"Width":80,"Height":24}, one after the other. */
static void on_resize_bytes(struct kube_exec *e, struct str data)
{
        unsigned w = 0, h = 0;

        if (e->resize.n + data.n > RESIZE_MAX_BYTES)
                e->resize.n = 0;
        buf_str(&e->resize, str_sub(data, 0, RESIZE_MAX_BYTES));
        for (ptrdiff_t end; (end = str_chr(buf_view(&e->resize), '}')) >= 0; buf_consume(&e->resize, (size_t)end + 1)) {
                const char *text = buf_z(&e->resize), *pw = strstr(text, "\"Width\":"), *ph = strstr(text, "\"Height\":");

                if (pw && ph && sscanf(pw + 8, "%5u", &w) == 1 && sscanf(ph + 9, "%5u", &h) == 1 && e->ready && w && h && w < 65536 &&
                    h < 65536)
                        e->ops->on_resize(e, e->arg, w, h);
        }
}

static void on_channel_data(struct kube_exec *e, unsigned c, struct str data)
{
        struct chain bytes = CHAIN_INIT;

        if (c == CH_STDIN && e->ready && !e->stdin_ended && wanted(e, CH_STDIN) && data.n) {
                chain_str(&bytes, data);
                e->ops->on_stdin(e, e->arg, &bytes, false);
                chain_fini(&bytes);
        } else if (c == CH_RESIZE && wanted(e, CH_RESIZE)) {
                on_resize_bytes(e, data);
        }
}

/* ---- WebSocket ---- */

static void on_channel(void *arg, struct str message)
{
        struct kube_exec *e = arg;
        unsigned c = message.n ? (unsigned char)message.p[0] : CH_COUNT;

        if (c == CH_CLOSE && e->version >= 5) {
                if (message.n >= 2 && message.p[1] == CH_STDIN)
                        end_stdin(e);
                return;
        }
        on_channel_data(e, c, str_sub(message, 1, message.n));
}

/* ---- SPDY ---- */

static bool on_stream(void *arg, uint32_t id, const struct spdy_header *h, unsigned n)
{
        struct kube_exec *e = arg;
        enum channel c = CH_COUNT;

        for (unsigned i = 0; i < n; i++)
                for (unsigned k = 0; k < CH_COUNT && str_eqc(h[i].name, "streamtype"); k++)
                        if (str_eqc(h[i].value, channel_names[k]))
                                c = k;
        if (c == CH_COUNT || e->ids[c] || !wanted(e, c))
                return false;
        e->ids[c] = id;
        for (unsigned k = 0; k < CH_COUNT; k++)
                if (wanted(e, k) && !e->ids[k])
                        return true;
        become_ready(e);
        return true;
}

static void on_spdy_data(void *arg, uint32_t id, struct str data, bool fin)
{
        struct kube_exec *e = arg;

        for (unsigned c = 0; c < CH_COUNT; c++) {
                if (!e->ids[c] || e->ids[c] != id)
                        continue;
                on_channel_data(e, c, data);
                if (fin && c == CH_STDIN)
                        end_stdin(e);
        }
}

static void on_spdy_reset(void *arg, uint32_t id)
{
        on_spdy_data(arg, id, STR(""), true);
}

static void on_goaway(void *arg)
{
        (void)arg; /* the end of the connection follows */
}

/* ---- both ---- */

static void on_drain(void *arg)
{
        struct kube_exec *e = arg;

        if (e->ready && !e->done)
                e->ops->on_drain(e, e->arg);
}

static void on_lost(void *arg)
{
        end_stdin(arg);
}

static void on_close(void *arg)
{
        struct kube_exec *e = arg;

        loop_timer_stop(e->pipe.loop, &e->ready_timer);
        loop_undefer(e->pipe.loop, &e->start);
        e->ops->on_close(e, e->arg, !e->done);
        buf_fini(&e->resize);
        free(e);
}

static void on_ready_timeout(struct loop_timer *t)
{
        struct kube_exec *e = t->arg;

        pipe_abort(&e->pipe);
}

/* A WebSocket has its channels from the start. The empty message tells the client that the other side is there. */
static void on_start(struct loop_task *t)
{
        struct kube_exec *e = t->arg;
        struct chain none = CHAIN_INIT;

        if (!e->pipe.stream)
                return;
        pipe_channel(&e->pipe, wanted(e, CH_STDOUT) ? CH_STDOUT : wanted(e, CH_STDERR) ? CH_STDERR : CH_ERROR, &none);
        become_ready(e);
}

struct kube_exec *kube_exec_new(struct http_stream *s, const struct kube_streams_choice *c, const struct kube_exec_opts *o,
                                const struct kube_exec_ops *ops, void *arg)
{
        static const struct spdy_ops spdy = { on_stream, on_spdy_data, on_spdy_reset, on_goaway };
        static const struct pipe_ops pipe = { on_channel, &spdy, on_drain, on_lost, on_close };
        struct kube_exec *e = MEM_NEW(struct kube_exec);

        *e = (struct kube_exec){ .o = *o, .ops = ops, .arg = arg, .version = c->version };
        e->ready_timer = (struct loop_timer){ .fn = on_ready_timeout, .arg = e };
        e->start = (struct loop_task){ .fn = on_start, .arg = e };
        pipe_start(&e->pipe, s, c->transport, &pipe, e);
        loop_timer_arm(e->pipe.loop, &e->ready_timer, o->ready_timeout_ms ? o->ready_timeout_ms : READY_TIMEOUT_MS);
        if (c->transport == KUBE_WEBSOCKET)
                loop_defer(e->pipe.loop, &e->start);
        return e;
}

static void send_on(struct kube_exec *e, enum channel c, struct chain *data, bool fin)
{
        if (e->pipe.transport == KUBE_WEBSOCKET) {
                if (data->n)
                        pipe_channel(&e->pipe, (uint8_t)c, data);
        } else if (e->ids[c]) {
                spdy_data(&e->pipe.spdy, e->ids[c], data, fin);
                pipe_flush(&e->pipe);
        }
        chain_fini(data);
}

void kube_exec_write(struct kube_exec *e, int fd, struct chain *data)
{
        enum channel c = fd == 2 ? CH_STDERR : CH_STDOUT;

        if (!wanted(e, c) || e->done || !data->n)
                chain_fini(data);
        else
                send_on(e, c, data, false);
}

bool kube_exec_blocked(const struct kube_exec *e)
{
        return e->pipe.stream && http_send_blocked(e->pipe.stream);
}

void kube_exec_pause_stdin(struct kube_exec *e)
{
        if (e->pipe.stream)
                http_pause(e->pipe.stream);
}

void kube_exec_resume_stdin(struct kube_exec *e)
{
        if (e->pipe.stream)
                http_resume(e->pipe.stream);
}

static void finish(struct kube_exec *e, struct str status)
{
        struct chain text = CHAIN_INIT, none = CHAIN_INIT;

        if (e->done)
                return;
        kube_exec_resume_stdin(e); /* or the peer's own end would never be read */
        loop_timer_stop(e->pipe.loop, &e->ready_timer);
        chain_str(&text, status);
        send_on(e, CH_ERROR, &text, true);
        if (e->pipe.transport == KUBE_SPDY) {
                send_on(e, CH_STDOUT, &none, true);
                send_on(e, CH_STDERR, &none, true);
        }
        e->done = true;
        pipe_end(&e->pipe);
}

void kube_exec_finish(struct kube_exec *e, int exit_code)
{
        struct buf b = BUF_INIT;

        if (!e->pipe.stream)
                return;
        if (e->version < 4)
                buf_printf(&b, exit_code ? "command terminated with exit code %d" : "", exit_code);
        else if (!exit_code)
                buf_cstr(&b, "{\"metadata\":{},\"status\":\"Success\"}");
        else
                buf_printf(&b,
                           "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: exit status "
                           "%d\","
                           "\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"%d\"}]}}",
                           exit_code, exit_code);
        finish(e, buf_view(&b));
        buf_fini(&b);
}

void kube_exec_fail(struct kube_exec *e, struct str message)
{
        struct buf b = BUF_INIT;

        if (!e->pipe.stream)
                return;
        if (e->version < 4) {
                buf_str(&b, message);
        } else {
                buf_cstr(&b, "{\"metadata\":{},\"status\":\"Failure\",\"reason\":\"InternalError\",\"code\":500,\"message\":");
                buf_json(&b, message);
                buf_char(&b, '}');
        }
        finish(e, buf_view(&b));
        buf_fini(&b);
}

void kube_exec_abort(struct kube_exec *e)
{
        pipe_abort(&e->pipe);
}
