/* The compiler of format strings. An operator is a row of a table: its name, what its parentheses may hold, and a function that writes
 * its value and says whether there was one. Writing nothing and returning false prints "-" in a log and null in JSON.
 *
 * The trap in the grammar: parentheses may hold percent signs (START_TIME's strftime pattern), so an operator's end cannot be found by
 * looking for the next '%'. */
#include "proxy/format.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "http/http.h"
#include "proxy/cluster.h"
#include "proxy/ext.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include "envoy/cluster.pb-c.h"
#include "google/struct.pb-c.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct op {
        const struct operator_ *def; /* NULL: literal */
        struct str text;             /* literal; or the argument */
        struct str name, other;      /* headers, lower case; metadata namespace */
        uint16_t name_id, other_id;
        struct str *path; /* metadata keys */
        unsigned npath;
        size_t max;        /* :Z; 0: no limit */
        unsigned from, to; /* COMMON_DURATION */
        uint64_t unit;     /* divisor of µs; 0: nanoseconds */
};

struct operator_ {
        const char *name;
        enum { ARG_NONE, ARG_OPTIONAL, ARG_NEEDED } arg;
        bool (*parse)(struct op *op, struct arena *a, const char **why);
        bool (*render)(const struct op *op, const struct stream_info *si, struct buf *out);
        bool numeric;
};

struct format {
        struct arena arena;
        struct op *ops;
        size_t n, cap;
        bool omit_empty;
};

/* Parsers of arguments. */

static struct str lower(struct arena *a, struct str s)
{
        char *p = arena_cstr(a, s);

        for (size_t i = 0; i < s.n; i++)
                p[i] = ascii_lower(p[i]);
        return str_make(p, s.n);
}

static bool parse_header(struct op *op, struct arena *a, const char **why)
{
        ptrdiff_t q = str_chr(op->text, '?');
        struct str first = q < 0 ? op->text : str_sub(op->text, 0, (size_t)q);

        if (!first.n) {
                *why = "names no header";
                return false;
        }
        op->name = lower(a, first);
        op->name_id = (uint16_t)http_name_id(op->name);
        if (q >= 0) {
                op->other = lower(a, str_sub(op->text, (size_t)q + 1, op->text.n));
                op->other_id = (uint16_t)http_name_id(op->other);
                if (!op->other.n || str_chr(op->other, '?') >= 0) {
                        *why = "takes at most one alternative header";
                        return false;
                }
        }
        return true;
}

static bool parse_path(struct op *op, struct arena *a, const char **why)
{
        struct str rest = op->text, part;
        unsigned max = 1;

        for (size_t i = 0; i < rest.n; i++)
                max += rest.p[i] == ':';
        op->path = arena_zalloc(a, max * sizeof(*op->path));
        while (str_next(&rest, ':', &part))
                if (!op->name.p)
                        op->name = part;
                else
                        op->path[op->npath++] = part;
        if (!op->name.n) {
                *why = "names no namespace";
                return false;
        }
        return true;
}

static bool parse_duration(struct op *op, struct arena *a, const char **why)
{
        static const struct {
                const char *name;
                enum stream_time t;
        } points[] = {
                { "DS_RX_BEG", ST_START },           { "DS_RX_END", ST_DS_RX_END }, { "US_CX_BEG", ST_US_CX_BEG },
                { "US_CX_END", ST_US_CX_END },       { "US_HS_END", ST_US_HS_END }, { "US_TX_BEG", ST_US_TX_BEG },
                { "US_TX_END", ST_US_TX_END },       { "US_RX_BEG", ST_US_RX_BEG }, { "US_RX_END", ST_US_RX_END },
                { "US_RX_BODY_BEG", ST_US_RX_BODY }, { "DS_TX_BEG", ST_DS_TX_BEG }, { "DS_TX_END", ST_DS_TX_END },
        };
        struct str rest = op->text, part[3] = { 0 };
        unsigned n = 0, found = 0;

        while (n < 3 && str_next(&rest, ':', &part[n]))
                n++;
        for (unsigned i = 0; i < ARRAY_LEN(points); i++) {
                if (str_eqc(part[0], points[i].name))
                        op->from = points[i].t, found |= 1;
                if (str_eqc(part[1], points[i].name))
                        op->to = points[i].t, found |= 2;
        }
        op->unit = str_eqc(part[2], "ms") ? 1000 : 1;
        if (found != 3 || n != 3 || (!str_eqc(part[2], "ms") && !str_eqc(part[2], "us") && !str_eqc(part[2], "ns"))) {
                *why = "wants START:END:PRECISION, such as DS_RX_BEG:US_TX_END:ms";
                return false;
        }
        if (str_eqc(part[2], "ns"))
                op->unit = 0;
        return true;
}

/* Renderers. */

static bool put(struct buf *out, struct str s)
{
        buf_str(out, s);
        return s.n != 0;
}

static bool put_u64(struct buf *out, uint64_t v)
{
        buf_u64(out, v);
        return true;
}

static bool put_ms(struct buf *out, const struct stream_info *si, enum stream_time from, enum stream_time to)
{
        return si->t[from] && si->t[to] ? put_u64(out, stream_us(si, from, to) / 1000) : false;
}

static bool head_value(const struct http_head *m, struct str name, uint16_t id, struct str *v)
{
        const struct http_hdr *h;

        *v = (struct str){ 0 };
        if (!m || !name.n)
                return false;
        if (name.p[0] == ':') {
                if (str_eqc(name, ":method"))
                        *v = m->method;
                else if (str_eqc(name, ":path"))
                        *v = m->path;
                else if (str_eqc(name, ":authority"))
                        *v = m->authority;
                else if (str_eqc(name, ":scheme"))
                        *v = m->scheme;
                return v->n != 0;
        }
        if (id == HN_HOST && m->authority.n) {
                *v = m->authority;
                return true;
        }
        h = id ? http_get(m, (enum http_name)id) : http_get_name(m, name);
        if (h)
                *v = h->value;
        return h && v->n;
}

