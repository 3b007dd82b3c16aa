/* What has been made is kept as long as somebody uses it.
 *
 * A key is everything that a part depends on: versions of objects (which are unique per content) and a few names. It is kept as fixed-size
 * hashes; a part that was made is never looked at again, so a wrong hit would be a wrong configuration. Hence 128 bits a string, and
 * versions as they are. */
#include "translate/internal.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

void key_init(struct key *k, char kind)
{
        memset(k, 0, sizeof(*k));
        k->kind = kind;
}

void key_u64(struct key *k, uint64_t v)
{
        size_t last = ARRAY_LEN(k->v) - 2;

        if (k->n < last) {
                k->v[k->n++] = v;
                return;
        }
        /* The tail is folded into two independent hashes. */
        k->v[last] = hash_bytes(&v, sizeof(v), k->v[last] ^ 0x9e3779b97f4a7c15U);
        k->v[last + 1] = hash_bytes(&v, sizeof(v), k->v[last + 1] + 0x2545f4914f6cdd1dU);
}

void key_str(struct key *k, struct str s)
{
        key_u64(k, hash_bytes(s.p, s.n, 0x5851f42d4c957f2dU));
        key_u64(k, hash_bytes(s.p, s.n, 0x14057b7ef767814fU));
}

static struct str key_bytes(const struct key *k)
{
        return str_make((const char *)k, sizeof(*k));
}

struct translate_resource *translate_resource_ref(struct translate_resource *r)
{
        r->refs++;
        return r;
}

void translate_resource_unref(struct translate_resource *r)
{
        if (!r || --r->refs)
                return;
        free((char *)r->bytes.p);
        free((char *)r->name.p);
        free(r);
}

void parts_fini(struct parts *p)
{
        for (size_t i = 0; i < p->n; i++)
                translate_resource_unref(p->v[i]);
        free(p->v);
        *p = (struct parts){ 0 };
}

void keep_parts(struct parts *to, struct parts *from)
{
        for (size_t i = 0; i < from->n; i++)
                VEC_PUSH(to->v, to->n, to->cap) = from->v[i];
        from->n = 0;
        parts_fini(from);
}

static void parts_add(struct parts *p, struct translate_resource *r)
{
        VEC_PUSH(p->v, p->n, p->cap) = translate_resource_ref(r);
}

struct translate_resource *cache_get(struct translator *t, const struct key *k, struct parts *into)
{
        struct translate_resource *r = strmap_get(&t->cache, key_bytes(k));

        if (!r)
                return NULL;
        t->stats.parts_reused++;
        parts_add(into, r);
        return r;
}

static struct translate_resource *keep(struct translator *t, const struct key *k, const char *name, uint64_t hash, struct parts *into)
{
        struct translate_resource *r = MEM_NEW(struct translate_resource);

        r->refs = 1;
        r->name = str_of(mem_strdup(name));
        r->bytes = str_make(mem_dup(t->buf.p, t->buf.n), t->buf.n);
        r->hash = hash ? hash : hash_bytes(r->bytes.p, r->bytes.n, 0);
        t->stats.parts_made++;
        t->stats.bytes_made += r->bytes.n;
        translate_resource_unref(strmap_set(&t->cache, key_bytes(k), r));
        parts_add(into, r);
        return r;
}

struct translate_resource *cache_put(struct translator *t, const struct key *k, const char *name, const void *message, struct parts *into)
{
        t->buf.n = 0;
        make_pack(message, &t->buf);
        return keep(t, k, name, 0, into);
}

struct translate_resource *cache_join(struct translator *t, const char *name, const void *head, unsigned field, const struct parts *parts,
                                      const void *tail, struct parts *into)
{
        struct key k;
        struct buf ends = BUF_INIT;
        uint64_t hash[2] = { field, parts->n };
        size_t total = 0, head_n;
        struct translate_resource *r;

        make_pack(head, &ends);
        head_n = ends.n;
        make_pack(tail, &ends);
        for (size_t i = 0; i < parts->n; i++) {
                hash[0] = hash_bytes(&parts->v[i]->hash, sizeof(uint64_t), hash[0]);
                hash[1] = hash_bytes(&parts->v[i]->hash, sizeof(uint64_t), hash[1] + 0x9e3779b97f4a7c15U);
                total += parts->v[i]->bytes.n + 12;
        }
        hash[0] = hash_bytes(ends.p, ends.n, hash[0]);
        hash[1] = hash_bytes(ends.p, ends.n, hash[1]);
        key_init(&k, 'j');
        key_str(&k, str_of(name));
        key_u64(&k, hash[0]);
        key_u64(&k, hash[1]);
        r = cache_get(t, &k, into);
        if (!r) {
                t->buf.n = 0;
                buf_reserve(&t->buf, total + ends.n);
                buf_append(&t->buf, ends.p, head_n);
                for (size_t i = 0; i < parts->n; i++)
                        make_pack_field(&t->buf, field, parts->v[i]->bytes);
                buf_append(&t->buf, ends.p + head_n, ends.n - head_n);
                r = keep(t, &k, name, hash[0] ? hash[0] : 1, into);
        }
        buf_fini(&ends);
        return r;
}

void cache_sweep(struct translator *t, bool now)
{
        struct strmap kept = STRMAP_INIT;

        if (!now && t->cache.live < t->sweep_at)
                return;
        STRMAP_EACH (&t->cache, e) {
                struct translate_resource *r = e->value;

                if (r->refs == 1)
                        translate_resource_unref(r);
                else
                        strmap_set(&kept, e->key, r);
        }
        strmap_fini(&t->cache);
        t->cache = kept;
        /* Going through everything pays off only when a good part of it is old. */
        t->sweep_at = kept.live + kept.live / 2 + 1024;
}

void translator_get_stats(const struct translator *t, struct translator_stats *out)
{
        *out = t->stats;
        out->parts_kept = t->cache.live;
}
