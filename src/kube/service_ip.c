/* Cluster addresses of Services. The Services themselves are the record of what is taken: nothing to keep in step. */
#include "kube/api.h"

#include "net/addr.h"

#include <arpa/inet.h>

static bool parse(struct str ip, uint32_t *out)
{
        struct addr a;

        if (!addr_parse_ip(&a, ip, 0) || a.sa.sa_family != AF_INET)
                return false;
        *out = ntohl(a.v4.sin_addr.s_addr);
        return true;
}

bool kube_service_ip_in_range(struct kube_api *api, struct str ip)
{
        uint32_t v;

        /* Neither the network's own address nor its broadcast. */
        return parse(ip, &v) && (v & api->service_mask) == api->service_base && v != api->service_base &&
               v != (api->service_base | ~api->service_mask);
}

bool kube_service_ip_free(struct kube_api *api, struct str ip, struct str ns, struct str name)
{
        struct kobj *const *v;
        size_t n = kube_store_range(api->store, kube_b.services, (struct str){ NULL, 0 }, &v);

        for (size_t i = 0; i < n; i++)
                if (str_eq(pb_get_str(v[i]->node, "spec.clusterIP", STR("")), ip) && !(str_eq(v[i]->ns, ns) && str_eq(v[i]->name, name)))
                        return false;
        return true;
}

/* Random, as in Kubernetes, so that an address is not reused at once; the first 256 are left to those who ask for one by name. */
struct str kube_service_ip_allocate(struct kube_api *api, struct arena *a)
{
        uint32_t size = ~api->service_mask, skip = size > 1024 ? 256 : 1;
        uint32_t start = (uint32_t)(rand_u64() % (size - skip));

        for (uint32_t i = 0; i < size - skip; i++) {
                uint32_t v = api->service_base + skip + (start + i) % (size - skip);
                struct str ip = arena_printf(a, "%u.%u.%u.%u", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);

                if (kube_service_ip_free(api, ip, STR(""), STR("")))
                        return ip;
        }
        return STR("");
}
