"""HTTP scenarios: a recording HTTP/1.1 upstream, raw exchanges, and a bootstrap around one HTTP connection manager."""
import re
import socket
import threading

import peers

HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
FORMAT = ("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
          "%BYTES_RECEIVED% %BYTES_SENT% %ROUTE_NAME% %UPSTREAM_CLUSTER%")


class Upstream:
    """Reads requests as HTTP/1.1 and answers with what `answer(request)` returns (bytes), or a 200 that shows the request. Keeps the requests' text."""

    def __init__(self, answer=None):
        self.answer = answer or self.show
        self.requests = []
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(128)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        f = s.makefile("rb")
        try:
            while True:
                request = read_message(f)
                if request is None:
                    return
                self.requests.append(request.decode("latin-1"))
                out = self.answer(request)
                if out is None:
                    return
                s.sendall(out)
        except OSError:
            pass
        finally:
            s.close()

    @staticmethod
    def show(request):
        body = b"seen"
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-up: 1\r\n\r\n%s" % (len(body), body if not request.startswith(b"HEAD") else b"")

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.close()


def read_message(f):
    """One message with its body, as it came; None at the end."""
    out = b""
    while True:
        line = f.readline()
        if not line:
            return None
        out += line
        if line in (b"\r\n", b"\n"):
            break
    head = out.lower()
    m = re.search(rb"\r\ncontent-length: *(\d+)", head)
    if m:
        out += f.read(int(m.group(1)))
    elif b"\r\ntransfer-encoding: chunked" in head:
        while True:
            size = f.readline()
            out += size
            if int(size.split(b";")[0], 16) == 0:
                break
            out += f.read(int(size.split(b";")[0], 16) + 2)
        while True:
            line = f.readline()
            out += line
            if line in (b"\r\n", b""):
                break
    return out


def hcm(routes, filters=(), log=None, **more):
    config = peers.any_(HCM, stat_prefix="in", codec_type="AUTO", http_filters=list(filters) + [
        {"name": "envoy.filters.http.router", "typed_config": peers.any_("envoy.extensions.filters.http.router.v3.Router")}], **more)
    if isinstance(routes, list):
        routes = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}
    config["route_config"] = routes
    if log:
        config["access_log"] = [peers.file_log(log, FORMAT)]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def config(port, admin, routes, clusters, **more):
    return peers.bootstrap(admin, [peers.listener("l", port, peers.chain(hcm(routes, **more)))], clusters)


def h2_options():
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": peers.any_(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})}


def raw(port, data, timeout=5, until_close=False):
    """Sends bytes and reads one response (or everything until the end)."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        s.sendall(data)
        out = b""
        f = s.makefile("rb")
        try:
            if until_close:
                while True:
                    d = f.read1(65536)
                    if not d:
                        break
                    out += d
            else:
                out = read_message(f) or b""
        except OSError:
            out += b"<reset>"
        return out.decode("latin-1")


VOLATILE = (
    (re.compile(r"(?im)^(date): [^\r\n]*"), r"\1: D"),
    (re.compile(r"(?im)^(x-request-id): [0-9a-f-]{36}"), r"\1: U"),
    (re.compile(r"(?im)^(x-envoy-upstream-service-time): \d+"), r"\1: N"),
    (re.compile(r"(?im)^(x-envoy-expected-rq-timeout-ms): 14[5-9]\d\d"), r"\1: 15000"),        # less what a retry took
    (re.compile(r"(?im)^(x-forwarded-port): \d+"), r"\1: P"),
    (re.compile(r"127\.0\.0\.1:\d+"), "H:P"),
)


def still(text):
    """Without what differs from run to run."""
    for pattern, to in VOLATILE:
        text = pattern.sub(to, text)
    return text


def sorted_head(text):
    """Header lines in order of name: where Envoy and we put a header we added is nobody's business."""
    head, _, body = still(text).partition("\r\n\r\n")
    lines = head.split("\r\n")
    return [lines[0]] + sorted(x.lower() if x.lower().startswith("connection") else x for x in lines[1:]), body
