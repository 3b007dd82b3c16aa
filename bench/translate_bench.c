/* What the controller's work costs: N ServiceEntries (one host each, ports 80 HTTP and 443 TLS, by DNS) into one sidecar's complete
 * configuration, then again after one of them changed, and for a second sidecar that sees the same. */
#include "base/clock.h"
#include "base/mem.h"
#include "translate/translate.h"

#include <stdio.h>
#include <stdlib.h>

static void set_entry(struct mesh *m, unsigned i, unsigned target)
{
        char text[512];
        struct arena a;
        struct diags d;
        struct pb_node **docs;
        size_t n;
        int len = snprintf(text, sizeof(text),
                           "{\"apiVersion\":\"networking.istio.io/"
                           "v1\",\"kind\":\"ServiceEntry\",\"metadata\":{\"name\":\"entry-%u\",\"namespace\":\"default\"},"
                           "\"spec\":{\"hosts\":[\"host-%u.example.com\"],\"resolution\":\"DNS\",\"ports\":[{\"number\":80,\"name\":"
                           "\"http\",\"protocol\":"
                           "\"HTTP\"},{\"number\":443,\"name\":\"tls\",\"protocol\":\"TLS\",\"targetPort\":%u}]}}",
                           i, i, target);

        arena_init(&a, 4096);
        diags_init(&d);
        if (!pb_parse_yaml(str_make(text, (size_t)len), STR("entry"), &a, &docs, &n, &d) || mesh_set(m, docs[0], &d) == MESH_REFUSED) {
                struct buf b = BUF_INIT;

                diags_format(&d, &b);
                fprintf(stderr, "%s\n", buf_z(&b));
                exit(1);
        }
        diags_fini(&d);
        arena_fini(&a);
}

static size_t bytes_of(const struct translate_config *c)
{
        size_t n = 0;

        for (int t = 0; t < TRANSLATE_TYPES; t++)
                for (size_t i = 0; i < c->of[t].n; i++)
                        n += c->of[t].v[i]->bytes.n;
        return n;
}

static double ms_since(uint64_t ns)
{
        return (double)(clock_mono_ns() - ns) / 1e6;
}

static void run(unsigned n)
{
        struct mesh *m = mesh_new();
        struct translator *t = translator_new();
        struct translate_proxy one = { .role = TRANSLATE_SIDECAR,
                                       .id = STR("curl.curl"),
                                       .ip = STR("10.244.0.8"),
                                       .ns = STR("curl"),
                                       .domain = STR("curl.svc.cluster.local"),
                                       .ipv4 = true },
                               two = one;
        struct mesh_snapshot *s;
        struct translate_config *c, *again;
        struct translator_stats before, after;
        double load, full, again_ms, other;
        uint64_t at = clock_mono_ns();

        two.id = STR("other.curl");
        two.ip = STR("10.244.0.9");
        for (unsigned i = 0; i < n; i++)
                set_entry(m, i, 443);
        load = ms_since(at);
        at = clock_mono_ns();
        s = mesh_snapshot(m);
        c = translate_build(t, s, &one, NULL);
        full = ms_since(at);
        mesh_snapshot_unref(s);
        set_entry(m, n / 2, 8443);
        translator_get_stats(t, &before);
        at = clock_mono_ns();
        s = mesh_snapshot(m);
        again = translate_build(t, s, &one, NULL);
        again_ms = ms_since(at);
        translator_get_stats(t, &after);
        at = clock_mono_ns();
        translate_config_unref(translate_build(t, s, &two, NULL));
        other = ms_since(at);
        printf("%6u entries: read %8.2f ms, translate %8.2f ms (%5.2f us an entry), %10zu bytes; one changed %7.2f ms (%llu parts made, "
               "%llu reused); "
               "a second proxy %6.2f ms\n",
               n, load, full, full * 1000 / n, bytes_of(c), again_ms, (unsigned long long)(after.parts_made - before.parts_made),
               (unsigned long long)(after.parts_reused - before.parts_reused), other);
        translate_config_unref(c);
        translate_config_unref(again);
        mesh_snapshot_unref(s);
        translator_free(t);
        mesh_free(m);
}

int main(int argc, char **argv)
{
        static const unsigned sizes[] = { 100, 1000, 10000 };

        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
                run(argc > 1 ? (unsigned)atoi(argv[1]) : sizes[i]);
        return 0;
}
