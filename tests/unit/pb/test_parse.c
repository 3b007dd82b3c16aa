#include "test.h"

/* text (JSON when it begins so) -> compact JSON, or the first diagnostic */
static const struct {
        const char *text, *want, *error;
} cases[] = {
        { "{\"a\":[1,-2.5e3,\"x\\u00e9\\ud83d\\ude00\\n\",true,null,{}]}",
          "{\"a\":[1,-2.5e3,\"x\xc3\xa9\xf0\x9f\x98\x80\\n\",true,null,{}]}", NULL },
        { "[]", "[]", NULL },
        { "{\"a\":1,\"a\":2}", NULL, "t:1:8: the key \"a\" is there twice: remove one\n" },
        { "{\"a\":1,}", NULL, "t:1:8: expected a key in quotes\n" },
        { "[1 2]", NULL, "t:1:4: expected ',' or ']'\n" },
        { "[01]", NULL, "t:1:2: bad number\n" },
        { "[1.]", NULL, "t:1:2: bad number: digits must follow the point\n" },
        { "[\"a\nb\"]", NULL, "t:1:4: a control character in a string: write it as \\u000a\n" },
        { "[\"\\ud800x\"]", NULL, "t:1:3: half of a surrogate pair in a string\n" },
        { "[\"\xff\"]", NULL, "t:1:2: a string is not valid UTF-8\n" },
        { "[yes]", NULL, "t:1:2: \"yes\" is no JSON value: strings stand in quotes\n" },
        { "{\n \"a\": [\n", NULL, "t:3:1: the text ends inside a list that begins at line 2\n" },
        { "[] []", NULL, "t:1:4: something follows the end of the JSON value\n" },
        { "{\"a\" 1}", NULL, "t:1:6: expected ':' behind the key \"a\"\n" },

        { "a: 1\nb: [x, 'y', \"z\"]\nc: {d: }\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\"],\"c\":{\"d\":null}}", NULL },
        { "a: no\nb: 'no'\nc: Yes\nd: nO\ne: ~\nf: 0644\ng: 0x1F\nh: 1_000\ni: 1.50\nj: .inf\nk: 1e3\n",
          "{\"a\":false,\"b\":\"no\",\"c\":true,\"d\":\"nO\",\"e\":null,\"f\":420,\"g\":31,\"h\":1000,\"i\":1.50,\"j\":\"Infinity\",\"k\":"
          "1e3}",
          NULL },
        { "a: &x {p: 1}\nb: *x\nc:\n  <<: *x\n  q: 2\nd:\n  <<: [*x, {p: 3, r: 4}]\n",
          "{\"a\":{\"p\":1},\"b\":{\"p\":1},\"c\":{\"q\":2,\"p\":1},\"d\":{\"p\":1,\"r\":4}}", NULL },
        { "a: |\n  one\n  two\n", "{\"a\":\"one\\ntwo\\n\"}", NULL },
        { "80: x\ntrue: z\n", "{\"80\":\"x\",\"true\":\"z\"}", NULL },
        { "a: !!str 1\nb: !!int \"2\"\n", "{\"a\":\"1\",\"b\":2}", NULL },
        { "a: 1\na: 2\n", NULL, "t:2:1: the key \"a\" is there twice: remove one\n" },
        { "a: !!binary aGk=\n", NULL, "t:1:4: the tag \"tag:yaml.org,2002:binary\" is not supported: write the value without it\n" },
        { "a: *x\n", NULL, "t:1:4: no anchor \"&x\" above\n" },
        { "a: &x [*x]\n", NULL, "t:1:8: the alias \"*x\" stands inside of what it names\n" },
        { "? [a]\n: b\n", NULL, "t:1:3: a key must be a word, not a list or a map\n" },
        { "a: 1\nhost: *.x\n", NULL,
          "t:2:8: bad YAML: did not find expected alphabetic or numeric character (a value that begins with '*' or '&', such as "
          "\"*.example.com\", needs quotes)\n" },
        { "a: 1\nb: \001\n", NULL, "t:2:4: not YAML text: control characters are not allowed\n" },
        { "a: b: c\n", NULL,
          "t:1:5: bad YAML: mapping values are not allowed in this context (a second ':' on the line, or wrong indentation above; quote "
          "the "
          "value when it contains \": \")\n" },
        { "a:\n\t- b\n", NULL,
          "t:2:1: bad YAML: found character that cannot start any token (a tab cannot indent; '@', '`' and '%' need quotes)\n" },
};

static void parsing(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
                struct bench b;

                bench_up(&b);
                struct pb_node *n = parse(&b, cases[i].text);

                if (cases[i].error) {
                        assert_null(n);
                        diags_format(&b.d, &b.out);
                        assert_string_equal(buf_z(&b.out), cases[i].error);
                } else {
                        if (!n) {
                                diags_format(&b.d, &b.out);
                                fail_msg("%s: %s", cases[i].text, buf_z(&b.out));
                        }
                        pb_node_json(n, &b.out);
                        assert_string_equal(buf_z(&b.out), cases[i].want);
                }
                bench_down(&b);
        }
}

static void documents(void **state)
{
        struct bench b;
        struct pb_node **docs;
        size_t n;

        bench_up(&b);
        assert_true(pb_parse_yaml(STR("# nothing\n---\na: 1\n---\n---\n# no\n---\nb: 2\n...\n"), STR("t"), &b.a, &docs, &n, &b.d));
        assert_int_equal(n, 2);
        assert_int_equal(docs[1]->line, 8);
        assert_true(pb_parse_yaml(STR(""), STR("t"), &b.a, &docs, &n, &b.d));
        assert_int_equal(n, 0);
        bench_down(&b);
}

