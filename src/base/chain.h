/* A byte stream in pieces: body data on its way through a connection. Pieces are reference-counted slabs, so moving bytes from one
 * chain to another copies nothing. A chain belongs to one thread, and so do the slabs in it. */
#ifndef BASE_CHAIN_H
#define BASE_CHAIN_H

#include "base/str.h"

#include <sys/uio.h>

struct chain_piece;

struct chain {
        struct chain_piece *first, *last;
        size_t n; /* bytes in all */
};

#define CHAIN_INIT            \
        {                     \
                NULL, NULL, 0 \
        }

enum { CHAIN_SLAB_BYTES = 16384 };

void chain_fini(struct chain *c);                            /* drops what is in it; c is empty and usable afterwards */
void chain_append(struct chain *c, const void *p, size_t n); /* copies; fills the last slab first when it is not shared */
void chain_str(struct chain *c, struct str s);
void chain_prepend(struct chain *c, const void *p, size_t n);
void chain_move(struct chain *to, struct chain *from); /* all of it */
void chain_move_n(struct chain *to, struct chain *from, size_t n);
/* Appends the bytes of `from` behind its first `skip` to `to` without taking them away: both share the slabs. */
void chain_share(struct chain *to, const struct chain *from, size_t skip);
void chain_drop(struct chain *c, size_t n);
/* The first pieces as at most `max` iovecs; returns how many. Valid until c is changed. */
unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max);
/* Copies up to n bytes from the front without removing them; returns how many. */
size_t chain_peek(const struct chain *c, void *out, size_t n);
struct str chain_front(const struct chain *c); /* the first piece; n 0 when empty */
/* Free space of at least `min` (<= CHAIN_SLAB_BYTES) bytes behind the last byte, to read(2) into; then chain_commit() says how much was
 * used. */
struct iovec chain_reserve(struct chain *c, size_t min);
void chain_commit(struct chain *c, size_t n);
/* Frees the slabs that this thread keeps for reuse. At thread exit. */
void chain_thread_fini(void);

#endif
