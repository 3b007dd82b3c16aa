/* Our output beside that of a real istiod for the same input: listener by listener, route by route, cluster by cluster, endpoint by
 * endpoint. Every difference that is meant is in the table below with its reason; any other fails the test.
 *
 * The reference is a folder of facts beside the source tree ($POSTERN_REFERENCE, else ../shared/reference); without it the test is skipped.
 */
#include "world.h"

#include "envoy/cluster.pb-c.h"
#include "envoy/listener.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char service_entry[] = "apiVersion: networking.istio.io/v1alpha3\n"
                                    "kind: ServiceEntry\n"
                                    "metadata: {name: httpbin-with-egress, namespace: default}\n"
                                    "spec:\n"
                                    "  hosts: [httpbin.org]\n"
                                    "  ports:\n"
                                    "  - {number: 80, name: http-port, protocol: HTTP}\n"
                                    "  - {number: 443, name: tls, protocol: TLS}\n"
                                    "  resolution: DNS\n";

static const char http[] = "apiVersion: networking.istio.io/v1alpha3\n"
                           "kind: Gateway\n"
                           "metadata: {name: istio-egressgateway, namespace: default}\n"
                           "spec:\n"
                           "  selector: {istio: egressgateway}\n"
                           "  servers:\n"
                           "  - port: {number: 80, name: http, protocol: HTTP}\n"
                           "    hosts: [httpbin.org]\n"
                           "---\n"
                           "apiVersion: networking.istio.io/v1alpha3\n"
                           "kind: VirtualService\n"
                           "metadata: {name: direct-httpbin-through-egress-gateway, namespace: default}\n"
                           "spec:\n"
                           "  hosts: [httpbin.org]\n"
                           "  gateways: [istio-egressgateway, mesh]\n"
                           "  http:\n"
                           "  - match: [{gateways: [mesh], port: 80}]\n"
                           "    route:\n"
                           "    - destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}\n"
                           "      weight: 100\n"
                           "  - match: [{gateways: [istio-egressgateway], port: 80}]\n"
                           "    route:\n"
                           "    - destination: {host: httpbin.org, port: {number: 80}}\n"
                           "      weight: 100\n";

static const char passthrough[] = "apiVersion: networking.istio.io/v1alpha3\n"
                                  "kind: Gateway\n"
                                  "metadata: {name: istio-egressgateway, namespace: default}\n"
                                  "spec:\n"
                                  "  selector: {istio: egressgateway}\n"
                                  "  servers:\n"
                                  "  - port: {number: 443, name: tls, protocol: TLS}\n"
                                  "    hosts: [httpbin.org]\n"
                                  "    tls: {mode: PASSTHROUGH}\n"
                                  "---\n"
                                  "apiVersion: networking.istio.io/v1alpha3\n"
                                  "kind: VirtualService\n"
                                  "metadata: {name: direct-httpbin-through-egress-gateway, namespace: default}\n"
                                  "spec:\n"
                                  "  hosts: [httpbin.org]\n"
                                  "  gateways: [mesh, istio-egressgateway]\n"
                                  "  tls:\n"
                                  "  - match: [{gateways: [mesh], port: 443, sniHosts: [httpbin.org]}]\n"
                                  "    route:\n"
                                  "    - destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 443}}\n"
                                  "  - match: [{gateways: [istio-egressgateway], port: 443, sniHosts: [httpbin.org]}]\n"
                                  "    route:\n"
                                  "    - destination: {host: httpbin.org, port: {number: 443}}\n"
                                  "      weight: 100\n";

static const struct {
        const char *name;
        bool allow_any;
        const char *yaml[2];
} scenarios[] = {
        { "0-registry-only", false, { NULL } },
        { "0-allow-any", true, { NULL } },
        { "1-service-entry", false, { service_entry } },
        { "2-http", false, { service_entry, http } },
        { "3-passthrough", false, { service_entry, passthrough } },
};

