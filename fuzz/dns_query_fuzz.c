/* Bytes as a DNS query, over UDP and TCP; and as another server's answer to it. */
#include "node/dnsanswer.h"

#include <stdlib.h>

static enum dns_lookup lookup(void *arg, struct str name, enum dns_kind kind, struct dns_found *found)
{
        struct addr ip;

        (void)arg;
        if (name.n > DNS_NAME_MAX || name.p[name.n])
                abort();
        if (name.n % 3 == 2)
                return DNS_ELSEWHERE;
        found->ttl_s = 5;
        found->exists = name.n % 3 == 1;
        addr_parse_ip(&ip, STR("10.96.0.1"), 0);
        for (size_t i = 0; found->exists && i < name.n; i++)
                dns_found_add(found, kind, &ip, name, 53);
        return DNS_OURS;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static const struct dns_zone zone = { NULL, lookup, "cluster.local" };

        for (int tcp = 0; tcp < 2; tcp++) {
                struct buf out = BUF_INIT;
                enum dns_verdict v = dns_answer(p, n, &zone, tcp, &out);
                if ((v == DNS_ANSWER) != (out.n > 0) || (v == DNS_ANSWER && out.n < 12))
                        abort();
                if (v == DNS_ANSWER)
                        dns_same_question(p, n, out.p, out.n);
                buf_fini(&out);
        }
        dns_same_question(p, n / 2, p + n / 2, n - n / 2);
        return 0;
}
