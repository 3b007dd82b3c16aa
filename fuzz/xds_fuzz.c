/* What a control plane sends, and what a state file holds. The first byte chooses: a type of resource and a variant of response, or the
 * file. */
#include "base/log.h"
#include "pb/pb.h"
#include "xds/decode.h"

#include <stdio.h>
#include <unistd.h>

static void apply(void *arg, struct xds_update *u, struct diags *d)
{
        for (size_t i = 0; i < u->n; i++)
                if (!u->v[i].msg || !u->v[i].name.n)
                        __builtin_trap();
}

static const struct xds_sink sink = { .apply = apply };

static void response(uint8_t how, struct str bytes)
{
        struct xds_stats stats = { 0 };
        struct xds_update u;
        struct arena a;
        struct diags d;
        struct buf text = BUF_INIT;
        enum xds_type t = how % XDS_TYPES;
        bool delta = how & 64, ok = false;

        arena_init(&a, 0);
        diags_init(&d);
        const ProtobufCMessage *m = pb_unpack(delta ? &xds__delta_discovery_response__descriptor : &xds__discovery_response__descriptor,
                                              bytes.p, bytes.n, &a, NULL);
        if (m)
                ok = delta ? xds_decode_delta((const void *)m, t, &a, &u, &d) : xds_decode((const void *)m, t, &a, &u, &d);
        if (ok && xds_deliver(&sink, &u, &stats, &d) != (d.errors == 0))
                __builtin_trap();
        if (m && !ok && !d.errors)
                __builtin_trap();
        xds_errors_text(&d, &text);
        buf_fini(&text);
        xds_stats_fini(&stats);
        diags_fini(&d);
        arena_fini(&a);
}

static void state_file(struct str bytes)
{
        char path[64];
        Xds__Node node = XDS__NODE__INIT;
        struct buf b = BUF_INIT;
        struct loop *l = loop_new();

        snprintf(path, sizeof(path), "/dev/shm/postern-fuzz-%d", getpid());
        node.id = "n";
        /* A right head and checksum, so that the rest is looked at. */
        buf_cstr(&b, "postern-xds-state 1 n\n");
        buf_str(&b, bytes);
        uint64_t sum = hash_bytes(b.p, b.n, 0x706f7374);
        for (unsigned i = 0; i < 8; i++)
                buf_char(&b, (char)(sum >> (8 * i)));
        buf_write_file(&b, path, 0600);
        buf_fini(&b);
        struct xds_client *c = xds_client_new(l, &(struct xds_client_opts){ .node = &node, .state_path = str_of(path) }, &sink);
        xds_client_want(c, XDS_CDS, STR(""), 0);
        xds_client_want(c, XDS_RDS, STR("r"), 0);
        loop_turn(l, 0);
        xds_client_free(c);
        loop_free(l);
        unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        if (n == 0)
                return 0;
        log_set_level(LOG_OFF);
        struct str rest = str_make((const char *)p + 1, n - 1);
        if (p[0] & 128)
                state_file(rest);
        else
                response(p[0], rest);
        return 0;
}
