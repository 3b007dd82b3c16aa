/* The table of every message type, and what the readers and printers need to know about each.
 *
 * Types come from a table that the build makes out of all .proto files. It is turned into a hash at the first question. Facts about a type
 * (its JSON names, whether it is a map's entry, its special form) are made at its first use and published by compare-and-swap in a table
 * that only ever grows, so readers take no lock. All of it lives as long as the process. */
#include "base/hash.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

extern const ProtobufCMessageDescriptor *const pb_all_types[];
extern const size_t pb_all_types_n;

static struct {
        pthread_once_t once;
        const ProtobufCMessageDescriptor **by_name;
        size_t name_mask;
        _Atomic(struct pb_info *) *infos;
        size_t info_mask;
} types = { .once = PTHREAD_ONCE_INIT };

static void types_make(void)
{
        size_t want = 256;

        while (want < pb_all_types_n * 4)
                want *= 2;
        types.by_name = mem_calloc(want, sizeof(*types.by_name));
        types.name_mask = want - 1;
        for (size_t i = 0; i < pb_all_types_n; i++) {
                const ProtobufCMessageDescriptor *t = pb_all_types[i];
                size_t h = hash_bytes(t->name, strlen(t->name), 0) & types.name_mask;

                while (types.by_name[h])
                        h = (h + 1) & types.name_mask;
                types.by_name[h] = t;
        }
        types.infos = mem_calloc(want * 2, sizeof(*types.infos));
        types.info_mask = want * 2 - 1;
}

const ProtobufCMessageDescriptor *pb_type(struct str full_name)
{
        pthread_once(&types.once, types_make);
        size_t h = hash_bytes(full_name.p, full_name.n, 0) & types.name_mask;

        for (; types.by_name[h]; h = (h + 1) & types.name_mask)
                if (str_eqc(full_name, types.by_name[h]->name))
                        return types.by_name[h];
        return NULL;
}

struct str pb_url_name(struct str url)
{
        ptrdiff_t slash = str_rchr(url, '/');

        return str_sub(url, (size_t)(slash + 1), url.n);
}

const ProtobufCMessageDescriptor *pb_type_url(struct str url)
{
        return pb_type(pb_url_name(url));
}

static const struct {
        const char *name;
        enum pb_special special;
} google[] = {
        { "google.protobuf.Duration", PB_DURATION },     { "google.protobuf.Timestamp", PB_TIMESTAMP },
        { "google.protobuf.Struct", PB_STRUCT },         { "google.protobuf.Value", PB_VALUE },
        { "google.protobuf.ListValue", PB_LIST_VALUE },  { "google.protobuf.FieldMask", PB_FIELD_MASK },
        { "google.protobuf.Any", PB_ANY },               { "google.protobuf.DoubleValue", PB_WRAPPER },
        { "google.protobuf.FloatValue", PB_WRAPPER },    { "google.protobuf.Int64Value", PB_WRAPPER },
        { "google.protobuf.UInt64Value", PB_WRAPPER },   { "google.protobuf.Int32Value", PB_WRAPPER },
        { "google.protobuf.UInt32Value", PB_WRAPPER },   { "google.protobuf.BoolValue", PB_WRAPPER },
        { "google.protobuf.StringValue", PB_WRAPPER },   { "google.protobuf.BytesValue", PB_WRAPPER },
}, kube[] = {
        { "IntOrString", PB_INT_OR_STRING }, { "Quantity", PB_QUANTITY }, { "Time", PB_K8S_TIME }, { "MicroTime", PB_K8S_TIME },
        { "RawExtension", PB_RAW_JSON },     { "FieldsV1", PB_RAW_JSON }, { "JSON", PB_RAW_JSON },
};

static enum pb_special special_of(const ProtobufCMessageDescriptor *t, bool k8s)
{
        for (size_t i = 0; i < ARRAY_LEN(google); i++)
                if (!strcmp(t->name, google[i].name))
                        return google[i].special;
        for (size_t i = 0; k8s && i < ARRAY_LEN(kube); i++)
                if (!strcmp(t->short_name, kube[i].name))
                        return kube[i].special;
        return PB_PLAIN;
}

/* protobuf-c keeps no mark of a map: it is a nested message "FooEntry" of a "foo" list, with key = 1 and value = 2. No message of our
 * own schemas looks so by accident, for the outer name must be that of a message type too. */
static bool is_entry(const ProtobufCMessageDescriptor *t)
{
        return str_ends(str_of(t->short_name), STR("Entry")) && t->n_fields == 2 && t->fields[0].id == 1 && t->fields[1].id == 2 &&
               !strcmp(t->fields[0].name, "key") && !strcmp(t->fields[1].name, "value") &&
               strlen(t->name) > strlen(t->package_name) + strlen(t->short_name) + 1;
}

static int name_cmp(const void *a, const void *b)
{
        return str_cmp(((const struct pb_name *)a)->name, ((const struct pb_name *)b)->name);
}

static struct pb_info *info_make(const ProtobufCMessageDescriptor *t)
{
        struct pb_info *ti = MEM_NEW(struct pb_info);

