/* Envoy's runtime, as far as a static layer can carry it: numbers by key. Keys may be dotted, nested, or both. */
#include "proxy/bootstrap.h"
#include "proxy/ext.h"

#include "envoy/bootstrap.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"

static const Gp__Value *lookup(const Gp__Struct *s, struct str key)
{
        const Gp__Value *v = struct_value(s, key);

        for (size_t i = 0; !v && i < key.n; i++)
                if (key.p[i] == '.') {
                        const Gp__Value *sub = struct_value(s, str_sub(key, 0, i));

                        if (sub && sub->kind_case == GP__VALUE__KIND_STRUCT_VALUE)
                                v = lookup(sub->struct_value, str_sub(key, i + 1, key.n));
                }
        return v;
}

bool runtime_number(const struct Xds__Bootstrap *b, const char *key, uint64_t *v)
{
        bool found = false;

        for (size_t i = 0; b && b->layered_runtime && i < b->layered_runtime->n_layers; i++) {
                const Xds__RuntimeLayer *l = b->layered_runtime->layers[i];
                const Gp__Value *x;

                if (l->layer_specifier_case != XDS__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER)
                        continue;
                x = lookup(l->static_layer, str_of(key));
                if (x && x->kind_case == GP__VALUE__KIND_NUMBER_VALUE && x->number_value >= 0) {
                        *v = (uint64_t)x->number_value;
                        found = true;
                } else if (x && x->kind_case == GP__VALUE__KIND_STRING_VALUE && str_u64(str_of(x->string_value), v)) {
                        found = true;
                }
        }
        return found;
}

static void check(const Gp__Struct *s, struct str prefix, struct arena *a, const struct diag_at *at, struct diags *d)
{
        for (size_t i = 0; s && i < s->n_fields; i++) {
                struct str key = prefix.n ? arena_printf(a, STR_FMT ".%s", STR_ARG(prefix), s->fields[i]->key) : str_of(s->fields[i]->key);

                if (s->fields[i]->value->kind_case == GP__VALUE__KIND_STRUCT_VALUE)
                        check(s->fields[i]->value->struct_value, key, a, at, d);
                else if (!str_eqc(key, "overload.global_downstream_max_connections") &&
                         !(str_starts(key, STR("envoy.resource_limits.listener.")) && str_ends(key, STR(".connection_limit"))))
                        diag_add(d, DIAG_WARNING, NULL, at, "runtime key " STR_FMT " has no effect", STR_ARG(key));
        }
}

void runtime_check(const struct Xds__Bootstrap *b, struct diags *d)
{
        struct arena a;

        arena_init(&a, 1024);
        for (size_t i = 0; b->layered_runtime && i < b->layered_runtime->n_layers; i++) {
                const Xds__RuntimeLayer *l = b->layered_runtime->layers[i];
                struct diag_at at = { .path = arena_printf(&a, "layered_runtime.layers[%zu]", i) };

                if (l->layer_specifier_case == XDS__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER)
                        check(l->static_layer, STR(""), &a, &at, d);
                else if (l->layer_specifier_case != XDS__RUNTIME_LAYER__LAYER_SPECIFIER_ADMIN_LAYER)
                        diag_add(d, DIAG_WARNING, NULL, &at, "is not supported and has no effect: only static layers are read");
        }
        arena_fini(&a);
}