/* What differs on purpose: which fields, and why. Applied to ours (false) or to the reference (true) before the comparison. */
static void drop_transport_sockets(ProtobufCMessage *m);
static void drop_tls_chains(ProtobufCMessage *m);
static void drop_reasons(ProtobufCMessage *m);

static const struct {
        bool reference;
        const char *what, *why;
        void (*drop)(ProtobufCMessage *m);
} intended[] = {
        { true, "Cluster.transport_socket_matches", "the mesh's own TLS waits for workload certificates", drop_transport_sockets },
        { true, "Listener.filter_chains[] with a transport_socket", "so do the inbound chains that terminate it", drop_tls_chains },
        { false, "metadata.filter_metadata.postern", "ours says why a connection or a request goes nowhere; a stock Envoy ignores it",
          drop_reasons },
};

static char *root;

static const struct {
        const char *file;
        enum translate_type type;
} files[] = {
        { "clusters.json", TRANSLATE_CLUSTERS },
        { "endpoints.json", TRANSLATE_ENDPOINTS },
        { "listeners.json", TRANSLATE_LISTENERS },
        { "routes.json", TRANSLATE_ROUTES },
};

/* --- Normal form --------------------------------------------------------------------------------------------------------------------- */

static void each_message(ProtobufCMessage *m, void (*fn)(ProtobufCMessage *m))
{
        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
                char *at = (char *)m + f->offset, *quantifier = (char *)m + f->quantifier_offset;

                if (f->type != PROTOBUF_C_TYPE_MESSAGE)
                        continue;
                if (f->label == PROTOBUF_C_LABEL_REPEATED) {
                        for (size_t k = 0; k < *(size_t *)quantifier; k++)
                                fn((*(ProtobufCMessage ***)at)[k]);
                } else if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF ? *(uint32_t *)quantifier == f->id : *(void **)at != NULL) {
                        fn(*(ProtobufCMessage **)at);
                }
        }
}

static struct world *any_world; /* whose arena the content of an Any goes to */

static void in_any(Gp__Any *any, void (*fn)(ProtobufCMessage *m))
{
        struct buf b = BUF_INIT;
        ProtobufCMessage *m = pb_unpack_any(str_of(any->type_url), str_make((char *)any->value.data, any->value.len), &any_world->arena,
                                            NULL, &any_world->diags);

        assert_non_null(m);
        fn(m);
        pb_pack(m, &b);
        any->value.len = b.n;
        any->value.data = arena_dup(&any_world->arena, b.p, b.n);
        buf_fini(&b);
}

/* Istiod's messages are proto3: on the wire, a scalar of value zero is not there; written as JSON, some are. */
static void drop_zeros(ProtobufCMessage *m)
{
        if (m->descriptor == &gp__any__descriptor) {
                in_any((Gp__Any *)m, drop_zeros);
                return;
        }
        each_message(m, drop_zeros);
        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
                char *at = (char *)m + f->offset;
                protobuf_c_boolean *has = (protobuf_c_boolean *)((char *)m + f->quantifier_offset);
                static const char zero[8];
                size_t size = f->type == PROTOBUF_C_TYPE_BOOL ? sizeof(protobuf_c_boolean)
                              : f->type == PROTOBUF_C_TYPE_INT32 || f->type == PROTOBUF_C_TYPE_UINT32 || f->type == PROTOBUF_C_TYPE_ENUM
                                      ? 4
                                      : 8;

                if (f->label == PROTOBUF_C_LABEL_REPEATED || f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF || f->type == PROTOBUF_C_TYPE_MESSAGE ||
                    f->type == PROTOBUF_C_TYPE_BYTES)
                        continue;
                if (f->type == PROTOBUF_C_TYPE_STRING) {
                        if (*(char **)at && !**(char **)at)
                                *(char **)at = NULL;
                } else if (memcmp(at, zero, size) == 0) {
                        *has = 0;
                }
        }
}

static void drop_transport_sockets(ProtobufCMessage *m)
{
        if (m->descriptor == &xds__cluster__descriptor)
                ((Xds__Cluster *)m)->n_transport_socket_matches = 0;
}

