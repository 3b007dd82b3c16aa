"""How upstreams fail, and what is made of it: retries, timeouts, resets, lies about length, protocols in any pairing. Envoy and Postern alike."""
import socket
import subprocess
import threading
import time

import http_kit as kit
import peers
import pytest

GET = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"


def scripted(answers):
    """Answers request n with answers[n] (bytes; None closes), the last one for all that follow."""
    left = list(answers)
    lock = threading.Lock()

    def answer(_request):
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]
    return answer


def ok(body=b"fine", extra=b""):
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s" % (len(body), extra, body)


def status(n, extra=b""):
    return b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n%s\r\n" % (n, extra)


def one(compare, tmp_path, answers, route, request=GET, requests=1, drop_upstream=False, **more):
    """One request through a fresh pair; what the client, the upstream and the log saw."""
    state = {}

    def make(kind):
        up = state[kind] = kit.Upstream(scripted(answers))
        port = state["port"] = peers.free_port()
        log = state["log"] = tmp_path / f"{kind}.log"
        clusters = [peers.cluster("up", up.port, **more.pop("cluster", {}))]
        return kit.config(port, peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up", **route}}], clusters, log=log)

    def scenario(p):
        got = kit.raw(state["port"], request, until_close=True) if more.get("until_close") else kit.raw(state["port"], request)
        line = peers.LogFile(state["log"]).wait(1)[-1]
        up = state[p.kind]
        seen = kit.sorted_head(got), [kit.sorted_head(r) for r in up.requests], line
        up.close()
        return seen
    return compare(make, scenario)


RETRY = {"retry_policy": {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}}


def test_retry_succeeds(compare, tmp_path):
    answer, seen, line = one(compare, tmp_path, [status(503), ok()], RETRY, request=POST)
    assert answer[0][0] == "HTTP/1.1 200 OK" and len(seen) == 2 and seen[1][1] == "hello"


def test_retries_exhausted(compare, tmp_path):
    answer, seen, line = one(compare, tmp_path, [status(503)], RETRY)
    assert " 503 URX via_upstream " in line and len(seen) == 3


def test_no_retry_without_policy(compare, tmp_path):
    answer, seen, line = one(compare, tmp_path, [status(500)], {})
    assert " 500 - via_upstream " in line and len(seen) == 1


def test_retriable_codes(compare, tmp_path):
    policy = {"retry_policy": {"retry_on": "retriable-status-codes", "retriable_status_codes": [418], "retry_back_off": {"base_interval": "0.001s"}}}
    answer, seen, line = one(compare, tmp_path, [status(418), status(418)], policy)
    assert len(seen) == 2 and " 418 URX " in line


def test_retry_header(compare, tmp_path):
    request = b"GET /x HTTP/1.1\r\nhost: a\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n\r\n"
    _, seen, _ = one(compare, tmp_path, [status(500), status(500), ok()], {"retry_policy": {"retry_on": "reset"}}, request=request)
    assert len(seen) in (1, 3)


def test_closed_without_answer(compare, tmp_path):
    answer, _, line = one(compare, tmp_path, [None], {})
    assert "503 UC upstream_reset_before_response_started{connection_termination}" in line


def test_closed_without_answer_retried(compare, tmp_path):
    answer, seen, line = one(compare, tmp_path, [None, ok()], {"retry_policy": {"retry_on": "reset", "retry_back_off": {"base_interval": "0.001s"}}})
    assert answer[0][0] == "HTTP/1.1 200 OK" and len(seen) == 2


def test_garbage(compare, tmp_path):
    answer, _, line = one(compare, tmp_path, [b"SSH-2.0-x\r\n\r\n"], {})
    assert " 502 UPE upstream_reset_before_response_started{protocol_error} " in line


def test_timeout(compare, tmp_path):
    def never(_r):
        time.sleep(3)
        return b""
    state = {}

    def make(kind):
        state["up"] = kit.Upstream(never)
        state["port"], state["log"] = peers.free_port(), tmp_path / f"{kind}.log"
        return kit.config(state["port"], peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.2s"}}],
                          [peers.cluster("up", state["up"].port)], log=state["log"])

    def scenario(p):
        got = kit.sorted_head(kit.raw(state["port"], GET)), peers.LogFile(state["log"]).wait(1)[-1]
        state["up"].close()
        return got
    answer, line = compare(make, scenario)
    assert answer[1] == "upstream request timeout" and " 504 UT " in line


def test_attempt_count(compare, tmp_path):
    state = {}

    def make(kind):
        state[kind] = kit.Upstream(scripted([status(503), ok()]))
        state["port"] = peers.free_port()
        routes = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "include_request_attempt_count": True,
                                                  "include_attempt_count_in_response": True,
                                                  "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up", **RETRY}}]}]}
        return kit.config(state["port"], peers.free_port(), routes, [peers.cluster("up", state[kind].port)])

    def scenario(p):
        got = kit.raw(state["port"], GET)
        return kit.sorted_head(got), [kit.sorted_head(r) for r in state[p.kind].requests]
    answer, seen = compare(make, scenario)
    assert "x-envoy-attempt-count: 2" in "\n".join(answer[0]) and "x-envoy-attempt-count: 2" in "\n".join(seen[1][0])


