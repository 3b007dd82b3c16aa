/* What the server offers: the plain discovery documents of every client, the aggregated ones of newer kubectls, versions and health. */
#include "kube/api.h"

#include "base/mem.h"

static const struct {
        const char *name;
        unsigned sub;
        const char *verbs;
        const char *group, *version, *kind; /* of what it takes and gives; NULL: the parent's */
} subs[] = {
        { "status", KUBE_SUB_STATUS, "get patch update", NULL, NULL, NULL },
        { "scale", KUBE_SUB_SCALE, "get patch update", "autoscaling", "v1", "Scale" },
        { "finalize", KUBE_SUB_FINALIZE, "update", NULL, NULL, NULL },
        { "token", KUBE_SUB_TOKEN, "create", "authentication.k8s.io", "v1", "TokenRequest" },
        { "attach", KUBE_SUB_POD, "create get", "", "v1", "PodAttachOptions" },
        { "eviction", KUBE_SUB_POD, "create", "policy", "v1", "Eviction" },
        { "exec", KUBE_SUB_POD, "create get", "", "v1", "PodExecOptions" },
        { "log", KUBE_SUB_POD, "get", NULL, NULL, NULL },
        { "portforward", KUBE_SUB_POD, "create get", "", "v1", "PodPortForwardOptions" },
};

static void words(struct buf *b, const char *text)
{
        struct str rest = str_of(text), part;

        buf_char(b, '[');
        for (bool first = true; str_next(&rest, ' ', &part); first = false) {
                if (!part.n)
                        break;
                buf_printf(b, "%s\"" STR_FMT "\"", first ? "" : ",", STR_ARG(part));
        }
        buf_char(b, ']');
}

static void verbs(struct buf *b, unsigned v)
{
        static const struct {
                unsigned bit;
                const char *name;
        } names[] = { { KUBE_CREATE, "create" }, { KUBE_DELETE, "delete" }, { KUBE_DELETE_COLLECTION, "deletecollection" },
                      { KUBE_GET, "get" },       { KUBE_LIST, "list" },     { KUBE_PATCH, "patch" },
                      { KUBE_UPDATE, "update" }, { KUBE_WATCH, "watch" } };
        bool first = true;

        buf_char(b, '[');
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
                if (v & names[i].bit) {
                        buf_printf(b, "%s\"%s\"", first ? "" : ",", names[i].name);
                        first = false;
                }
        buf_char(b, ']');
}

/* ---- plain ---- */

static void resource_list(struct kube_req *r, struct str group, struct str version)
{
        struct buf *b = &r->out;
        bool first = true;

        buf_printf(b, "{\"kind\":\"APIResourceList\",\"apiVersion\":\"v1\",\"groupVersion\":\"" STR_FMT "%s" STR_FMT "\",\"resources\":[",
                   STR_ARG(group), group.n ? "/" : "", STR_ARG(version));
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *k = &kube_resources[i];

                if (!k->desc || !str_eqc(group, k->group) || !str_eqc(version, k->version))
                        continue;
                buf_printf(b, "%s{\"name\":\"%s\",\"singularName\":\"%s\",\"namespaced\":%s,\"kind\":\"%s\",\"verbs\":", first ? "" : ",",
                           k->plural, k->singular, k->namespaced ? "true" : "false", k->kind);
                first = false;
                verbs(b, k->verbs);
                if (*k->short_names) {
                        buf_cstr(b, ",\"shortNames\":");
                        words(b, k->short_names);
                }
                if (*k->categories) {
                        buf_cstr(b, ",\"categories\":");
                        words(b, k->categories);
                }
                buf_char(b, '}');
                for (size_t s = 0; s < ARRAY_LEN(subs); s++) {
                        if (!(k->subs & subs[s].sub))
                                continue;
                        buf_printf(b, ",{\"name\":\"%s/%s\",\"singularName\":\"\",\"namespaced\":%s,", k->plural, subs[s].name,
                                   k->namespaced ? "true" : "false");
                        if (subs[s].kind && strcmp(subs[s].group, k->group))
                                buf_printf(b, "\"group\":\"%s\",\"version\":\"%s\",", subs[s].group, subs[s].version);
                        buf_printf(b, "\"kind\":\"%s\",\"verbs\":", subs[s].kind ? subs[s].kind : k->kind);
                        words(b, subs[s].verbs);
                        buf_char(b, '}');
                }
        }
        buf_cstr(b, "]}\n");
}

