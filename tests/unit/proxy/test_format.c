#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "http/http.h"
#include "proxy/format.h"

#include "google/struct.pb-c.h"

#include <stdlib.h>

static struct arena arena;
static struct http_head request, response;
static struct addr remote, local;
static struct conn_info conn = { .id = 7, .remote = &remote, .local = &local, .direct_local = &local, .sni = { "a.org", 5 } };
static struct stream_info si = { .conn = &conn };

static int setup(void **state)
{
        arena_init(&arena, 1024);
        http_head_init(&request, &arena);
        http_head_init(&response, &arena);
        request.method = STR("GET");
        request.path = STR("/p?q=1&r=2");
        request.authority = STR("a.org");
        http_add(&request, HN_USER_AGENT, STR("curl/8"));
        http_add_name(&request, STR("x-long"), STR("0123456789"));
        response.status = 200;
        addr_parse(&remote, STR("10.0.0.1:4000"));
        addr_parse(&local, STR("[::1]:80"));
        si.request = &request;
        si.response = &response;
        si.protocol = SP_HTTP2;
        si.start_real_us = 1790000000123456;
        si.t[ST_START] = 1000;
        si.t[ST_DS_RX_END] = 3500;
        si.t[ST_US_RX_BEG] = 11000;
        si.t[ST_END] = 21000;
        si.response_code = 200;
        si.flags = RF_UF | RF_URX;
        si.upstream_failure = STR("a b c");
        si.bytes_sent = 12;
        return 0;
}

static const struct {
        const char *format, *want;
} good[] = {
        { "", "" },
        { "plain 100%%", "plain 100%" },
        { "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%", "GET /p?q=1&r=2 HTTP/2" },
        { "%REQ(USER-AGENT)%|%REQ(nope)%|%REQ(X-LONG):4%|%REQ(nope?x-long):2%", "curl/8|-|0123|01" },
        { "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "200 UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded" },
        { "%START_TIME%", "2026-09-21T14:13:20.123Z" },
        { "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2026/09/21T14:13:20+0000 1790000000" },
        { "%START_TIME(%s.%3f %6f %f)%", "1790000000.123 123456 123456000" },
        { "%START_TIME(%E3S)%", "20.123" },
        { "%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "20 2 10 -" },
        { "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)% %COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ms)%", "10000 -" },
        { "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", "10.0.0.1:4000 10.0.0.1 4000" },
        { "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "[::1]:80 ::1" },
        { "%REQUESTED_SERVER_NAME% %CONNECTION_ID% %ROUTE_NAME% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%", "a.org 7 - - -" },
        { "%UPSTREAM_TRANSPORT_FAILURE_REASON%", "a_b_c" },
        { "%BYTES_SENT%%BYTES_RECEIVED%", "120" },
        { "%RESP(:STATUS)% %PATH(NQ)% %QUERY_PARAM(r)%", "200 /p 2" },
        { "%DYNAMIC_METADATA(a:b)% %FILTER_STATE(x)% %CLUSTER_METADATA(istio)%", "- - -" },
};

static void test_good(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(good); i++) {
                struct diags d;
                struct diag_at at = { 0 };
                struct buf b = BUF_INIT;

                diags_init(&d);
                struct format *f = format_compile(str_of(good[i].format), false, &at, &d);

                assert_non_null(f);
                format_render(f, &si, &b);
                assert_string_equal(buf_z(&b), good[i].want);
                format_free(f);
                buf_fini(&b);
                diags_fini(&d);
        }
}

static const struct {
        const char *format, *says;
} bad[] = {
        { "%NOPE%", "unknown operator %NOPE%" },
        { "%PROTOCO%", "did you mean %PROTOCOL%?" },
        { "%REQ%", "needs an argument" },
        { "%REQ()%", "needs an argument" },
        { "%REQ(a?b?c)%", "at most one alternative" },
        { "%PROTOCOL(x)%", "takes no argument" },
        { "%REQ(a", "closing parenthesis" },
        { "%REQ(a):x%", "positive number" },
        { "%REQ(a):0%", "positive number" },
        { "50% of", "bad format" },
        { "%", "bad format" },
        { "%COMMON_DURATION(A:B:C)%", "START:END:PRECISION" },
        { "%GRPC_STATUS(X)%", "CAMEL_STRING" },
};

static void test_bad(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
                struct diags d;
                struct diag_at at = { .path = STR("access_log[0].format") };

                diags_init(&d);
                assert_null(format_compile(str_of(bad[i].format), false, &at, &d));
                assert_int_equal(d.errors, 1);
                assert_true(str_find(d.v[0].text, str_of(bad[i].says)) >= 0);
                assert_true(str_eqc(d.v[0].path, "access_log[0].format"));
                diags_fini(&d);
        }
}

static Gp__Value text_value(const char *s)
{
        Gp__Value v = GP__VALUE__INIT;

        v.kind_case = GP__VALUE__KIND_STRING_VALUE;
        v.string_value = (char *)s;
        return v;
}

static void test_json(void **state)
{
        Gp__Value a = text_value("%RESPONSE_CODE%"), b = text_value("%REQ(:METHOD)% %PROTOCOL%"), c = text_value("%ROUTE_NAME%"),
                  n = GP__VALUE__INIT, deep = GP__VALUE__INIT, e = text_value("say \"%REQ(USER-AGENT)%\"");
        Gp__Struct__FieldsEntry fa = GP__STRUCT__FIELDS_ENTRY__INIT, fb = fa, fc = fa, fn = fa, fd = fa, fe = fa;
        Gp__Struct__FieldsEntry *inner_v[] = { &fe }, *v[] = { &fd, &fc, &fb, &fa, &fn };
        Gp__Struct inner = GP__STRUCT__INIT, s = GP__STRUCT__INIT;
        struct diags d;
        struct diag_at at = { 0 };
        struct buf out = BUF_INIT;

        fa.key = "code", fa.value = &a;
        fb.key = "line", fb.value = &b;
        fc.key = "route", fc.value = &c;
        n.kind_case = GP__VALUE__KIND_NUMBER_VALUE, n.number_value = 5;
        fn.key = "n", fn.value = &n;
        fe.key = "e", fe.value = &e;
        inner.n_fields = 1, inner.fields = inner_v;
        deep.kind_case = GP__VALUE__KIND_STRUCT_VALUE, deep.struct_value = &inner;
        fd.key = "z", fd.value = &deep;
        s.n_fields = 5, s.fields = v;
        diags_init(&d);
        struct format_json *f = format_json_compile(&s, false, true, &at, &d);

        assert_non_null(f);
        format_json_render(f, &si, &out);
        assert_string_equal(buf_z(&out),
                            "{\"code\":200,\"line\":\"GET HTTP/2\",\"n\":5,\"route\":null,\"z\":{\"e\":\"say \\\"curl/8\\\"\"}}\n");
        format_json_free(f);
        out.n = 0;
        f = format_json_compile(&s, true, true, &at, &d);
        format_json_render(f, &si, &out);
        assert_string_equal(buf_z(&out), "{\"code\":200,\"line\":\"GET HTTP/2\",\"n\":5,\"z\":{\"e\":\"say \\\"curl/8\\\"\"}}\n");
        format_json_free(f);
        buf_fini(&out);
        diags_fini(&d);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_good), cmocka_unit_test(test_bad), cmocka_unit_test(test_json) };

        return cmocka_run_group_tests(tests, setup, NULL);
}