def test_short_body(compare, tmp_path):
    """An upstream that promises more than it sends: the client must see a broken answer, not a shorter one."""
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]
    state = {}

    def make(kind):
        def script(s, c):
            s.recv(65536)
            s.sendall(answers[0])
        state["up"] = peers.Server(script)
        state["port"], state["log"] = peers.free_port(), tmp_path / f"{kind}.log"
        return kit.config(state["port"], peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                          [peers.cluster("up", state["up"].port)], log=state["log"])

    def scenario(p):
        out = kit.raw(state["port"], GET, until_close=True)
        return out.endswith("abc") or out.endswith("abc<reset>"), peers.LogFile(state["log"]).wait(1)[-1]
    whole, line = compare(make, scenario)
    assert whole and " 200 UPE upstream_reset_after_response_started{protocol_error} " in line


def test_early_answer(compare, tmp_path):
    """An answer before the request is complete: it goes through, and the connection ends with it."""
    state = {}

    def make(kind):
        def script(s, c):
            s.recv(65536)
            s.sendall(status(413))
            s.recv(1)
        state["up"] = peers.Server(script)
        state["port"] = peers.free_port()
        return kit.config(state["port"], peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                          [peers.cluster("up", state["up"].port)])

    def scenario(p):
        return kit.sorted_head(kit.raw(state["port"], b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc", until_close=True))
    answer = compare(make, scenario)
    assert answer[0][0].startswith("HTTP/1.1 413") and "connection: close" in answer[0]


def test_100_continue(compare, tmp_path):
    for proxied in (False, True):
        state = {}

        def make(kind):
            def answer(request):
                return ok()

            def script(s, c):
                f = s.makefile("rb")
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += f.readline()
                state["expect"] = b"expect: 100-continue" in head
                if state["expect"]:
                    s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                f.read(5)
                s.sendall(ok())
            state["up"] = peers.Server(script)
            state["port"] = peers.free_port()
            return kit.config(state["port"], peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                              [peers.cluster("up", state["up"].port)], proxy_100_continue=proxied)

        def scenario(p):
            with socket.create_connection(("127.0.0.1", state["port"]), timeout=5) as s:
                f = s.makefile("rb")
                s.sendall(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
                first = kit.read_message(f)
                s.sendall(b"hello")
                return first, kit.sorted_head(kit.read_message(f).decode()), state["expect"]
        first, answer, expect = compare(make, scenario)
        assert first.startswith(b"HTTP/1.1 100") and answer[0][0] == "HTTP/1.1 200 OK" and expect == proxied


def test_websocket(compare, tmp_path):
    state = {}

    def make(kind):
        def script(s, c):
            f = s.makefile("rb")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += f.readline()
            state[kind] = head.decode()
            s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n")
            while True:
                d = s.recv(65536)
                if not d:
                    return
                s.sendall(d.upper())
        state["up"] = peers.Server(script)
        state["port"] = peers.free_port()
        return kit.config(state["port"], peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                          [peers.cluster("up", state["up"].port)], upgrade_configs=[{"upgrade_type": "websocket"}])

    def scenario(p):
        with socket.create_connection(("127.0.0.1", state["port"]), timeout=5) as s:
            s.sendall(b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n")
            f = s.makefile("rb")
            answer = kit.read_message(f).decode()
            s.sendall(b"abc")
            echoed = f.read(3)
            s.shutdown(socket.SHUT_WR)
            rest = f.read()
        return [x.lower() for x in kit.sorted_head(answer)[0]], [x.lower() for x in kit.sorted_head(state[p.kind])[0]], echoed, rest
    answer, _, echoed, _ = compare(make, scenario)
    assert answer[0].startswith("http/1.1 101") and echoed == b"ABC"


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
@pytest.mark.parametrize("down,up", [("h1", "h1"), ("h1", "h2"), ("h2", "h1"), ("h2", "h2")])
def test_pairings(kind, proxies, tmp_path, down, up, size):
    """Bodies both ways over every pairing. An HTTP/2 upstream is the same kind of proxy, in front of the HTTP/1.1 one."""
    def echo(request):
        head, _, body = request.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            out, rest = b"", body
            while rest:
                n, _, rest = rest.partition(b"\r\n")
                n = int(n, 16)
                if not n:
                    break
                out, rest = out + rest[:n], rest[n + 2:]
            body = out
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with kit.Upstream(echo) as upstream:
        target, options = upstream.port, {}
        if up == "h2":
            target = peers.free_port()
            proxies(kind, kit.config(target, peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                                     [peers.cluster("up", upstream.port)]))
            options = {"typed_extension_protocol_options": kit.h2_options()}
        port = peers.free_port()
        proxies(kind, kit.config(port, peers.free_port(), [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                                 [peers.cluster("up", target, **options)]))
        body = tmp_path / "body"
        body.write_bytes(bytes(i % 251 for i in range(size)) if size < 1000 else b"0123456789abcdef" * (size // 16))
        for chunked in (False, True):
            out = tmp_path / "out"
            command = ["curl", "-sS", "-m", "10", "-o", str(out), "-w", "%{http_code} %{http_version}", "--data-binary", f"@{body}",
                       f"http://127.0.0.1:{port}/"]
            if down == "h2":
                command.append("--http2-prior-knowledge")
            elif chunked:
                command += ["-H", "transfer-encoding: chunked"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.stdout == ("200 2" if down == "h2" else "200 1.1"), done.stderr
            assert (out.read_bytes() if size else b"") == body.read_bytes()
