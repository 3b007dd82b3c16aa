/* Addresses and prefixes as text: what is taken must print as something that is taken again and is equal. */
#include "net/addr.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct str s = str_make((const char *)p, n);
        char text[ADDR_TEXT_MAX];
        struct addr a, b;
        struct cidr c, d;

        if (addr_parse(&a, s)) {
                char again[ADDR_TEXT_MAX + 8];
                size_t k = addr_text(&a, text);

                snprintf(again, sizeof(again), "%s%s", a.sa.sa_family == AF_UNIX ? "unix:" : "", text);
                if (k >= ADDR_TEXT_MAX || k != strlen(text) || !addr_parse(&b, str_of(again)) || !addr_eq(&a, &b) ||
                    addr_hash(&a) != addr_hash(&b))
                        abort();
        }
        if (cidr_parse(&c, s)) {
                if (!cidr_has(&c, &c.base) || !cidr_overlaps(&c, &c))
                        abort();
                addr_ip_text(&c.base, text);
                if (c.base.sa.sa_family == AF_INET && (!cidr_make(&d, str_of(text), c.bits) || !cidr_has(&d, &c.base)))
                        abort();
        }
        return 0;
}
