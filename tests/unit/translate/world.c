#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char base[] =
        "apiVersion: v1\n"
        "kind: Service\n"
        "metadata: {name: curl, namespace: curl}\n"
        "spec:\n"
        "  clusterIP: 10.96.0.30\n"
        "  selector: {app: curl}\n"
        "  ports: [{name: http, port: 80}]\n"
        "---\n"
        "apiVersion: v1\n"
        "kind: Service\n"
        "metadata: {name: istio-egressgateway, namespace: istio-system}\n"
        "spec:\n"
        "  clusterIP: 10.96.0.20\n"
        "  selector: {istio: egressgateway}\n"
        "  ports:\n"
        "  - {name: http2, port: 80, targetPort: 8080}\n"
        "  - {name: https, port: 443, targetPort: 8443}\n"
        "---\n"
        "apiVersion: v1\n"
        "kind: Pod\n"
        "metadata:\n"
        "  name: curl\n"
        "  namespace: curl\n"
        "  labels: {app: curl, version: v1, security.istio.io/tlsMode: istio}\n"
        "spec: {serviceAccountName: curl}\n"
        "status: {podIP: 10.244.0.8}\n"
        "---\n"
        "apiVersion: v1\n"
        "kind: Pod\n"
        "metadata:\n"
        "  name: istio-egressgateway-1\n"
        "  namespace: istio-system\n"
        "  labels: {app: istio-egressgateway, istio: egressgateway}\n"
        "status: {podIP: 10.244.0.6}\n"
        "---\n"
        "apiVersion: discovery.k8s.io/v1\n"
        "kind: EndpointSlice\n"
        "metadata: {name: curl-1, namespace: curl, labels: {kubernetes.io/service-name: curl}}\n"
        "addressType: IPv4\n"
        "ports: [{name: http, port: 80}]\n"
        "endpoints: [{addresses: [10.244.0.8], conditions: {ready: true}, targetRef: {kind: Pod, name: curl}}]\n"
        "---\n"
        "apiVersion: discovery.k8s.io/v1\n"
        "kind: EndpointSlice\n"
        "metadata: {name: istio-egressgateway-1, namespace: istio-system, labels: {kubernetes.io/service-name: istio-egressgateway}}\n"
        "addressType: IPv4\n"
        "ports: [{name: http2, port: 8080}, {name: https, port: 8443}]\n"
        "endpoints: [{addresses: [10.244.0.6], targetRef: {kind: Pod, name: istio-egressgateway-1}}]\n";

static const char mesh_config[] = "apiVersion: v1\n"
                                  "kind: ConfigMap\n"
                                  "metadata: {name: istio, namespace: istio-system}\n"
                                  "data:\n"
                                  "  mesh: |\n"
                                  "    accessLogFile: /dev/stdout\n"
                                  "    outboundTrafficPolicy: {mode: %s}\n";

static void proxy(struct world *w, struct translate_proxy *p, const char *id, const char *ns, const char *label, const char *value)
{
        Xds__Node node = XDS__NODE__INIT;
        struct mesh_label *l = ARENA_NEW(&w->arena, struct mesh_label);

        node.id = (char *)id;
        assert_true(translate_proxy_parse(&node, &w->arena, p, &w->diags));
        assert_true(str_eqc(p->ns, ns));
        *l = (struct mesh_label){ str_of(label), str_of(value) };
        p->labels = (struct mesh_labels){ l, 1 };
}

void world_apply(struct world *w, const char *yaml)
{
        struct pb_node **docs;
        size_t n;
        bool ok = pb_parse_yaml(str_of(yaml), STR("test.yaml"), &w->arena, &docs, &n, &w->diags);

        for (size_t i = 0; ok && i < n; i++)
                ok = mesh_set(w->mesh, docs[i], &w->diags) != MESH_REFUSED;
        if (!ok) {
                struct buf b = BUF_INIT;

                diags_format(&w->diags, &b);
                fail_msg("%s", buf_z(&b));
        }
}

void world_init(struct world *w, bool allow_any)
{
        char text[sizeof(mesh_config) + 32];

        memset(w, 0, sizeof(*w));
        arena_init(&w->arena, 65536);
        diags_init(&w->diags);
        w->mesh = mesh_new();
        w->translator = translator_new();
        snprintf(text, sizeof(text), mesh_config, allow_any ? "ALLOW_ANY" : "REGISTRY_ONLY");
        world_apply(w, text);
        world_apply(w, base);
        proxy(w, &w->sidecar, "sidecar~10.244.0.8~curl.curl~curl.svc.cluster.local", "curl", "app", "curl");
        proxy(w, &w->gateway, "router~10.244.0.6~istio-egressgateway-1.istio-system~istio-system.svc.cluster.local", "istio-system",
              "istio", "egressgateway");
}

void world_fini(struct world *w)
{
        translator_free(w->translator);
        mesh_snapshot_unref(w->snap);
        mesh_free(w->mesh);
        diags_fini(&w->diags);
        arena_fini(&w->arena);
}

struct translate_config *world_build(struct world *w, const struct translate_proxy *p)
{
        mesh_snapshot_unref(w->snap);
        w->snap = mesh_snapshot(w->mesh);
        return translate_build(w->translator, w->snap, p, &w->diags);
}

ProtobufCMessage *world_get(struct world *w, const struct translate_config *c, enum translate_type type, const char *name)
{
        struct translate_resource *r = translate_find(c, type, str_of(name));
        ProtobufCMessage *m;

        if (!r)
                return NULL;
        m = pb_unpack(pb_type_url(str_of(translate_type_url[type])), r->bytes.p, r->bytes.n, &w->arena, &w->diags);
        assert_non_null(m);
        return m;
}
