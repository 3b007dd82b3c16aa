/* --set is parsed as Helm and istioctl parse it: dots divide, [N] indexes a list, a backslash keeps a dot, {a,b} is a list. */
#include "cmd/operator.h"

#include "base/mem.h"

#include <stdlib.h>

enum { SET_MAX_INDEX = 64, FILE_MAX_BYTES = 1 << 20 };

static const char *const profiles[] = { "default", "demo", "minimal", "empty" };

static struct pb_node *map_new(struct arena *a)
{
        return pb_new(a, PB_MAP, STR(""));
}

static struct pb_node *scalar(struct arena *a, struct str text)
{
        uint64_t u;
        struct str digits = text.n && text.p[0] == '-' ? str_sub(text, 1, text.n) : text;

        text = arena_str(a, text);
        if (str_eqc(text, "true") || str_eqc(text, "false"))
                return pb_new(a, PB_BOOL, text);
        if (str_eqc(text, "null"))
                return pb_new(a, PB_NULL, STR(""));
        if (str_u64(digits, &u) && (digits.n == 1 || digits.p[0] != '0'))
                return pb_new(a, PB_NUMBER, text);
        return pb_new(a, PB_STRING, text);
}

static struct pb_node *set_value(struct arena *a, struct str text)
{
        if (text.n < 2 || text.p[0] != '{' || text.p[text.n - 1] != '}')
                return scalar(a, text);
        struct pb_node *list = pb_new(a, PB_LIST, STR(""));
        struct str rest = str_sub(text, 1, text.n - 2), part;

        while (rest.n && str_next(&rest, ',', &part))
                pb_push(a, list, scalar(a, str_trim(part)));
        return list;
}

/* Takes "name" with its "[N]"s off the front of *path. */
static bool next_step(struct arena *a, struct str *path, struct str *name, int *index, struct str all, struct diags *d)
{
        struct diag_at at = { .path = all };
        char *out = arena_alloc(a, path->n + 1);
        size_t n = 0, i = 0;

        for (; i < path->n && path->p[i] != '.' && path->p[i] != '['; i++) {
                if (path->p[i] == '\\' && i + 1 < path->n)
                        i++;
                out[n++] = path->p[i];
        }
        *name = str_make(out, n);
        *index = -1;
        if (!n) {
                diag_add(d, DIAG_ERROR, NULL, &at, "--set: an empty name in the path");
                return false;
        }
        if (i < path->n && path->p[i] == '[') {
                struct str tail = str_sub(*path, i + 1, path->n);
                ptrdiff_t end = str_chr(tail, ']');
                uint64_t v;

                if (end < 0 || !str_u64(str_sub(tail, 0, (size_t)end), &v) || v >= SET_MAX_INDEX) {
                        diag_add(d, DIAG_ERROR, NULL, &at, "--set: [...] must hold a number below %d", SET_MAX_INDEX);
                        return false;
                }
                *index = (int)v;
                i += (size_t)end + 2;
        }
        if (i < path->n && path->p[i] == '.')
                i++;
        *path = str_sub(*path, i, path->n);
        return true;
}

static bool apply_set(struct arena *a, struct pb_node *root, const char *set, struct diags *d)
{
        struct str s = str_of(set);
        ptrdiff_t eq = str_chr(s, '=');
        struct diag_at at = { .path = s };

        if (eq <= 0) {
                diag_add(d, DIAG_ERROR, NULL, &at, "--set needs PATH=VALUE");
                return false;
        }
        struct str all = str_sub(s, 0, (size_t)eq), path = all, name;
        struct pb_node *value = set_value(a, str_sub(s, (size_t)eq + 1, s.n)), *cur = root;

        while (path.n) {
                int index;

                if (!next_step(a, &path, &name, &index, all, d))
                        return false;
                const char *key = arena_cstr(a, name);

                if (index < 0 && !path.n) {
                        pb_put(a, cur, name, value);
                        return true;
                }
                struct pb_node *child = pb_get(cur, key);
                enum pb_kind want = index < 0 ? PB_MAP : PB_LIST;

                if (!child || child->kind != want) {
                        child = pb_new(a, want, STR(""));
                        pb_put(a, cur, name, child);
                }
                cur = child;
                if (index < 0)
                        continue;
                while ((int)cur->n <= index)
                        pb_push(a, cur, map_new(a));
                if (!path.n) {
                        cur->v[index] = value;
                        return true;
                }
                if (cur->v[index]->kind != PB_MAP)
                        cur->v[index] = map_new(a);
                cur = cur->v[index];
        }
        return true;
}

