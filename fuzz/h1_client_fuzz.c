/* An HTTP/1.1 client with a request under way, against any bytes for an answer. */
#include "http_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        static const char *methods[] = { "GET", "HEAD", "CONNECT", "POST" };
        struct loop *l;
        struct http_head m;
        int fd;

        if (n < 2 || n > 65536)
                return 0;
        l = loop_new();
        struct http_opts o = { .max_head_bytes = 8192 };

        peer_conn = http_client_h1(peer_open(l, &fd), &o, &peer_ops, NULL);
        struct http_stream *s = http_client_stream(peer_conn, &peer_client_ops, NULL);

        peer_begun++;
        http_head_init(&m, http_stream_arena(s));
        m.method = str_of(methods[data[0] & 3]);
        m.authority = STR("a:80");
        m.path = STR("/");
        if (data[0] & 4)
                m.protocol = STR("websocket");
        http_send_head(s, &m, !(data[0] & 12));
        peer_feed(l, fd, data + 1, n - 1, data[0] & 16 ? 7 + n / 64 : n);
        loop_free(l);
        return 0;
}