static bool put_head(const struct op *op, const struct http_head *m, struct buf *out)
{
        struct str v;

        if (m && m->status && str_eqc(op->name, ":status"))
                return put_u64(out, (uint64_t)m->status);
        return (head_value(m, op->name, op->name_id, &v) || head_value(m, op->other, op->other_id, &v)) && put(out, v);
}

static bool r_req(const struct op *op, const struct stream_info *si, struct buf *out)
{
        return put_head(op, si->request, out);
}

static bool r_resp(const struct op *op, const struct stream_info *si, struct buf *out)
{
        return put_head(op, si->response, out);
}

static bool r_trailer(const struct op *op, const struct stream_info *si, struct buf *out)
{
        return put_head(op, si->response_trailers, out);
}

/* strftime with Envoy's additions: %f (9 digits), %1f to %9f, %s with %3s-style digits left to %f. UTC. */
static void put_time(struct str pattern, uint64_t real_us, struct buf *out)
{
        time_t s = (time_t)(real_us / 1000000);
        struct tm tm;
        char piece[8], text[128];

        gmtime_r(&s, &tm);
        for (size_t i = 0; i < pattern.n; i++) {
                char c = pattern.p[i], d = i + 1 < pattern.n ? pattern.p[i + 1] : 0;

                if (c != '%' || !d) {
                        buf_char(out, c);
                } else if (d == 'f' || (d >= '1' && d <= '9' && i + 2 < pattern.n && pattern.p[i + 2] == 'f')) {
                        unsigned digits = d == 'f' ? 9 : (unsigned)(d - '0');

                        snprintf(text, sizeof(text), "%09llu", (unsigned long long)(real_us % 1000000 * 1000));
                        buf_append(out, text, digits);
                        i += d == 'f' ? 1 : 2;
                } else if (d == 's') {
                        buf_u64(out, (uint64_t)s);
                        i++;
                } else if (d == 'E' && i + 3 < pattern.n && pattern.p[i + 3] == 'S') { /* %E3S */
                        snprintf(text, sizeof(text), "%02d.%06llu", tm.tm_sec, (unsigned long long)(real_us % 1000000));
                        buf_append(out, text, 3 + (size_t)(pattern.p[i + 2] - '0') % 7);
                        i += 3;
                } else {
                        snprintf(piece, sizeof(piece), "%%%c", d);
                        buf_append(out, text, strftime(text, sizeof(text), piece, &tm));
                        i++;
                }
        }
}

static bool r_start_time(const struct op *op, const struct stream_info *si, struct buf *out)
{
        char t[40];

        if (!op->text.n)
                buf_append(out, t, clock_rfc3339(si->start_real_us, 3, t));
        else
                put_time(op->text, si->start_real_us, out);
        return true;
}

static bool r_emit_time(const struct op *op, const struct stream_info *si, struct buf *out)
{
        char t[40];

        if (!op->text.n)
                buf_append(out, t, clock_rfc3339(clock_real_us(), 3, t));
        else
                put_time(op->text, clock_real_us(), out);
        return true;
}

static bool put_protocol(enum stream_protocol p, struct buf *out)
{
        static const char *const names[] = { NULL, "HTTP/1.0", "HTTP/1.1", "HTTP/2" };

        return p != SP_NONE && put(out, str_of(names[p]));
}

static bool put_flags(uint32_t flags, const char *const names[RF_COUNT], struct buf *out)
{
        bool any = false;

        for (unsigned i = 0; i < RF_COUNT; i++)
                if (flags & (1u << i)) {
                        if (any)
                                buf_char(out, ',');
                        buf_cstr(out, names[i]);
                        any = true;
                }
        return any;
}

enum addr_part { WHOLE, IP, PORT };

static bool put_addr(const struct addr *a, enum addr_part part, struct buf *out)
{
        char t[ADDR_TEXT_MAX];

        if (!a || !a->len)
                return false;
        if (part == PORT)
                return (a->sa.sa_family == AF_INET || a->sa.sa_family == AF_INET6) && put_u64(out, addr_port(a));
        buf_append(out, t, part == IP ? addr_ip_text(a, t) : addr_text(a, t));
        return true;
}

static const struct addr *remote_of(const struct stream_info *si)
{
        return si->remote ? si->remote : si->conn ? si->conn->remote : NULL;
}

#define R(name, expr)                                                                            \
        static bool r_##name(const struct op *op, const struct stream_info *si, struct buf *out) \
        {                                                                                        \
                (void)op;                                                                        \
                return expr;                                                                     \
        }
#define CONN(field) (si->conn ? si->conn->field : NULL)

