"""What Postern costs beside its peers, measured in the same run: CPU time of the proxy per unit of work, memory per idle connection, memory and
time at start. Started by `./dev bench [ROW...]`.

Each proxy has one worker, pinned to a processor; load and upstream run on another. Rounds are interleaved, medians are printed, and the ratio to
Envoy, which is what carries from one machine to the next."""
import argparse
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")


def free_ports(n):
    """Nothing else may listen there: with SO_REUSEPORT a forgotten proxy would take a share of the load. Below the ports that the kernel gives
    to connections (32768 and up): rows make thousands of them."""
    ports = []
    for port in range(21080, 32768):
        try:
            socket.create_server(("127.0.0.1", port)).close()
            ports.append(port)
        except OSError:
            continue
        if len(ports) == n:
            return ports
    raise SystemExit("no free ports below 32768")


HTTP, H2, PASS, UP_HTTP, UP_TLS, ADMIN = free_ports(6)
PROXY_CPU, LOAD_CPU = "0", "1"


def find(*names):
    for n in names:
        p = n if n and os.path.isabs(n) and os.access(n, os.X_OK) else shutil.which(n or "")
        if p:
            return p
    return None


def tree(pid):
    """The processes of the session that spawn() began with pid: nginx's workers outlive their master, and some kernels list no children."""
    out = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat") as f:
                if int(f.read().rpartition(")")[2].split()[3]) == pid:
                    out.append(int(p))
        except OSError:
            pass
    return out


def cpu_s(pid):
    total = 0
    for p in tree(pid):
        try:
            with open(f"/proc/{p}/schedstat") as f:
                base = int(f.read().split()[0])
            threads = 0
            for t in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{t}/schedstat") as f:
                    threads += int(f.read().split()[0])
            total += max(base, threads)
        except OSError:
            pass
    return total / 1e9


def pss_kib(pid):
    total = 0
    for p in tree(pid):
        try:
            with open(f"/proc/{p}/smaps_rollup") as f:
                total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
        except (OSError, AttributeError):
            pass
    return total


def wait_port(port, seconds=15):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.002)
    raise SystemExit(f"nothing listens on port {port}")


