/* The rules of VirtualService, the largest kind. */
#include "mesh/check.h"

#include "base/mem.h"

#include <stdio.h>

const struct rule_at check_virtual_service_rules[] = {
        { "spec.hosts[]", RULE_HOST, NULL },
        { "spec.gateways[]", RULE_GATEWAY_NAME, NULL },
        { "spec.exportTo[]", RULE_NAMESPACE, NULL },
        { "spec.http[].timeout", RULE_DURATION, NULL },
        { "spec.http[].retries.attempts", RULE_COUNT, NULL },
        { "spec.http[].retries.perTryTimeout", RULE_DURATION, NULL },
        { "spec.http[].retries.backoff", RULE_DURATION_MS, NULL },
        { "spec.http[].match[].port", RULE_PORT, NULL },
        { "spec.http[].match[].gateways[]", RULE_GATEWAY_NAME, NULL },
        { "spec.http[].match[].uri.regex", RULE_REGEX, NULL },
        { "spec.http[].match[].authority.regex", RULE_REGEX, NULL },
        { "spec.http[].match[].method.regex", RULE_REGEX, NULL },
        { "spec.http[].match[].headers{}.regex", RULE_REGEX, NULL },
        { "spec.http[].match[].queryParams{}.regex", RULE_REGEX, NULL },
        { "spec.http[].route[].destination", RULE_PRESENT, NULL },
        { "spec.http[].route[].destination.host", RULE_PRESENT, "the host of a service, as the registry has it" },
        { "spec.http[].route[].destination.host", RULE_HOST, NULL },
        { "spec.http[].route[].destination.port.number", RULE_PORT, NULL },
        { "spec.http[].route[].destination.subset", RULE_LABEL, NULL },
        { "spec.http[].route[].weight", RULE_COUNT, NULL },
        { "spec.http[].mirror.host", RULE_PRESENT, NULL },
        { "spec.http[].mirrorPercentage.value", RULE_PERCENT, NULL },
        { "spec.http[].redirect.port", RULE_PORT, NULL },
        { "spec.http[].redirect.derivePort", RULE_ENUM, "FROM_PROTOCOL_DEFAULT|FROM_REQUEST_PORT" },
        { "spec.http[].directResponse.status", RULE_PRESENT, NULL },
        { "spec.http[].directResponse.status", RULE_STATUS, NULL },
        { "spec.http[].rewrite.uriRegexRewrite.match", RULE_REGEX, NULL },
        { "spec.http[].headers.request.remove[]", RULE_HEADER_NAME, NULL },
        { "spec.http[].headers.response.remove[]", RULE_HEADER_NAME, NULL },
        { "spec.http[].corsPolicy.maxAge", RULE_DURATION, NULL },
        { "spec.http[].corsPolicy.unmatchedPreflights", RULE_ENUM, "UNSPECIFIED|FORWARD|IGNORE" },
        { "spec.http[].fault.abort.httpStatus", RULE_STATUS, NULL },
        { "spec.http[].fault.delay.fixedDelay", RULE_DURATION_MS, NULL },
        { "spec.tls[].match", RULE_PRESENT, NULL },
        { "spec.tls[].match[].sniHosts", RULE_PRESENT, "the server names that this route takes" },
        { "spec.tls[].match[].sniHosts[]", RULE_HOST, NULL },
        { "spec.tls[].match[].port", RULE_PORT, NULL },
        { "spec.tls[].match[].gateways[]", RULE_GATEWAY_NAME, NULL },
        { "spec.tls[].match[].destinationSubnets[]", RULE_ADDRESS, NULL },
        { "spec.tls[].route", RULE_PRESENT, NULL },
        { "spec.tls[].route[].destination", RULE_PRESENT, NULL },
        { "spec.tls[].route[].destination.host", RULE_PRESENT, NULL },
        { "spec.tls[].route[].destination.host", RULE_HOST, NULL },
        { "spec.tls[].route[].destination.port.number", RULE_PORT, NULL },
        { "spec.tls[].route[].weight", RULE_COUNT, NULL },
        { "spec.tcp[].match[].port", RULE_PORT, NULL },
        { "spec.tcp[].match[].gateways[]", RULE_GATEWAY_NAME, NULL },
        { "spec.tcp[].match[].destinationSubnets[]", RULE_ADDRESS, NULL },
        { "spec.tcp[].route", RULE_PRESENT, NULL },
        { "spec.tcp[].route[].destination", RULE_PRESENT, NULL },
        { "spec.tcp[].route[].destination.host", RULE_PRESENT, NULL },
        { "spec.tcp[].route[].destination.host", RULE_HOST, NULL },
        { "spec.tcp[].route[].destination.port.number", RULE_PORT, NULL },
        { "spec.tcp[].route[].weight", RULE_COUNT, NULL },
};

const size_t check_virtual_service_nrules = ARRAY_LEN(check_virtual_service_rules);

