/* The last known good on disk: a line that says what it is and for whom, then for each type a length and a DeltaDiscoveryResponse (names,
 * versions, contents), then a checksum. Anything unexpected makes it no file at all: the control plane will tell. */
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "xds/client.h"

#include <errno.h>
#include <stdlib.h>

#define MAGIC "postern-xds-state 1 "

enum { FILE_MAX_BYTES = 256 << 20, SAVE_DELAY_MS = 100, SAVE_RETRY_MS = 10000, CHECK_SEED = 0x706f7374 };

static struct str node_id(const struct xds_client *c)
{
        return str_of(c->node && c->node->id ? c->node->id : "");
}

static void put_u32(struct buf *b, uint32_t v)
{
        const char le[4] = { (char)v, (char)(v >> 8), (char)(v >> 16), (char)(v >> 24) };

        buf_append(b, le, 4);
}

static uint32_t get_u32(const char *p)
{
        const uint8_t *u = (const uint8_t *)p;

        return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static uint64_t checksum(struct str s)
{
        return hash_bytes(s.p, s.n, CHECK_SEED);
}

static void put_type(struct xds_client *c, enum xds_type t, struct buf *out)
{
        struct client_type *ty = &c->type[t];
        Xds__DeltaDiscoveryResponse r = XDS__DELTA_DISCOVERY_RESPONSE__INIT;
        struct buf b = BUF_INIT;
        struct arena a;

        arena_init(&a, 65536);
        r.type_url = (char *)xds_type_url(t);
        r.system_version_info = ty->version;
        r.resources = arena_alloc(&a, (ty->held.live + 1) * sizeof(*r.resources));
        STRMAP_EACH (&ty->held, it) {
                const struct held *h = it->value;
                Xds__Resource *x = arena_alloc(&a, sizeof(*x));
                Gp__Any *any = arena_alloc(&a, sizeof(*any));

                xds__resource__init(x);
                gp__any__init(any);
                x->name = (char *)it->key.p;
                x->version = arena_cstr(&a, h->version);
                x->resource = any;
                any->type_url = r.type_url;
                any->has_value = true;
                any->value = (ProtobufCBinaryData){ h->value.n, (uint8_t *)h->value.p };
                r.resources[r.n_resources++] = x;
        }
        pb_pack(&r.base, &b);
        put_u32(out, (uint32_t)b.n);
        buf_str(out, buf_view(&b));
        buf_fini(&b);
        arena_fini(&a);
}

static void save(struct xds_client *c)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, MAGIC STR_FMT "\n", STR_ARG(node_id(c)));
        for (int t = 0; t < XDS_TYPES; t++)
                if (t != XDS_SDS) /* private keys do not belong on disk */
                        put_type(c, t, &b);
        uint64_t sum = checksum(buf_view(&b));
        put_u32(&b, (uint32_t)sum);
        put_u32(&b, (uint32_t)(sum >> 32));
        int r = b.n <= FILE_MAX_BYTES ? buf_write_file(&b, c->state_path, 0600) : -EFBIG;
        buf_fini(&b);
        if (r == 0)
                return;
        LOG(LOG_WARN, "xds", "%s cannot be written: %s; a restart now would start without the present configuration", c->state_path,
            strerror(-r));
        loop_timer_arm(c->loop, &c->save, SAVE_RETRY_MS);
}

static void on_save(struct loop_timer *t)
{
        save(t->arg);
}

void client_state_changed(struct xds_client *c)
{
        if (c->state_path && !loop_timer_armed(&c->save))
                loop_timer_arm(c->loop, &c->save, SAVE_DELAY_MS);
}

static void take_type(struct xds_client *c, const Xds__DeltaDiscoveryResponse *r)
{
        int t = xds_type_of(str_of(r->type_url ? r->type_url : ""));

        if (t < 0)
                return;
        /* Told to a delta server, resource by resource; a whole version could hide that less is held than it had. */
        for (size_t i = 0; i < r->n_resources; i++) {
                const Xds__Resource *x = r->resources[i];

                if (x->name && *x->name && x->resource)
                        client_hold(c, t, str_of(x->name), str_of(x->version ? x->version : ""),
                                    str_make((const char *)x->resource->value.data, x->resource->value.len), true);
        }
}

static bool parse(struct xds_client *c, struct str s)
{
        struct str head;
        char want[8];
        bool ok = true;

        if (s.n < 8 || !str_starts(s, STR(MAGIC)))
                return false;
        uint64_t sum = checksum(str_sub(s, 0, s.n - 8));
        for (unsigned i = 0; i < 8; i++)
                want[i] = (char)(sum >> (8 * i));
        if (memcmp(want, s.p + s.n - 8, 8) != 0)
                return false;
        s.n -= 8;
        if (!str_next(&s, '\n', &head) || !str_eq(str_sub(head, sizeof(MAGIC) - 1, head.n), node_id(c)))
                return false;
        while (ok && s.p && s.n) {
                struct arena a;

                arena_init(&a, 65536);
                uint32_t n = s.n >= 4 ? get_u32(s.p) : UINT32_MAX;
                const ProtobufCMessage *m = s.n >= 4 && n <= s.n - 4
                                                    ? pb_unpack(&xds__delta_discovery_response__descriptor, s.p + 4, n, &a, NULL)
                                                    : NULL;
                ok = m != NULL;
                if (ok) {
                        take_type(c, (const Xds__DeltaDiscoveryResponse *)m);
                        s = str_sub(s, 4 + (size_t)n, s.n);
                }
                arena_fini(&a);
        }
        return ok;
}

void client_state_load(struct xds_client *c)
{
        struct buf b = BUF_INIT;

        c->save = (struct loop_timer){ .fn = on_save, .arg = c };
        if (!c->state_path)
                return;
        int r = buf_read_file(&b, c->state_path, FILE_MAX_BYTES);
        if (r < 0 && r != -ENOENT)
                LOG(LOG_WARN, "xds", "%s cannot be read: %s", c->state_path, strerror(-r));
        else if (r == 0 && !parse(c, buf_view(&b)))
                LOG(LOG_WARN, "xds", "%s is damaged or another node's, and not used", c->state_path);
        buf_fini(&b);
}

/* What waits to be written is written. */
void client_state_fini(struct xds_client *c)
{
        if (c->state_path && loop_timer_armed(&c->save))
                save(c);
        loop_timer_stop(c->loop, &c->save);
        free(c->state_path);
}