R(protocol, put_protocol(si->protocol, out))
R(upstream_protocol, put_protocol(si->upstream_protocol, out))
R(response_code, put_u64(out, (uint64_t)si->response_code))
R(details, put(out, si->response_code_details))
R(flags, put_flags(si->flags, response_flag_short, out))
R(flags_long, put_flags(si->flags, response_flag_long, out))
R(termination, put(out, si->termination_details.n || !si->conn ? si->termination_details : si->conn->termination_details))
R(downstream_failure, si->conn &&put(out, si->conn->transport_failure_reason))
R(bytes_received, put_u64(out, si->bytes_received))
R(bytes_sent, put_u64(out, si->bytes_sent))
R(duration, put_ms(out, si, ST_START, ST_END))
R(request_duration, put_ms(out, si, ST_START, ST_DS_RX_END))
R(request_tx_duration, put_ms(out, si, ST_START, ST_US_TX_END))
R(response_duration, put_ms(out, si, ST_START, ST_US_RX_BEG))
R(response_tx_duration, put_ms(out, si, ST_US_RX_BEG, ST_DS_TX_END))
R(pool_ready, put_ms(out, si, ST_START, ST_US_TX_BEG))
R(upstream_host, put_addr(si->upstream_remote ? si->upstream_remote : si->host ? si->host->addr : NULL, WHOLE, out))
R(upstream_ip, put_addr(si->upstream_remote ? si->upstream_remote : si->host ? si->host->addr : NULL, IP, out))
R(upstream_port, put_addr(si->upstream_remote ? si->upstream_remote : si->host ? si->host->addr : NULL, PORT, out))
R(upstream_host_name, si->host &&put(out, si->host->desc->hostname))
R(upstream_cluster, si->cluster &&put(out, si->cluster->alt_stat_name))
R(upstream_cluster_raw, si->cluster &&put(out, si->cluster->name))
R(upstream_local, put_addr(si->upstream_local, WHOLE, out))
R(upstream_local_ip, put_addr(si->upstream_local, IP, out))
R(upstream_local_port, put_addr(si->upstream_local, PORT, out))
R(upstream_conn_id, si->upstream_conn_id &&put_u64(out, si->upstream_conn_id))
R(attempts, put_u64(out, si->attempts))
R(remote, put_addr(remote_of(si), WHOLE, out))
R(remote_ip, put_addr(remote_of(si), IP, out))
R(remote_port, put_addr(remote_of(si), PORT, out))
R(direct_remote, put_addr(CONN(remote), WHOLE, out))
R(direct_remote_ip, put_addr(CONN(remote), IP, out))
R(direct_remote_port, put_addr(CONN(remote), PORT, out))
R(local, put_addr(CONN(local), WHOLE, out))
R(local_ip, put_addr(CONN(local), IP, out))
R(local_port, put_addr(CONN(local), PORT, out))
R(direct_local, put_addr(CONN(direct_local), WHOLE, out))
R(direct_local_ip, put_addr(CONN(direct_local), IP, out))
R(direct_local_port, put_addr(CONN(direct_local), PORT, out))
R(sni, si->conn &&put(out, si->conn->sni))
R(route_name, put(out, si->route_name))
R(virtual_cluster, put(out, si->virtual_cluster_name))
R(filter_chain, si->conn &&put(out, si->conn->filter_chain_name))
R(conn_id, si->conn &&put_u64(out, si->conn->id))
R(stream_id, put(out, si->stream_id))
R(hostname, si->conn && si->conn->worker && put(out, si->conn->worker->server->hostname))
R(ds_tls_version, si->conn && si->conn->tls && put(out, str_of(si->conn->tls->version)))
R(ds_tls_cipher, si->conn && si->conn->tls && put(out, str_of(si->conn->tls->cipher)))
R(ds_peer_subject, si->conn && si->conn->tls && put(out, si->conn->tls->peer_subject))
R(ds_peer_uri, si->conn && si->conn->tls && si->conn->tls->npeer_uri_san && put(out, si->conn->tls->peer_uri_san[0]))
R(ds_peer_dns, si->conn && si->conn->tls && si->conn->tls->npeer_dns_san && put(out, si->conn->tls->peer_dns_san[0]))
R(us_tls_version, si->upstream_tls &&put(out, str_of(si->upstream_tls->version)))
R(us_tls_cipher, si->upstream_tls &&put(out, str_of(si->upstream_tls->cipher)))
R(us_peer_subject, si->upstream_tls &&put(out, si->upstream_tls->peer_subject))
R(ds_wire_received, put_u64(out, si->ds_wire_received))
R(ds_wire_sent, put_u64(out, si->ds_wire_sent))
R(us_wire_received, put_u64(out, si->us_wire_received))
R(us_wire_sent, put_u64(out, si->us_wire_sent))
R(ds_head_received, put_u64(out, si->ds_head_received))
R(ds_head_sent, put_u64(out, si->ds_head_sent))
R(us_head_received, put_u64(out, si->us_head_received))
R(us_head_sent, put_u64(out, si->us_head_sent))
R(log_type, put(out, si->protocol == SP_NONE ? STR("TcpConnectionEnd") : STR("DownstreamEnd")))
R(environment, put(out, str_of(getenv(op->text.p))))

/* Envoy writes what the transport says with underscores, so that a line divided at blanks keeps its columns. A reason that the
 * configuration gives (no transport was involved) is a sentence for people, in quotes in every common format, and stays one. */
static bool r_upstream_failure(const struct op *op, const struct stream_info *si, struct buf *out)
{
        size_t from = out->n;

        buf_str(out, si->upstream_failure);
        for (size_t i = from; si->flags & (RF_UF | RF_UC | RF_UR | RF_UPE) && i < out->n; i++)
                if (out->p[i] == ' ')
                        out->p[i] = '_';
        return si->upstream_failure.n != 0;
}

static bool r_unique_id(const struct op *op, const struct stream_info *si, struct buf *out)
{
        char u[37];

        rand_uuid4(u);
        return put(out, str_of(u));
}

static bool r_common_duration(const struct op *op, const struct stream_info *si, struct buf *out)
{
        uint64_t us;

        if (!si->t[op->from] || !si->t[op->to] || si->t[op->to] < si->t[op->from])
                return false;
        us = stream_us(si, op->from, op->to);
        return put_u64(out, op->unit ? us / op->unit : us * 1000);
}

static bool r_path(const struct op *op, const struct stream_info *si, struct buf *out)
{
        struct str p = si->request ? si->request->path : (struct str){ 0 }, kind = op->text;
        ptrdiff_t colon = str_chr(kind, ':'), q = str_chr(p, '?');
        struct str which = STR("PATH");

        if (colon >= 0) {
                which = str_sub(kind, (size_t)colon + 1, kind.n);
                kind = str_sub(kind, 0, (size_t)colon);
        }
        if (!str_eqc(which, "PATH") && si->request) {
                const struct http_hdr *h = http_get(si->request, HN_X_ENVOY_ORIGINAL_PATH);

                if (h)
                        p = h->value;
                else if (str_eqc(which, "ORIG"))
                        return false;
                q = str_chr(p, '?');
        }
        return put(out, str_eqc(kind, "NQ") && q >= 0 ? str_sub(p, 0, (size_t)q) : p);
}

