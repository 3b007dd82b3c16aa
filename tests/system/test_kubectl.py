"""An unmodified kubectl, new and old, against `postern apiserver` alone: no node, so pods stay Pending; logs and exec go to a node that the test plays.

Debian's older kubectl is not installed beside the newer one: POSTERN_KUBECTL_OLD names an unpacked copy, else only the newer one is tried."""
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

WAIT_S = 20


class Server:
    def __init__(self, folder, binary, *options):
        self.folder, self.binary, self.options = folder, binary, options
        self.process = None
        os.makedirs(folder / "home", exist_ok=True)
        self.start()

    def start(self):
        r, w = os.pipe()
        os.set_inheritable(w, True)
        self.log = open(self.folder / "log", "a")
        self.process = subprocess.Popen(
            [self.binary, "apiserver", "--state", self.folder / "state", "--pki", self.folder / "pki", "--listen", "127.0.0.1:0", "--port-file",
             self.folder / "port", "--unix", self.folder / "api.sock", "--node-socket", self.folder / "node.sock", "--ready-fd", str(w), *self.options],
            pass_fds=[w], stderr=self.log)
        os.close(w)
        with os.fdopen(r) as f:
            ready = f.read()
        assert ready == "ready\n", (self.folder / "log").read_text()
        self.port = int((self.folder / "port").read_text())

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(WAIT_S)

    def stop(self):
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)

    def context(self, cert=True):
        c = ssl.create_default_context(cafile=self.folder / "pki" / "ca.crt")
        if cert:
            c.load_cert_chain(self.folder / "pki" / "admin.crt", self.folder / "pki" / "admin.key")
        return c


def kubectls():
    found = []
    for name in ("kubectl", os.environ.get("POSTERN_KUBECTL_OLD", "")):
        path = shutil.which(name) if name else None
        if path:
            found.append(path)
    return found


@pytest.fixture
def server(tmp_path, binary):
    s = Server(tmp_path, binary)
    yield s
    s.stop()


@pytest.fixture(params=kubectls() or [None])
def kubectl(request, server):
    if not request.param:
        pytest.skip("no kubectl")
    env = dict(os.environ, HOME=str(server.folder / "home"), KUBECONFIG=str(server.folder / "pki" / "admin.kubeconfig"))

    def run(*args, stdin=None, ok=True):
        p = subprocess.run([request.param, *args], input=stdin, env=env, text=True, capture_output=True, timeout=60)
        if ok is not None:
            assert (p.returncode == 0) == ok, p.stdout + p.stderr
        return p.stdout + p.stderr
    run.path, run.env = request.param, env
    run.new = "create a token" in run("create", "--help").lower() or "token " in run("create", "--help")
    return run


SET = """
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {istio-injection: disabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: app, labels: {app: web}}
spec:
  ports: [{port: 80, name: http}]
  selector: {app: web}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: app}
data: {a: "1"}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: httpbin, namespace: app}
spec:
  hosts: [httpbin.org]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web, command: [sleep, "1"], ports: [{name: http, containerPort: 80}]}]
"""


def wait_for(what):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.05)
    pytest.fail("did not happen in time")


def test_apply(kubectl):
    first = kubectl("apply", "-f", "-", stdin=SET)
    assert first.count(" created") == 5
    assert kubectl("apply", "-f", "-", stdin=SET).count(" unchanged") == 5
    out = kubectl("apply", "-f", "-", stdin=SET.replace("replicas: 2", "replicas: 3").replace('a: "1"', 'b: "2"').replace("DNS", "NONE"))
    assert out.count(" configured") == 3 and out.count(" unchanged") == 2
    assert json.loads(kubectl("get", "cm", "settings", "-n", "app", "-o", "json"))["data"] == {"b": "2"}
    assert kubectl("get", "se", "-n", "app", "httpbin", "-o", "jsonpath={.spec.resolution}") == "NONE"
    assert "(server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=SET)
    assert kubectl("get", "se", "-n", "app", "httpbin", "-o", "jsonpath={.spec.resolution}") == "NONE"
    wait_for(lambda: kubectl("get", "pods", "-n", "app", "-o", "name").count("pod/web-") == 3)


def test_tables_and_selectors(kubectl):
    kubectl("apply", "-f", "-", stdin=SET)
    assert kubectl("get", "se", "-A").splitlines()[0].split() == ["NAMESPACE", "NAME", "HOSTS", "LOCATION", "RESOLUTION", "AGE"]
    wait_for(lambda: kubectl("get", "pods", "-n", "app", "-l", "app=web", "-o", "name").count("pod/") == 2)
    head = kubectl("get", "pods", "-n", "app", "-o", "wide").splitlines()[0]
    for column in ("READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"):
        assert column in head
    assert kubectl("get", "pods", "-n", "app", "-l", "app notin (web)", "-o", "name").strip() in ("", "No resources found in app namespace.")
    assert kubectl("get", "pods", "-n", "app", "--field-selector", "status.phase=Pending", "-o", "name").count("pod/") == 2
    assert "service/web" in kubectl("get", "all", "-n", "app")
    assert "FailedScheduling" in wait_for(lambda: kubectl("get", "events", "-n", "app"))


