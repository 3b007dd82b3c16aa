/* Protobuf bodies into JSON trees. The messages of proto/kube have the shape of the JSON, and the wire differs from it in three ways that
 * are undone here, on the bytes, before they are unpacked:
 *   - a struct that Go embeds is a message of its own on the wire, and its fields are the parent's in JSON (numbered from 100 there);
 *   - Go writes every field that is not a pointer, zero or not; JSON leaves zeros out, and defaults fill them in;
 *   - a zero time is an empty message, not 1970.
 * The envelope is "k8s", a NUL, and runtime.Unknown { typeMeta = 1 { apiVersion = 1, kind = 2 }, raw = 2 }. */
#include "kube/wire.h"

#include "base/mem.h"
#include "kube/kinds.h"

#include <stdio.h>

enum { DEPTH_MAX = 64, EMBEDDED_FROM = 100 };

static const struct {
        const char *message;
        uint32_t number;
} embedded[] = {
        { "Volume", 2 },
        { "ConfigMapEnvSource", 1 },
        { "SecretEnvSource", 1 },
        { "ConfigMapKeySelector", 1 },
        { "SecretKeySelector", 1 },
        { "ConfigMapProjection", 1 },
        { "SecretProjection", 1 },
        { "ConfigMapVolumeSource", 1 },
        { "Probe", 1 },
        { "EphemeralContainer", 1 },
};

/* Numbers and bools that are pointers in Go: there a zero was meant. */
static const char *const pointers[] = {
        "activeDeadlineSeconds",
        "allocateLoadBalancerNodePorts",
        "allowPrivilegeEscalation",
        "automountServiceAccountToken",
        "blockOwnerDeletion",
        "collisionCount",
        "controller",
        "defaultMode",
        "deletionGracePeriodSeconds",
        "enableServiceLinks",
        "expirationSeconds",
        "fsGroup",
        "gracePeriodSeconds",
        "hostUsers",
        "immutable",
        "minDomains",
        "mode",
        "optional",
        "orphanDependents",
        "priority",
        "privileged",
        "progressDeadlineSeconds",
        "readOnlyRootFilesystem",
        "ready",
        "replicas",
        "revisionHistoryLimit",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "serving",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "started",
        "terminating",
        "terminationGracePeriodSeconds",
        "tolerationSeconds",
};

struct reader {
        const uint8_t *p, *end;
};

struct field {
        uint32_t number;
        unsigned wire;
        uint64_t value;   /* VARINT; others: raw bits */
        struct str bytes; /* wire type 2 */
        struct str raw;   /* the whole field, key included */
};

static bool varint(struct reader *r, uint64_t *v)
{
        *v = 0;
        for (unsigned shift = 0; shift < 64 && r->p < r->end; shift += 7) {
                uint8_t b = *r->p++;

                *v |= (uint64_t)(b & 127) << shift;
                if (!(b & 128))
                        return true;
        }
        return false;
}

static bool take(struct reader *r, uint64_t n, struct str *out)
{
        if (n > (uint64_t)(r->end - r->p))
                return false;
        *out = str_make((const char *)r->p, n);
        r->p += n;
        return true;
}

static bool next(struct reader *r, struct field *f)
{
        const uint8_t *from = r->p;
        uint64_t key, n;

        *f = (struct field){ 0 };
        if (!varint(r, &key) || !(key >> 3) || key >> 3 > 536870911)
                return false;
        f->number = (uint32_t)(key >> 3);
        f->wire = key & 7;
        bool ok = f->wire == 0   ? varint(r, &f->value)
                  : f->wire == 1 ? take(r, 8, &f->bytes)
                  : f->wire == 5 ? take(r, 4, &f->bytes)
                  : f->wire == 2 ? varint(r, &n) && take(r, n, &f->bytes)
                                 : false;
        f->raw = str_make((const char *)from, (size_t)(r->p - from));
        return ok;
}

static struct reader reader_of(struct str s)
{
        return (struct reader){ (const uint8_t *)s.p, (const uint8_t *)s.p + s.n };
}

static void put_varint(struct buf *b, uint64_t v)
{
        for (; v >= 128; v >>= 7)
                buf_char(b, (char)(v | 128));
        buf_char(b, (char)v);
}

static void put_bytes(struct buf *b, uint32_t number, struct str s)
{
        put_varint(b, (uint64_t)number << 3 | 2);
        put_varint(b, s.n);
        buf_str(b, s);
}

static bool is_embedded(const ProtobufCMessageDescriptor *m, uint32_t number)
{
        for (size_t i = 0; i < ARRAY_LEN(embedded); i++)
                if (embedded[i].number == number && !strcmp(embedded[i].message, m->short_name))
                        return true;
        return false;
}

static bool is_entry(const ProtobufCMessageDescriptor *m)
{
        return m->n_fields == 2 && str_ends(str_of(m->short_name), STR("Entry"));
}