        ti->t = t;
        ti->k8s = str_starts(str_of(t->package_name), STR("k8s.io."));
        ti->go_durations = ti->k8s || str_starts(str_of(t->package_name), STR("istio."));
        ti->special = special_of(t, ti->k8s);
        ti->entry = is_entry(t);
        ti->json_names = mem_calloc(t->n_fields + 1, sizeof(*ti->json_names));
        ti->names = mem_calloc((size_t)t->n_fields * 2 + 1, sizeof(*ti->names));
        for (unsigned i = 0; i < t->n_fields; i++) {
                const char *name = t->fields[i].name;
                char *camel = mem_alloc(strlen(name) + 1);

                pb_camel(name, camel);
                ti->json_names[i] = camel;
                ti->names[ti->n_names++] = (struct pb_name){ str_of(name), i };
                if (strcmp(name, camel))
                        ti->names[ti->n_names++] = (struct pb_name){ str_of(camel), i };
        }
        qsort(ti->names, ti->n_names, sizeof(*ti->names), name_cmp);
        return ti;
}

static void info_free(struct pb_info *ti)
{
        for (unsigned i = 0; i < ti->t->n_fields; i++)
                free((char *)ti->json_names[i]);
        free(ti->json_names);
        free(ti->names);
        free(ti);
}

const struct pb_info *pb_info(const ProtobufCMessageDescriptor *t)
{
        pthread_once(&types.once, types_make);
        uintptr_t p = (uintptr_t)t;
        size_t h = hash_bytes(&p, sizeof(p), 1) & types.info_mask;
        struct pb_info *made = NULL;

        for (size_t tries = 0; tries <= types.info_mask; h = (h + 1) & types.info_mask, tries++) {
                struct pb_info *ti = atomic_load_explicit(&types.infos[h], memory_order_acquire);

                if (!ti) {
                        if (!made)
                                made = info_make(t);
                        if (atomic_compare_exchange_strong_explicit(&types.infos[h], &ti, made, memory_order_acq_rel, memory_order_acquire))
                                return made;
                }
                if (ti->t == t) {
                        if (made)
                                info_free(made);
                        return ti;
                }
        }
        abort(); /* more types than four times those of the build: not a table any more */
}

int pb_field_index(const struct pb_info *ti, struct str name)
{
        size_t lo = 0, hi = ti->n_names;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int c = str_cmp(name, ti->names[mid].name);

                if (c == 0)
                        return (int)ti->names[mid].field;
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return -1;
}

const ProtobufCFieldDescriptor *pb_field_by_number(const ProtobufCMessageDescriptor *t, uint32_t id)
{
        size_t lo = 0, hi = t->n_fields;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (t->fields[mid].id == id)
                        return &t->fields[mid];
                if (t->fields[mid].id > id)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return NULL;
}

/* Lower case without "_" and "-": so "Http_Route" hits "httpRoute" before any edit distance is looked at. */
static struct str squeeze(struct str s, char *out, size_t cap)
{
        size_t n = 0;

        for (size_t i = 0; i < s.n && n < cap; i++)
                if (s.p[i] != '_' && s.p[i] != '-')
                        out[n++] = ascii_lower(s.p[i]);
        return str_make(out, n);
}

struct nearest {
        char want[64], have[64];
        struct str name;
        unsigned best;
        const char *hit;
};

static void nearest_init(struct nearest *n, struct str name)
{
        n->name = squeeze(name, n->want, sizeof(n->want));
        n->best = name.n <= 3 ? 1 : name.n <= 8 ? 2 : 3;
        n->best++;
        n->hit = NULL;
}

static void nearest_try(struct nearest *n, const char *candidate)
{
        struct str c = squeeze(str_of(candidate), n->have, sizeof(n->have));
        size_t longer = c.n > n->name.n ? c.n - n->name.n : n->name.n - c.n;

        if (n->best == 0 || longer >= n->best)
                return;
        unsigned d = str_distance(n->name, c, n->best - 1);

        if (d < n->best) {
                n->best = d;
                n->hit = candidate;
        }
}

const char *pb_field_near(const struct pb_info *ti, struct str name)
{
        struct nearest n;

        nearest_init(&n, name);
        for (unsigned i = 0; i < ti->t->n_fields && n.best; i++)
                nearest_try(&n, ti->json_names[i]);
        if (n.hit)
                return n.hit;
        /* "hostnames" for "hosts", "port" for "portNumber": one is the beginning of the other. */
        for (unsigned i = 0; i < ti->t->n_fields; i++) {
                struct str j = str_of(ti->json_names[i]);

                if (name.n >= 4 && j.n >= 4 && (str_starts_nocase(j, name) || str_starts_nocase(name, j)))
                        return ti->json_names[i];
        }
        return NULL;
}

const char *pb_type_near(struct str full_name)
{
        struct nearest n;

        pthread_once(&types.once, types_make);
        nearest_init(&n, full_name);
        for (size_t i = 0; i < pb_all_types_n && n.best; i++)
                nearest_try(&n, pb_all_types[i]->name);
        return n.hit;
}