/* Is resource i the first of its group; of its group and version? */
static bool first_of(unsigned i, bool version)
{
        for (unsigned k = 0; k < i; k++)
                if (kube_resources[k].desc && !strcmp(kube_resources[k].group, kube_resources[i].group) &&
                    (!version || !strcmp(kube_resources[k].version, kube_resources[i].version)))
                        return false;
        return kube_resources[i].desc != NULL;
}

static void group_json(struct buf *b, unsigned at, bool alone)
{
        const struct kube_resource *g = &kube_resources[at];
        bool first = true;

        buf_printf(b, "{%s\"name\":\"%s\",\"versions\":[", alone ? "\"kind\":\"APIGroup\",\"apiVersion\":\"v1\"," : "", g->group);
        for (unsigned i = at; i < kube_resources_n; i++) {
                const struct kube_resource *k = &kube_resources[i];

                if (strcmp(k->group, g->group) || !first_of(i, true))
                        continue;
                buf_printf(b, "%s{\"groupVersion\":\"%s/%s\",\"version\":\"%s\"}", first ? "" : ",", k->group, k->version, k->version);
                first = false;
        }
        buf_printf(b, "],\"preferredVersion\":{\"groupVersion\":\"%s/%s\",\"version\":\"%s\"}}", g->group, g->version, g->version);
}

static void group_list(struct kube_req *r)
{
        bool first = true;

        buf_cstr(&r->out, "{\"kind\":\"APIGroupList\",\"apiVersion\":\"v1\",\"groups\":[");
        for (unsigned i = 0; i < kube_resources_n; i++) {
                if (!*kube_resources[i].group || !first_of(i, false))
                        continue;
                if (!first)
                        buf_char(&r->out, ',');
                group_json(&r->out, i, false);
                first = false;
        }
        buf_cstr(&r->out, "]}\n");
}

/* ---- aggregated (apidiscovery.k8s.io) ---- */

static void aggregated_resource(struct buf *b, const struct kube_resource *k)
{
        bool first = true;

        buf_printf(b,
                   "{\"resource\":\"%s\",\"responseKind\":{\"group\":\"%s\",\"version\":\"%s\",\"kind\":\"%s\"},\"scope\":\"%s\","
                   "\"singularResource\":\"%s\",\"verbs\":",
                   k->plural, k->group, k->version, k->kind, k->namespaced ? "Namespaced" : "Cluster", k->singular);
        verbs(b, k->verbs);
        if (*k->short_names) {
                buf_cstr(b, ",\"shortNames\":");
                words(b, k->short_names);
        }
        if (*k->categories) {
                buf_cstr(b, ",\"categories\":");
                words(b, k->categories);
        }
        for (size_t s = 0; s < ARRAY_LEN(subs); s++) {
                if (!(k->subs & subs[s].sub))
                        continue;
                buf_cstr(b, first ? ",\"subresources\":[" : ",");
                first = false;
                buf_printf(b, "{\"subresource\":\"%s\",\"responseKind\":{\"group\":\"%s\",\"version\":\"%s\",\"kind\":\"%s\"},\"verbs\":",
                           subs[s].name, subs[s].kind ? subs[s].group : k->group, subs[s].kind ? subs[s].version : k->version,
                           subs[s].kind ? subs[s].kind : k->kind);
                words(b, subs[s].verbs);
                buf_char(b, '}');
        }
        buf_cstr(b, first ? "}" : "]}");
}

static void aggregated_version(struct buf *b, const struct kube_resource *v)
{
        bool first = true;

        buf_printf(b, "{\"version\":\"%s\",\"freshness\":\"Current\",\"resources\":[", v->version);
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *k = &kube_resources[i];

                if (!k->desc || strcmp(k->group, v->group) || strcmp(k->version, v->version))
                        continue;
                if (!first)
                        buf_char(b, ',');
                aggregated_resource(b, k);
                first = false;
        }
        buf_cstr(b, "]}");
}