/* Weights: of one destination it does not matter; of several, all 0 would send nothing anywhere. */
static void weights(struct check *c, const struct pb_node *route, const char *path)
{
        struct pb_node **v = NULL;
        size_t n = read_list(route, "route", &v), missing = 0;
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++) {
                int64_t w = read_i64(v[i], "weight", -1);

                missing += w < 0;
                sum += w > 0 ? (uint64_t)w : 0;
        }
        if (n > 1 && sum == 0)
                check_error(c, route, path, "no destination has a weight: with several, the weights say how the traffic is divided");
        else if (n > 1 && missing)
                check_warn(c, route, path, "a destination without weight gets nothing, because others have one");
        else if (sum > UINT32_MAX)
                check_error(c, route, path, "the weights add up to more than %u", UINT32_MAX);
}

/* Every gateway that a match names must be one of the VirtualService's own, else the match never applies. */
static void match_gateways(struct check *c, const struct pb_node *spec, const struct pb_node *match, const char *path)
{
        size_t n, m;
        struct str *mine = read_strs(&c->scratch, match, "gateways", &n), *all = read_strs(&c->scratch, spec, "gateways", &m);

        for (size_t i = 0; i < n; i++) {
                bool found = m == 0 && str_eqc(mine[i], "mesh");

                for (size_t j = 0; j < m; j++)
                        found |= str_eq(mine[i], all[j]);
                if (!found)
                        check_warn(c, match, path, "gateway \"" STR_FMT "\" is not in spec.gateways, so this match never applies",
                                   STR_ARG(mine[i]));
        }
}

/* exact, prefix, regex: one of them. */
static void string_matches(void *arg, const struct pb_node *n, const struct pb_node *parent, const char *path)
{
        struct check *c = arg;
        int set = (read_field(n, "exact") != NULL) + (read_field(n, "prefix") != NULL) + (read_field(n, "regex") != NULL);

        if (n->kind != PB_MAP)
                check_error(c, n, path, "an object with exact, prefix or regex is needed here");
        else if (set > 1)
                check_error(c, n, path, "only one of exact, prefix and regex may be set");
}

static void redirect(struct check *c, const struct pb_node *r, const char *path)
{
        int64_t code = read_i64(r, "redirectCode", 301);

        if (code != 301 && code != 302 && code != 303 && code != 307 && code != 308)
                check_error(c, read_field(r, "redirectCode"), path, "redirectCode must be 301, 302, 303, 307 or 308, not %lld",
                            (long long)code);
        if (!read_field(r, "uri") && !read_field(r, "authority") && !read_field(r, "scheme") && !read_field(r, "port") &&
            !read_field(r, "derivePort") && !read_field(r, "prefixRewrite"))
                check_error(c, r, path, "a redirect that changes nothing would never end: set uri, authority, scheme or port");
        if (read_field(r, "uri") && read_field(r, "prefixRewrite"))
                check_error(c, r, path, "uri and prefixRewrite exclude each other: keep one");
}

static void retry_on(struct check *c, const struct pb_node *retries, const char *path)
{
        static const char *const known[] = { "5xx",
                                             "gateway-error",
                                             "reset",
                                             "reset-before-request",
                                             "connect-failure",
                                             "envoy-ratelimited",
                                             "retriable-4xx",
                                             "refused-stream",
                                             "retriable-status-codes",
                                             "retriable-headers",
                                             "http3-post-connect-failure",
                                             "cancelled",
                                             "deadline-exceeded",
                                             "internal",
                                             "resource-exhausted",
                                             "unavailable" };
        struct str rest = read_str(&c->scratch, retries, "retryOn"), part;
        uint64_t code;

        while (rest.n && str_next(&rest, ',', &part)) {
                bool found = false;

                part = str_trim(part);
                for (size_t i = 0; i < ARRAY_LEN(known); i++)
                        found |= str_eqc(part, known[i]);
                if (!found && !(str_u64(part, &code) && code >= 100 && code <= 599))
                        check_error(c, read_field(retries, "retryOn"), path,
                                    "\"" STR_FMT "\" is neither a retry condition nor a status code", STR_ARG(part));
        }
}

static void http_route(struct check *c, const struct pb_node *spec, const struct pb_node *r, const char *path)
{
        const struct pb_node *rewrite = read_field(r, "rewrite");
        int actions = (read_field(r, "route") != NULL) + (read_field(r, "redirect") != NULL) + (read_field(r, "directResponse") != NULL) +
                      (read_field(r, "delegate") != NULL);
        struct pb_node **m = NULL;
        size_t n = read_list(r, "match", &m);
        char at[160];

        if (actions == 0)
                check_error(c, r, path, "a route, a redirect, a directResponse or a delegate is needed");
        if (actions > 1)
                check_error(c, r, path, "route, redirect, directResponse and delegate exclude each other: keep one");
        weights(c, r, path);
        if (read_field(r, "redirect")) {
                snprintf(at, sizeof(at), "%s.redirect", path);
                redirect(c, read_field(r, "redirect"), at);
        }
        if (rewrite && !read_field(r, "route"))
                check_error(c, rewrite, path, "rewrite has no meaning without a route");
        if (rewrite && read_field(rewrite, "uri") && read_field(rewrite, "uriRegexRewrite"))
                check_error(c, rewrite, path, "rewrite.uri and rewrite.uriRegexRewrite exclude each other: keep one");
        snprintf(at, sizeof(at), "%s.retries.retryOn", path);
        retry_on(c, read_field(r, "retries"), at);
        for (size_t i = 0; i < n; i++) {
                snprintf(at, sizeof(at), "%s.match[%zu].gateways", path, i);
                match_gateways(c, spec, m[i], at);
        }
}