def test_verbs(kubectl):
    kubectl("create", "namespace", "v")
    kubectl("create", "configmap", "c", "-n", "v", "--from-literal=a=b")
    kubectl("create", "secret", "generic", "s", "-n", "v", "--from-literal=p=q")
    kubectl("create", "deployment", "d", "-n", "v", "--image=web")
    kubectl("expose", "deployment", "d", "-n", "v", "--port=80")
    assert kubectl("get", "secret", "s", "-n", "v", "-o", "jsonpath={.data.p}") == "cQ=="
    kubectl("label", "cm", "c", "-n", "v", "x=y")
    kubectl("annotate", "cm", "c", "-n", "v", "z=1")
    kubectl("patch", "cm", "c", "-n", "v", "--type=json", "-p", '[{"op":"add","path":"/data/e","value":"f"}]')
    kubectl("patch", "cm", "c", "-n", "v", "--type=merge", "-p", '{"data":{"a":null}}')
    cm = json.loads(kubectl("get", "cm", "c", "-n", "v", "-o", "json"))
    assert cm["data"] == {"e": "f"} and cm["metadata"]["labels"] == {"x": "y"} and cm["metadata"]["annotations"] == {"z": "1"}
    kubectl("scale", "deployment", "d", "-n", "v", "--replicas=3")
    wait_for(lambda: kubectl("get", "pods", "-n", "v", "-o", "name").count("pod/") == 3)
    kubectl("rollout", "restart", "deployment", "d", "-n", "v")
    wait_for(lambda: "2 " in kubectl("rollout", "history", "deployment", "d", "-n", "v"))
    kubectl("rollout", "undo", "deployment", "d", "-n", "v")
    wait_for(lambda: "3 " in kubectl("rollout", "history", "deployment", "d", "-n", "v"))
    assert "NewReplicaSet" in kubectl("describe", "deployment", "d", "-n", "v")
    assert "KIND" in kubectl("explain", "pod.spec.containers")
    kubectl("delete", "deployment", "d", "-n", "v", "--wait")
    wait_for(lambda: "No resources found" in kubectl("get", "pods,rs", "-n", "v"))
    kubectl("delete", "namespace", "v", "--wait")
    assert 'Error from server (NotFound): namespaces "v" not found' in kubectl("get", "namespace", "v", ok=False)


def test_errors_read_as_kubernetes_ones(kubectl):
    assert 'Error from server (NotFound): pods "x" not found' in kubectl("get", "pod", "x", ok=False)
    bad = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000, targetPort: 80}]}\n"
    assert 'The Service "x" is invalid: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive' in \
        kubectl("apply", "-f", "-", stdin=bad, ok=False)
    unknown = SET.split("---")[3].replace("resolution", "resolutin").replace("namespace: app", "namespace: default")
    assert "resolutin" in kubectl("apply", "-f", "-", stdin=unknown, ok=False)
    assert "spec.ports[0].number" in kubectl("apply", "--validate=false", "-f", "-", stdin=SET.split("---")[3].replace("number: 80", "number: x")
                                             .replace("namespace: app", "namespace: default"), ok=False)
    if kubectl.new:
        assert "server-side apply is not supported" in kubectl("apply", "--server-side", "-f", "-", stdin=SET.split("---")[1].replace("app", "default", 1), ok=False)


def test_watch(kubectl):
    kubectl("create", "namespace", "w")
    p = subprocess.Popen([kubectl.path, "get", "configmaps", "-n", "w", "-w", "-o", "name"], env=kubectl.env, stdout=subprocess.PIPE, text=True)
    try:
        assert "kube-root-ca.crt" in p.stdout.readline()
        kubectl("create", "configmap", "late", "-n", "w")
        assert p.stdout.readline().strip() == "configmap/late"
    finally:
        p.terminate()
        p.wait(WAIT_S)


def node(path, answers):
    """Plays the node: one connection an answer; `answers` maps the request's first path segment to what is sent back and then echoed."""
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(path))
    s.listen()
    seen = []

    def serve():
        while True:
            try:
                c, _ = s.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                part = c.recv(65536)
                if not part:
                    break
                head += part
            seen.append(head.decode())
            c.sendall(answers[head.split(b"/")[1].decode()])
            c.close()
    threading.Thread(target=serve, daemon=True).start()
    return s, seen


