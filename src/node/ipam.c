/* One line an address: "UID HOST-NUMBER". Numbers 0 to 4 are the network, the gateway and spare; the last is the broadcast address.
 * Addresses go round the range, so that a client which still talks to a pod that is gone does not soon meet another. */
#include "node/ipam.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

enum { IPAM_FIRST = 5, IPAM_FILE_MAX = 16 << 20 };

static uint32_t ipam_last(const struct ipam *m)
{
        return (0xffffffffu >> m->range.bits) - 1;
}

static void *host_box(uint32_t host)
{
        return (void *)(uintptr_t)host;
}

static bool ipam_load(struct ipam *m, struct str text)
{
        struct str line, uid, number;
        uint64_t host;

        while (str_next(&text, '\n', &line)) {
                if (!line.n)
                        continue;
                if (!str_next(&line, ' ', &uid) || !str_next(&line, ' ', &number) || !str_u64(number, &host) || host < IPAM_FIRST ||
                    host > ipam_last(m) || !uid.n)
                        return false;
                if (str_eqc(uid, "next"))
                        m->next = (uint32_t)host;
                else
                        strmap_set(&m->by_uid, uid, host_box((uint32_t)host));
        }
        return true;
}

bool ipam_init(struct ipam *m, const struct cidr *range, const char *path, struct buf *error)
{
        struct buf b = BUF_INIT;

        *m = (struct ipam){ .range = *range, .path = mem_strdup(path), .next = IPAM_FIRST };
        int err = buf_read_file(&b, path, IPAM_FILE_MAX);
        bool ok = err == -ENOENT || (err == 0 && ipam_load(m, buf_view(&b)));
        if (!ok) {
                buf_printf(error, "%s: %s; remove it when no pod runs", path,
                           err ? strerror(-err) : "is not a list of this range's addresses");
                ipam_fini(m);
        }
        buf_fini(&b);
        return ok;
}

void ipam_fini(struct ipam *m)
{
        strmap_fini(&m->by_uid);
        free(m->path);
        memset(m, 0, sizeof(*m));
}

static int ipam_save(const struct ipam *m)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, "next %u\n", m->next);
        STRMAP_EACH (&m->by_uid, e)
                buf_printf(&b, STR_FMT " %u\n", STR_ARG(e->key), (unsigned)(uintptr_t)e->value);
        int err = buf_write_file(&b, m->path, 0600);
        buf_fini(&b);
        return err;
}

static bool ipam_taken(const struct ipam *m, uint32_t host)
{
        STRMAP_EACH (&m->by_uid, e)
                if (e->value == host_box(host))
                        return true;
        return false;
}

int ipam_get(struct ipam *m, struct str uid, struct addr *ip)
{
        uint32_t host = (uint32_t)(uintptr_t)strmap_get(&m->by_uid, uid), span = ipam_last(m) - IPAM_FIRST + 1;

        if (!host) {
                uint32_t tried = 0;
                for (host = m->next; ipam_taken(m, host); host = host >= ipam_last(m) ? IPAM_FIRST : host + 1)
                        if (++tried >= span)
                                return -ENOSPC;
                m->next = host >= ipam_last(m) ? IPAM_FIRST : host + 1;
                strmap_set(&m->by_uid, uid, host_box(host));
                int err = ipam_save(m);
                if (err) {
                        strmap_del(&m->by_uid, uid);
                        return err;
                }
        }
        *ip = m->range.base;
        ip->v4.sin_addr.s_addr = htonl(ntohl(m->range.base.v4.sin_addr.s_addr) + host);
        return 0;
}

void ipam_free(struct ipam *m, struct str uid)
{
        if (strmap_del(&m->by_uid, uid))
                ipam_save(m);
}

void ipam_sweep(struct ipam *m, bool (*keep)(void *arg, struct str uid), void *arg)
{
        bool changed = false;

        for (size_t i = 0; i < m->by_uid.n; i++) {
                struct str uid = m->by_uid.e[i].key;
                if (!uid.p || keep(arg, uid))
                        continue;
                strmap_del(&m->by_uid, uid);
                changed = true;
        }
        if (changed)
                ipam_save(m);
}