static void aggregated(struct kube_req *r, bool core, bool v2)
{
        struct buf *b = &r->out;
        bool first = true;

        buf_printf(b, "{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/%s\",\"metadata\":{},\"items\":[",
                   v2 ? "v2" : "v2beta1");
        for (unsigned g = 0; g < kube_resources_n; g++) {
                bool first_version = true;

                if (!first_of(g, false) || core != !*kube_resources[g].group)
                        continue;
                buf_printf(b, "%s{\"metadata\":{", first ? "" : ",");
                if (*kube_resources[g].group)
                        buf_printf(b, "\"name\":\"%s\"", kube_resources[g].group);
                buf_printf(b, "%s\"creationTimestamp\":null},\"versions\":[", *kube_resources[g].group ? "," : "");
                for (unsigned i = g; i < kube_resources_n; i++) {
                        if (strcmp(kube_resources[i].group, kube_resources[g].group) || !first_of(i, true))
                                continue;
                        if (!first_version)
                                buf_char(b, ',');
                        aggregated_version(b, &kube_resources[i]);
                        first_version = false;
                }
                buf_cstr(b, "]}");
                first = false;
        }
        buf_cstr(b, "]}\n");
        r->type = v2 ? "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                     : "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
}

/* The first range of Accept that we can write: aggregated v2, v2beta1, or plain JSON. */
static int wanted(struct str accept)
{
        struct str rest = accept, range;

        while (accept.n && str_next(&rest, ',', &range)) {
                if (str_find(range, STR("as=APIGroupDiscoveryList")) < 0)
                        return 0;
                if (str_find(range, STR("v=v2beta1")) >= 0)
                        return 1;
                if (str_find(range, STR("v=v2")) >= 0)
                        return 2;
        }
        return 0;
}

static void version_json(struct kube_req *r)
{
        buf_cstr(&r->out, "{\"major\":\"" KUBE_VERSION_MAJOR "\",\"minor\":\"" KUBE_VERSION_MINOR "\",\"gitVersion\":\"" KUBE_VERSION_GIT
                          "+postern-" POSTERN_VERSION "\",\"gitCommit\":\"\",\"gitTreeState\":\"clean\",\"buildDate\":\"1970-01-01T00:00:"
                          "00Z\",\"goVersion\":\"none: written in C\","
                          "\"compiler\":\"" __VERSION__ "\",\"platform\":\"linux/"
#if defined(__aarch64__)
                          "arm64"
#else
                          "amd64"
#endif
                          "\"}\n");
}

static bool is(const struct kube_req *r, unsigned i, const char *s)
{
        return i < r->path.nseg && str_eqc(r->path.seg[i], s);
}

static bool group_document(struct kube_req *r)
{
        for (unsigned i = 0; i < kube_resources_n; i++)
                if (*kube_resources[i].group && str_eqc(r->path.seg[1], kube_resources[i].group) && first_of(i, false)) {
                        group_json(&r->out, i, true);
                        buf_char(&r->out, '\n');
                        return true;
                }
        return false;
}

bool kube_discovery(struct kube_req *r)
{
        unsigned n = r->path.nseg;
        int want = wanted(r->accept);

        if (!str_eqc(r->method, "GET") && !str_eqc(r->method, "HEAD"))
                return false;
        if (n == 1 && (is(r, 0, "healthz") || is(r, 0, "livez") || is(r, 0, "readyz"))) {
                r->type = "text/plain; charset=utf-8";
                buf_cstr(&r->out, "ok");
        } else if (n == 1 && is(r, 0, "version")) {
                version_json(r);
        } else if (n == 1 && is(r, 0, "api")) {
                if (want)
                        aggregated(r, true, want == 2);
                else
                        buf_printf(&r->out,
                                   "{\"kind\":\"APIVersions\",\"versions\":[\"v1\"],\"serverAddressByClientCIDRs\":[{\"clientCIDR\":\"0.0."
                                   "0.0/0\","
                                   "\"serverAddress\":\"" STR_FMT "\"}]}\n",
                                   STR_ARG(r->api->server_url));
        } else if (n == 1 && is(r, 0, "apis")) {
                if (want)
                        aggregated(r, false, want == 2);
                else
                        group_list(r);
        } else if (n == 2 && is(r, 0, "api") && is(r, 1, "v1")) {
                resource_list(r, STR(""), STR("v1"));
        } else if (n == 2 && is(r, 0, "apis")) {
                return group_document(r);
        } else if (n == 3 && is(r, 0, "apis") && kube_group_version_served(r->path.seg[1], r->path.seg[2])) {
                resource_list(r, r->path.seg[1], r->path.seg[2]);
        } else if (n == 0) {
                buf_cstr(&r->out, "{\"paths\":[\"/api\",\"/api/v1\",\"/apis\",\"/healthz\",\"/livez\",\"/openapi/v2\",\"/openapi/v3\",\"/"
                                  "readyz\",\"/version\"]}\n");
        } else {
                return false;
        }
        return true;
}