def test_logs_go_through_the_node(kubectl, server):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}
    kubectl("create", "-f", "-", stdin=json.dumps(pod))
    assert "the node's agent cannot be reached" in kubectl("logs", "p", ok=False)
    s, seen = node(server.folder / "node.sock", {"containerLogs": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nhello\n"})
    try:
        assert kubectl("logs", "p", "--tail=5") == "hello\n"
        assert seen[0].startswith("GET /containerLogs/default/p/c?tailLines=5 ") or "tailLines=5" in seen[0]
    finally:
        s.close()


def request(server, text, cert=True, body=b""):
    with socket.create_connection(("127.0.0.1", server.port)) as raw, server.context(cert).wrap_socket(raw, server_hostname="localhost") as c:
        try:
            c.sendall(text.encode() + body)
        except OSError:
            pass
        c.settimeout(WAIT_S)
        out = b""
        try:
            while part := c.recv(65536):
                out += part
        except OSError:
            pass
    return out.decode(errors="replace")


def test_who_may_ask(server):
    get = "GET /api/v1/namespaces HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%s\r\n"
    assert request(server, get % "").startswith("HTTP/1.1 200")
    assert request(server, get % "", cert=False).startswith("HTTP/1.1 401")
    assert request(server, get % "authorization: Bearer abc.def.ghi\r\n", cert=False).startswith("HTTP/1.1 401")
    other = server.folder / "other"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{other}.key", "-out", f"{other}.crt",
                    "-subj", "/O=system:masters/CN=me", "-days", "1"], check=True, capture_output=True)
    c = ssl.create_default_context(cafile=server.folder / "pki" / "ca.crt")
    c.load_cert_chain(f"{other}.crt", f"{other}.key")
    with pytest.raises(OSError):
        with socket.create_connection(("127.0.0.1", server.port)) as raw, c.wrap_socket(raw, server_hostname="localhost") as t:
            t.sendall((get % "").encode())
            assert t.recv(100) != b"", "closed"
            raise AssertionError("answered")


def test_service_account_token(server, kubectl):
    if not kubectl.new:
        pytest.skip("kubectl create token is newer")
    wait_for(lambda: "default" in kubectl("get", "sa", "default", ok=None))
    token = kubectl("create", "token", "default").strip()
    head = "%s %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer " + token + "\r\n\r\n"
    assert request(server, head % ("GET", "/version"), cert=False).startswith("HTTP/1.1 200")
    assert request(server, head % ("GET", "/api/v1/secrets"), cert=False).startswith("HTTP/1.1 403")
    kubectl("delete", "sa", "default")
    assert request(server, head % ("GET", "/version"), cert=False).startswith("HTTP/1.1 401")


def test_large_body(server):
    head = "POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n"
    assert " 413 " in request(server, head, body=b"x" * (8 << 20)).split("\r\n")[0]
    assert request(server, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").endswith("ok")


def test_acknowledged_writes_survive_kill(tmp_path, binary):
    s = Server(tmp_path, binary, "--no-controllers")
    done = []

    def write():
        try:
            with socket.create_connection(("127.0.0.1", s.port)) as raw, s.context().wrap_socket(raw, server_hostname="localhost") as c:
                for i in range(100000):
                    body = json.dumps({"metadata": {"name": f"c{i}"}})
                    c.sendall(f"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
                              .encode())
                    if not c.recv(65536).startswith(b"HTTP/1.1 201"):
                        return
                    done.append(i)
        except OSError:
            pass
    try:
        for _ in range(3):
            t = threading.Thread(target=write)
            base = len(done)
            t.start()
            wait_for(lambda: len(done) > base + 50)
            s.kill()
            t.join(WAIT_S)
            s.start()
            out = request(s, "GET /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/json\r\n\r\n")
            for i in set(done):
                assert f'"name":"c{i}"' in out, f"c{i} was acknowledged and is gone"
            request(s, "DELETE /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            done.clear()
    finally:
        s.stop()


def test_damaged_store(tmp_path, binary):
    s = Server(tmp_path, binary)
    s.stop()
    path = tmp_path / "state" / "store.db"
    data = bytearray(path.read_bytes())
    data[4096:4096 * 3] = b"\xee" * 8192
    path.write_bytes(data)
    p = subprocess.run([binary, "apiserver", "--state", tmp_path / "state", "--pki", tmp_path / "pki", "--listen", "127.0.0.1:0"], capture_output=True, text=True,
                       timeout=WAIT_S)
    assert p.returncode == 1 and "damaged" in p.stderr and "store.db" in p.stderr
    assert path.read_bytes() == bytes(data), "nothing was changed"