static bool r_query(const struct op *op, const struct stream_info *si, struct buf *out)
{
        struct str p = si->request ? si->request->path : (struct str){ 0 }, part;
        ptrdiff_t q = str_chr(p, '?');

        if (q < 0)
                return false;
        p = str_sub(p, (size_t)q + 1, p.n);
        while (str_next(&p, '&', &part)) {
                ptrdiff_t eq = str_chr(part, '=');
                struct str k = eq < 0 ? part : str_sub(part, 0, (size_t)eq);

                if (str_eq(k, op->text))
                        return eq >= 0 && put(out, str_sub(part, (size_t)eq + 1, part.n));
        }
        return false;
}

static const char *const grpc_names[][2] = {
        { "OK", "OK" },
        { "Canceled", "CANCELLED" },
        { "Unknown", "UNKNOWN" },
        { "InvalidArgument", "INVALID_ARGUMENT" },
        { "DeadlineExceeded", "DEADLINE_EXCEEDED" },
        { "NotFound", "NOT_FOUND" },
        { "AlreadyExists", "ALREADY_EXISTS" },
        { "PermissionDenied", "PERMISSION_DENIED" },
        { "ResourceExhausted", "RESOURCE_EXHAUSTED" },
        { "FailedPrecondition", "FAILED_PRECONDITION" },
        { "Aborted", "ABORTED" },
        { "OutOfRange", "OUT_OF_RANGE" },
        { "Unimplemented", "UNIMPLEMENTED" },
        { "Internal", "INTERNAL" },
        { "Unavailable", "UNAVAILABLE" },
        { "DataLoss", "DATA_LOSS" },
        { "Unauthenticated", "UNAUTHENTICATED" },
};

static bool grpc_status(const struct stream_info *si, struct str *v)
{
        return head_value(si->response_trailers, STR("grpc-status"), HN_GRPC_STATUS, v) ||
               head_value(si->response, STR("grpc-status"), HN_GRPC_STATUS, v);
}

static bool r_grpc(const struct op *op, const struct stream_info *si, struct buf *out)
{
        struct str v;
        uint64_t n;

        if (!grpc_status(si, &v))
                return false;
        if (str_eqc(op->text, "NUMBER") || !str_u64(v, &n) || n >= ARRAY_LEN(grpc_names))
                return put(out, v);
        return put(out, str_of(grpc_names[n][str_eqc(op->text, "SNAKE_STRING")]));
}

static bool r_grpc_number(const struct op *op, const struct stream_info *si, struct buf *out)
{
        struct str v;

        return grpc_status(si, &v) && put(out, v);
}

/* Metadata. */

static void value_json(const Gp__Value *v, struct buf *out);

static void struct_json(const Gp__Struct *s, struct buf *out)
{
        buf_char(out, '{');
        for (size_t i = 0; s && i < s->n_fields; i++) {
                if (i)
                        buf_char(out, ',');
                buf_json(out, str_of(s->fields[i]->key));
                buf_char(out, ':');
                value_json(s->fields[i]->value, out);
        }
        buf_char(out, '}');
}

static void put_double(double d, struct buf *out)
{
        char t[40];

        snprintf(t, sizeof(t), "%.17g", d);
        if (d == floor(d) && fabs(d) < 1e15)
                snprintf(t, sizeof(t), "%.0f", d);
        buf_cstr(out, isfinite(d) ? t : "null");
}

static void value_json(const Gp__Value *v, struct buf *out)
{
        switch (v ? v->kind_case : GP__VALUE__KIND_NULL_VALUE) {
        case GP__VALUE__KIND_NUMBER_VALUE:
                put_double(v->number_value, out);
                break;
        case GP__VALUE__KIND_STRING_VALUE:
                buf_json(out, str_of(v->string_value));
                break;
        case GP__VALUE__KIND_BOOL_VALUE:
                buf_cstr(out, v->bool_value ? "true" : "false");
                break;
        case GP__VALUE__KIND_STRUCT_VALUE:
                struct_json(v->struct_value, out);
                break;
        case GP__VALUE__KIND_LIST_VALUE:
                buf_char(out, '[');
                for (size_t i = 0; i < v->list_value->n_values; i++) {
                        if (i)
                                buf_char(out, ',');
                        value_json(v->list_value->values[i], out);
                }
                buf_char(out, ']');
                break;
        default:
                buf_cstr(out, "null");
        }
}

static bool put_struct(const struct op *op, const Gp__Struct *s, struct buf *out)
{
        const Gp__Value *v = NULL;

        if (!s)
                return false;
        for (unsigned i = 0; i < op->npath; i++) {
                v = struct_value(s, op->path[i]);
                if (!v)
                        return false;
                s = v->kind_case == GP__VALUE__KIND_STRUCT_VALUE ? v->struct_value : NULL;
        }
        if (!v)
                struct_json(s, out);
        else if (v->kind_case == GP__VALUE__KIND_STRING_VALUE)
                buf_cstr(out, v->string_value);
        else
                value_json(v, out);
        return true;
}

static bool r_dynamic_metadata(const struct op *op, const struct stream_info *si, struct buf *out)
{
        for (const struct stream_kv *k = si->metadata; k; k = k->next)
                if (str_eq(k->name, op->name))
                        return put_struct(op, k->value, out);
        return false;
}

static bool r_cluster_metadata(const struct op *op, const struct stream_info *si, struct buf *out)
{
        return si->cluster && put_struct(op, metadata_struct(si->cluster->metadata, op->name.p), out);
}

static bool r_host_metadata(const struct op *op, const struct stream_info *si, struct buf *out)
{
        return si->host && put_struct(op, metadata_struct(si->host->desc->metadata, op->name.p), out);
}

