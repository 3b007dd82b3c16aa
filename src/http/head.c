/* Header blocks are short arrays that are walked: with a dozen fields, comparing numbers in a row beats any map, and order and
 * duplicates come for free. Names that code asks for carry their number (http_names.def), found once, when the field is parsed.
 *
 * The name table is hashed by length and three characters into 256 slots, filled once before main(). */
#include "http/codec.h"

#include "base/mem.h"

#include <assert.h>

static const struct str names[HN_COUNT] = {
        [HN_OTHER] = { NULL, 0 },
#define X(id, wire) [HN_##id] = { wire, sizeof(wire) - 1 },
#include "http/http_names.def"
#undef X
};

enum { SLOTS = 512 };

static uint8_t slots[SLOTS];

static unsigned name_hash(const char *p, size_t n)
{
        return (unsigned)(n * 7 + (unsigned char)p[0] * 3u + (unsigned char)p[n - 1] * 19u + (unsigned char)p[n / 2] * 5u) % SLOTS;
}

__attribute__((constructor)) static void names_init(void)
{
        static_assert(HN_COUNT < 256, "a slot is one byte");
        for (unsigned i = 1; i < HN_COUNT; i++) {
                unsigned h = name_hash(names[i].p, names[i].n);

                while (slots[h])
                        h = (h + 1) % SLOTS;
                slots[h] = (uint8_t)i;
        }
}

enum http_name http_name_id(struct str s)
{
        if (!s.n)
                return HN_OTHER;
        for (unsigned h = name_hash(s.p, s.n); slots[h]; h = (h + 1) % SLOTS) {
                struct str k = names[slots[h]];

                if (k.n == s.n && !memcmp(k.p, s.p, s.n))
                        return (enum http_name)slots[h];
        }
        return HN_OTHER;
}

struct str http_name_text(enum http_name id)
{
        return id < HN_COUNT ? names[id] : names[HN_OTHER];
}

void http_head_init(struct http_head *m, struct arena *a)
{
        *m = (struct http_head){ .arena = a, .content_length = -1, .version = HTTP_1_1 };
}

struct http_hdr *http_get(const struct http_head *m, enum http_name id)
{
        for (unsigned i = 0; i < m->n; i++)
                if (m->h[i].id == id)
                        return &m->h[i];
        return NULL;
}

struct http_hdr *http_get_name(const struct http_head *m, struct str name)
{
        enum http_name id = http_name_id(name);

        if (id)
                return http_get(m, id);
        for (unsigned i = 0; i < m->n; i++)
                if (m->h[i].id == HN_OTHER && str_eq(m->h[i].name, name))
                        return &m->h[i];
        return NULL;
}

static struct http_hdr *push(struct http_head *m)
{
        if (m->n == m->cap) {
                unsigned cap = m->cap ? m->cap * 2 : 24;
                struct http_hdr *h = arena_alloc(m->arena, cap * sizeof(*h));

                if (m->n)
                        memcpy(h, m->h, m->n * sizeof(*h));
                m->h = h;
                m->cap = cap;
        }
        return &m->h[m->n++];
}

void http_add(struct http_head *m, enum http_name id, struct str value)
{
        assert(id > HN_OTHER && id < HN_COUNT);
        *push(m) = (struct http_hdr){ names[id], value, (uint16_t)id, 0 };
}

void http_add_name(struct http_head *m, struct str name, struct str value)
{
        *push(m) = (struct http_hdr){ name, value, (uint16_t)http_name_id(name), 0 };
}

/* Keeps the fields for which `drop` is false; returns how many went. */
static unsigned filter(struct http_head *m, enum http_name id, struct str name)
{
        unsigned k = 0, n = m->n;

        for (unsigned i = 0; i < n; i++) {
                bool drop = id ? m->h[i].id == id : m->h[i].id == HN_OTHER && str_eq(m->h[i].name, name);

                if (!drop) {
                        if (k != i)
                                m->h[k] = m->h[i];
                        k++;
                }
        }
        m->n = k;
        return n - k;
}

unsigned http_remove(struct http_head *m, enum http_name id)
{
        assert(id > HN_OTHER && id < HN_COUNT);
        return filter(m, id, names[HN_OTHER]);
}

unsigned http_remove_name(struct http_head *m, struct str name)
{
        return filter(m, http_name_id(name), name);
}

