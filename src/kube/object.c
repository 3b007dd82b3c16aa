/* Small tools on object trees, and the metadata that the server owns. */
#include "kube/api.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

struct pb_node *kube_map(struct arena *a, struct pb_node *parent, const char *key)
{
        struct pb_node *m = pb_get(parent, key);

        if (!m || m->kind != PB_MAP) {
                m = pb_new(a, PB_MAP, STR(""));
                pb_put(a, parent, arena_str(a, str_of(key)), m);
        }
        return m;
}

struct pb_node *kube_list_at(struct arena *a, struct pb_node *parent, const char *key)
{
        struct pb_node *l = pb_get(parent, key);

        if (!l || l->kind != PB_LIST) {
                l = pb_new(a, PB_LIST, STR(""));
                pb_put(a, parent, arena_str(a, str_of(key)), l);
        }
        return l;
}

void kube_put_int(struct arena *a, struct pb_node *map, const char *key, int64_t v)
{
        pb_put(a, map, arena_str(a, str_of(key)), pb_new(a, PB_NUMBER, arena_printf(a, "%lld", (long long)v)));
}

void kube_put_bool(struct arena *a, struct pb_node *map, const char *key, bool v)
{
        pb_put(a, map, arena_str(a, str_of(key)), pb_new(a, PB_BOOL, v ? STR("true") : STR("false")));
}

int64_t kube_int(const struct pb_node *map, const char *dotted, int64_t otherwise)
{
        const struct pb_node *n = pb_get_path(map, dotted);
        int64_t v;

        return n && (n->kind == PB_NUMBER || n->kind == PB_STRING) && str_i64(n->text, &v) ? v : otherwise;
}

bool kube_bool(const struct pb_node *map, const char *dotted, bool otherwise)
{
        const struct pb_node *n = pb_get_path(map, dotted);

        return n && n->kind == PB_BOOL ? str_eqc(n->text, "true") : otherwise;
}

struct str kube_now_text(struct kube_api *api, struct arena *a)
{
        char text[40];
        size_t n = clock_rfc3339(api->now_us(), 0, text);

        return arena_str(a, str_make(text, n));
}

/* Kubernetes' alphabet for generated names: no vowels, nothing that looks like something else. */
struct str kube_random_suffix(struct arena *a, unsigned n)
{
        static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
        char *p = arena_alloc(a, n + 1);

        for (unsigned i = 0; i < n; i++)
                p[i] = alphabet[rand_u64() % (sizeof(alphabet) - 1)];
        p[n] = 0;
        return str_make(p, n);
}

struct str kube_base64(struct str in, struct arena *a)
{
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        char *p = arena_alloc(a, (in.n + 2) / 3 * 4 + 1);
        size_t n = 0;

        for (size_t i = 0; i < in.n; i += 3) {
                unsigned v = (unsigned)(uint8_t)in.p[i] << 16;

                v |= i + 1 < in.n ? (unsigned)(uint8_t)in.p[i + 1] << 8 : 0;
                v |= i + 2 < in.n ? (unsigned)(uint8_t)in.p[i + 2] : 0;
                p[n++] = alphabet[v >> 18];
                p[n++] = alphabet[v >> 12 & 63];
                p[n++] = i + 1 < in.n ? alphabet[v >> 6 & 63] : '=';
                p[n++] = i + 2 < in.n ? alphabet[v & 63] : '=';
        }
        p[n] = 0;
        return str_make(p, n);
}

static bool has_generation(const struct kube_resource *res)
{
        return res->shape == KUBE_CUSTOM || str_eqc(str_of(res->group), "apps") || str_eqc(str_of(res->group), "apiextensions.k8s.io") ||
               str_eqc(str_of(res->group), "discovery.k8s.io");
}

void kube_meta_create(struct kube_api *api, const struct kube_resource *res, struct pb_node *o, struct arena *a)
{
        struct pb_node *meta = kube_map(a, o, "metadata");
        static const char *const owned[] = { "selfLink",      "deletionTimestamp", "deletionGracePeriodSeconds",
                                             "managedFields", "resourceVersion",   "generation" };
        struct str name = pb_get_str(meta, "name", STR("")), prefix = pb_get_str(meta, "generateName", STR(""));
        char uid[37];

        for (size_t i = 0; i < ARRAY_LEN(owned); i++)
                pb_del(meta, owned[i]);
        if (!name.n && prefix.n)
                pb_put_str(a, meta, "name",
                           arena_printf(a, STR_FMT STR_FMT, STR_ARG(str_sub(prefix, 0, 58)), STR_ARG(kube_random_suffix(a, 5))));
        rand_uuid4(uid);
        pb_put_str(a, meta, "uid", arena_str(a, str_of(uid)));
        pb_put_str(a, meta, "creationTimestamp", kube_now_text(api, a));
        if (has_generation(res))
                kube_put_int(a, meta, "generation", 1);
}

