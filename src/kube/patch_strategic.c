/* Strategic merge patch. Lists of built-in kinds merge by a key (containers by name, ports by number); a patch may carry directives:
 *   $patch: replace | delete | merge          in a map, or in an element of a merged list
 *   $deleteFromPrimitiveList/FIELD: [...]     removes primitives
 *   $setElementOrder/FIELD: [...]             the order that the client wants
 *   $retainKeys: [...]                        other keys of this map go
 * kubectl apply computes such patches; a directive it sends and we do not know is an error, never data. */
#include "base/mem.h"
#include "kube/patch.h"

struct merge {
        struct arena *a;
        struct str *why;
        unsigned depth;
};

enum { DEPTH_MAX = 100 };

static const char DELETE_PRIMITIVES[] = "$deleteFromPrimitiveList/", ORDER[] = "$setElementOrder/";

static struct pb_node *merge_map(struct merge *m, const struct pb_node *original, const struct pb_node *patch,
                                 const ProtobufCMessageDescriptor *t);

static struct pb_node *fail(struct merge *m, const char *fmt, struct str s)
{
        *m->why = arena_printf(m->a, "%s: \"" STR_FMT "\"", fmt, STR_ARG(s));
        return NULL;
}

static struct pb_node *get(const struct pb_node *map, struct str key)
{
        for (size_t i = 0; map && map->kind == PB_MAP && i < map->n; i++)
                if (str_eq(map->keys[i], key))
                        return map->v[i];
        return NULL;
}

static bool is_directive(struct str key)
{
        return str_eqc(key, "$patch") || str_eqc(key, "$retainKeys") || str_starts(key, str_of(DELETE_PRIMITIVES)) ||
               str_starts(key, str_of(ORDER));
}

/* A value that has no counterpart: nulls and directives are dropped on the way in. */
static struct pb_node *taken(struct merge *m, const struct pb_node *v)
{
        struct pb_node *out;

        if (v->kind == PB_MAP) {
                out = pb_new(m->a, PB_MAP, STR(""));
                for (size_t i = 0; i < v->n; i++)
                        if (v->v[i]->kind != PB_NULL && !is_directive(v->keys[i]))
                                pb_put(m->a, out, v->keys[i], taken(m, v->v[i]));
                return out;
        }
        if (v->kind != PB_LIST)
                return pb_clone(m->a, v);
        out = pb_new(m->a, PB_LIST, STR(""));
        for (size_t i = 0; i < v->n; i++)
                if (!str_eqc(pb_get_str(v->v[i], "$patch", STR("")), "delete"))
                        pb_push(m->a, out, taken(m, v->v[i]));
        return out;
}

/* Are x and y the same element? With a key: by its value; else primitives by value. */
static bool same(const struct pb_node *x, const struct pb_node *y, const char *key)
{
        if (!*key)
                return x->kind != PB_MAP && y->kind != PB_MAP && str_eq(x->text, y->text);
        const struct pb_node *a = pb_get(x, key), *b = pb_get(y, key);

        return a && b && str_eq(a->text, b->text);
}

static ptrdiff_t find(const struct pb_node *list, const struct pb_node *e, const char *key)
{
        for (size_t i = 0; list && i < list->n; i++)
                if (same(list->v[i], e, key))
                        return (ptrdiff_t)i;
        return -1;
}

static void remove_at(struct pb_node *list, size_t i)
{
        memmove(list->v + i, list->v + i + 1, (list->n - 1 - i) * sizeof(*list->v));
        list->n--;
}

static void insert_at(struct arena *a, struct pb_node *list, size_t i, struct pb_node *v)
{
        pb_push(a, list, v);
        memmove(list->v + i + 1, list->v + i, (list->n - 1 - i) * sizeof(*list->v));
        list->v[i] = v;
}

/* The elements that `order` names come in its order; the others, which only the server has, keep their places relative to them. */
static struct pb_node *reorder(struct merge *m, const struct pb_node *merged, const struct pb_node *order, const struct pb_node *server,
                               const char *key)
{
        struct pb_node *out = pb_new(m->a, PB_LIST, STR(""));
        size_t last = 0;

        for (size_t i = 0; i < order->n; i++) {
                ptrdiff_t at = find(merged, order->v[i], key);

                if (at >= 0 && find(out, order->v[i], key) < 0)
                        pb_push(m->a, out, merged->v[at]);
        }
        for (size_t i = 0; i < merged->n; i++) {
                struct pb_node *e = merged->v[i];

                if (find(order, e, key) >= 0)
                        continue;
                ptrdiff_t mine = find(server, e, key);
                size_t j = last;
                for (; j < out->n; j++) {
                        ptrdiff_t theirs = find(server, out->v[j], key);

                        if (mine >= 0 && theirs >= 0 && mine < theirs)
                                break;
                }
                insert_at(m->a, out, j, e);
                last = j + 1;
        }
        return out;
}

