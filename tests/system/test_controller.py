"""The controller against the embedded API server, with a stock Envoy and Postern's proxy as its clients. Proxies run in a network namespace of their
own (they listen on 15001 and so on) and reach the controller through a Unix socket."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

import peers

OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: curl}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: httpbin-ext, namespace: curl}
spec:
  hosts: [httpbin.org]
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 443, name: https, protocol: HTTPS}
  resolution: DNS
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: curl}
spec:
  ports: [{port: 8000, name: http, targetPort: 8080}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: echo, namespace: curl}
subsets:
- addresses: [{ip: 10.244.0.99}]
  ports: [{port: 8080, name: http}]
"""

SECOND = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: curl}
spec:
  hosts: [second.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self.path)


def get_unix(path, what):
    c = UnixConnection(path)
    try:
        c.request("GET", what)
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


class Cluster:
    """An API server and a controller; everything of them in `dir`."""

    def __init__(self, binary, path):
        self.binary, self.dir, self.procs = binary, path, {}
        self.port = peers.free_port()
        self.start_apiserver()
        self.start_controller()

    def start(self, name, args):
        with open(self.dir / f"{name}.log", "ab") as log:
            self.procs[name] = subprocess.Popen(args, stdout=log, stderr=log)

    def start_apiserver(self):
        self.start("apiserver", [self.binary, "apiserver", "--state", self.dir / "state", "--pki", self.dir / "pki", "--listen", f"127.0.0.1:{self.port}",
                                 "--port-file", self.dir / "port"])
        peers.wait_for("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0)

    def start_controller(self):
        self.start("controller", [self.binary, "controller", "--kubeconfig", self.dir / "pki" / "controller.kubeconfig", "--ads-listen", f"unix:{self.dir}/ads",
                                  "--monitoring", f"unix:{self.dir}/monitor", "--log-level", "debug"])
        peers.wait_for("the controller", self.ready)

    def ready(self):
        try:
            return get_unix(f"{self.dir}/monitor", "/ready")[0] == 200
        except OSError:
            return False

    def kubectl(self, *args, stdin=None, check=True):
        env = {**os.environ, "KUBECONFIG": str(self.dir / "pki" / "admin.kubeconfig"), "HOME": str(self.dir)}
        r = subprocess.run(["kubectl", *args], input=stdin, capture_output=True, text=True, env=env)
        assert not check or r.returncode == 0, r.stderr
        return r

    def syncz(self):
        return json.loads(get_unix(f"{self.dir}/monitor", "/debug/syncz")[1])

    def kill(self, name):
        self.procs[name].kill()
        self.procs[name].wait()

    def stop(self):
        for p in self.procs.values():
            p.terminate()
        for p in self.procs.values():
            p.wait(timeout=5)


@pytest.fixture
def cluster(binary, tmp_path):
    if os.geteuid() != 0 or not shutil.which("kubectl"):
        pytest.skip("needs root (for a network namespace) and kubectl")
    c = Cluster(binary, tmp_path)
    yield c
    c.stop()


def bootstrap(path, variant):
    return {
        "node": {"id": "sidecar~10.244.0.8~curl.curl~curl.svc.cluster.local", "cluster": "curl.curl",
                 "metadata": {"NAMESPACE": "curl", "LABELS": {"app": "curl"}, "CLUSTER_ID": "Kubernetes"}},
        "dynamic_resources": {
            "ads_config": {"api_type": variant, "transport_api_version": "V3", "set_node_on_first_message_only": True,
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            "cds_config": {"ads": {}, "resource_api_version": "V3"}, "lds_config": {"ads": {}, "resource_api_version": "V3"}},
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}},
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": f"{path}/ads"}}}}]}]}},
            {"name": "agent", "type": "STATIC", "load_assignment": {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": "127.0.0.1", "port_value": 15020}}}}]}]}}]},
    }


@pytest.fixture
def client(cluster, tmp_path):
    started = []

    def start(kind, variant):
        config = bootstrap(tmp_path, variant)
        if kind == "envoy":
            if not peers.envoy_binary():
                pytest.skip("no Envoy (POSTERN_ENVOY)")
            config["admin"] = {"address": {"pipe": {"path": f"{tmp_path}/admin"}}}
            run = [peers.envoy_binary(), "--use-dynamic-base-id", "--concurrency", "1"]
        else:
            run = [cluster.binary, "proxy", "--concurrency", "1"]
        (tmp_path / "bootstrap.json").write_text(json.dumps(config))
        log = open(tmp_path / "client.log", "ab")
        started.append(subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh", *run, "-c", tmp_path / "bootstrap.json"],
                                        stdout=log, stderr=log))
        return started[-1]
    yield start
    for p in started:
        p.kill()
        p.wait()


def up_to_date(cluster):
    """Subscribed to everything, all acknowledged, nothing refused."""
    s = cluster.syncz()
    if len(s) != 1:
        return None
    for t in ("cluster", "endpoint", "listener", "route"):
        if f"{t}_error" in s[0]:
            raise AssertionError(s[0][f"{t}_error"])
        if f"{t}_sent" not in s[0] or s[0][f"{t}_sent"] != s[0][f"{t}_acked"]:
            return None
    return s[0]["synced"] and s[0]


@pytest.mark.parametrize("variant", ["GRPC", "DELTA_GRPC"])
def test_client_takes_everything(cluster, client, kind, variant):
    cluster.kubectl("apply", "-f", "-", stdin=OBJECTS)
    client(kind, variant)
    first = peers.wait_for("the client to be up to date", lambda: up_to_date(cluster))
    assert first["delta"] == (variant == "DELTA_GRPC")

    cluster.kubectl("apply", "-f", "-", stdin=SECOND)
    moved = peers.wait_for("the change to arrive", lambda: (s := up_to_date(cluster)) and s["cluster_sent"] != first["cluster_sent"] and s)
    dump = json.loads(get_unix(f"{cluster.dir}/monitor", "/debug/config_dump?proxyID=curl.curl")[1])
    assert "outbound|80||second.example" in [c["name"] for c in dump["clusters"]]
    if kind == "envoy":
        assert "outbound|80||second.example" in get_unix(f"{cluster.dir}/admin", "/clusters")[1]
    cluster.kubectl("delete", "serviceentry", "-n", "curl", "second")
    peers.wait_for("the cluster to go", lambda: (s := up_to_date(cluster)) and s["cluster_sent"] != moved["cluster_sent"])
    if kind == "envoy":
        peers.wait_for("Envoy to drop it", lambda: "second.example" not in get_unix(f"{cluster.dir}/admin", "/clusters")[1])
    # From the change until every proxy has acknowledged it.
    metrics = get_unix(f"{cluster.dir}/monitor", "/metrics")[1].splitlines()
    counts = {k: float(v) for k, v in (m.rsplit(" ", 1) for m in metrics if not m.startswith("#"))}
    assert counts["pilot_proxy_convergence_time_bucket{le=\"0.2\"}"] == counts["pilot_proxy_convergence_time_count"]
    assert counts["pilot_xds"] == 1


def test_apiserver_killed(cluster, client):
    """What was known stays; what changes afterwards arrives within 2 s of the server's return."""
    cluster.kubectl("apply", "-f", "-", stdin=OBJECTS)
    client("postern", "GRPC")
    first = peers.wait_for("the client to be up to date", lambda: up_to_date(cluster))
    cluster.kill("apiserver")
    peers.wait_for("the controller to notice", lambda: "trying again" in (cluster.dir / "controller.log").read_text())
    assert cluster.ready() and up_to_date(cluster)
    cluster.start_apiserver()
    began = time.monotonic()
    cluster.kubectl("apply", "-f", "-", stdin=SECOND)
    peers.wait_for("the change to arrive", lambda: (s := up_to_date(cluster)) and s["cluster_sent"] != first["cluster_sent"])
    assert time.monotonic() - began < 2.5


def test_controller_killed(cluster, client):
    cluster.kubectl("apply", "-f", "-", stdin=OBJECTS)
    proxy = client("postern", "DELTA_GRPC")
    peers.wait_for("the client to be up to date", lambda: up_to_date(cluster))
    cluster.kill("controller")
    cluster.start_controller()
    peers.wait_for("the client to come back", lambda: up_to_date(cluster), deadline=4)
    assert proxy.poll() is None


def test_stops_at_once(cluster):
    p = cluster.procs["controller"]
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=2) == 0


@pytest.mark.parametrize("args,status,says", [
    (["--kubeconfig", "/nonexistent"], 1, "cannot read /nonexistent"),
    (["--ads-listen", "nowhere"], 2, "--ads-listen: \"nowhere\" is not an address"),
    (["--log-level", "loud"], 2, "--log-level: \"loud\""),
    (["--mesh-config", "/nonexistent"], 1, "/nonexistent: cannot be read"),
    (["--unknown"], 2, "--unknown"),
])
def test_bad_options(binary, args, status, says):
    r = subprocess.run([binary, "controller", *args], capture_output=True, text=True, timeout=5)
    assert (r.returncode, r.stdout) == (status, "")
    assert says in r.stderr
