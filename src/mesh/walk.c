/* See walk.h. */
#include "mesh/walk.h"

#include <stdio.h>

struct state {
        char path[WALK_PATH_MAX];
        bool missing;
        walk_fn *fn;
        void *arg;
};

static void step(struct state *s, const struct pb_node *n, const struct pb_node *parent, const char *pattern, size_t len);

static void each(struct state *s, const struct pb_node *n, const char *pattern, size_t len, char close)
{
        for (size_t i = 0; n && i < n->n; i++) {
                if (n->kind == PB_LIST && close == ']')
                        snprintf(s->path + len, sizeof(s->path) - len, "[%zu]", i);
                else if (n->kind == PB_MAP && close == '}')
                        snprintf(s->path + len, sizeof(s->path) - len, "." STR_FMT, STR_ARG(n->keys[i]));
                else
                        return;
                step(s, n->v[i], n, pattern + 2, strlen(s->path));
                s->path[len] = 0;
        }
}

static void step(struct state *s, const struct pb_node *n, const struct pb_node *parent, const char *pattern, size_t len)
{
        const char *end;
        char field[64];
        const struct pb_node *next;

        if (!*pattern) {
                s->fn(s->arg, n, parent, s->path);
                return;
        }
        if (*pattern == '[' || *pattern == '{') {
                each(s, n, pattern, len, *pattern == '[' ? ']' : '}');
                return;
        }
        if (*pattern == '.')
                pattern++;
        end = pattern + strcspn(pattern, ".[{");
        snprintf(field, sizeof(field), "%.*s", (int)(end - pattern), pattern);
        next = read_field(n, field);
        if (!next && (*end || !s->missing || !n || n->kind != PB_MAP))
                return;
        snprintf(s->path + len, sizeof(s->path) - len, "%s%s", len ? "." : "", field);
        step(s, next, n, end, strlen(s->path));
        s->path[len] = 0;
}

void walk(const struct pb_node *root, const char *pattern, bool missing, walk_fn *fn, void *arg)
{
        struct state s = { .missing = missing, .fn = fn, .arg = arg };

        step(&s, root, NULL, pattern, 0);
}

struct str walk_resource(struct arena *a, const struct pb_node *object)
{
        struct str ns = pb_get_str(object, "metadata.namespace", STR("default")), name = pb_get_str(object, "metadata.name", STR(""));

        return arena_printf(a, STR_FMT " " STR_FMT "/" STR_FMT, STR_ARG(pb_get_str(object, "kind", STR("?"))), STR_ARG(ns), STR_ARG(name));
}