/* The first of the fields keeps its place and takes the new value; the others go. */
static void replace(struct http_head *m, struct http_hdr *first, struct str value)
{
        unsigned k = (unsigned)(first - m->h) + 1;

        first->value = value;
        first->flags = 0;
        for (unsigned i = k; i < m->n; i++) {
                bool same = m->h[i].id == first->id && (first->id || str_eq(m->h[i].name, first->name));

                if (!same) {
                        if (k != i)
                                m->h[k] = m->h[i];
                        k++;
                }
        }
        m->n = k;
}

void http_set(struct http_head *m, enum http_name id, struct str value)
{
        struct http_hdr *h = http_get(m, id);

        if (h)
                replace(m, h, value);
        else
                http_add(m, id, value);
}

void http_set_name(struct http_head *m, struct str name, struct str value)
{
        struct http_hdr *h = http_get_name(m, name);

        if (h)
                replace(m, h, value);
        else
                http_add_name(m, name, value);
}

bool http_name_is_hop(enum http_name id)
{
        static const bool hop[HN_COUNT] = {
                [HN_CONNECTION] = true,
                [HN_KEEP_ALIVE] = true,
                [HN_PROXY_CONNECTION] = true,
                [HN_TRANSFER_ENCODING] = true,
                [HN_UPGRADE] = true,
                [HN_CONTENT_LENGTH] = true,
                [HN_HOST] = true,
                [HN_HTTP2_SETTINGS] = true,
        };

        return id < HN_COUNT && hop[id];
}

bool http_list_has(struct str v, struct str token)
{
        struct str part;

        while (str_next(&v, ',', &part))
                if (str_eq_nocase(str_trim(part), token))
                        return true;
        return false;
}

/* Only what this hop's peer sent can be nominated away here, before any owner adds to the message: a client cannot strip what a proxy
 * says about it. Framing, routing and identity stay out of reach. */
static bool nominable(enum http_name id)
{
        switch (id) {
        case HN_CONNECTION:
        case HN_UPGRADE:
        case HN_TRANSFER_ENCODING:
        case HN_CONTENT_LENGTH:
        case HN_HOST:
        case HN_TE:
        case HN_AUTHORIZATION:
        case HN_COOKIE:
        case HN_FORWARDED:
        case HN_X_FORWARDED_FOR:
        case HN_X_FORWARDED_HOST:
        case HN_X_FORWARDED_PORT:
        case HN_X_FORWARDED_PROTO:
                return false;
        default:
                return true;
        }
}

void http_drop_nominated(struct http_head *m)
{
        struct str drop[32];
        unsigned n = 0;

        for (unsigned i = 0; i < m->n; i++) {
                struct str v = m->h[i].value, part;

                if (m->h[i].id != HN_CONNECTION)
                        continue;
                while (str_next(&v, ',', &part) && n < ARRAY_LEN(drop)) {
                        part = str_trim(part);
                        if (part.n && !str_eq_nocase(part, STR("close")) && !str_eq_nocase(part, STR("keep-alive")))
                                drop[n++] = part;
                }
        }
        for (unsigned i = 0; i < n; i++) {
                char low[64];

                if (drop[i].n > sizeof(low))
                        continue;
                for (size_t k = 0; k < drop[i].n; k++)
                        low[k] = ascii_lower(drop[i].p[k]);
                struct str name = str_make(low, drop[i].n);

                if (nominable(http_name_id(name)))
                        http_remove_name(m, name);
        }
}

/* Bytes of reg-name, IP literals, port: unreserved / sub-delims / pct-encoded / ":[]". */
static const bool authority_byte[256] = {
        ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['-'] = true, ['.'] = true,  ['_'] = true,
        ['~'] = true,         ['!'] = true,         ['$'] = true,         ['&'] = true, ['\''] = true, ['('] = true,
        [')'] = true,         ['*'] = true,         ['+'] = true,         [','] = true, [';'] = true,  ['='] = true,
        ['%'] = true,         [':'] = true,         ['['] = true,         [']'] = true, ['@'] = true,
};

bool http_authority_ok(struct str a)
{
        for (size_t i = 0; i < a.n; i++)
                if (!authority_byte[(unsigned char)a.p[i]])
                        return false;
        return true;
}