/* ---- pruning ---- */

static bool free_form(const ProtobufCMessageDescriptor *m)
{
        static const char *const names[] = { "Struct", "Value",     "ListValue",    "Any",       "Quantity", "IntOrString",
                                             "Time",   "MicroTime", "RawExtension", "Timestamp", "Duration", "FieldMask" };

        for (size_t i = 0; i < ARRAY_LEN(names); i++)
                if (!strcmp(m->short_name, names[i]))
                        return true;
        return str_ends(str_of(m->short_name), STR("Value")) && str_starts(str_of(m->name), STR("google.protobuf."));
}

/* lowerCamelCase of a snake_case field name. */
static bool camel_eq(const char *snake, struct str key)
{
        size_t k = 0;

        for (bool up = false; *snake; snake++) {
                if (*snake == '_') {
                        up = true;
                        continue;
                }
                char c = up && *snake >= 'a' && *snake <= 'z' ? (char)(*snake - 32) : *snake;
                if (k >= key.n || key.p[k++] != c)
                        return false;
                up = false;
        }
        return k == key.n;
}

static const ProtobufCFieldDescriptor *any_case(const ProtobufCMessageDescriptor *m, struct str key)
{
        const ProtobufCFieldDescriptor *f = kube_field(m, key);

        for (unsigned i = 0; !f && i < m->n_fields; i++)
                if (camel_eq(m->fields[i].name, key))
                        f = &m->fields[i];
        return f;
}

static void drop_at(struct pb_node *map, size_t i)
{
        size_t after = map->n - 1 - i;

        memmove(map->keys + i, map->keys + i + 1, after * sizeof(*map->keys));
        memmove(map->v + i, map->v + i + 1, after * sizeof(*map->v));
        if (map->key_at)
                memmove(map->key_at + i, map->key_at + i + 1, after * sizeof(*map->key_at));
        map->n--;
}

static void prune(struct pb_node *n, const ProtobufCMessageDescriptor *m);

static void prune_value(struct pb_node *v, const ProtobufCFieldDescriptor *f)
{
        const ProtobufCMessageDescriptor *sub = f->descriptor;

        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
                return;
        if (kube_field_is_map(f)) {
                const ProtobufCFieldDescriptor *vf = protobuf_c_message_descriptor_get_field_by_name(sub, "value");

                for (size_t k = 0; vf->type == PROTOBUF_C_TYPE_MESSAGE && v->kind == PB_MAP && k < v->n; k++)
                        prune(v->v[k], vf->descriptor);
        } else if (v->kind == PB_LIST) {
                for (size_t k = 0; k < v->n; k++)
                        prune(v->v[k], sub);
        } else {
                prune(v, sub);
        }
}

static void prune(struct pb_node *n, const ProtobufCMessageDescriptor *m)
{
        if (!n || n->kind != PB_MAP || free_form(m))
                return;
        for (size_t i = 0; i < n->n;) {
                const ProtobufCFieldDescriptor *f = any_case(m, n->keys[i]);

                if (f)
                        prune_value(n->v[i++], f);
                else
                        drop_at(n, i);
        }
}

void kube_prune(struct pb_node *o, const struct kube_resource *res)
{
        const ProtobufCMessageDescriptor *meta = pb_type(STR("k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta"));

        for (size_t i = 0; i < o->n;) {
                struct str key = o->keys[i];
                const ProtobufCFieldDescriptor *f = res->shape == KUBE_BUILTIN ? kube_field(res->desc, key) : NULL;

                if (f)
                        prune_value(o->v[i++], f);
                else if (str_eqc(key, "apiVersion") || str_eqc(key, "kind") || (res->shape == KUBE_CUSTOM && str_eqc(key, "status")))
                        i++;
                else if (res->shape == KUBE_CUSTOM && str_eqc(key, "spec"))
                        prune(o->v[i++], res->desc);
                else if (res->shape == KUBE_CUSTOM && str_eqc(key, "metadata") && meta)
                        prune(o->v[i++], meta);
                else
                        drop_at(o, i);
        }
}
