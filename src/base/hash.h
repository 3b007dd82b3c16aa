/* Hashing, a string-keyed map, and random numbers. Maps whose keys come from a peer are keyed with a per-process secret, so
 * that nobody outside can aim for one bucket. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/str.h"

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed); /* fast, not for adversarial input unless seed is secret */
uint64_t hash_secret(void);                                  /* one random value per process */

/* An insertion-ordered map from string to pointer. Keys are copied. The value is the caller's. */
struct strmap_entry {
        struct str key; /* NUL-terminated copy; {NULL,0}: deleted */
        uint64_t hash;
        void *value;
};

struct strmap {
        struct strmap_entry *e; /* insertion order, with holes where key.p is NULL */
        size_t n, cap;          /* n counts holes too */
        size_t live;
        uint32_t *slots; /* index + 1 into e; 0 free */
        size_t nslots;
};

#define STRMAP_INIT \
        {           \
                0   \
        }

void strmap_fini(struct strmap *m);                       /* does not touch the values */
void *strmap_get(const struct strmap *m, struct str key); /* NULL when absent */
bool strmap_has(const struct strmap *m, struct str key);
/* Sets key; returns the value it replaced, or NULL. */
void *strmap_set(struct strmap *m, struct str key, void *value);
void *strmap_del(struct strmap *m, struct str key); /* the value removed, or NULL */
void strmap_sort(struct strmap *m);                 /* by key, bytewise; drops holes */

#define STRMAP_EACH(m, it)                                                       \
        for (struct strmap_entry *it = (m)->e; it && it < (m)->e + (m)->n; it++) \
                if (!it->key.p) {                                                \
                } else

uint64_t rand_u64(void);       /* per thread, seeded from the kernel; not for keys */
double rand_unit(void);        /* [0, 1) */
void rand_uuid4(char out[37]); /* RFC 9562 §5.4, lower case, NUL-terminated */

#endif
