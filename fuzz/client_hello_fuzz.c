/* tls_hello_parse(): any bytes, whole and byte by byte; the verdict must not depend on how they arrived once it is final. */
#include "proxy/tls_inspector.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static unsigned char scratch[TLS_HELLO_MAX];
        static struct tls_hello a, b;
        enum tls_hello_result whole = tls_hello_parse(p, n, TLS_HELLO_MAX, scratch, &a), r = TLS_HELLO_MORE;

        if (n > 2048)
                return 0;
        for (size_t i = 0; i <= n && r == TLS_HELLO_MORE; i++) {
                uint8_t *copy = malloc(i ? i : 1); /* so that a read past the i-th byte is seen */

                if (i)
                        memcpy(copy, p, i);
                r = tls_hello_parse(copy, i, TLS_HELLO_MAX, scratch, &b);
                free(copy);
        }
        if (r == TLS_HELLO_OK &&
            (whole != TLS_HELLO_OK || a.sni_len != b.sni_len || memcmp(a.sni, b.sni, a.sni_len) != 0 || a.nalpn != b.nalpn))
                abort();
        return 0;
}
