/* An HTTP/1.1 (or detecting) server connection that echoes, against any bytes. */
#include "http_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct loop *l;
        int fd;

        if (n < 2 || n > 65536)
                return 0;
        l = loop_new();
        struct http_opts o = { .max_head_bytes = 8192, .accept_http_10 = data[0] & 1, .absolute_url = data[0] & 2 };
        struct conn *io = peer_open(l, &fd);

        peer_conn = data[0] & 4 ? http_server_auto(io, &o, &peer_ops, NULL, NULL) : http_server_h1(io, &o, &peer_ops, NULL, NULL);
        peer_feed(l, fd, data + 1, n - 1, data[0] & 8 ? 7 + n / 64 : n);
        loop_free(l);
        return 0;
}
