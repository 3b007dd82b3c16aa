/* Rules of single fields, by a table a kind. What compares fields with each other is in check_kinds.c. */
#include "mesh/check.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <stdio.h>

static void report(struct check *c, enum diag_severity sev, const struct pb_node *n, const char *path, const char *fmt, va_list ap)
{
        struct diag_at at = {
                .file = c->file, .resource = c->resource, .path = str_of(path), .line = n ? n->line : 0, .column = n ? n->column : 0
        };
        struct str text = arena_vprintf(&c->scratch, fmt, ap);

        diag_add(c->d, sev, sev == DIAG_ERROR ? "PST0301" : "PST0302", &at, STR_FMT, STR_ARG(text));
        c->errors += sev == DIAG_ERROR;
}

void check_error(struct check *c, const struct pb_node *n, const char *path, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        report(c, DIAG_ERROR, n, path, fmt, ap);
        va_end(ap);
}

void check_warn(struct check *c, const struct pb_node *n, const char *path, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        report(c, DIAG_WARNING, n, path, fmt, ap);
        va_end(ap);
}

/* --- Names ------------------------------------------------------------------------------------------------------------------------ */

static bool label_char(char ch)
{
        ch = ascii_lower(ch);
        return (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '_';
}

static bool dns_label(struct str s)
{
        if (s.n == 0 || s.n > 63 || s.p[0] == '-' || s.p[s.n - 1] == '-')
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (!label_char(s.p[i]))
                        return false;
        return true;
}

bool check_host(struct str h, bool wildcard)
{
        struct str part;

        if (wildcard && str_eqc(h, "*"))
                return true;
        if (wildcard && str_starts(h, STR("*.")))
                h = str_sub(h, 2, h.n);
        if (h.n == 0 || h.n > 253)
                return false;
        while (str_next(&h, '.', &part))
                if (!dns_label(part))
                        return false;
        return true;
}

bool check_ip(struct str s)
{
        char text[64];
        unsigned char bin[16];

        if (s.n == 0 || s.n >= sizeof(text))
                return false;
        memcpy(text, s.p, s.n);
        text[s.n] = 0;
        return inet_pton(AF_INET, text, bin) == 1 || inet_pton(AF_INET6, text, bin) == 1;
}

static bool cidr(struct str s)
{
        ptrdiff_t slash = str_chr(s, '/');
        uint64_t len;

        if (slash < 0)
                return check_ip(s);
        return check_ip(str_sub(s, 0, (size_t)slash)) && str_u64(str_sub(s, (size_t)slash + 1, s.n), &len) &&
               len <= (str_chr(s, ':') >= 0 ? 128U : 32U);
}

/* --- One value a rule --------------------------------------------------------------------------------------------------------------- */

struct applied {
        struct check *c;
        const struct rule_at *rule;
};

static void range(struct check *c, const struct pb_node *n, const char *path, int64_t lo, int64_t hi, const char *what)
{
        int64_t v;

        if (!str_i64(n->text, &v) || v < lo || v > hi)
                check_error(c, n, path, "%s must be between %lld and %lld, not " STR_FMT, what, (long long)lo, (long long)hi,
                            STR_ARG(n->text));
}

static void at_least(struct check *c, const struct pb_node *n, const char *path, int64_t lo)
{
        int64_t v;

        if (!str_i64(n->text, &v) || v < lo || v > INT32_MAX)
                check_error(c, n, path, "must be a whole number from %lld to %d, not " STR_FMT, (long long)lo, INT32_MAX, STR_ARG(n->text));
}

static void duration(struct check *c, const struct pb_node *n, const char *path, int64_t lo_us)
{
        int64_t us;

        if (!read_duration_parse(n->text, &us))
                check_error(c, n, path, "\"" STR_FMT "\" is not a duration: write it like 500ms, 10s or 1m30s", STR_ARG(n->text));
        else if (us < lo_us)
                check_error(c, n, path, "a duration of at least %s is needed here, not " STR_FMT, lo_us ? "1ms" : "0s", STR_ARG(n->text));
        else if (us > 315576000000LL * 1000000)
                check_error(c, n, path, STR_FMT " is longer than ten thousand years, the most that a duration can say", STR_ARG(n->text));
        else if (us > 86400LL * 1000000 * 365)
                check_warn(c, n, path, STR_FMT " is more than a year: is the unit right?", STR_ARG(n->text));
}

static void one_of(struct check *c, const struct pb_node *n, const char *path, const char *list)
{
        struct str rest = str_of(list), part, near = { 0 };
        unsigned best = 4;

        while (str_next(&rest, '|', &part)) {
                unsigned dist = str_distance(part, n->text, 3);

                if (str_eq(part, n->text))
                        return;
                if (dist < best) {
                        best = dist;
                        near = part;
                }
        }
        check_error(c, n, path, "\"" STR_FMT "\" is not one of %s%s" STR_FMT "%s", STR_ARG(n->text), list,
                    near.n ? " (did you mean \"" : "", STR_ARG(near), near.n ? "\"?)" : "");
}

static void host_in_namespace(struct check *c, const struct pb_node *n, const char *path, bool required, bool none)
{
        ptrdiff_t slash = str_chr(n->text, '/');
        struct str ns = slash < 0 ? STR("*") : str_sub(n->text, 0, (size_t)slash);
        struct str host = slash < 0 ? n->text : str_sub(n->text, (size_t)slash + 1, n->text.n);

        if (slash < 0 && required)
                check_error(c, n, path,
                            "\"" STR_FMT "\" must be written namespace/host: \"*/" STR_FMT "\" for any namespace, \"./" STR_FMT
                            "\" for its own",
                            STR_ARG(n->text), STR_ARG(n->text), STR_ARG(n->text));
        else if (!str_eqc(ns, "*") && !str_eqc(ns, ".") && !(none && str_eqc(ns, "~")) && !dns_label(ns))
                check_error(c, n, path, "\"" STR_FMT "\" is not a namespace: write a name, \"*\"%s or \".\"", STR_ARG(ns),
                            none ? ", \"~\"" : "");
        else if (!check_host(host, true))
                check_error(c, n, path, "\"" STR_FMT "\" is not a host: write a DNS name, \"*\" or \"*.name\"", STR_ARG(host));
}

static void gateway_name(struct check *c, const struct pb_node *n, const char *path)
{
        ptrdiff_t slash = str_chr(n->text, '/');

        if (str_eqc(n->text, "mesh"))
                return;
        if (slash >= 0 ? ((slash != 1 || n->text.p[0] != '.') && !dns_label(str_sub(n->text, 0, (size_t)slash))) ||
                                 !check_host(str_sub(n->text, (size_t)slash + 1, n->text.n), false)
                       : !check_host(n->text, false))
                check_error(c, n, path,
                            "\"" STR_FMT "\" is not a gateway: write \"mesh\", the name of a Gateway in this namespace, or namespace/name",
                            STR_ARG(n->text));
}

static void header_name(struct check *c, const struct pb_node *n, const char *path)
{
        struct str s = n->text;

        for (size_t i = 0; i < s.n; i++)
                if (!label_char(s.p[i]) && !strchr("!#$%&'*+.^`|~", s.p[i]) && !(i == 0 && s.p[0] == ':')) {
                        check_error(c, n, path, "\"" STR_FMT "\" is not a header name", STR_ARG(s));
                        return;
                }
        if (!s.n)
                check_error(c, n, path, "a header name cannot be empty");
}

static void percent(struct check *c, const struct pb_node *n, const char *path)
{
        const struct pb_node *holder = n;
        struct pb_node key = { .kind = PB_STRING, .text = STR("v") }, map = { .kind = PB_MAP, .n = 1 };
        struct pb_node *value = (struct pb_node *)holder;
        double v;

        map.v = &value;
        map.keys = &key.text;
        v = read_double(&map, "v", -1);
        if (v < 0 || v > 100)
                check_error(c, n, path, "must be a percentage between 0 and 100, not " STR_FMT, STR_ARG(n->text));
}

static bool empty(const struct pb_node *n)
{
        return !n || n->kind == PB_NULL || ((n->kind == PB_LIST || n->kind == PB_MAP) && n->n == 0) ||
               (n->kind == PB_STRING && n->text.n == 0);
}

static const char *last_field(const char *path)
{
        const char *dot = strrchr(path, '.');

        return dot ? dot + 1 : path;
}

static void apply(void *arg, const struct pb_node *n, const struct pb_node *parent, const char *path)
{
        struct applied *x = arg;
        struct check *c = x->c;

        if (x->rule->rule == RULE_PRESENT) {
                if (empty(n))
                        check_error(c, n ? n : parent, path, "%s is required%s%s", last_field(path), x->rule->arg ? ": " : "",
                                    x->rule->arg ? x->rule->arg : "");
                return;
        }
        if (!n)
                return;
        if (n->kind == PB_LIST || n->kind == PB_MAP) {
                check_error(c, n, path, "a single value is needed here, not %s", n->kind == PB_LIST ? "a list" : "an object");
                return;
        }
        switch (x->rule->rule) {
        case RULE_PORT:
                range(c, n, path, 1, 65535, "a port");
                break;
        case RULE_PORT_OR_0:
                range(c, n, path, 0, 65535, "a port");
                break;
        case RULE_HOST:
        case RULE_HOST_NOT_ALL:
                if (!check_host(n->text, true))
                        check_error(c, n, path, "\"" STR_FMT "\" is not a host: write a DNS name, or \"*.name\" for all below it",
                                    STR_ARG(n->text));
                else if (x->rule->rule == RULE_HOST_NOT_ALL && str_eqc(n->text, "*"))
                        check_error(c, n, path, "\"*\" alone is not allowed here: name a domain, such as \"*.example.com\"");
                break;
        case RULE_GATEWAY_HOST:
                host_in_namespace(c, n, path, false, false);
                break;
        case RULE_SIDECAR_HOST:
                host_in_namespace(c, n, path, true, true);
                break;
        case RULE_ADDRESS:
                if (!cidr(n->text))
                        check_error(c, n, path, "\"" STR_FMT "\" is not an IP address or a network such as 10.0.0.0/8", STR_ARG(n->text));
                break;
        case RULE_DURATION:
                duration(c, n, path, 0);
                break;
        case RULE_DURATION_MS:
                duration(c, n, path, 1000);
                break;
        case RULE_COUNT:
                at_least(c, n, path, 0);
                break;
        case RULE_COUNT_1:
                at_least(c, n, path, 1);
                break;
        case RULE_ENUM:
                one_of(c, n, path, x->rule->arg);
                break;
        case RULE_PROTOCOL:
                if (n->text.n && mesh_protocol_parse(n->text) == MESH_AUTO)
                        check_error(c, n, path,
                                    "\"" STR_FMT "\" is not a protocol: one of HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS",
                                    STR_ARG(n->text));
                break;
        case RULE_STATUS:
                range(c, n, path, 200, 599, "a status");
                break;
        case RULE_LABEL:
                if (!dns_label(n->text))
                        check_error(c, n, path, "\"" STR_FMT "\" is not a name: up to 63 letters, digits and \"-\"", STR_ARG(n->text));
                break;
        case RULE_NAMESPACE:
                if (!str_eqc(n->text, "*") && !str_eqc(n->text, ".") && !str_eqc(n->text, "~") && !dns_label(n->text))
                        check_error(c, n, path,
                                    "\"" STR_FMT "\" is not a namespace: write a name, \"*\" for all, \".\" for this one or \"~\" for none",
                                    STR_ARG(n->text));
                break;
        case RULE_GATEWAY_NAME:
                gateway_name(c, n, path);
                break;
        case RULE_HEADER_NAME:
                header_name(c, n, path);
                break;
        case RULE_REGEX:
                if (!n->text.n || n->text.n > 1024)
                        check_error(c, n, path, "a regular expression of 1 to 1024 bytes is needed here");
                break;
        case RULE_PERCENT:
                percent(c, n, path);
                break;
        case RULE_ABSOLUTE_PATH:
                if (!n->text.n || n->text.p[0] != '/')
                        check_error(c, n, path, "\"" STR_FMT "\" is not a path: it starts with \"/\"", STR_ARG(n->text));
                break;
        default:
                break;
        }
}

void check_rules(struct check *c, const struct pb_node *object, const struct rule_at *rules, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                struct applied x = { c, &rules[i] };

                walk(object, rules[i].pattern, rules[i].rule == RULE_PRESENT, apply, &x);
        }
}

void check_unique(struct check *c, const struct pb_node *list, const char *path, const char *field)
{
        struct strmap seen = STRMAP_INIT;
        char at[WALK_PATH_MAX];

        for (size_t i = 0; list && list->kind == PB_LIST && i < list->n; i++) {
                const struct pb_node *n = field ? read_field(list->v[i], field) : list->v[i];

                if (!n || !n->text.n)
                        continue;
                if (strmap_set(&seen, n->text, (void *)1)) {
                        snprintf(at, sizeof(at), "%s[%zu]%s%s", path, i, field ? "." : "", field ? field : "");
                        check_error(c, n, at, "\"" STR_FMT "\" is there twice", STR_ARG(n->text));
                }
        }
        strmap_fini(&seen);
}
