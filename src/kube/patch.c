/* JSON Patch and JSON Merge Patch. Strategic merge is in patch_strategic.c. */
#include "kube/patch.h"

#include "base/mem.h"

/* ---- RFC 7396 ---- */

struct pb_node *kube_patch_merge(const struct pb_node *original, const struct pb_node *patch, struct arena *a)
{
        if (!patch || patch->kind != PB_MAP)
                return patch ? pb_clone(a, patch) : pb_new(a, PB_NULL, STR("null"));
        struct pb_node *out = original && original->kind == PB_MAP ? pb_clone(a, original) : pb_new(a, PB_MAP, STR(""));

        for (size_t i = 0; i < patch->n; i++) {
                const char *key = arena_cstr(a, patch->keys[i]);

                if (patch->v[i]->kind == PB_NULL)
                        pb_del(out, key);
                else
                        pb_put(a, out, patch->keys[i], kube_patch_merge(pb_get(out, key), patch->v[i], a));
        }
        return out;
}

/* ---- RFC 6902 ---- */

struct target {
        struct pb_node *parent; /* NULL: the whole document */
        struct str token;       /* the last one */
        struct pb_node *node;   /* what is there, or NULL */
        size_t index;           /* in a list */
        struct str path;
};

static struct str unescape(struct str t, struct arena *a)
{
        if (str_chr(t, '~') < 0)
                return t;
        char *p = arena_alloc(a, t.n + 1);
        size_t n = 0;

        for (size_t i = 0; i < t.n; i++) {
                char c = t.p[i];

                if (c == '~' && i + 1 < t.n && (t.p[i + 1] == '0' || t.p[i + 1] == '1'))
                        c = t.p[++i] == '0' ? '~' : '/';
                p[n++] = c;
        }
        return str_make(p, n);
}

static struct pb_node *map_get(const struct pb_node *m, struct str key)
{
        for (size_t i = 0; i < m->n; i++)
                if (str_eq(m->keys[i], key))
                        return m->v[i];
        return NULL;
}

/* An array index (RFC 6901 §4): no leading zeros; "-" is one past the end. */
static bool list_index(const struct pb_node *list, struct str t, size_t *i)
{
        uint64_t v;

        if (str_eqc(t, "-")) {
                *i = list->n;
                return true;
        }
        if (!str_u64(t, &v) || (t.n > 1 && t.p[0] == '0') || v > list->n)
                return false;
        *i = v;
        return true;
}

static bool step(struct pb_node *at, struct str token, struct target *t)
{
        t->node = NULL;
        if (at->kind == PB_MAP) {
                t->node = map_get(at, token);
                return true;
        }
        if (at->kind != PB_LIST || !list_index(at, token, &t->index))
                return false;
        t->node = t->index < at->n ? at->v[t->index] : NULL;
        return true;
}

static bool resolve(struct pb_node *root, struct str path, struct arena *a, struct target *t, struct str *why)
{
        struct str rest, token;

        *t = (struct target){ .node = root, .path = path };
        if (!path.n)
                return true;
        if (path.p[0] != '/') {
                *why = arena_printf(a, "invalid JSON pointer \"" STR_FMT "\": it must start with '/'", STR_ARG(path));
                return false;
        }
        rest = str_sub(path, 1, path.n);
        struct pb_node *at = root;
        while (str_next(&rest, '/', &token)) {
                t->parent = at;
                t->token = unescape(token, a);
                if (!at || !step(at, t->token, t)) {
                        *why = arena_printf(a, "doc is missing path: " STR_FMT ": missing value", STR_ARG(path));
                        return false;
                }
                at = t->node;
        }
        return true;
}

static void list_insert(struct arena *a, struct pb_node *list, size_t i, struct pb_node *v)
{
        pb_push(a, list, v);
        memmove(list->v + i + 1, list->v + i, (list->n - 1 - i) * sizeof(*list->v));
        list->v[i] = v;
}

static void target_put(struct arena *a, struct pb_node **root, struct target *t, struct pb_node *v, bool insert)
{
        if (!t->parent)
                *root = v;
        else if (t->parent->kind == PB_MAP)
                pb_put(a, t->parent, t->token, v);
        else if (insert)
                list_insert(a, t->parent, t->index, v);
        else
                t->parent->v[t->index] = v;
}

