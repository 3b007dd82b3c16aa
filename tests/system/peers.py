"""What system tests talk to and through: proxies (Envoy and Postern from one configuration), upstream servers and clients."""
import contextlib
import json
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEADLINE = 10.0


def postern_binary():
    return os.environ.get("POSTERN", os.path.join(ROOT, "build", "src", "cmd", "postern"))


def envoy_binary():
    found = os.environ.get("POSTERN_ENVOY") or shutil.which("envoy") or "/opt/peers/bin/envoy"
    return found if os.path.exists(found) else None


def wait_for(what, check, deadline=DEADLINE, every=0.01):
    """Calls check() until it gives something true, which is returned."""
    end = time.monotonic() + deadline
    while True:
        got = check()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline} s for {what}")
        time.sleep(every)


def free_port(host="127.0.0.1", taken=set()):
    """Outside of the range that the kernel takes for outgoing connections, so that nothing slips in before the listener."""
    while True:
        port = random.randrange(12000, 32000)
        if port in taken:
            continue
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except OSError:
                continue
        taken.add(port)
        return port


def unused_port():
    """A port that nobody listens on, for connections that must be refused."""
    return free_port()


# ---- configuration --------------------------------------------------------------------------------------------------------------------


def any_(type_name, **fields):
    return {"@type": "type.googleapis.com/" + type_name, **fields}


def address(port, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": port}}


def endpoints(name, *ports, host="127.0.0.1"):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(p, host)}} for p in ports]}]}


def cluster(name, *ports, host="127.0.0.1", type_="STATIC", **more):
    return {"name": name, "type": type_, "connect_timeout": "1s", "load_assignment": endpoints(name, *ports, host=host), **more}


def file_log(path, text, **more):
    return {"name": "envoy.access_loggers.file",
            "typed_config": any_("envoy.extensions.access_loggers.file.v3.FileAccessLog", path=str(path),
                                 log_format={"text_format_source": {"inline_string": text + "\n"}}), **more}


def tcp_proxy(cluster_name=None, stat_prefix="tcp", **more):
    where = {"cluster": cluster_name} if cluster_name else {}
    return {"name": "envoy.filters.network.tcp_proxy",
            "typed_config": any_("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=stat_prefix, **where, **more)}


def chain(*filters, match=None, name=None):
    c = {"filters": list(filters)}
    if match is not None:
        c["filter_chain_match"] = match
    if name:
        c["name"] = name
    return c


def tls_inspector():
    return {"name": "envoy.filters.listener.tls_inspector",
            "typed_config": any_("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")}


def http_inspector():
    return {"name": "envoy.filters.listener.http_inspector",
            "typed_config": any_("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector")}


def listener(name, port, *chains, host="127.0.0.1", **more):
    return {"name": name, "address": address(port, host), "filter_chains": list(chains), **more}


def bootstrap(admin_port, listeners=(), clusters=(), **more):
    return {"admin": {"address": address(admin_port)}, "static_resources": {"listeners": list(listeners), "clusters": list(clusters)}, **more}


# ---- proxies --------------------------------------------------------------------------------------------------------------------------


class Proxy:
    """An Envoy or a Postern that runs a configuration. `kind` is "envoy" or "postern"."""

    def __init__(self, kind, config, folder, concurrency=1, netns=None, group=None, args=(), wait=True):
        self.kind, self.config = kind, config
        self.admin_port = config["admin"]["address"]["socket_address"]["port_value"]
        self.netns = netns
        folder = str(folder)
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, f"{kind}-{self.admin_port}.json")
        with open(self.path, "w") as f:
            json.dump(config, f, indent=1)
        self.output_path = self.path[:-5] + ".out"
        self.output = open(self.output_path, "w")
        command = ["ip", "netns", "exec", netns] if netns else []
        if group is not None:
            command += ["setpriv", f"--regid={group}", "--clear-groups"]
        if kind == "envoy":
            command += [envoy_binary(), "-c", self.path, "--concurrency", str(concurrency), "-l", "warning", "--disable-hot-restart",
                        "--file-flush-interval-msec", "10", "--drain-time-s", "1"]
        else:
            command += [postern_binary(), "proxy", "-c", self.path, "--concurrency", str(concurrency), "-l", "info", "--drain-time-s", "1"]
        self.process = subprocess.Popen(command + list(args), stdout=self.output, stderr=subprocess.STDOUT)
        if wait:
            wait_for(f"{kind} to be ready (see {self.output_path})", self.ready, deadline=20)

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.kind} ended with {self.process.returncode}: {self.log()}")
        try:
            return self.admin("/ready").strip() == "LIVE"
        except OSError:
            return False

    def log(self):
        with open(self.output_path) as f:
            return f.read()

    def admin(self, path, method="GET", raw=False):
        if self.netns:
            out = subprocess.run(["ip", "netns", "exec", self.netns, "curl", "-sS", "-m", "5", "-X", method,
                                  f"http://127.0.0.1:{self.admin_port}{path}"], capture_output=True, text=True)
            if out.returncode:
                raise OSError(out.stderr)
            return out.stdout
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as r:
            body = r.read().decode()
        return body

    def admin_json(self, path):
        return json.loads(self.admin(path))

    def stats(self, prefix=""):
        """Counters and gauges by name."""
        out = {}
        for line in self.admin("/stats").splitlines():
            name, _, value = line.partition(": ")
            if name.startswith(prefix) and value.isdigit():
                out[name] = int(value)
        return out

    def stat(self, name):
        return self.stats(name).get(name, 0)

    def wait_stat(self, name, value):
        wait_for(f"{self.kind}: {name} = {value}", lambda: self.stat(name) == value)

    def stop(self, signal=15):
        if self.process.poll() is None:
            self.process.send_signal(signal)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.output.close()
        if self.kind == "postern" and signal == 15:
            assert self.process.returncode in (0, 1), f"ended with {self.process.returncode}: {self.log()[-2000:]}"
            assert "Sanitizer" not in self.log() and "runtime error" not in self.log(), self.log()[-4000:]
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.stop()