static bool load_file(struct str path, struct arena *a, struct pb_node *spec, struct diags *d)
{
        struct buf b = BUF_INIT;
        struct diag_at at = { .file = path };
        struct pb_node **docs;
        size_t n;
        int rc = buf_read_file(&b, path.p, FILE_MAX_BYTES);
        struct str text = arena_str(a, buf_view(&b));

        buf_fini(&b);
        if (rc < 0) {
                diag_add(d, DIAG_ERROR, NULL, &at, "cannot be read: %s", strerror(-rc));
                return false;
        }
        if (!pb_parse_yaml(text, path, a, &docs, &n, d))
                return false;
        for (size_t i = 0; i < n; i++) {
                struct str kind = pb_get_str(docs[i], "kind", STR(""));
                struct pb_node *s = pb_get(docs[i], "spec");

                if (docs[i]->kind == PB_NULL)
                        continue;
                if (!str_eqc(kind, "IstioOperator")) {
                        at.line = docs[i]->line;
                        at.column = docs[i]->column;
                        diag_add(d, DIAG_ERROR, NULL, &at, "kind is \"" STR_FMT "\": -f takes an IstioOperator (install.istio.io/v1alpha1)",
                                 STR_ARG(kind));
                        return false;
                }
                if (s && s->kind == PB_MAP)
                        pb_merge(a, spec, s);
        }
        return true;
}

/* What IstioOperator knows and Postern does not do is refused where it would change something. */
static void refuse(const IstioOp__IstioOperatorSpec *s, struct diags *d)
{
        const struct {
                const char *path;
                bool given;
                const char *why;
        } t[] = {
                { "components.cni", s->components && s->components->cni && s->components->cni->enabled,
                  "the node redirects traffic itself: no CNI plug-in is needed" },
                { "components.ztunnel", s->components && s->components->ztunnel && s->components->ztunnel->enabled,
                  "ambient mode is not in this release" },
                { "revision", s->revision && *s->revision && strcmp(s->revision, "default") != 0, "revisions are not in this release" },
                { "namespace", s->namespace_ && strcmp(s->namespace_, "istio-system") != 0, "the control plane lives in istio-system" },
                { "values.global.istioNamespace",
                  s->values && s->values->global && s->values->global->istio_namespace &&
                          strcmp(s->values->global->istio_namespace, "istio-system") != 0,
                  "the control plane lives in istio-system" },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++)
                if (t[i].given)
                        diag_add(d, DIAG_ERROR, NULL, &(struct diag_at){ .path = str_of(t[i].path) }, "not supported: %s", t[i].why);
}

static bool pick_profile(struct pb_node *spec, struct str *profile, struct diags *d)
{
        *profile = pb_get_str(spec, "profile", STR("default"));
        for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
                if (str_eqc(*profile, profiles[i]))
                        return true;
        diag_add(d, DIAG_ERROR, NULL, &(struct diag_at){ .path = STR("profile") },
                 "unknown profile \"" STR_FMT "\": the profiles are default, demo, minimal and empty", STR_ARG(*profile));
        return false;
}

/* The gateways of the default and demo profiles, unless the user names his own. */
static void profile_gateways(struct arena *a, struct pb_node *spec, struct str profile)
{
        static const struct {
                const char *list, *name;
                bool in_default;
        } g[] = { { "ingressGateways", "istio-ingressgateway", true }, { "egressGateways", "istio-egressgateway", false } };
        bool demo = str_eqc(profile, "demo"), dflt = str_eqc(profile, "default");
        struct pb_node *components = pb_get(spec, "components");

        if (!demo && !dflt)
                return;
        if (!components) {
                components = map_new(a);
                pb_put(a, spec, STR("components"), components);
        }
        for (size_t i = 0; i < ARRAY_LEN(g); i++) {
                if (pb_get(components, g[i].list) || (!demo && !g[i].in_default))
                        continue;
                struct pb_node *list = pb_new(a, PB_LIST, STR("")), *one = map_new(a);

                pb_put_str(a, one, "name", str_of(g[i].name));
                pb_put(a, one, STR("enabled"), pb_new(a, PB_BOOL, STR("true")));
                pb_push(a, list, one);
                pb_put(a, components, str_of(g[i].list), list);
        }
}

bool operator_load(const struct operator_input *in, struct arena *a, struct operator_spec *out, struct diags *d)
{
        struct pb_node *spec = map_new(a);
        const ProtobufCMessageDescriptor *mesh_type = pb_type(STR("istio.mesh.v1alpha1.MeshConfig"));

        *out = (struct operator_spec){ 0 };
        if (in->file.n && !load_file(in->file, a, spec, d))
                return false;
        for (size_t i = 0; i < in->nsets; i++)
                if (!apply_set(a, spec, in->sets[i], d))
                        return false;
        if (!pick_profile(spec, &out->profile, d))
                return false;
        profile_gateways(a, spec, out->profile);
        out->spec = (IstioOp__IstioOperatorSpec *)pb_from_node(&istio_op__istio_operator_spec__descriptor, spec, 0,
                                                               &(struct diag_at){ .file = in->file }, a, d);
        out->mesh_config = pb_get(spec, "meshConfig");
        if (out->mesh_config)
                pb_from_node(mesh_type, out->mesh_config, 0, &(struct diag_at){ .file = in->file, .path = STR("meshConfig") }, a, d);
        if (out->spec)
                refuse(out->spec, d);
        return d->errors == 0;
}