static bool r_route_metadata(const struct op *op, const struct stream_info *si, struct buf *out)
{
        return put_struct(op, metadata_struct(si->route_metadata, op->name.p), out);
}

static bool r_filter_state(const struct op *op, const struct stream_info *si, struct buf *out)
{
        for (const struct stream_kv *k = si->filter_state; k; k = k->next)
                if (str_eq(k->name, op->name))
                        return put(out, k->text);
        return false;
}

/* METADATA(TYPE:NAMESPACE:KEY...): the other metadata operators under one name. */
static bool r_metadata(const struct op *op, const struct stream_info *si, struct buf *out)
{
        struct op sub = *op;

        if (!op->npath)
                return false;
        sub.name = op->path[0];
        sub.path++;
        sub.npath--;
        if (str_eqc(op->name, "DYNAMIC"))
                return r_dynamic_metadata(&sub, si, out);
        if (str_eqc(op->name, "CLUSTER"))
                return r_cluster_metadata(&sub, si, out);
        if (str_eqc(op->name, "ROUTE"))
                return r_route_metadata(&sub, si, out);
        return r_host_metadata(&sub, si, out);
}

static bool parse_metadata(struct op *op, struct arena *a, const char **why)
{
        static const char *const kinds[] = { "DYNAMIC", "CLUSTER", "ROUTE", "UPSTREAM_HOST" };

        if (!parse_path(op, a, why))
                return false;
        for (unsigned i = 0; i < op->npath; i++)
                op->path[i] = arena_str(a, op->path[i]);
        for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
                if (op->npath && str_eqc(op->name, kinds[i]))
                        return true;
        *why = "wants DYNAMIC, CLUSTER, ROUTE or UPSTREAM_HOST, then :NAMESPACE and keys";
        return false;
}

/* A namespace is handed to functions that want a C string: give it a NUL. */
static bool parse_namespace(struct op *op, struct arena *a, const char **why)
{
        if (!parse_path(op, a, why))
                return false;
        op->name = arena_str(a, op->name);
        return true;
}

static bool parse_filter_state(struct op *op, struct arena *a, const char **why)
{
        struct str rest = op->text, part;

        if (!str_next(&rest, ':', &op->name) || !op->name.n) {
                *why = "names no key";
                return false;
        }
        while (str_next(&rest, ':', &part))
                if (!str_eqc(part, "PLAIN")) {
                        *why = "has its PLAIN form only";
                        return false;
                }
        return true;
}

static bool parse_cstr(struct op *op, struct arena *a, const char **why)
{
        op->text = arena_str(a, op->text);
        return true;
}

static bool parse_grpc(struct op *op, struct arena *a, const char **why)
{
        if (!op->text.n || str_eqc(op->text, "CAMEL_STRING") || str_eqc(op->text, "SNAKE_STRING") || str_eqc(op->text, "NUMBER"))
                return true;
        *why = "wants CAMEL_STRING, SNAKE_STRING or NUMBER";
        return false;
}

