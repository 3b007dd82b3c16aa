/* An HTTP/2 server session that echoes, against any frames behind a good preface. */
#include "http_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
        struct chain first = CHAIN_INIT;
        struct loop *l;
        int fd;

        if (n < 2 || n > 65536)
                return 0;
        l = loop_new();
        struct http_opts o = { .max_head_bytes = 8192, .h2_max_streams = 20, .h2_connect_protocol = data[0] & 1 };

        chain_append(&first, preface, sizeof(preface) - 1);
        peer_conn = http_server_h2(peer_open(l, &fd), &o, &peer_ops, NULL, &first);
        peer_feed(l, fd, data + 1, n - 1, data[0] & 8 ? 7 + n / 64 : n);
        loop_free(l);
        return 0;
}
