"""One request at a time through Envoy and through Postern, from one configuration: status, headers both ways, body, access log."""
import socket

import http_kit as kit
import peers
import pytest

ROUTES = [
    {"name": "direct", "match": {"prefix": "/direct"}, "direct_response": {"status": 201, "body": {"inline_string": "hello\n"}}},
    {"name": "empty", "match": {"path": "/empty"}, "direct_response": {"status": 502}},
    {"name": "https", "match": {"prefix": "/redirect/https"}, "redirect": {"https_redirect": True}},
    {"name": "path", "match": {"prefix": "/redirect/path"}, "redirect": {"path_redirect": "/new", "response_code": "FOUND", "strip_query": True}},
    {"name": "host", "match": {"prefix": "/redirect/host"}, "redirect": {"host_redirect": "other.example", "port_redirect": 8443}},
    {"name": "prefix", "match": {"prefix": "/redirect/prefix"},
     "redirect": {"prefix_rewrite": "/moved", "response_code": "PERMANENT_REDIRECT"}},
    {"name": "dead", "match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
    {"name": "none", "match": {"prefix": "/none"}, "route": {"cluster": "none"}},
    {"name": "unknown", "match": {"prefix": "/unknown"}, "route": {"cluster_header": "x-cluster"}},
    {"name": "rewrite", "match": {"prefix": "/rewrite/"}, "route": {"cluster": "up", "prefix_rewrite": "/", "host_rewrite_literal": "up.example",
                                                                    "append_x_forwarded_host": True, "timeout": "0s"}},
    {"name": "regex", "match": {"safe_regex": {"regex": "/re/[a-z]+"}},
     "route": {"cluster": "up", "regex_rewrite": {"pattern": {"regex": "^/re/(.*)$"}, "substitution": "/\\1/x"}}},
    {"name": "headers", "match": {"prefix": "/headers", "headers": [{"name": "x-a", "string_match": {"exact": "1"}}]}, "route": {"cluster": "up"},
     "request_headers_to_add": [
         {"header": {"key": "x-added", "value": "%REQ(:PATH)%|%PROTOCOL%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
         {"header": {"key": "x-a", "value": "2"}}],
     "request_headers_to_remove": ["x-gone"],
     "response_headers_to_add": [{"header": {"key": "x-resp", "value": "%RESPONSE_CODE%"}}, {"header": {"key": "x-up", "value": "3"},
                                                                                            "append_action": "ADD_IF_ABSENT"}]},
    {"name": "query", "match": {"prefix": "/query", "query_parameters": [{"name": "a", "string_match": {"prefix": "x"}}, {"name": "b"}]},
     "direct_response": {"status": 200}},
    {"name": "all", "match": {"prefix": "/up"}, "route": {"cluster": "up"}},
]

REQUESTS = {
    "direct": "GET /direct HTTP/1.1\r\nhost: a\r\n\r\n",
    "head": "HEAD /direct HTTP/1.1\r\nhost: a\r\n\r\n",
    "empty": "GET /empty HTTP/1.1\r\nhost: a\r\n\r\n",
    "no route": "GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n",
    "https": "GET /redirect/https?x=1 HTTP/1.1\r\nhost: a:80\r\n\r\n",
    "path redirect": "GET /redirect/path?x=1 HTTP/1.1\r\nhost: a\r\n\r\n",
    "host redirect": "GET /redirect/host?x=1 HTTP/1.1\r\nhost: a:99\r\n\r\n",
    "prefix redirect": "GET /redirect/prefix/z?x=1 HTTP/1.1\r\nhost: a\r\n\r\n",
    "dead": "GET /dead HTTP/1.1\r\nhost: a\r\n\r\n",
    "no hosts": "GET /none HTTP/1.1\r\nhost: a\r\n\r\n",
    "no cluster": "GET /unknown HTTP/1.1\r\nhost: a\r\nx-cluster: nope\r\n\r\n",
    "plain": "GET /up?q=1 HTTP/1.1\r\nhost: a\r\nuser-agent: t\r\nreferer: no url\r\nte: gzip, trailers\r\nconnection: keep-alive\r\n\r\n",
    "xff": "GET /up HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nx-envoy-internal: true\r\n"
           "x-envoy-retry-on: 5xx\r\nx-envoy-decorator-operation: z\r\n\r\n",
    "post": "POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    "chunked": "POST /up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "rewrite": "GET /rewrite/a?b HTTP/1.1\r\nhost: a\r\n\r\n",
    "regex": "GET /re/abc?b HTTP/1.1\r\nhost: a\r\n\r\n",
    "regex no": "GET /re/abc1 HTTP/1.1\r\nhost: a\r\n\r\n",
    "headers": "GET /headers HTTP/1.1\r\nhost: a\r\nx-a: 1\r\nx-gone: 1\r\n\r\n",
    "headers no": "GET /headers HTTP/1.1\r\nhost: a\r\nx-a: 2\r\n\r\n",
    "query": "GET /query?b&a=xy HTTP/1.1\r\nhost: a\r\n\r\n",
    "query no": "GET /query?b&a=y HTTP/1.1\r\nhost: a\r\n\r\n",
    "http/1.0": "GET /up HTTP/1.0\r\nhost: a\r\n\r\n",
    "absolute": "GET http://b/up HTTP/1.1\r\nhost: a\r\n\r\n",
    "star": "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "upgrade refused": "GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "connect": "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
    "grpc no route": "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
    "timeout header": "GET /up HTTP/1.1\r\nhost: a\r\nx-envoy-upstream-rq-timeout-ms: 7000\r\n\r\n",
    "close": "GET /up HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory, binary):
    """Both proxies with ROUTES, each with an upstream and a log of its own."""
    made = {}
    for kind in ("envoy", "postern"):
        if kind == "envoy" and not peers.envoy_binary():
            continue
        folder = tmp_path_factory.mktemp(kind)
        up, port, dead = kit.Upstream(), peers.free_port(), peers.unused_port()
        log = folder / "access.log"
        clusters = [peers.cluster("up", up.port), peers.cluster("dead", dead), peers.cluster("none")]
        p = peers.Proxy(kind, kit.config(port, peers.free_port(), ROUTES, clusters, log=log), folder)
        made[kind] = (p, port, up, peers.LogFile(log))
    yield made
    for p, _, up, _ in made.values():
        p.stop()
        up.close()


@pytest.mark.parametrize("name", REQUESTS)
def test_same(pair, name):
    seen = {}
    for kind, (_, port, up, log) in pair.items():
        up.requests.clear()
        lines = len(log.lines())
        answer = kit.raw(port, REQUESTS[name].encode())
        entry = log.wait(lines + 1)[-1]
        seen[kind] = (kit.sorted_head(answer), [kit.sorted_head(r) for r in up.requests], entry)
    if "envoy" in seen:
        for a, b in zip(seen["postern"], seen["envoy"]):
            assert a == b


def test_no_host(pair):
    """As Envoy, but for the log: our codec refuses it before there is a method to print."""
    for kind, (_, port, _, log) in pair.items():
        lines = len(log.lines())
        answer, body = kit.sorted_head(kit.raw(port, b"GET /up HTTP/1.1\r\n\r\n"))
        assert answer[0] == "HTTP/1.1 400 Bad Request" and "connection: close" in answer and body == ""
        assert " 400 - missing_host_header 0 0 - -" in log.wait(lines + 1)[-1]


def test_keep_alive_and_pipelining(pair):
    _, port, _, _ = pair["postern"]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.sendall(REQUESTS["plain"].encode() * 3)
        f = s.makefile("rb")
        for _ in range(3):
            assert kit.read_message(f).startswith(b"HTTP/1.1 200")