static const struct operator_ operators[] = {
        { "START_TIME", ARG_OPTIONAL, NULL, r_start_time, false },
        { "START_TIME_LOCAL", ARG_OPTIONAL, NULL, r_start_time, false },
        { "EMIT_TIME", ARG_OPTIONAL, NULL, r_emit_time, false },
        { "REQ", ARG_NEEDED, parse_header, r_req, false },
        { "RESP", ARG_NEEDED, parse_header, r_resp, false },
        { "TRAILER", ARG_NEEDED, parse_header, r_trailer, false },
        { "PROTOCOL", ARG_NONE, NULL, r_protocol, false },
        { "UPSTREAM_PROTOCOL", ARG_NONE, NULL, r_upstream_protocol, false },
        { "RESPONSE_CODE", ARG_NONE, NULL, r_response_code, true },
        { "RESPONSE_CODE_DETAILS", ARG_OPTIONAL, NULL, r_details, false },
        { "RESPONSE_FLAGS", ARG_NONE, NULL, r_flags, false },
        { "RESPONSE_FLAGS_LONG", ARG_NONE, NULL, r_flags_long, false },
        { "CONNECTION_TERMINATION_DETAILS", ARG_NONE, NULL, r_termination, false },
        { "UPSTREAM_TRANSPORT_FAILURE_REASON", ARG_NONE, NULL, r_upstream_failure, false },
        { "DOWNSTREAM_TRANSPORT_FAILURE_REASON", ARG_NONE, NULL, r_downstream_failure, false },
        { "BYTES_RECEIVED", ARG_NONE, NULL, r_bytes_received, true },
        { "BYTES_SENT", ARG_NONE, NULL, r_bytes_sent, true },
        { "DURATION", ARG_NONE, NULL, r_duration, true },
        { "REQUEST_DURATION", ARG_NONE, NULL, r_request_duration, true },
        { "REQUEST_TX_DURATION", ARG_NONE, NULL, r_request_tx_duration, true },
        { "RESPONSE_DURATION", ARG_NONE, NULL, r_response_duration, true },
        { "RESPONSE_TX_DURATION", ARG_NONE, NULL, r_response_tx_duration, true },
        { "UPSTREAM_CONNECTION_POOL_READY_DURATION", ARG_NONE, NULL, r_pool_ready, true },
        { "COMMON_DURATION", ARG_NEEDED, parse_duration, r_common_duration, true },
        { "UPSTREAM_HOST", ARG_NONE, NULL, r_upstream_host, false },
        { "UPSTREAM_REMOTE_ADDRESS", ARG_NONE, NULL, r_upstream_host, false },
        { "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", ARG_NONE, NULL, r_upstream_ip, false },
        { "UPSTREAM_REMOTE_PORT", ARG_NONE, NULL, r_upstream_port, true },
        { "UPSTREAM_HOST_NAME", ARG_NONE, NULL, r_upstream_host_name, false },
        { "UPSTREAM_CLUSTER", ARG_NONE, NULL, r_upstream_cluster, false },
        { "UPSTREAM_CLUSTER_RAW", ARG_NONE, NULL, r_upstream_cluster_raw, false },
        { "UPSTREAM_LOCAL_ADDRESS", ARG_NONE, NULL, r_upstream_local, false },
        { "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", ARG_NONE, NULL, r_upstream_local_ip, false },
        { "UPSTREAM_LOCAL_PORT", ARG_NONE, NULL, r_upstream_local_port, true },
        { "UPSTREAM_CONNECTION_ID", ARG_NONE, NULL, r_upstream_conn_id, true },
        { "UPSTREAM_REQUEST_ATTEMPT_COUNT", ARG_NONE, NULL, r_attempts, true },
        { "DOWNSTREAM_REMOTE_ADDRESS", ARG_NONE, NULL, r_remote, false },
        { "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", ARG_NONE, NULL, r_remote_ip, false },
        { "DOWNSTREAM_REMOTE_PORT", ARG_NONE, NULL, r_remote_port, true },
        { "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", ARG_NONE, NULL, r_direct_remote, false },
        { "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", ARG_NONE, NULL, r_direct_remote_ip, false },
        { "DOWNSTREAM_DIRECT_REMOTE_PORT", ARG_NONE, NULL, r_direct_remote_port, true },
        { "DOWNSTREAM_LOCAL_ADDRESS", ARG_NONE, NULL, r_local, false },
        { "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", ARG_NONE, NULL, r_local_ip, false },
        { "DOWNSTREAM_LOCAL_PORT", ARG_NONE, NULL, r_local_port, true },
        { "DOWNSTREAM_DIRECT_LOCAL_ADDRESS", ARG_NONE, NULL, r_direct_local, false },
        { "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", ARG_NONE, NULL, r_direct_local_ip, false },
        { "DOWNSTREAM_DIRECT_LOCAL_PORT", ARG_NONE, NULL, r_direct_local_port, true },
        { "DOWNSTREAM_TLS_VERSION", ARG_NONE, NULL, r_ds_tls_version, false },
        { "DOWNSTREAM_TLS_CIPHER", ARG_NONE, NULL, r_ds_tls_cipher, false },
        { "DOWNSTREAM_PEER_SUBJECT", ARG_NONE, NULL, r_ds_peer_subject, false },
        { "DOWNSTREAM_PEER_URI_SAN", ARG_NONE, NULL, r_ds_peer_uri, false },
        { "DOWNSTREAM_PEER_DNS_SAN", ARG_NONE, NULL, r_ds_peer_dns, false },
        { "UPSTREAM_TLS_VERSION", ARG_NONE, NULL, r_us_tls_version, false },
        { "UPSTREAM_TLS_CIPHER", ARG_NONE, NULL, r_us_tls_cipher, false },
        { "UPSTREAM_PEER_SUBJECT", ARG_NONE, NULL, r_us_peer_subject, false },
        { "DOWNSTREAM_WIRE_BYTES_RECEIVED", ARG_NONE, NULL, r_ds_wire_received, true },
        { "DOWNSTREAM_WIRE_BYTES_SENT", ARG_NONE, NULL, r_ds_wire_sent, true },
        { "UPSTREAM_WIRE_BYTES_RECEIVED", ARG_NONE, NULL, r_us_wire_received, true },
        { "UPSTREAM_WIRE_BYTES_SENT", ARG_NONE, NULL, r_us_wire_sent, true },
        { "DOWNSTREAM_HEADER_BYTES_RECEIVED", ARG_NONE, NULL, r_ds_head_received, true },
        { "DOWNSTREAM_HEADER_BYTES_SENT", ARG_NONE, NULL, r_ds_head_sent, true },
        { "UPSTREAM_HEADER_BYTES_RECEIVED", ARG_NONE, NULL, r_us_head_received, true },
        { "UPSTREAM_HEADER_BYTES_SENT", ARG_NONE, NULL, r_us_head_sent, true },
        { "REQUEST_HEADERS_BYTES", ARG_NONE, NULL, r_ds_head_received, true },
        { "RESPONSE_HEADERS_BYTES", ARG_NONE, NULL, r_ds_head_sent, true },
        { "REQUESTED_SERVER_NAME", ARG_NONE, NULL, r_sni, false },
        { "ROUTE_NAME", ARG_NONE, NULL, r_route_name, false },
        { "VIRTUAL_CLUSTER_NAME", ARG_NONE, NULL, r_virtual_cluster, false },
        { "FILTER_CHAIN_NAME", ARG_NONE, NULL, r_filter_chain, false },
        { "HOSTNAME", ARG_NONE, NULL, r_hostname, false },
        { "CONNECTION_ID", ARG_NONE, NULL, r_conn_id, true },
        { "STREAM_ID", ARG_NONE, NULL, r_stream_id, false },
        { "UNIQUE_ID", ARG_NONE, NULL, r_unique_id, false },
        { "PATH", ARG_OPTIONAL, NULL, r_path, false },
        { "QUERY_PARAM", ARG_NEEDED, NULL, r_query, false },
        { "GRPC_STATUS", ARG_OPTIONAL, parse_grpc, r_grpc, false },
        { "GRPC_STATUS_NUMBER", ARG_NONE, NULL, r_grpc_number, true },
        { "DYNAMIC_METADATA", ARG_NEEDED, parse_namespace, r_dynamic_metadata, false },
        { "CLUSTER_METADATA", ARG_NEEDED, parse_namespace, r_cluster_metadata, false },
        { "UPSTREAM_METADATA", ARG_NEEDED, parse_namespace, r_host_metadata, false },
        { "METADATA", ARG_NEEDED, parse_metadata, r_metadata, false },
        { "FILTER_STATE", ARG_NEEDED, parse_filter_state, r_filter_state, false },
        { "ENVIRONMENT", ARG_NEEDED, parse_cstr, r_environment, false },
        { "ACCESS_LOG_TYPE", ARG_NONE, NULL, r_log_type, false },
};

