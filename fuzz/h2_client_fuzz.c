/* An HTTP/2 client with two requests under way, against any frames. */
#include "http_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct loop *l;
        int fd;

        if (n < 2 || n > 65536)
                return 0;
        l = loop_new();
        struct http_opts o = { .max_head_bytes = 8192 };

        peer_conn = http_client_h2(peer_open(l, &fd), &o, &peer_ops, NULL);
        for (int i = 0; i < 2; i++) {
                struct http_stream *s = http_client_stream(peer_conn, &peer_client_ops, NULL);
                struct http_head m;

                if (!s)
                        break;
                peer_begun++;
                http_head_init(&m, http_stream_arena(s));
                m.method = i ? STR("GET") : STR("POST");
                m.authority = STR("a");
                m.path = STR("/");
                http_send_head(s, &m, i);
        }
        peer_feed(l, fd, data + 1, n - 1, data[0] & 8 ? 7 + n / 64 : n);
        loop_free(l);
        return 0;
}
