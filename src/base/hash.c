#include "base/hash.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

static uint64_t mix(uint64_t a, uint64_t b)
{
        __uint128_t m = (__uint128_t)a * b;

        return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t load(const unsigned char *p, size_t n)
{
        uint64_t v = 0;

        memcpy(&v, p, n);
        return v;
}

/* Multiply-and-fold over 16 bytes a step, the idea of wyhash. */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
        const uint64_t k0 = 0x9e3779b97f4a7c15u, k1 = 0xd1b54a32d192ed03u, k2 = 0x8bb84b93962eacc9u;
        const unsigned char *q = p;
        uint64_t h = mix(seed ^ k0, (uint64_t)n ^ k1);

        while (n > 16) {
                h = mix(load(q, 8) ^ k1, load(q + 8, 8) ^ h);
                q += 16;
                n -= 16;
        }
        uint64_t a = n > 8 ? load(q, 8) : (n ? load(q, n) : 0);
        uint64_t b = n > 8 ? load(q + 8, n - 8) : 0;

        return mix(a ^ k2 ^ h, b ^ k0 ^ mix(h, k1));
}

static uint64_t secret;
static pthread_once_t secret_once = PTHREAD_ONCE_INIT;

static void must_random(void *p, size_t n)
{
        if (getrandom(p, n, 0) != (ssize_t)n)
                abort();
}

static void secret_make(void)
{
        must_random(&secret, sizeof(secret));
}

uint64_t hash_secret(void)
{
        pthread_once(&secret_once, secret_make);
        return secret;
}

static void rebuild(struct strmap *m, size_t nslots)
{
        free(m->slots);
        m->slots = mem_calloc(nslots, sizeof(*m->slots));
        m->nslots = nslots;
        size_t out = 0;

        for (size_t i = 0; i < m->n; i++)
                if (m->e[i].key.p)
                        m->e[out++] = m->e[i];
        m->n = out;
        for (size_t i = 0; i < m->n; i++) {
                size_t s = (size_t)m->e[i].hash & (nslots - 1);

                while (m->slots[s])
                        s = (s + 1) & (nslots - 1);
                m->slots[s] = (uint32_t)i + 1;
        }
}

static struct strmap_entry *find(const struct strmap *m, struct str key, uint64_t h)
{
        if (!m->nslots)
                return NULL;
        for (size_t s = (size_t)h & (m->nslots - 1); m->slots[s]; s = (s + 1) & (m->nslots - 1)) {
                struct strmap_entry *e = &m->e[m->slots[s] - 1];

                if (e->key.p && e->hash == h && str_eq(e->key, key))
                        return e;
        }
        return NULL;
}

void strmap_fini(struct strmap *m)
{
        for (size_t i = 0; i < m->n; i++)
                free((char *)m->e[i].key.p);
        free(m->e);
        free(m->slots);
        *m = (struct strmap)STRMAP_INIT;
}

void *strmap_get(const struct strmap *m, struct str key)
{
        struct strmap_entry *e = m->live ? find(m, key, hash_bytes(key.p, key.n, hash_secret())) : NULL;

        return e ? e->value : NULL;
}

bool strmap_has(const struct strmap *m, struct str key)
{
        return m->live && find(m, key, hash_bytes(key.p, key.n, hash_secret()));
}

void *strmap_set(struct strmap *m, struct str key, void *value)
{
        uint64_t h = hash_bytes(key.p, key.n, hash_secret());
        struct strmap_entry *e = find(m, key, h);

        if (e) {
                void *old = e->value;

                e->value = value;
                return old;
        }
        if ((m->n + 1) * 2 > m->nslots) { /* holes count: their slots are still taken */
                size_t want = 16;

                while (want < (m->live + 1) * 4)
                        want *= 2;
                rebuild(m, want);
        }
        VEC_PUSH(m->e, m->n, m->cap) = (struct strmap_entry){ { mem_strndup(key.p, key.n), key.n }, h, value };
        m->live++;
        size_t s = (size_t)h & (m->nslots - 1);

        while (m->slots[s])
                s = (s + 1) & (m->nslots - 1);
        m->slots[s] = (uint32_t)m->n;
        return NULL;
}

void *strmap_del(struct strmap *m, struct str key)
{
        struct strmap_entry *e = find(m, key, hash_bytes(key.p, key.n, hash_secret()));

        if (!e)
                return NULL;
        free((char *)e->key.p);
        e->key = (struct str){ NULL, 0 };
        m->live--;
        return e->value;
}

static int by_key(const void *a, const void *b)
{
        return str_cmp(((const struct strmap_entry *)a)->key, ((const struct strmap_entry *)b)->key);
}

void strmap_sort(struct strmap *m)
{
        if (!m->nslots)
                return;
        rebuild(m, m->nslots);
        qsort(m->e, m->n, sizeof(*m->e), by_key);
        rebuild(m, m->nslots);
}

static _Thread_local uint64_t rng[2];

uint64_t rand_u64(void) /* xoroshiro128+ */
{
        if (!rng[0] && !rng[1])
                must_random(rng, sizeof(rng));
        uint64_t a = rng[0], b = rng[1], r = a + b;

        b ^= a;
        rng[0] = (a << 24 | a >> 40) ^ b ^ (b << 16);
        rng[1] = b << 37 | b >> 27;
        return r;
}

double rand_unit(void)
{
        return (double)(rand_u64() >> 11) * 0x1.0p-53;
}

void rand_uuid4(char out[37])
{
        static const char hex[] = "0123456789abcdef";
        uint64_t r[2] = { rand_u64(), rand_u64() };
        unsigned char *b = (unsigned char *)r;

        b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
        b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
        for (unsigned i = 0, o = 0; i < 16; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        out[o++] = '-';
                out[o++] = hex[b[i] >> 4];
                out[o++] = hex[b[i] & 15];
        }
        out[36] = '\0';
}
