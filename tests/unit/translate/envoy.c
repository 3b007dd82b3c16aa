#include "envoy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

const char *envoy_path(void)
{
        static char found[1024];
        const char *env = getenv("POSTERN_ENVOY"), *path = getenv("PATH");
        struct str rest = str_of(path ? path : ""), dir;

        if (env)
                return access(env, X_OK) == 0 ? env : NULL;
        while (str_next(&rest, ':', &dir)) {
                snprintf(found, sizeof(found), STR_FMT "/envoy", STR_ARG(dir));
                if (access(found, X_OK) == 0)
                        return found;
        }
        return access("/opt/peers/bin/envoy", X_OK) == 0 ? "/opt/peers/bin/envoy" : NULL;
}

static void without_istio(struct pb_node *list)
{
        size_t n = 0;

        for (size_t i = 0; list && i < list->n; i++)
                if (!str_starts(pb_get_str(list->v[i], "name", STR("")), STR("istio.")))
                        list->v[n++] = list->v[i];
        if (list)
                list->n = n;
}

static void adapt_chain(struct world *w, const struct translate_config *c, struct pb_node *chain)
{
        struct pb_node *filters = pb_get(chain, "filters");

        without_istio(filters);
        for (size_t i = 0; filters && i < filters->n; i++) {
                struct pb_node *config = pb_get(filters->v[i], "typedConfig"), *rds = pb_get(config, "rds");
                ProtobufCMessage *rc = NULL;

                without_istio(pb_get(config, "httpFilters"));
                if (!rds)
                        continue;
                rc = world_get(w, c, TRANSLATE_ROUTES, arena_cstr(&w->arena, pb_get_str(rds, "routeConfigName", STR(""))));
                if (!rc)
                        fail_msg("listener asks for route table " STR_FMT ", which is not there",
                                 STR_ARG(pb_get_str(rds, "routeConfigName", STR(""))));
                pb_del(config, "rds");
                pb_put(&w->arena, config, STR("routeConfig"), pb_to_node(rc, &w->arena));
        }
}

static struct pb_node *listeners(struct world *w, const struct translate_config *c)
{
        struct pb_node *list = pb_new(&w->arena, PB_LIST, STR(""));

        for (size_t i = 0; i < c->of[TRANSLATE_LISTENERS].n; i++) {
                struct pb_node *l = pb_to_node(world_get(w, c, TRANSLATE_LISTENERS, c->of[TRANSLATE_LISTENERS].v[i]->name.p), &w->arena);
                struct pb_node *chains = pb_get(l, "filterChains");

                for (size_t k = 0; chains && k < chains->n; k++)
                        adapt_chain(w, c, chains->v[k]);
                pb_push(&w->arena, list, l);
        }
        return list;
}

static struct pb_node *clusters(struct world *w, const struct translate_config *c)
{
        struct pb_node *list = pb_new(&w->arena, PB_LIST, STR("")), *ads, **docs;
        size_t n;

        for (size_t i = 0; i < c->of[TRANSLATE_CLUSTERS].n; i++) {
                struct pb_node *m = pb_to_node(world_get(w, c, TRANSLATE_CLUSTERS, c->of[TRANSLATE_CLUSTERS].v[i]->name.p), &w->arena);

                without_istio(pb_get(m, "filters"));
                pb_push(&w->arena, list, m);
        }
        assert_true(pb_parse_yaml(STR("{name: ads, connectTimeout: 1s, type: STATIC, http2ProtocolOptions: {}}"), STR("ads"), &w->arena,
                                  &docs, &n, &w->diags));
        ads = docs[0];
        pb_push(&w->arena, list, ads);
        return list;
}

void envoy_validates(struct world *w, const struct translate_config *c, const char *title)
{
        static const char dynamic[] =
                "{adsConfig: {apiType: GRPC, transportApiVersion: V3, grpcServices: [{envoyGrpc: {clusterName: ads}}]}}";
        struct pb_node *root = pb_new(&w->arena, PB_MAP, STR("")), *resources = pb_new(&w->arena, PB_MAP, STR("")), **docs;
        struct buf json = BUF_INIT, said = BUF_INIT;
        char path[] = "/tmp/postern-test-XXXXXX", name[64], command[2048];
        size_t n;
        int fd = mkstemp(path), status;
        FILE *p;

        assert_true(fd >= 0);
        close(fd);
        assert_true(pb_parse_yaml(str_of(dynamic), STR("dynamic"), &w->arena, &docs, &n, &w->diags));
        pb_put(&w->arena, resources, STR("listeners"), listeners(w, c));
        pb_put(&w->arena, resources, STR("clusters"), clusters(w, c));
        pb_put(&w->arena, root, STR("staticResources"), resources);
        pb_put(&w->arena, root, STR("dynamicResources"), docs[0]);
        pb_put_str(&w->arena, root, "node", STR(""));
        pb_del(root, "node");
        pb_node_json(root, &json);
        snprintf(name, sizeof(name), "%s.json", path);
        assert_int_equal(buf_write_file(&json, name, 0600), 0);
        snprintf(command, sizeof(command), "%s --mode validate --log-level error --service-node n --service-cluster c -c %s 2>&1",
                 envoy_path(), name);
        p = popen(command, "r");
        assert_non_null(p);
        buf_reserve(&said, 65536);
        said.n = fread(said.p, 1, 65535, p);
        status = pclose(p);
        unlink(path);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                fail_msg("%s: Envoy refuses it (%s): %s", title, name, buf_z(&said));
        unlink(name);
        buf_fini(&json);
        buf_fini(&said);
}