static bool target_remove(struct arena *a, struct pb_node **root, struct target *t, struct str *why)
{
        if (!t->parent || !t->node) {
                *why = arena_printf(a, "Unable to remove nonexistent key: " STR_FMT ": missing value", STR_ARG(t->path));
                return false;
        }
        if (t->parent->kind == PB_MAP) {
                pb_del(t->parent, arena_cstr(a, t->token));
        } else {
                memmove(t->parent->v + t->index, t->parent->v + t->index + 1, (t->parent->n - 1 - t->index) * sizeof(*t->parent->v));
                t->parent->n--;
        }
        return true;
}

static bool apply_from(struct pb_node **root, struct str from, struct str path, bool move, struct arena *a, struct str *why)
{
        struct target src, dst;

        if (!resolve(*root, from, a, &src, why))
                return false;
        if (!src.node) {
                *why = arena_printf(a, "from path not found: " STR_FMT, STR_ARG(from));
                return false;
        }
        if (move && str_starts(path, from) && path.n > from.n && path.p[from.n] == '/') {
                *why = arena_printf(a, "cannot move " STR_FMT " into itself", STR_ARG(from));
                return false;
        }
        struct pb_node *v = pb_clone(a, src.node);
        if (move && !target_remove(a, root, &src, why))
                return false;
        if (!resolve(*root, path, a, &dst, why))
                return false;
        target_put(a, root, &dst, v, true);
        return true;
}

static bool apply_op(struct pb_node **root, const struct pb_node *op, struct arena *a, struct str *why)
{
        struct str kind = pb_get_str(op, "op", STR("")), path = pb_get_str(op, "path", STR(""));
        const struct pb_node *value = pb_get(op, "value"), *pn = pb_get(op, "path");
        struct target t;

        if (!pn || pn->kind != PB_STRING) {
                *why = STR("a JSON patch operation needs a path");
                return false;
        }
        if (str_eqc(kind, "move") || str_eqc(kind, "copy"))
                return apply_from(root, pb_get_str(op, "from", STR("")), path, str_eqc(kind, "move"), a, why);
        if (!resolve(*root, path, a, &t, why))
                return false;
        if (str_eqc(kind, "remove"))
                return target_remove(a, root, &t, why);
        bool add = str_eqc(kind, "add"), replace = str_eqc(kind, "replace"), test = str_eqc(kind, "test");
        if (!add && !replace && !test) {
                *why = arena_printf(a, "Unexpected kind: \"" STR_FMT "\" is not an operation of RFC 6902", STR_ARG(kind));
                return false;
        }
        if (!value) {
                *why = arena_printf(a, "the operation \"" STR_FMT "\" on " STR_FMT " needs a value", STR_ARG(kind), STR_ARG(path));
                return false;
        }
        if (test) {
                if (t.node ? pb_node_eq(t.node, value) : value->kind == PB_NULL)
                        return true;
                *why = arena_printf(a, "testing value " STR_FMT " failed: test failed", STR_ARG(path));
                return false;
        }
        if (replace && !t.node) {
                *why = arena_printf(a, "replace operation does not apply: doc is missing key: " STR_FMT ": missing value", STR_ARG(path));
                return false;
        }
        target_put(a, root, &t, pb_clone(a, value), add);
        return true;
}

struct pb_node *kube_patch_json(const struct pb_node *original, const struct pb_node *patch, struct arena *a, struct str *why)
{
        struct pb_node *root = pb_clone(a, original);

        if (!patch || patch->kind != PB_LIST) {
                *why = STR("a JSON patch is a list of operations");
                return NULL;
        }
        if (patch->n > KUBE_PATCH_MAX_OPS) {
                *why = arena_printf(a, "The allowed maximum operations in a JSON patch is %d, got %zu", KUBE_PATCH_MAX_OPS, patch->n);
                return NULL;
        }
        /* Copies can double a document again and again: the arena's own growth is the bound. */
        size_t limit = a->used_bytes + (64u << 20);
        for (size_t i = 0; i < patch->n; i++) {
                if (!apply_op(&root, patch->v[i], a, why))
                        return NULL;
                if (a->used_bytes > limit) {
                        *why = STR("the patch makes the object too large");
                        return NULL;
                }
        }
        return root;
}
