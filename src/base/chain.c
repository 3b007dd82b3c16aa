/* Slabs are of one size and recycled through a small per-thread list: a busy proxy allocates none, an idle one keeps few. */
#include "base/chain.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

struct slab {
        struct slab *next_free;
        unsigned refs;
        size_t used; /* bytes ever written; only grows while refs == 1 */
        char data[CHAIN_SLAB_BYTES];
};

struct chain_piece {
        struct chain_piece *next;
        struct slab *slab;
        char *p;
        size_t n;
};

enum { KEEP_SLABS = 32, KEEP_PIECES = 256 };

static _Thread_local struct {
        struct slab *slabs;
        struct chain_piece *pieces;
        unsigned nslabs, npieces;
} spare;

static struct slab *slab_new(void)
{
        struct slab *s = spare.slabs;

        if (s) {
                spare.slabs = s->next_free;
                spare.nslabs--;
        } else {
                s = mem_alloc(sizeof(*s));
        }
        s->next_free = NULL;
        s->refs = 0;
        s->used = 0;
        return s;
}

static void slab_unref(struct slab *s)
{
        if (--s->refs)
                return;
        if (spare.nslabs >= KEEP_SLABS) {
                free(s);
                return;
        }
        s->next_free = spare.slabs;
        spare.slabs = s;
        spare.nslabs++;
}

static struct chain_piece *piece_new(struct slab *s, char *p, size_t n)
{
        struct chain_piece *c = spare.pieces;

        if (c) {
                spare.pieces = c->next;
                spare.npieces--;
        } else {
                c = mem_alloc(sizeof(*c));
        }
        *c = (struct chain_piece){ NULL, s, p, n };
        s->refs++;
        return c;
}

static void piece_free(struct chain_piece *c)
{
        slab_unref(c->slab);
        if (spare.npieces >= KEEP_PIECES) {
                free(c);
                return;
        }
        c->next = spare.pieces;
        spare.pieces = c;
        spare.npieces++;
}

void chain_thread_fini(void)
{
        while (spare.slabs) {
                struct slab *s = spare.slabs;

                spare.slabs = s->next_free;
                free(s);
        }
        while (spare.pieces) {
                struct chain_piece *c = spare.pieces;

                spare.pieces = c->next;
                free(c);
        }
        spare.nslabs = spare.npieces = 0;
}

static void push(struct chain *c, struct chain_piece *p)
{
        if (c->last)
                c->last->next = p;
        else
                c->first = p;
        c->last = p;
}

void chain_fini(struct chain *c)
{
        while (c->first) {
                struct chain_piece *p = c->first;

                c->first = p->next;
                piece_free(p);
        }
        c->last = NULL;
        c->n = 0;
}

/* Room behind the last byte, if nobody else's bytes follow it in the slab. */
static size_t tail_room(const struct chain *c)
{
        const struct chain_piece *l = c->last;

        if (!l || l->slab->refs != 1 || l->p + l->n != l->slab->data + l->slab->used)
                return 0;
        return CHAIN_SLAB_BYTES - l->slab->used;
}

struct iovec chain_reserve(struct chain *c, size_t min)
{
        assert(min <= CHAIN_SLAB_BYTES);
        if (!min)
                min = 1;
        if (tail_room(c) < min) {
                struct slab *s = slab_new();

                push(c, piece_new(s, s->data, 0));
        }
        return (struct iovec){ c->last->slab->data + c->last->slab->used, CHAIN_SLAB_BYTES - c->last->slab->used };
}

void chain_commit(struct chain *c, size_t n)
{
        assert(c->last && n <= CHAIN_SLAB_BYTES - c->last->slab->used);
        c->last->n += n;
        c->last->slab->used += n;
        c->n += n;
        if (c->n == 0)
                chain_fini(c);
}

void chain_append(struct chain *c, const void *p, size_t n)
{
        const char *q = p;

        while (n) {
                struct iovec v = chain_reserve(c, 1);
                size_t k = n < v.iov_len ? n : v.iov_len;

                memcpy(v.iov_base, q, k);
                chain_commit(c, k);
                q += k;
                n -= k;
        }
}

void chain_str(struct chain *c, struct str s)
{
        chain_append(c, s.p, s.n);
}

void chain_prepend(struct chain *c, const void *p, size_t n)
{
        struct chain t = CHAIN_INIT;

        chain_append(&t, p, n);
        chain_move(&t, c);
        *c = t;
}

void chain_move(struct chain *to, struct chain *from)
{
        if (!from->first)
                return;
        if (to->last)
                to->last->next = from->first;
        else
                to->first = from->first;
        to->last = from->last;
        to->n += from->n;
        *from = (struct chain)CHAIN_INIT;
}

void chain_move_n(struct chain *to, struct chain *from, size_t n)
{
        if (n >= from->n) {
                chain_move(to, from);
                return;
        }
        while (n) {
                struct chain_piece *p = from->first;

                if (p->n <= n) {
                        from->first = p->next;
                        p->next = NULL;
                        n -= p->n;
                        from->n -= p->n;
                        to->n += p->n;
                        push(to, p);
                } else {
                        push(to, piece_new(p->slab, p->p, n));
                        p->p += n;
                        p->n -= n;
                        from->n -= n;
                        to->n += n;
                        n = 0;
                }
        }
}

void chain_share(struct chain *to, const struct chain *from, size_t skip)
{
        for (const struct chain_piece *p = from->first; p; p = p->next) {
                if (p->n <= skip) {
                        skip -= p->n;
                        continue;
                }
                push(to, piece_new(p->slab, p->p + skip, p->n - skip));
                to->n += p->n - skip;
                skip = 0;
        }
}

void chain_drop(struct chain *c, size_t n)
{
        if (n >= c->n) {
                chain_fini(c);
                return;
        }
        c->n -= n;
        while (n) {
                struct chain_piece *p = c->first;

                if (p->n > n) {
                        p->p += n;
                        p->n -= n;
                        return;
                }
                n -= p->n;
                c->first = p->next;
                piece_free(p);
        }
}

unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max)
{
        unsigned k = 0;

        for (struct chain_piece *p = c->first; p && k < max; p = p->next)
                if (p->n)
                        iov[k++] = (struct iovec){ p->p, p->n };
        return k;
}

size_t chain_peek(const struct chain *c, void *out, size_t n)
{
        size_t got = 0;

        for (struct chain_piece *p = c->first; p && got < n; p = p->next) {
                size_t k = p->n < n - got ? p->n : n - got;

                memcpy((char *)out + got, p->p, k);
                got += k;
        }
        return got;
}

struct str chain_front(const struct chain *c)
{
        struct chain_piece *p = c->first;

        while (p && !p->n)
                p = p->next;
        return p ? str_make(p->p, p->n) : (struct str){ NULL, 0 };
}