static struct pb_node *merge_primitives(struct merge *m, const struct pb_node *original, const struct pb_node *patch,
                                        const struct pb_node *drop)
{
        struct pb_node *out = pb_new(m->a, PB_LIST, STR(""));

        for (size_t i = 0; original && i < original->n; i++)
                if (!drop || find(drop, original->v[i], "") < 0)
                        pb_push(m->a, out, pb_clone(m->a, original->v[i]));
        for (size_t i = 0; patch && i < patch->n; i++)
                if (find(out, patch->v[i], "") < 0)
                        pb_push(m->a, out, pb_clone(m->a, patch->v[i]));
        return out;
}

/* One element of the patch's list into `out`. */
static bool merge_element(struct merge *m, struct pb_node *out, const struct pb_node *e, const char *key,
                          const ProtobufCMessageDescriptor *t)
{
        if (e->kind != PB_MAP)
                return fail(m, "a list that merges by key holds something that is not a map", STR("")) != NULL;
        struct str directive = pb_get_str(e, "$patch", STR(""));
        const struct pb_node *id = pb_get(e, key);

        if (str_eqc(directive, "replace"))
                return true; /* handled by the caller */
        if (directive.n && !str_eqc(directive, "delete") && !str_eqc(directive, "merge"))
                return fail(m, "unknown $patch directive", directive) != NULL;
        if (!id)
                return fail(m, "an element of the patch does not contain declared merge key", str_of(key)) != NULL;
        ptrdiff_t at = find(out, e, key);
        if (str_eqc(directive, "delete")) {
                if (at >= 0)
                        remove_at(out, (size_t)at);
                return true;
        }
        if (at < 0) {
                pb_push(m->a, out, taken(m, e));
                return true;
        }
        struct pb_node *merged = merge_map(m, out->v[at], e, t);
        if (!merged)
                return false;
        out->v[at] = merged;
        return true;
}

static struct pb_node *merge_list(struct merge *m, const struct pb_node *original, const struct pb_node *patch, const char *key,
                                  const ProtobufCMessageDescriptor *t)
{
        struct pb_node *out = pb_new(m->a, PB_LIST, STR(""));
        bool replace = false;

        for (size_t i = 0; i < patch->n; i++)
                replace |= str_eqc(pb_get_str(patch->v[i], "$patch", STR("")), "replace");
        for (size_t i = 0; !replace && original && i < original->n; i++)
                pb_push(m->a, out, pb_clone(m->a, original->v[i]));
        for (size_t i = 0; i < patch->n; i++)
                if (!merge_element(m, out, patch->v[i], key, t))
                        return NULL;
        return out;
}

static struct pb_node *list_of(struct pb_node *n)
{
        return n && n->kind == PB_LIST ? n : NULL;
}

static struct pb_node *directive_list(struct merge *m, const struct pb_node *patch, const char *prefix, struct str field)
{
        return list_of(get(patch, arena_printf(m->a, "%s" STR_FMT, prefix, STR_ARG(field))));
}

/* A list field that merges, with its directives. `v` is the patch's list, or NULL when only directives name the field. */
static bool merge_list_field(struct merge *m, struct pb_node *out, struct str field, struct pb_node *v, const struct pb_node *patch,
                             const struct kube_patch_rule *rule, const ProtobufCMessageDescriptor *t)
{
        struct pb_node *before = list_of(get(out, field)), *merged;
        const struct pb_node *drop = directive_list(m, patch, DELETE_PRIMITIVES, field), *order = directive_list(m, patch, ORDER, field);

        if (!*rule->merge_key)
                merged = merge_primitives(m, before, v, drop);
        else if (v)
                merged = merge_list(m, before, v, rule->merge_key, t);
        else
                merged = before ? before : pb_new(m->a, PB_LIST, STR(""));
        if (!merged)
                return false;
        if (!order)
                order = v;
        if (order && before)
                merged = reorder(m, merged, order, before, rule->merge_key);
        if (merged->n || before)
                pb_put(m->a, out, field, merged);
        return true;
}