class LogFile:
    """An access log that a proxy writes."""

    def __init__(self, path):
        self.path = str(path)

    def lines(self):
        try:
            with open(self.path) as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def wait(self, count=1):
        return wait_for(f"{count} lines in {self.path}", lambda: len(self.lines()) >= count and self.lines())


# ---- servers --------------------------------------------------------------------------------------------------------------------------


class Connection:
    """What a server saw of one connection."""

    def __init__(self, peer):
        self.peer = peer
        self.received = b""
        self.ended = threading.Event()
        self.how = None         # "eof" or "reset"


class Server:
    """A TCP server on a port of its own. `script(sock, connection)` plays one connection; the default echoes and ends when the peer does."""

    def __init__(self, script=None, host="127.0.0.1", port=0, greeting=b"", tls=None):
        self.script = script or self.echo
        self.greeting, self.tls = greeting, tls
        self.connections = []
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        self.socket.listen(128)
        self.port = self.socket.getsockname()[1]
        self.closed = False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                s, peer = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s, peer), daemon=True).start()

    def _serve(self, s, peer):
        c = Connection(peer)
        self.connections.append(c)
        try:
            if self.tls:
                s = self.tls.wrap_socket(s, server_side=True)
            if self.greeting:
                s.sendall(self.greeting)
            self.script(s, c)
        except OSError as e:
            c.how = c.how or ("reset" if isinstance(e, ConnectionResetError) else str(e))
        finally:
            c.ended.set()
            with contextlib.suppress(OSError):
                s.close()

    def echo(self, s, c):
        while True:
            data = s.recv(65536)
            if not data:
                c.how = "eof"
                return
            c.received += data
            s.sendall(data)

    def wait_connections(self, n=1):
        return wait_for(f"{n} connections", lambda: len(self.connections) >= n and self.connections)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.close()


def named_server(name):
    """Answers every connection with its name, reads until the end."""
    def script(s, c):
        s.sendall(name.encode())
        while True:
            data = s.recv(65536)
            if not data:
                c.how = "eof"
                return
            c.received += data
    return Server(script)


# ---- clients --------------------------------------------------------------------------------------------------------------------------


def connect(port, host="127.0.0.1", source=None, timeout=5):
    s = socket.create_connection((host, port), timeout=timeout, source_address=source)
    s.settimeout(timeout)
    return s


def read_all(s):
    """Bytes up to the end, and how it ended: "eof", "reset" or "timeout"."""
    out = b""
    while True:
        try:
            data = s.recv(65536)
        except ConnectionResetError:
            return out, "reset"
        except socket.timeout:
            return out, "timeout"
        if not data:
            return out, "eof"
        out += data


def read_exactly(s, n):
    out = b""
    while len(out) < n:
        data = s.recv(n - len(out))
        if not data:
            raise AssertionError(f"end after {len(out)} of {n} bytes: {out[:200]!r}")
        out += data
    return out


def exchange(port, data=b"", half_close=True, **kw):
    """Sends, says goodbye, reads to the end. Gives (bytes, how)."""
    try:
        s = connect(port, **kw)
    except ConnectionRefusedError:
        return b"", "refused"
    with s:
        try:
            if data:
                s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return read_all(s)


def client_hello(sni=None, alpn=(), versions=None):
    """The first flight of a real TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def split_records(hello, size):
    """The same hello in TLS records of at most `size` bytes."""
    assert hello[0] == 22
    body, out = hello[5:], b""
    for i in range(0, len(body), size):
        piece = body[i:i + size]
        out += bytes([22]) + hello[1:3] + struct.pack(">H", len(piece)) + piece
    return out