def first_byte_ms(start):
    """From exec to the first byte of a proxied answer."""
    t0 = time.monotonic()
    p = start()
    while time.monotonic() - t0 < 60:
        try:
            s = socket.create_connection(("127.0.0.1", HTTP), 0.5)
            s.sendall(b"GET /small HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
            data = s.recv(4096)
            s.close()
            if data.startswith(b"HTTP/1.1 200"):
                return p, (time.monotonic() - t0) * 1000
        except OSError:
            pass
        time.sleep(0.0005)
    os.killpg(p.pid, signal.SIGKILL)
    raise SystemExit("no first byte")


ENVOY_YAML = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: http
    address: {{socket_address: {{address: 127.0.0.1, port_value: {http}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: &hcm
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {dir}/access.log
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: up}}
  - name: h2
    address: {{socket_address: {{address: 127.0.0.1, port_value: {h2}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: *hcm
  - name: passthrough
    address: {{socket_address: {{address: 127.0.0.1, port_value: {pas}}}}}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    filter_chains:
    - filter_chain_match: {{server_names: [example.com]}}
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: pass
          cluster: up_tls
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {dir}/access.log
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]}}
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {up}}}}}}}}}]}}]
  - name: up_tls
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 100000}}]}}
    load_assignment:
      cluster_name: up_tls
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {uptls}}}}}}}}}]}}]
"""

NGINX_CONF = """
worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log; daemon off;
{load_stream}
events {{ worker_connections 15000; }}
worker_rlimit_nofile 20000;
http {{
  access_log {dir}/access.log;
  upstream up {{ server 127.0.0.1:{up}; keepalive 256; keepalive_requests 100000000; }}
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:{http}; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
  server {{ listen 127.0.0.1:{h2} http2; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
{stream}
"""
NGINX_STREAM = """
stream {{
  log_format basic '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time $ssl_preread_server_name';
  access_log {dir}/access.log basic;
  map $ssl_preread_server_name $b {{ example.com 127.0.0.1:{uptls}; }}
  server {{ listen 127.0.0.1:{pas}; ssl_preread on; proxy_pass $b; }}
}}
"""

HAPROXY_CFG = """
global
  nbthread 1
  maxconn 9000
  log {dir}/log.sock local0
defaults
  log global
  timeout client 600s
  timeout server 600s
  timeout connect 5s
  timeout http-keep-alive 600s
frontend h
  mode http
  option httplog
  bind 127.0.0.1:{http}
  bind 127.0.0.1:{h2} proto h2
  default_backend up
backend up
  mode http
  http-reuse always
  server s 127.0.0.1:{up}
frontend p
  mode tcp
  option tcplog
  bind 127.0.0.1:{pas}
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  use_backend uptls if {{ req.ssl_sni example.com }}
backend uptls
  mode tcp
  server s 127.0.0.1:{uptls}
"""

UPSTREAM_CONF = """
worker_processes 1; pid {dir}/up.pid; error_log {dir}/up.log; daemon off;
events {{ worker_connections 15000; }}
worker_rlimit_nofile 20000;
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {dir}/u1; proxy_temp_path {dir}/u2; fastcgi_temp_path {dir}/u3; uwsgi_temp_path {dir}/u4; scgi_temp_path {dir}/u5;
  server {{
    listen 127.0.0.1:{up} backlog=4096; listen 127.0.0.1:{uptls} ssl backlog=4096;
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
    location /small {{ return 200 "{body}"; }}
    location /big {{ root {dir}; }}
  }}
}}
"""


class Bench:
    def __init__(self, rounds):
        self.dir = tempfile.mkdtemp(prefix="postern-bench-")
        os.chmod(self.dir, 0o755)
        self.rounds = rounds
        self.env = {"dir": self.dir, "http": HTTP, "h2": H2, "pas": PASS, "up": UP_HTTP, "uptls": UP_TLS, "admin": ADMIN, "body": "x" * 1024}
        self.newconn = os.path.join(ROOT, "build-release/bench/newconn")
        self.peers = {}
        self.write("envoy.yaml", ENVOY_YAML)
        self.write("haproxy.cfg", HAPROXY_CFG)
        stream = next((p for p in ("/usr/lib/nginx/modules/ngx_stream_module.so",) if os.path.exists(p)), None)
        self.env["load_stream"] = f"load_module {stream};" if stream else ""
        self.env["stream"] = NGINX_STREAM.format(**self.env) if stream else ""
        self.write("nginx.conf", NGINX_CONF)
        self.write("up.conf", UPSTREAM_CONF)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=example.com",
                        "-addext", "subjectAltName=DNS:example.com", "-keyout", f"{self.dir}/key.pem", "-out", f"{self.dir}/cert.pem"],
                       check=True, stderr=subprocess.DEVNULL)
        os.mkdir(f"{self.dir}/big")
        with open(f"{self.dir}/big/file", "wb") as f:
            f.truncate(256 << 20)
        for d in range(1, 6):
            os.mkdir(f"{self.dir}/t{d}")
            os.mkdir(f"{self.dir}/u{d}")
        for f in ("access.log", "error.log", "up.log"):
            open(f"{self.dir}/{f}", "w").close()
        subprocess.run(["chmod", "-R", "a+rwX", self.dir], check=True)
        self.find_peers(stream)
        self.up = None
        self.log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)     # where HAProxy's access log goes
        self.log.bind(f"{self.dir}/log.sock")
        os.chmod(f"{self.dir}/log.sock", 0o666)
        threading.Thread(target=self.drain_log, daemon=True).start()

    def drain_log(self):
        try:
            while self.log.recv(65536):
                pass
        except OSError:
            pass

    def write(self, name, text):
        with open(os.path.join(self.dir, name), "w") as f:
            f.write(text.format(**self.env))

    def find_peers(self, stream):
        postern = os.path.join(ROOT, "build-release/src/cmd/postern")
        envoy = find(os.environ.get("POSTERN_ENVOY"), "envoy", os.path.join(os.environ.get("POSTERN_PEERS", "/opt/peers"), "bin/envoy"))
        nginx, haproxy = find("nginx", "/usr/sbin/nginx"), find("haproxy", "/usr/sbin/haproxy")
        self.peers["postern"] = [postern, "proxy", "-c", f"{self.dir}/envoy.yaml", "--concurrency", "1"]
        if envoy:
            self.peers["envoy"] = [envoy, "-c", f"{self.dir}/envoy.yaml", "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
        if nginx:
            self.peers["nginx"] = [nginx, "-c", f"{self.dir}/nginx.conf", "-p", self.dir, "-e", f"{self.dir}/error.log"]
            self.nginx = nginx
            self.nginx_stream = bool(stream)
        if haproxy:
            self.peers["haproxy"] = [haproxy, "-f", f"{self.dir}/haproxy.cfg", "-db", "-q"]
        if not nginx:
            raise SystemExit("nginx is the upstream of every row: ./dev setup --all installs it")

    def spawn(self, argv, cpu):
        return subprocess.Popen(["taskset", "-c", cpu, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def start(self, name):
        p = self.spawn(self.peers[name], PROXY_CPU)
        wait_port(HTTP)
        return p

    def stop(self, p):
        """All of them, again until none is left: a master may have replaced a worker that was killed before it."""
        while pids := tree(p.pid):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            p.poll()
            time.sleep(0.002)

    def __enter__(self):
        self.up = self.spawn([self.nginx, "-c", f"{self.dir}/up.conf", "-p", self.dir, "-e", f"{self.dir}/up.log"], LOAD_CPU)
        wait_port(UP_HTTP)
        return self

    def __exit__(self, *exc):
        if self.up:
            self.stop(self.up)
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def load(self, *argv):
        return subprocess.run(["taskset", "-c", LOAD_CPU, *argv], capture_output=True, text=True, timeout=300)

    def h2load(self, *argv):
        out = self.load("h2load", *argv).stdout
        m = re.search(r"(\d+) succeeded, (\d+) failed", out)
        return int(m.group(1)) if m else 0

    def has(self, name, row):
        return not (name == "nginx" and row.startswith("passthrough") and not self.nginx_stream)

    # each row: units of work done, measured around it

    def row_http1(self, n=30000):
        return self.h2load("--h1", "-n", str(n), "-c", "64", f"http://127.0.0.1:{HTTP}/small")

    def row_http2(self, n=30000):
        return self.h2load("-n", str(n), "-c", "8", "-m", "8", f"http://127.0.0.1:{H2}/small")

    def row_passthrough_small(self, n=20000):
        return self.h2load("--h1", "-n", str(n), "-c", "64", f"--connect-to=127.0.0.1:{PASS}", "https://example.com/small")

    def row_passthrough_bulk(self, n=4):
        return self.h2load("--h1", "-n", str(n), "-c", "4", f"--connect-to=127.0.0.1:{PASS}", "https://example.com/big/file") / 4

    def row_passthrough_new(self, n=1500):
        return int(self.load(self.newconn, "127.0.0.1", str(PASS), str(n), "8", "example.com").stdout or 0)

    def row_plain_new(self, n=5000):
        return int(self.load(self.newconn, "127.0.0.1", str(HTTP), str(n), "8").stdout or 0)


CPU_ROWS = {        # row: (title, unit, factor)
    "http1": ("HTTP/1.1 -> HTTP/1.1, keep-alive, 64 connections", "µs a request", 1e6),
    "http2": ("HTTP/2 in -> HTTP/1.1", "µs a request", 1e6),
    "passthrough_small": ("TLS passthrough by SNI, reused connections", "µs a request", 1e6),
    "passthrough_bulk": ("TLS passthrough, bulk", "ms a GiB", 1e3),
    "passthrough_new": ("TLS passthrough, a new connection a request", "µs a request", 1e6),
    "plain_new": ("plain HTTP/1.1, a new connection a request", "µs a request", 1e6),
}


def cpu_row(b, row):
    results = {name: [] for name in b.peers if b.has(name, row)}
    work = getattr(b, "row_" + row)
    for r in range(b.rounds):
        for name in results:
            p = b.start(name)
            try:
                if row != "passthrough_bulk":
                    work(500)                           # warm up
                before = cpu_s(p.pid)
                done = work()
                used = cpu_s(p.pid) - before
                if done:
                    results[name].append(used / done * CPU_ROWS[row][2])
            finally:
                b.stop(p)
    return {k: statistics.median(v) if v else None for k, v in results.items()}


def idle_http(b, p, n):
    base, socks = pss_kib(p.pid), []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", HTTP), 5)
        s.sendall(b"GET /small HTTP/1.1\r\nHost: example.com\r\n\r\n")
        got = b""
        while b"x" * 1024 not in got:
            got += s.recv(4096)
        socks.append(s)
    used = (pss_kib(p.pid) - base) / n
    for s in socks:
        s.close()
    return used


def idle_passthrough(b, p, n):
    ctx = ssl._create_unverified_context()         # the upstream's certificate is not what is measured
    base, socks = pss_kib(p.pid), []
    for _ in range(n):
        s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", PASS), 5), server_hostname="example.com")
        s.sendall(b"GET /small HTTP/1.1\r\nHost: example.com\r\n\r\n")
        got = b""
        while b"x" * 1024 not in got:
            got += s.recv(4096)
        socks.append(s)
    used = (pss_kib(p.pid) - base) / n
    for s in socks:
        s.close()
    return used


def memory_row(b, fn, n, row):
    out = {}
    for name in b.peers:
        if not b.has(name, row):
            continue
        p = b.start(name)
        try:
            out[name] = fn(b, p, n)
        finally:
            b.stop(p)
    return out


def start_rows(b):
    pss, ms = {n: [] for n in b.peers}, {n: [] for n in b.peers}
    for _ in range(b.rounds):
        for name in b.peers:
            p, t = first_byte_ms(lambda: b.spawn(b.peers[name], PROXY_CPU))
            ms[name].append(t)
            pss[name].append(pss_kib(p.pid) / 1024)
            b.stop(p)
    return [{k: statistics.median(v) for k, v in d.items()} for d in (pss, ms)]


def large_config(b, n=10000):
    """Memory and time to the first byte with n clusters and n virtual hosts, Postern and Envoy only."""
    lines = [ENVOY_YAML.format(**b.env)]
    text = re.sub(r"  - name: h2\n.*?(?=  - name: passthrough\n)", "", lines[0], flags=re.S)      # its alias would double the routes
    vhosts = "".join(f"            - {{name: v{i}, domains: [h{i}.example], routes: [{{match: {{prefix: /}}, route: {{cluster: c{i}}}}}]}}\n" for i in range(n))
    clusters = "".join(
        f"  - {{name: c{i}, type: STATIC, load_assignment: {{cluster_name: c{i}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: "
        f"{{socket_address: {{address: 127.0.0.1, port_value: {UP_HTTP}}}}}}}}}]}}]}}}}\n" for i in range(n))
    text = text.replace("            virtual_hosts:\n", "            virtual_hosts:\n" + vhosts, 1) + clusters
    path = os.path.join(b.dir, "large.yaml")
    with open(path, "w") as f:
        f.write(text)
    pss, ms = {}, {}
    for name in ("postern", "envoy"):
        if name in b.peers:
            argv = [a if not a.endswith("envoy.yaml") else path for a in b.peers[name]]
            p, ms[name] = first_byte_ms(lambda: b.spawn(argv, PROXY_CPU))
            pss[name] = pss_kib(p.pid) / 1024
            b.stop(p)
    return pss, ms


def show(title, unit, result):
    base = result.get("envoy")
    cells = []
    for name in ("envoy", "nginx", "haproxy", "postern"):
        v = result.get(name)
        cells.append("-" if v is None else f"{v:.1f}" + (f" ({v / base:.2f})" if base else ""))
    print(f"| {title}, {unit} | " + " | ".join(cells) + " |", flush=True)


def main():
    rows = [*CPU_ROWS, "idle_http", "idle_passthrough", "start", "large"]
    ap = argparse.ArgumentParser(prog="./dev bench", description="measures Postern beside Envoy, nginx and HAProxy; in brackets the ratio to Envoy")
    ap.add_argument("rows", nargs="*", metavar="ROW", help="only these rows: " + ", ".join(rows))
    ap.add_argument("--rounds", type=int, default=3)
    args = ap.parse_args()
    for r in args.rows:
        if r not in rows:
            ap.error(f"there is no row {r}; the rows are {', '.join(rows)}")
    subprocess.run(["ninja", "-C", os.path.join(ROOT, "build-release"), "bench/newconn"], check=True, stdout=subprocess.DEVNULL)
    want = args.rows or rows
    with Bench(args.rounds) as b:
        print("| work | Envoy | nginx | HAProxy | Postern |\n| --- | --- | --- | --- | --- |", flush=True)
        for r in want:
            if r in CPU_ROWS:
                show(*CPU_ROWS[r][:2], cpu_row(b, r))
            elif r == "idle_http":
                show("idle HTTP/1.1 connection (5,000)", "KiB", memory_row(b, idle_http, 5000, r))
            elif r == "idle_passthrough":
                show("idle passthrough connection (1,000)", "KiB", memory_row(b, idle_passthrough, 1000, "passthrough"))
            elif r == "start":
                pss, ms = start_rows(b)
                show("at start", "MiB PSS", pss)
                show("exec to first byte", "ms", ms)
            else:
                pss, ms = large_config(b)
                show("10,000 clusters and virtual hosts", "MiB PSS", pss)
                show("10,000 clusters and virtual hosts, exec to first byte", "ms", ms)
        size = os.path.getsize(os.path.join(ROOT, "build-release/src/cmd/postern"))
        print(f"\nthe binary, not stripped: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