static void drop_tls_chains(ProtobufCMessage *m)
{
        Xds__Listener *l = (Xds__Listener *)m;
        size_t n = 0;

        if (m->descriptor != &xds__listener__descriptor)
                return;
        for (size_t i = 0; i < l->n_filter_chains; i++)
                if (!l->filter_chains[i]->transport_socket)
                        l->filter_chains[n++] = l->filter_chains[i];
        l->n_filter_chains = n;
}

static void drop_reasons(ProtobufCMessage *m)
{
        each_message(m, drop_reasons);
        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
                Xds__Metadata **at = (Xds__Metadata **)((char *)m + f->offset), *md;

                if (f->descriptor != &xds__metadata__descriptor || f->label == PROTOBUF_C_LABEL_REPEATED || !*at)
                        continue;
                md = *at;
                if (md->n_filter_metadata && strcmp(md->filter_metadata[md->n_filter_metadata - 1]->key, "postern") == 0)
                        md->n_filter_metadata--; /* sorted: it is the last */
                if (!md->n_filter_metadata)
                        *at = NULL;
        }
}

/* --- Comparison ------------------------------------------------------------------------------------------------------------------------
 */

struct report {
        const char *where;
        size_t unexpected;
        struct buf text;
};

static void on_difference(void *arg, struct str path)
{
        struct report *r = arg;

        r->unexpected++;
        buf_printf(&r->text, "%s: " STR_FMT "\n", r->where, STR_ARG(path));
}

static struct pb_node *read_reference(struct world *w, const char *scenario, const char *who, const char *file)
{
        char path[1024];
        struct buf b = BUF_INIT;
        struct pb_node *list;

        snprintf(path, sizeof(path), "%s/istiod/%s/%s/%s", root, scenario, who, file);
        assert_int_equal(buf_read_file(&b, path, 1 << 24), 0);
        assert_true(pb_parse_json(arena_str(&w->arena, buf_view(&b)), str_of(file), &w->arena, &list, &w->diags));
        buf_fini(&b);
        return list;
}

static ProtobufCMessage *from_reference(struct world *w, enum translate_type type, const struct pb_node *n)
{
        struct diag_at at = { 0 };
        ProtobufCMessage *m = pb_from_node(pb_type_url(str_of(translate_type_url[type])), n, 0, &at, &w->arena, &w->diags);

        if (!m) {
                struct buf b = BUF_INIT;

                diags_format(&w->diags, &b);
                fail_msg("reference: %s", buf_z(&b));
        }
        return m;
}

static void compare(struct world *w, const struct translate_config *c, enum translate_type type, const struct pb_node *list,
                    struct report *r)
{
        char where[512];
        const char *prefix = r->where;

        for (size_t i = 0; i < list->n; i++) {
                struct str name = pb_get_str(list->v[i], type == TRANSLATE_ENDPOINTS ? "clusterName" : "name", STR(""));
                ProtobufCMessage *want = from_reference(w, type, list->v[i]), *have = world_get(w, c, type, arena_cstr(&w->arena, name));

                snprintf(where, sizeof(where), "%s " STR_FMT, prefix, STR_ARG(name));
                r->where = where;
                if (!have) {
                        on_difference(r, STR("(not there)"));
                        continue;
                }
                for (size_t k = 0; k < sizeof(intended) / sizeof(intended[0]); k++)
                        intended[k].drop(intended[k].reference ? want : have);
                drop_zeros(want);
                drop_zeros(have);
                pb_diff(want, have, on_difference, r);
        }
        for (size_t i = 0; i < c->of[type].n; i++) {
                bool found = false;

                for (size_t j = 0; j < list->n; j++)
                        found |= str_eq(c->of[type].v[i]->name,
                                        pb_get_str(list->v[j], type == TRANSLATE_ENDPOINTS ? "clusterName" : "name", STR("")));
                if (found)
                        continue;
                snprintf(where, sizeof(where), "%s " STR_FMT, prefix, STR_ARG(c->of[type].v[i]->name));
                r->where = where;
                on_difference(r, STR("(not in the reference)"));
        }
        r->where = prefix;
}

