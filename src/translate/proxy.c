/* Who a proxy is, from the node of its first request. */
#include "translate/translate.h"

#include "google/struct.pb-c.h"

#include <stdlib.h>

static const Gp__Value *field(const Gp__Struct *s, const char *key)
{
        for (size_t i = 0; s && i < s->n_fields; i++)
                if (s->fields[i]->key && strcmp(s->fields[i]->key, key) == 0)
                        return s->fields[i]->value;
        return NULL;
}

static struct str text(struct arena *a, const Gp__Struct *s, const char *key)
{
        const Gp__Value *v = field(s, key);

        if (!v || v->kind_case != GP__VALUE__KIND_STRING_VALUE || !v->string_value)
                return (struct str){ 0 };
        return arena_str(a, str_of(v->string_value));
}

static int by_key(const void *x, const void *y)
{
        return str_cmp(((const struct mesh_label *)x)->key, ((const struct mesh_label *)y)->key);
}

static struct mesh_labels labels(struct arena *a, const Gp__Struct *metadata)
{
        const Gp__Value *v = field(metadata, "LABELS");
        const Gp__Struct *s = v && v->kind_case == GP__VALUE__KIND_STRUCT_VALUE ? v->struct_value : NULL;
        struct mesh_labels l = { 0 };

        l.v = s && s->n_fields ? arena_alloc(a, s->n_fields * sizeof(*l.v)) : NULL;
        for (size_t i = 0; s && i < s->n_fields; i++)
                if (s->fields[i]->key)
                        l.v[l.n++] = (struct mesh_label){ arena_str(a, str_of(s->fields[i]->key)), text(a, s, s->fields[i]->key) };
        if (l.n)
                qsort(l.v, l.n, sizeof(*l.v), by_key);
        return l;
}

static void families(struct translate_proxy *p, struct str list)
{
        struct str one;

        while (str_next(&list, ',', &one)) {
                if (!one.n)
                        continue;
                if (str_chr(one, ':') >= 0)
                        p->ipv6 = true;
                else
                        p->ipv4 = true;
        }
}

bool translate_proxy_parse(const Xds__Node *node, struct arena *a, struct translate_proxy *out, struct diags *d)
{
        static const char form[] = "TYPE~IP~POD.NAMESPACE~DOMAIN, with a TYPE of sidecar or router";
        struct str rest = node && node->id ? arena_str(a, str_of(node->id)) : (struct str){ 0 }, part[4], addresses;
        const Gp__Struct *m = node ? node->metadata : NULL;
        size_t n = 0;
        ptrdiff_t dot;

        *out = (struct translate_proxy){ 0 };
        for (struct str whole = rest; n < 4 && str_next(&whole, '~', &part[n]);)
                n++;
        if (n < 4 || (!str_eqc(part[0], "sidecar") && !str_eqc(part[0], "router"))) {
                diag_add(d, DIAG_ERROR, "PST0401", NULL, "node id \"" STR_FMT "\" is not of the form %s", STR_ARG(rest), form);
                return false;
        }
        out->role = str_eqc(part[0], "router") ? TRANSLATE_ROUTER : TRANSLATE_SIDECAR;
        out->ip = part[1];
        out->id = part[2];
        out->domain = part[3];
        out->ns = text(a, m, "NAMESPACE");
        dot = str_rchr(out->id, '.');
        if (!out->ns.n && dot >= 0)
                out->ns = str_sub(out->id, (size_t)dot + 1, out->id.n);
        if (!out->ns.n) {
                diag_add(d, DIAG_ERROR, "PST0402", NULL, "node id \"" STR_FMT "\" names no namespace, and the metadata has no NAMESPACE",
                         STR_ARG(rest));
                return false;
        }
        out->service_account = text(a, m, "SERVICE_ACCOUNT");
        out->cluster_id = text(a, m, "CLUSTER_ID");
        out->mesh_id = text(a, m, "MESH_ID");
        out->labels = labels(a, m);
        addresses = text(a, m, "INSTANCE_IPS");
        families(out, addresses.n ? addresses : out->ip);
        if (!out->ipv4 && !out->ipv6)
                out->ipv4 = true;
        return true;
}
