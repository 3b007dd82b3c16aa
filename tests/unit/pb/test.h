/* What the tests of this folder share. */
#ifndef TEST_PB_H
#define TEST_PB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "pb/pb.h"

#include <stdio.h>
#include <stdlib.h>

struct bench {
        struct arena a;
        struct diags d;
        struct buf out;
};

static inline void bench_up(struct bench *b)
{
        arena_init(&b->a, 0);
        diags_init(&b->d);
        b->out = (struct buf)BUF_INIT;
}

static inline void bench_down(struct bench *b)
{
        arena_fini(&b->a);
        diags_fini(&b->d);
        buf_fini(&b->out);
}

static inline struct pb_node *parse(struct bench *b, const char *text)
{
        struct pb_node **docs, *root = NULL;
        size_t n;

        if (text[0] == '{' || text[0] == '[' || text[0] == '"')
                return pb_parse_json(str_of(text), STR("t"), &b->a, &root, &b->d) ? root : NULL;
        return pb_parse_yaml(str_of(text), STR("t"), &b->a, &docs, &n, &b->d) && n ? docs[0] : NULL;
}

static inline const ProtobufCMessageDescriptor *type(const char *name)
{
        const ProtobufCMessageDescriptor *t = pb_type(str_of(name));

        if (!t)
                fail_msg("no type %s", name);
        return t;
}

/* The message that `text` is, or NULL; diagnostics, one a line, in b->out then. */
static inline ProtobufCMessage *make(struct bench *b, const char *name, const char *text)
{
        struct diag_at at = { .file = STR("t") };
        struct pb_node *n = parse(b, text);
        ProtobufCMessage *m = n ? pb_from_node(type(name), n, 0, &at, &b->a, &b->d) : NULL;

        b->out.n = 0;
        diags_format(&b->d, &b->out);
        return m;
}

#endif