const char *const response_flag_short[RF_COUNT] = {
#define F(id, s, l) s,
#include "proxy/response_flags.def"
#undef F
};

const char *const response_flag_long[RF_COUNT] = {
#define F(id, s, l) l,
#include "proxy/response_flags.def"
#undef F
};

bool response_flag_parse(struct str name, uint32_t *bit)
{
        for (unsigned i = 0; i < RF_COUNT; i++)
                if (str_eqc(name, response_flag_short[i])) {
                        *bit = 1u << i;
                        return true;
                }
        return false;
}

/* The compiler. */

static const struct operator_ *operator_find(struct str name)
{
        for (unsigned i = 0; i < ARRAY_LEN(operators); i++)
                if (str_eqc(name, operators[i].name))
                        return &operators[i];
        return NULL;
}

static void operator_unknown(struct str name, const struct diag_at *at, struct diags *d)
{
        const char *near = NULL;
        unsigned best = 4;

        for (unsigned i = 0; i < ARRAY_LEN(operators); i++) {
                unsigned dist = str_distance(name, str_of(operators[i].name), 3);

                if (dist < best) {
                        best = dist;
                        near = operators[i].name;
                }
        }
        if (near)
                diag_add(d, DIAG_ERROR, NULL, at, "unknown operator %%" STR_FMT "%% (did you mean %%%s%%?)", STR_ARG(name), near);
        else
                diag_add(d, DIAG_ERROR, NULL, at, "unknown operator %%" STR_FMT "%%", STR_ARG(name));
}

static struct op *op_add(struct format *f)
{
        struct op *op = &VEC_PUSH(f->ops, f->n, f->cap);

        memset(op, 0, sizeof(*op));
        return op;
}

static void literal(struct format *f, struct str s)
{
        if (s.n)
                op_add(f)->text = arena_str(&f->arena, s);
}

/* Reads one operator behind its opening '%' at *i; leaves *i behind the closing one. */
static bool operator_read(struct format *f, struct str text, size_t *i, const struct diag_at *at, struct diags *d)
{
        size_t start = *i, p = start;
        const struct operator_ *def;
        struct str name, arg = { 0 };
        bool has_arg = false;
        uint64_t max = 0;
        const char *why = NULL;
        struct op *op;

        while (p < text.n && ((text.p[p] >= 'A' && text.p[p] <= 'Z') || (text.p[p] >= '0' && text.p[p] <= '9') || text.p[p] == '_'))
                p++;
        name = str_sub(text, start, p - start);
        if (p < text.n && text.p[p] == '(') {
                ptrdiff_t close = str_chr(str_sub(text, p, text.n), ')');

                if (close < 0) {
                        diag_add(d, DIAG_ERROR, NULL, at, "operator %%" STR_FMT " has no closing parenthesis", STR_ARG(name));
                        return false;
                }
                arg = str_sub(text, p + 1, (size_t)close - 1);
                has_arg = true;
                p += (size_t)close + 1;
        }
        if (p < text.n && text.p[p] == ':') {
                size_t digits = p + 1;

                while (digits < text.n && text.p[digits] >= '0' && text.p[digits] <= '9')
                        digits++;
                if (!str_u64(str_sub(text, p + 1, digits - p - 1), &max) || !max) {
                        diag_add(d, DIAG_ERROR, NULL, at, "operator %%" STR_FMT "%%: the length behind ':' must be a positive number",
                                 STR_ARG(name));
                        return false;
                }
                p = digits;
        }
        if (!name.n || p >= text.n || text.p[p] != '%') {
                diag_add(d, DIAG_ERROR, NULL, at,
                         "bad format at \"" STR_FMT "\": an operator is %%NAME%%, %%NAME(ARGUMENT)%% or %%NAME(ARGUMENT):LENGTH%%",
                         STR_ARG(str_sub(text, start - 1, 24)));
                return false;
        }
        *i = p + 1;
        def = operator_find(name);
        if (!def) {
                operator_unknown(name, at, d);
                return false;
        }
        if ((def->arg == ARG_NONE && has_arg) || (def->arg == ARG_NEEDED && !arg.n)) {
                diag_add(d, DIAG_ERROR, NULL, at, "operator %%%s%% %s", def->name,
                         def->arg == ARG_NONE ? "takes no argument" : "needs an argument in parentheses");
                return false;
        }
        op = op_add(f);
        op->def = def;
        op->max = max;
        op->text = arena_str(&f->arena, arg);
        if (def->parse && !def->parse(op, &f->arena, &why)) {
                diag_add(d, DIAG_ERROR, NULL, at, "operator %%%s(" STR_FMT ")%% %s", def->name, STR_ARG(arg), why);
                return false;
        }
        return true;
}

struct format *format_compile(struct str text, bool omit_empty, const struct diag_at *at, struct diags *d)
{
        struct format *f = MEM_NEW(struct format);
        size_t i = 0, from = 0;

        arena_init(&f->arena, 512);
        f->omit_empty = omit_empty;
        while (i < text.n) {
                if (text.p[i] != '%') {
                        i++;
                        continue;
                }
                literal(f, str_sub(text, from, i - from));
                i++;
                if (i < text.n && text.p[i] == '%') {
                        literal(f, STR("%"));
                        i++;
                } else if (!operator_read(f, text, &i, at, d)) {
                        format_free(f);
                        return NULL;
                }
                from = i;
        }
        literal(f, str_sub(text, from, text.n));
        return f;
}

void format_free(struct format *f)
{
        if (!f)
                return;
        free(f->ops);
        arena_fini(&f->arena);
        free(f);
}

static bool op_render(const struct op *op, const struct stream_info *si, struct buf *out)
{
        size_t before = out->n;
        bool got = op->def->render(op, si, out);

        if (!got)
                out->n = before;
        else if (op->max && out->n - before > op->max)
                out->n = before + op->max;
        return got;
}

