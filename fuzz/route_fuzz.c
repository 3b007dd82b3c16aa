/* A route configuration in YAML, a line "---", and a request (method, authority, path, header lines) against it: building refuses or gives
 * a table, and matching and rewriting with a table end. */
#include "envoy/route.pb-c.h"
#include "pb/pb.h"
#include "proxy/route.h"
#include "proxy/server.h"

static void request(const struct route_table *t, struct str text)
{
        struct stream_info si = { 0 };
        struct http_head m;
        struct route_input in = { .head = &m, .random = 7 };
        struct route_pick p;
        struct arena a;
        struct str line;

        arena_init(&a, 0);
        http_head_init(&m, &a);
        str_next(&text, '\n', &m.method);
        str_next(&text, '\n', &m.authority);
        str_next(&text, '\n', &m.path);
        while (m.n < 50 && str_next(&text, '\n', &line)) {
                ptrdiff_t colon = str_chr(line, ':');

                if (colon > 0)
                        http_add_name(&m, str_make(line.p, (size_t)colon), str_sub(line, (size_t)colon + 1, line.n));
        }
        if (route_table_pick(t, &in, &p)) {
                if (p.route->action == ROUTE_REDIRECT)
                        route_redirect_uri(p.route, &m);
                route_finalize_request(t, &p, &m, &si, true);
                route_finalize_response(t, &p, &m, &si);
        }
        arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct server server;
        struct str text = str_make((const char *)data, size);
        ptrdiff_t split = str_find(text, STR("\n---\n"));
        struct diag_at at = { 0 };
        struct route_table *t = NULL;
        ProtobufCMessage *m;
        struct pb_node **docs;
        struct diags d;
        struct arena a;
        size_t n;

        if (split < 0 || size > 16384)
                return 0;
        arena_init(&a, 0);
        diags_init(&d);
        if (pb_parse_yaml(str_make(text.p, (size_t)split), STR("f"), &a, &docs, &n, &d) && n == 1 &&
            (m = pb_from_node(&xds__route_configuration__descriptor, docs[0], PB_UNKNOWN_WARN, &at, &a, &d)))
                t = route_table_build(&server, (const struct Xds__RouteConfiguration *)m, &at, &d);
        if (t)
                request(t, str_sub(text, (size_t)split + 5, text.n));
        route_table_unref(t);
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