static void unreachable(struct check *c, const struct pb_node *spec)
{
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "http", &v), open = n;
        char path[64];

        for (size_t i = 0; i < n; i++) {
                struct pb_node **m = NULL;

                if (i > open) {
                        snprintf(path, sizeof(path), "spec.http[%zu]", i);
                        check_warn(c, v[i], path, "never reached: spec.http[%zu] has no match, so it takes every request", open);
                }
                if (!read_list(v[i], "match", &m) && open == n)
                        open = i;
        }
}

static bool covered(struct check *c, const struct pb_node *spec, struct str sni)
{
        size_t n;
        struct str *hosts = read_strs(&c->scratch, spec, "hosts", &n);

        for (size_t i = 0; i < n; i++)
                if (mesh_host_covers(hosts[i], sni))
                        return true;
        return false;
}

static void l4_routes(struct check *c, const struct pb_node *spec, const char *field)
{
        struct pb_node **v = NULL, **m = NULL;
        size_t n = read_list(spec, field, &v);
        char path[96];

        for (size_t i = 0; i < n; i++) {
                snprintf(path, sizeof(path), "spec.%s[%zu]", field, i);
                weights(c, v[i], path);
                for (size_t j = 0, k = read_list(v[i], "match", &m); j < k; j++) {
                        size_t nsni;
                        struct str *sni = read_strs(&c->scratch, m[j], "sniHosts", &nsni);

                        snprintf(path, sizeof(path), "spec.%s[%zu].match[%zu].gateways", field, i, j);
                        match_gateways(c, spec, m[j], path);
                        for (size_t s = 0; s < nsni; s++) {
                                snprintf(path, sizeof(path), "spec.%s[%zu].match[%zu].sniHosts[%zu]", field, i, j, s);
                                if (check_host(sni[s], true) && !covered(c, spec, sni[s]))
                                        check_error(c, m[j], path, "\"" STR_FMT "\" is not covered by spec.hosts: add it there",
                                                    STR_ARG(sni[s]));
                        }
                }
        }
}

static void hosts(struct check *c, const struct pb_node *spec)
{
        size_t n, m;
        struct str *v = read_strs(&c->scratch, spec, "hosts", &n), *gateways = read_strs(&c->scratch, spec, "gateways", &m);
        bool mesh = m == 0, delegate = !read_field(spec, "hosts");
        char path[64];

        for (size_t i = 0; i < m; i++)
                mesh |= str_eqc(gateways[i], "mesh");
        if (!n && !(delegate && read_field(spec, "http") && !m))
                check_error(c, spec, "spec.hosts", "at least one host is needed");
        for (size_t i = 0; i < n; i++) {
                snprintf(path, sizeof(path), "spec.hosts[%zu]", i);
                if (mesh && str_eqc(v[i], "*"))
                        check_error(c, spec, path,
                                    "\"*\" cannot be bound to \"mesh\": it would take all traffic; name hosts, or a gateway");
        }
        check_unique(c, read_field(spec, "hosts"), "spec.hosts", NULL);
}

void check_virtual_service(struct check *c, const struct pb_node *spec)
{
        static const char *const matchers[] = { "http[].match[].uri",           "http[].match[].scheme",
                                                "http[].match[].method",        "http[].match[].authority",
                                                "http[].match[].headers{}",     "http[].match[].withoutHeaders{}",
                                                "http[].match[].queryParams{}", "http[].corsPolicy.allowOrigins[]" };
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "http", &v);
        struct pb_node root = { .kind = PB_MAP, .n = 1 }, *inner = (struct pb_node *)spec;
        struct str key = STR("spec");
        char path[64];

        hosts(c, spec);
        if (!read_field(spec, "http") && !read_field(spec, "tls") && !read_field(spec, "tcp"))
                check_error(c, spec, "spec", "http, tls or tcp routes are needed");
        root.v = &inner;
        root.keys = &key;
        for (size_t i = 0; i < ARRAY_LEN(matchers); i++) {
                snprintf(path, sizeof(path), "spec.%s", matchers[i]);
                walk(&root, path, false, string_matches, c);
        }
        for (size_t i = 0; i < n; i++) {
                snprintf(path, sizeof(path), "spec.http[%zu]", i);
                http_route(c, spec, v[i], path);
        }
        unreachable(c, spec);
        l4_routes(c, spec, "tls");
        l4_routes(c, spec, "tcp");
}