static void test_scenario(void **state)
{
        size_t index = (size_t)(uintptr_t)*state;
        struct report r = { .text = BUF_INIT };
        struct world w;

        if (!root)
                skip();
        any_world = &w;
        world_init(&w, scenarios[index].allow_any);
        for (size_t i = 0; i < 2 && scenarios[index].yaml[i]; i++)
                world_apply(&w, scenarios[index].yaml[i]);
        for (int who = 0; who < 2; who++) {
                struct translate_config *c = world_build(&w, who ? &w.gateway : &w.sidecar);

                for (size_t f = 0; f < sizeof(files) / sizeof(files[0]); f++) {
                        char where[256];

                        snprintf(where, sizeof(where), "%s/%s/%s", scenarios[index].name, who ? "egressgateway" : "sidecar", files[f].file);
                        r.where = where;
                        compare(&w, c, files[f].type,
                                read_reference(&w, scenarios[index].name, who ? "egressgateway" : "sidecar", files[f].file), &r);
                }
                translate_config_unref(c);
        }
        if (r.unexpected) {
                fprintf(stderr, "%s", buf_z(&r.text));
                fail_msg("%zu differences that are not in the table", r.unexpected);
        }
        buf_fini(&r.text);
        world_fini(&w);
}

/* The schema holds every field that a real istiod uses, later scenarios included: nothing is unknown, and what is read is written again. */
static void test_schema(void **state)
{
        static const char *const all[] = { "0-registry-only",
                                           "0-allow-any",
                                           "1-service-entry",
                                           "2-http",
                                           "3-passthrough",
                                           "4-tls-origination-as-written",
                                           "4-tls-origination-fixed-protocol-only",
                                           "4-tls-origination-fixed",
                                           "5-mtls-origination" };
        struct world w;

        any_world = &w;
        world_init(&w, false);
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) * 2; i++) {
                for (size_t f = 0; f < sizeof(files) / sizeof(files[0]); f++) {
                        const struct pb_node *list = read_reference(&w, all[i / 2], i % 2 ? "egressgateway" : "sidecar", files[f].file);

                        for (size_t k = 0; k < list->n; k++) {
                                ProtobufCMessage *m = from_reference(&w, files[f].type, list->v[k]), *again;
                                struct buf b = BUF_INIT;

                                pb_pack(m, &b);
                                again = pb_unpack(m->descriptor, b.p, b.n, &w.arena, &w.diags);
                                assert_non_null(again);
                                assert_true(pb_equal(m, again));
                                assert_true(pb_node_eq(list->v[k], pb_to_node(again, &w.arena)));
                                buf_fini(&b);
                        }
                }
        }
        assert_int_equal(w.diags.n, 0);
        world_fini(&w);
}

int main(void)
{
        struct CMUnitTest tests[sizeof(scenarios) / sizeof(scenarios[0]) + 1] = { 0 };
        const char *env = getenv("POSTERN_REFERENCE");
        char path[1024];
        struct buf b = BUF_INIT;

        snprintf(path, sizeof(path), "%s", env ? env : SOURCE_ROOT "/../shared/reference");
        root = path;
        snprintf(path + strlen(path), sizeof(path) - strlen(path), "/README.md");
        if (buf_read_file(&b, path, 1 << 20) != 0) {
                fprintf(stderr, "skipped: no reference (%s); set POSTERN_REFERENCE to where it is\n", path);
                return 77;
        }
        buf_fini(&b);
        path[strlen(path) - strlen("/README.md")] = 0;
        tests[sizeof(scenarios) / sizeof(scenarios[0])].name = "schema";
        tests[sizeof(scenarios) / sizeof(scenarios[0])].test_func = test_schema;
        for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
                tests[i].name = scenarios[i].name;
                tests[i].test_func = test_scenario;
                tests[i].initial_state = (void *)(uintptr_t)i;
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