static bool dropped(const ProtobufCFieldDescriptor *d, const struct field *f)
{
        if (d->label == PROTOBUF_C_LABEL_REPEATED)
                return false;
        if (d->type == PROTOBUF_C_TYPE_MESSAGE) {
                const ProtobufCMessageDescriptor *m = d->descriptor;

                return !f->bytes.n && (!strcmp(m->short_name, "Time") || !strcmp(m->short_name, "MicroTime"));
        }
        if (f->wire == 2)
                return !f->bytes.n;
        if (f->wire != 0 || f->value)
                return false;
        for (size_t i = 0; i < ARRAY_LEN(pointers); i++)
                if (!strcmp(d->name, pointers[i]))
                        return false;
        return true;
}

struct rewrite {
        struct arena *a;
        struct str *why;
};

static bool fail(struct rewrite *w, const char *message, const char *field, const char *what)
{
        *w->why = arena_printf(w->a, "%s.%s: %s", message, field, what);
        return false;
}

static bool rewrite(struct rewrite *w, struct str in, const ProtobufCMessageDescriptor *m, uint32_t offset, unsigned depth,
                    struct buf *out);

static bool sub_message(struct rewrite *w, const struct field *f, const ProtobufCMessageDescriptor *m, uint32_t number, unsigned depth,
                        struct buf *out)
{
        struct buf sub = BUF_INIT;
        bool ok = rewrite(w, f->bytes, m, 0, depth + 1, &sub);

        if (ok)
                put_bytes(out, number, buf_view(&sub));
        buf_fini(&sub);
        return ok;
}

static bool one(struct rewrite *w, const struct field *f, const ProtobufCMessageDescriptor *m, uint32_t offset, unsigned depth,
                struct buf *out)
{
        uint32_t number = f->number + offset;
        char text[24];

        if (!offset && is_embedded(m, f->number))
                return f->wire == 2 && rewrite(w, f->bytes, m, EMBEDDED_FROM, depth + 1, out);
        const ProtobufCFieldDescriptor *d = protobuf_c_message_descriptor_get_field(m, number);
        if (!d) {
                snprintf(text, sizeof(text), "field %u", f->number);
                return fail(w, m->short_name, text, "this server does not know it");
        }
        if (!is_entry(m) && dropped(d, f))
                return true;
        if (d->type != PROTOBUF_C_TYPE_MESSAGE) {
                buf_str(out, offset ? STR("") : f->raw);
                if (offset && f->wire == 2)
                        put_bytes(out, number, f->bytes);
                else if (offset && f->wire == 0)
                        put_varint(out, (uint64_t)number << 3), put_varint(out, f->value);
                return true;
        }
        const ProtobufCMessageDescriptor *sub = d->descriptor;
        if (!strcmp(sub->name, "google.protobuf.Struct"))
                return fail(w, m->short_name, d->name, "it can only be sent as JSON");
        return f->wire == 2 ? sub_message(w, f, sub, number, depth, out) : fail(w, m->short_name, d->name, "not a message");
}

static bool rewrite(struct rewrite *w, struct str in, const ProtobufCMessageDescriptor *m, uint32_t offset, unsigned depth, struct buf *out)
{
        struct reader r = reader_of(in);
        struct field f;

        if (depth > DEPTH_MAX)
                return fail(w, m->short_name, "", "nested too deep");
        while (r.p < r.end)
                if (!next(&r, &f))
                        return fail(w, m->short_name, "", "broken protobuf");
                else if (!one(w, &f, m, offset, depth, out))
                        return false;
        return true;
}

static bool envelope(struct str body, struct str *version, struct str *kind, struct str *raw)
{
        struct reader r = reader_of(str_sub(body, 4, body.n));
        struct field f, g;

        *version = *kind = *raw = STR("");
        if (!str_starts(body, str_make("k8s\0", 4)))
                return false;
        while (r.p < r.end) {
                if (!next(&r, &f))
                        return false;
                if (f.number == 2 && f.wire == 2)
                        *raw = f.bytes;
                if (f.number != 1 || f.wire != 2)
                        continue;
                for (struct reader t = reader_of(f.bytes); t.p < t.end;) {
                        if (!next(&t, &g))
                                return false;
                        if (g.number == 1)
                                *version = g.bytes;
                        else if (g.number == 2)
                                *kind = g.bytes;
                }
        }
        return true;
}

struct pb_node *kube_wire_decode(struct str body, const ProtobufCMessageDescriptor *type, struct arena *a, struct str *why)
{
        struct rewrite w = { a, why };
        struct str version, kind, raw;
        struct buf clean = BUF_INIT;
        struct pb_node *n = NULL;

        *why = STR("the body is not a Kubernetes protobuf message");
        if (!envelope(body, &version, &kind, &raw))
                return NULL;
        if (rewrite(&w, raw, type, 0, 0, &clean)) {
                ProtobufCMessage *m = pb_unpack(type, clean.p, clean.n, a, NULL);

                n = m ? pb_to_node(m, a) : NULL;
        }
        buf_fini(&clean);
        if (n && version.n)
                pb_put_str(a, n, "apiVersion", version);
        if (n && kind.n)
                pb_put_str(a, n, "kind", kind);
        return n;
}