bool format_render_value(const struct format *f, const struct stream_info *si, struct buf *out)
{
        bool all = true;

        for (size_t i = 0; i < f->n; i++) {
                const struct op *op = &f->ops[i];

                if (!op->def) {
                        buf_str(out, op->text);
                } else if (!op_render(op, si, out)) {
                        all = false;
                        if (!f->omit_empty)
                                buf_char(out, '-');
                }
        }
        return all;
}

void format_render(const struct format *f, const struct stream_info *si, struct buf *out)
{
        format_render_value(f, si, out);
}

bool format_is_literal(const struct format *f, struct str *text)
{
        if (f->n > 1 || (f->n == 1 && f->ops[0].def))
                return false;
        *text = f->n ? f->ops[0].text : (struct str){ 0 };
        return true;
}

/* JSON. */

struct json_node {
        enum { J_LITERAL, J_FORMAT, J_MAP, J_LIST } kind;
        struct str key;
        struct str text; /* literal JSON */
        struct format *format;
        struct json_node *v;
        size_t n;
};

struct format_json {
        struct arena arena;
        struct json_node root;
        bool omit_empty;
};

static int json_key_cmp(const void *a, const void *b)
{
        return str_cmp(((const struct json_node *)a)->key, ((const struct json_node *)b)->key);
}

static bool json_struct(struct format_json *f, struct json_node *node, const Gp__Struct *s, bool sort, const struct diag_at *at,
                        struct diags *d);

static bool json_value(struct format_json *f, struct json_node *node, const Gp__Value *v, bool sort, const struct diag_at *at,
                       struct diags *d)
{
        struct buf b = BUF_INIT;
        bool ok = true;

        switch (v ? v->kind_case : GP__VALUE__KIND_NULL_VALUE) {
        case GP__VALUE__KIND_STRING_VALUE:
                node->kind = J_FORMAT;
                node->format = format_compile(str_of(v->string_value), f->omit_empty, at, d);
                return node->format != NULL;
        case GP__VALUE__KIND_STRUCT_VALUE:
                return json_struct(f, node, v->struct_value, sort, at, d);
        case GP__VALUE__KIND_LIST_VALUE:
                node->kind = J_LIST;
                node->n = v->list_value->n_values;
                node->v = arena_zalloc(&f->arena, node->n * sizeof(*node->v));
                for (size_t i = 0; i < node->n; i++)
                        ok = json_value(f, &node->v[i], v->list_value->values[i], sort, at, d) && ok;
                return ok;
        default:
                node->kind = J_LITERAL;
                value_json(v, &b);
                node->text = arena_str(&f->arena, buf_view(&b));
                buf_fini(&b);
                return true;
        }
}

static bool json_struct(struct format_json *f, struct json_node *node, const Gp__Struct *s, bool sort, const struct diag_at *at,
                        struct diags *d)
{
        bool ok = true;

        node->kind = J_MAP;
        node->n = s->n_fields;
        node->v = arena_zalloc(&f->arena, node->n * sizeof(*node->v));
        for (size_t i = 0; i < node->n; i++) {
                struct diag_at sub = at_path(&f->arena, at, ".%s", s->fields[i]->key);

                node->v[i].key = arena_str(&f->arena, str_of(s->fields[i]->key));
                ok = json_value(f, &node->v[i], s->fields[i]->value, sort, &sub, d) && ok;
        }
        if (sort && node->n)
                qsort(node->v, node->n, sizeof(*node->v), json_key_cmp);
        return ok;
}

struct format_json *format_json_compile(const struct Gp__Struct *s, bool omit_empty, bool sort, const struct diag_at *at, struct diags *d)
{
        struct format_json *f = MEM_NEW(struct format_json);

        arena_init(&f->arena, 1024);
        f->omit_empty = omit_empty;
        if (!json_struct(f, &f->root, s, sort, at, d)) {
                format_json_free(f);
                return NULL;
        }
        return f;
}

static void json_node_free(struct json_node *n)
{
        format_free(n->format);
        for (size_t i = 0; i < n->n; i++)
                json_node_free(&n->v[i]);
}

void format_json_free(struct format_json *f)
{
        if (!f)
                return;
        json_node_free(&f->root);
        arena_fini(&f->arena);
        free(f);
}

static bool json_render(const struct json_node *n, const struct stream_info *si, bool omit, struct buf *out)
{
        struct buf b = BUF_INIT;
        bool any = false;

        switch (n->kind) {
        case J_LITERAL:
                buf_str(out, n->text);
                return true;
        case J_FORMAT:
                if (n->format->n == 1 && n->format->ops[0].def) { /* one operator alone keeps its type */
                        if (!op_render(&n->format->ops[0], si, &b)) {
                                buf_cstr(out, "null");
                                buf_fini(&b);
                                return false;
                        }
                        if (n->format->ops[0].def->numeric)
                                buf_str(out, buf_view(&b));
                        else
                                buf_json(out, buf_view(&b));
                } else {
                        format_render(n->format, si, &b);
                        buf_json(out, buf_view(&b));
                }
                buf_fini(&b);
                return true;
        default:
                buf_char(out, n->kind == J_MAP ? '{' : '[');
                for (size_t i = 0; i < n->n; i++) {
                        size_t before = out->n;

                        if (any)
                                buf_char(out, ',');
                        if (n->kind == J_MAP) {
                                buf_json(out, n->v[i].key);
                                buf_char(out, ':');
                        }
                        if (!json_render(&n->v[i], si, omit, out) && omit && n->kind == J_MAP)
                                out->n = before;
                        else
                                any = true;
                }
                buf_char(out, n->kind == J_MAP ? '}' : ']');
                return true;
        }
}

void format_json_render(const struct format_json *f, const struct stream_info *si, struct buf *out)
{
        json_render(&f->root, si, f->omit_empty, out);
        buf_char(out, '\n');
}