/* Ten anchors of ten aliases each would be 10^10 nodes. */
static void laughs(void **state)
{
        struct bench b;
        struct buf t = BUF_INIT;

        bench_up(&b);
        buf_cstr(&t, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for (int i = 1; i < 10; i++) {
                buf_printf(&t, "a%d: &a%d [", i, i);
                for (int k = 0; k < 10; k++)
                        buf_printf(&t, "%s*a%d", k ? "," : "", i - 1);
                buf_cstr(&t, "]\n");
        }
        assert_null(parse(&b, buf_z(&t)));
        diags_format(&b.d, &b.out);
        assert_non_null(strstr(buf_z(&b.out), "aliases make this file more than 10 times as large as it is written"));
        assert_true(b.a.used_bytes < 1000000);
        buf_fini(&t);
        bench_down(&b);
}

static void depth(void **state)
{
        static const char open[] = { '[', '{' };
        struct bench b;
        struct pb_node **docs, *root;
        size_t n;

        for (int yaml = 0; yaml < 2; yaml++)
                for (size_t k = 0; k < 2; k++) {
                        struct buf t = BUF_INIT;

                        bench_up(&b);
                        for (int i = 0; i < 100000; i++)
                                buf_cstr(&t, open[k] == '[' ? "[" : "{\"a\":");
                        if (yaml)
                                assert_false(pb_parse_yaml(buf_view(&t), STR("t"), &b.a, &docs, &n, &b.d));
                        else
                                assert_false(pb_parse_json(buf_view(&t), STR("t"), &b.a, &root, &b.d));
                        diags_format(&b.d, &b.out);
                        assert_non_null(strstr(buf_z(&b.out), "more than 100 levels deep"));
                        buf_fini(&t);
                        bench_down(&b);
                }
}

static void building(void **state)
{
        struct bench b;

        bench_up(&b);
        struct pb_node *m = parse(&b, "a: 1\nb: 2\nc: 3\nd: 4\ne: {f: [g]}\n"), *c = pb_clone(&b.a, m);

        for (int i = 0; i < 100; i++) {
                char key[8];

                snprintf(key, sizeof(key), "k%d", i);
                pb_put_str(&b.a, m, key, STR("v"));
                pb_push(&b.a, pb_get_path(m, "e.f"), pb_new(&b.a, PB_NUMBER, STR("1")));
        }
        assert_int_equal(m->n, 105);
        assert_int_equal(pb_get_path(m, "e.f")->n, 101);
        assert_int_equal(c->n, 5);
        assert_false(pb_node_eq(m, c));
        for (int i = 0; i < 100; i++) {
                char key[8];

                snprintf(key, sizeof(key), "k%d", i);
                assert_true(pb_del(m, key));
                assert_false(pb_del(m, key));
        }
        pb_get_path(m, "e.f")->n = 1;
        assert_true(pb_node_eq(m, c));
        assert_true(str_eqc(pb_get_str(m, "a", STR("?")), "1"));
        assert_true(str_eqc(pb_get_str(m, "e.f", STR("?")), "?"));
        assert_null(pb_get_path(m, "e.x.y"));
        assert_true(pb_node_eq(parse(&b, "a: 1\nb: [2]\n"), parse(&b, "b: [0x2]\na: 1.0\n")));
        bench_down(&b);
}

/* What is printed as YAML reads back as the same tree. */
static void yaml_back(void **state)
{
        static const char *const texts[] = {
                "{\"a\":\"no\",\"b\":\"1\",\"c\":\"\",\"d\":\"x: y\",\"e\":\"# z\",\"f\":\"l1\\nl2\\n\",\"g\":\"l1\\n\\nl2\",\"h\":\" "
                "x\",\"i\":\"\\u0001\",\"j\":\"-\"}",
                "[[1,[2,{\"a\":[{\"b\":[]},{}]}]],{\"c\":{\"d\":{\"e\":\"l1\\nl2\"}}},\"t\\nu\\n\"]",
                "{\"null\":1,\"~\":2,\"80\":3,\"a b\":4,\"\":5,\"x:\":6,\"<<\":7,\"2026-01-01\":\"2026-01-01\",\"=\":\"=\"}",
                "\"one\\ntwo\"",
                "[\"\\u0085\",\"\\u2028a\",\"\\ufeff\",\"\\u0080\",\"\\uffff\",1e99,{\"\\u0085\":1}]",
                "{\"a\":[\"x\\n y\\n\",\"\\n\\nx\",\"x\\n\\n\"],\"b\":\"\xc3\xa9\"}",
        };

        for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
                struct bench b;
                struct pb_node **docs;
                size_t n;

                bench_up(&b);
                struct pb_node *m = parse(&b, texts[i]);

                assert_non_null(m);
                pb_node_yaml(m, &b.out);
                if (!pb_parse_yaml(buf_view(&b.out), STR("t"), &b.a, &docs, &n, &b.d) || n != 1 || !pb_node_eq(m, docs[0]))
                        fail_msg("%s came back wrong from\n%s", texts[i], buf_z(&b.out));
                bench_down(&b);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(parsing), cmocka_unit_test(documents), cmocka_unit_test(laughs),
                cmocka_unit_test(depth),   cmocka_unit_test(building),  cmocka_unit_test(yaml_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