static bool merge_field(struct merge *m, struct pb_node *out, struct str field, struct pb_node *v, const struct pb_node *patch,
                        const ProtobufCMessageDescriptor *t)
{
        const ProtobufCFieldDescriptor *f = t ? kube_field(t, field) : NULL;
        const struct kube_patch_rule *rule = kube_patch_rule(t, field);
        struct pb_node *before = get(out, field);

        if (v->kind == PB_NULL) {
                pb_del(out, arena_cstr(m->a, field));
                return true;
        }
        const ProtobufCMessageDescriptor *sub = f && f->type == PROTOBUF_C_TYPE_MESSAGE ? f->descriptor : NULL;
        if (v->kind == PB_LIST && rule && rule->merge)
                return merge_list_field(m, out, field, v, patch, rule, sub);
        if (v->kind != PB_MAP || !before || before->kind != PB_MAP) {
                pb_put(m->a, out, field, v->kind == PB_LIST ? pb_clone(m->a, v) : taken(m, v));
                return true;
        }
        /* A map<string, X> field has no fields of its own to look rules up for, but its values may. */
        struct pb_node *merged = merge_map(m, before, v, f && kube_field_is_map(f) ? NULL : sub);
        if (!merged)
                return false;
        pb_put(m->a, out, field, merged);
        return true;
}

static bool retain_keys(struct merge *m, struct pb_node *out, const struct pb_node *keep, const struct pb_node *patch)
{
        if (keep->kind != PB_LIST)
                return fail(m, "$retainKeys must be a list", STR("")) != NULL;
        for (size_t i = 0; i < patch->n; i++) {
                struct pb_node key = { .kind = PB_STRING, .text = patch->keys[i] };

                if (!is_directive(patch->keys[i]) && patch->v[i]->kind != PB_NULL && find(keep, &key, "") < 0)
                        return fail(m, "a key of the patch is missing in its $retainKeys list", patch->keys[i]) != NULL;
        }
        for (size_t i = out->n; i-- > 0;) {
                struct pb_node key = { .kind = PB_STRING, .text = out->keys[i] };

                if (find(keep, &key, "") < 0)
                        pb_del(out, arena_cstr(m->a, out->keys[i]));
        }
        return true;
}

/* Fields that only a directive names: $setElementOrder/ports without ports, $deleteFromPrimitiveList/finalizers without finalizers. */
static bool lone_directive(struct merge *m, struct pb_node *out, struct str key, const struct pb_node *patch,
                           const ProtobufCMessageDescriptor *t)
{
        bool order = str_starts(key, str_of(ORDER));
        struct str field = str_sub(key, order ? sizeof(ORDER) - 1 : sizeof(DELETE_PRIMITIVES) - 1, key.n);
        const struct kube_patch_rule *rule = kube_patch_rule(t, field);
        const ProtobufCFieldDescriptor *f = t ? kube_field(t, field) : NULL;

        if (get(patch, field))
                return true; /* done with the field itself */
        if (order && directive_list(m, patch, DELETE_PRIMITIVES, field))
                return true; /* done once, by the other one */
        if (!rule || !rule->merge)
                return fail(m, "a list directive names a field that does not merge", field) != NULL;
        return merge_list_field(m, out, field, NULL, patch, rule, f && f->type == PROTOBUF_C_TYPE_MESSAGE ? f->descriptor : NULL);
}

static struct pb_node *merge_map(struct merge *m, const struct pb_node *original, const struct pb_node *patch,
                                 const ProtobufCMessageDescriptor *t)
{
        struct str directive = pb_get_str(patch, "$patch", STR(""));
        const struct pb_node *keep = pb_get(patch, "$retainKeys");

        if (++m->depth > DEPTH_MAX)
                return fail(m, "the patch nests too deep", STR(""));
        if (str_eqc(directive, "delete"))
                return m->depth--, pb_new(m->a, PB_MAP, STR(""));
        if (str_eqc(directive, "replace"))
                return m->depth--, taken(m, patch);
        if (directive.n && !str_eqc(directive, "merge"))
                return fail(m, "unknown $patch directive", directive);

        struct pb_node *out = pb_clone(m->a, original);
        if (keep && !retain_keys(m, out, keep, patch))
                return NULL;
        for (size_t i = 0; i < patch->n; i++) {
                struct str key = patch->keys[i];
                bool ok = true;

                if (str_starts(key, str_of(ORDER)) || str_starts(key, str_of(DELETE_PRIMITIVES)))
                        ok = lone_directive(m, out, key, patch, t);
                else if (!is_directive(key))
                        ok = merge_field(m, out, key, patch->v[i], patch, t);
                if (!ok)
                        return NULL;
        }
        m->depth--;
        return out;
}

struct pb_node *kube_patch_strategic(const struct pb_node *original, const struct pb_node *patch, const ProtobufCMessageDescriptor *type,
                                     struct arena *a, struct str *why)
{
        struct merge m = { a, why, 0 };

        if (!patch || patch->kind != PB_MAP || original->kind != PB_MAP) {
                *why = STR("a strategic merge patch is an object");
                return NULL;
        }
        return merge_map(&m, original, patch, type);
}
