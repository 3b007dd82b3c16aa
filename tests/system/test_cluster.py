"""One cluster, whole: kubectl against it, load through it while things change and die, bad input, and what is left when it is gone.

POSTERN_KUBECTL_OLD names a second kubectl (Debian's 1.20) to type the same commands with."""
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
import urllib.request

import pytest

from clusterkit import INSTALL, Cluster, Load, Stream, kill9, until
from peers import ROOT, postern_binary

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("runc") or not shutil.which("kubectl"),
                                reason="needs root, runc and kubectl")
NAME = f"test{os.getpid()}"
LOADER = """
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: curl, labels: {app: %s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: x, command: [sleep, infinity]}
"""
ENTRY = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "entry", "namespace": "curl"},
         "spec": {"hosts": [], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"}}
ENTRIES = "/apis/networking.istio.io/v1/namespaces/curl/serviceentries"


def entry(name, host):
    return dict(ENTRY, metadata={"name": name, "namespace": "curl"}, spec=dict(ENTRY["spec"], hosts=[host]))


@pytest.fixture(scope="module")
def c(tmp_path_factory):
    cluster = Cluster(NAME, tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up()
        cluster.postern(*INSTALL, ok=True)
        cluster.example("example-apps.yaml")
        cluster.apply(LOADER % ("one", "one") + "---" + LOADER % ("two", "two"))
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "-n", "curl", "--timeout=20s")
        yield cluster
    finally:
        cluster.down()
        assert not cluster.left()


# ---- kubectl ----

class Kubectl:
    def __init__(self, cluster, binary, ns):
        self.cluster, self.binary, self.ns = cluster, binary, ns

    def __call__(self, *argv, **kw):
        return self.cluster.kubectl("-n", self.ns, *argv, binary=self.binary, **kw)

    def argv(self, *argv):
        return [self.binary, "--context", self.cluster.context, "-n", self.ns, *argv]

    def stream(self, *argv, **kw):
        return Stream(self.argv(*argv), env=self.cluster.env, **kw)


def kubectl_minor(binary):
    out = subprocess.run([binary, "version", "--client", "-o", "json"], capture_output=True, text=True).stdout
    return int(re.match(r"\d+", json.loads(out)["clientVersion"]["minor"]).group())


@pytest.fixture(scope="module", params=["new", "old"])
def k(request, c):
    binary = shutil.which("kubectl") if request.param == "new" else os.environ.get("POSTERN_KUBECTL_OLD")
    if not binary:
        pytest.skip("POSTERN_KUBECTL_OLD names no second kubectl")
    k = Kubectl(c, binary, "k-" + request.param)
    k.minor = kubectl_minor(binary)
    c.kubectl("create", "namespace", k.ns, binary=binary)
    k("apply", "-f", "-", input=WEB)
    k("rollout", "status", "deployment/web", "--timeout=15s")
    yield k
    c.kubectl("delete", "namespace", k.ns, binary=binary)


WEB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: page, labels: {part: web}}
data: {index.html: "served"}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {part: web}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8000}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {part: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: page, configMap: {name: page}}]
      containers:
      - name: server
        image: any
        command: [python3, -m, http.server, "8000", --directory, /page]
        volumeMounts: [{name: page, mountPath: /page}]
        readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}
      - name: ticker
        image: any
        command: [sh, -c, 'echo first; i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.1; done']
"""


def pod_of(k, label="app=web"):
    return k("get", "pods", "-l", label, "-o", "jsonpath={.items[0].metadata.name}").out


def test_kubectl_reads(k):
    assert re.search(r"^web\s+1/1\s+1\s+1\s+\d+s$", k("get", "deployments").out, re.M)
    wide = k("get", "pods", "-o", "wide").out
    assert re.search(r"READY +STATUS +RESTARTS +AGE +IP +NODE", wide) and re.search(r"2/2 +Running +0 +\d+s +10\.244\.\d+\.\d+ +" + NAME, wide)
    assert k("get", "deploy/web", "-o", "yaml").out.startswith("apiVersion: apps/v1\nkind: Deployment\n")
    assert json.loads(k("get", "deploy/web", "-o", "json").out)["status"]["readyReplicas"] == 1
    assert k("get", "deploy,svc,cm", "-l", "part=web", "-o", "name").out.split() == ["deployment.apps/web", "service/web", "configmap/page"]
    assert k("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}").out == "8000"
    assert re.fullmatch(r"N\s+web-\S+\s+", k("get", "pods", "-l", "app in (web),app!=x", "-o", "custom-columns=N:.metadata.name").out)
    assert "istiod" in k("get", "pods", "-A").out
    assert "web-" in k("get", "pods", "--field-selector", "status.phase=Running").out
    none = k("get", "pods", "--field-selector", "status.phase=Failed")
    assert none.err.startswith("No resources found") and not none.out
    assert re.search(r"10\.244\.\d+\.\d+:8000", k("get", "endpoints", "web").out)
    assert re.search(r"web-\S+\s+IPv4\s+8000", k("get", "endpointslices").out)
    assert re.search(NAME + r"-control-plane\s+Ready\s+control-plane", k("get", "nodes").out)
    text = k("describe", "pod", "-l", "app=web").out
    for want in (r"Status: +Running", r"Image: +any", r"Controlled By: +ReplicaSet/web-", r"Readiness: +http-get", r"Normal +Scheduled", r"Started container ticker"):
        assert re.search(want, text), want
    assert "1 desired | 1 updated | 1 total | 1 available" in k("describe", "deployment", "web").out
    assert re.search(r"Endpoints: +10\.", k("describe", "service", "web").out)
    assert "http" in k("explain", "virtualservice.spec").out
    assert re.search(r"containers\s+<\[\](Container|Object)>", k("explain", "pod.spec").out)
    assert "the field \"nosuch\" does not exist" in k("explain", "pod.nosuch", ok=False).err or "field \"nosuch\" does not exist" in k("explain", "pod.nosuch", ok=False).err
    resources = k("api-resources").out
    for want in ("deployments", "virtualservices", "serviceentries", "destinationrules", "gateways", "configmaps", "endpointslices", "telemetries"):
        assert re.search(rf"^{want}\s", resources, re.M), want
    assert {"v1", "apps/v1", "networking.istio.io/v1", "networking.istio.io/v1beta1", "security.istio.io/v1"} <= set(k("api-versions").out.split())
    assert "is running at" in k("cluster-info").out
    assert "Server Version" in k("version").out


def test_kubectl_changes(k):
    def get(path):
        return k("get", "deploy/web", "-o", "jsonpath={" + path + "}").out
    assert "configmap/page unchanged" in k("apply", "-f", "-", input=WEB).out
    # three-way: what the last apply had and this one lacks goes; what others set stays
    cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: three}\ndata: {a: '1', b: '2'}\n"
    assert "created" in k("apply", "-f", "-", input=cm).out
    k("patch", "configmap", "three", "-p", '{"data":{"c":"3"}}')
    assert "configured" in k("apply", "-f", "-", input=cm.replace(", b: '2'", "")).out
    assert json.loads(k("get", "cm", "three", "-o", "jsonpath={.data}").out) == {"a": "1", "c": "3"}
    k("patch", "deploy/web", "--type=json", "-p", '[{"op":"add","path":"/metadata/labels/j","value":"1"}]')
    k("patch", "deploy/web", "--type=merge", "-p", '{"metadata":{"labels":{"m":"1"}}}')
    k("patch", "deploy/web", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"ticker","env":[{"name":"E","value":"v"}]}]}}}}')
    assert get(".metadata.labels.j") + get(".metadata.labels.m") == "11"
    assert get(".spec.template.spec.containers[*].name") == "server ticker"
    k("rollout", "status", "deploy/web", "--timeout=15s")
    assert "labeled" in k("label", "cm", "three", "x=1").out
    assert "--overwrite is false" in k("label", "cm", "three", "x=2", ok=False).err
    k("label", "--overwrite", "cm", "three", "x=2")
    k("label", "cm", "three", "x-")
    assert "annotated" in k("annotate", "cm", "three", "note=1").out
    got = json.loads(k("get", "cm", "three", "-o", "json").out)
    assert "labels" not in got["metadata"] and got["metadata"]["annotations"]["note"] == "1"
    # replace, and as `edit` does it: with the version that was read, and too late
    got["data"]["d"] = "four"
    assert "replaced" in k("replace", "-f", "-", input=json.dumps(got)).out
    late = k("replace", "-f", "-", input=json.dumps(got), ok=False).err
    assert "Error from server (Conflict)" in late and "the object has been modified; please apply your changes to the latest version and try again" in late
    edited = subprocess.run(k.argv("edit", "cm", "three"), env=dict(k.cluster.env, KUBE_EDITOR="sed -i s/four/five/"),
                            capture_output=True, text=True, timeout=20)
    assert "edited" in edited.stdout, edited.stderr
    assert k("get", "cm", "three", "-o", "jsonpath={.data.d}").out == "five"
    # dry runs change nothing
    for how in ("client", "server"):
        assert "dry run" in k("apply", f"--dry-run={how}", "-f", "-", input=cm.replace("three", "never")).out
        assert "NotFound" in k("get", "cm", "never", ok=False).err
    refused = k("apply", "--server-side", "-f", "-", input=cm, ok=False).err
    assert "erver-side apply" in refused and "use kubectl apply without --server-side" in refused
    # a folder
    folder = os.path.join(k.cluster.folder, "dir-" + k.ns)
    os.mkdir(folder)
    for i in range(3):
        with open(f"{folder}/{i}.yaml", "w") as f:
            f.write(cm.replace("three", f"dir{i}"))
    assert k("apply", "-f", folder).out.count("created") == 3
    assert k("delete", "-f", folder).out.count("deleted") == 3
    assert "created" in k("create", "secret", "generic", "s", "--from-literal=a=b").out
    assert k("get", "secret", "s", "-o", "jsonpath={.data.a}").out == "Yg=="
    assert "deleted" in k("delete", "cm", "three", "--wait").out


def test_kubectl_errors(k):
    assert k("get", "pod", "nosuch", ok=False).err == 'Error from server (NotFound): pods "nosuch" not found\n'
    assert k("get", "nosuch", ok=False).err == 'error: the server doesn\'t have a resource type "nosuch"\n'
    assert k("delete", "pod", "nosuch", ok=False).err == 'Error from server (NotFound): pods "nosuch" not found\n'
    assert k("create", "namespace", k.ns, ok=False).err == f'Error from server (AlreadyExists): namespaces "{k.ns}" already exists\n'
    assert 'namespaces "nosuch" not found' in k.cluster.kubectl("create", "cm", "x", "-n", "nosuch", binary=k.binary, ok=False).err
    pod = pod_of(k)
    assert re.search(rf'Error from server \(BadRequest\): previous terminated container "ticker" in pod "{pod}" not found',
                     k("logs", pod, "-c", "ticker", "--previous", ok=False).err)
    assert f"container nosuch is not valid for pod {pod}" in k("logs", pod, "-c", "nosuch", ok=False).err
    assert "timed out waiting for the condition" in k("wait", "--for=condition=Nosuch", "pod", pod, "--timeout=1s", ok=False).err
    assert "ServiceAccount \"default\" is invalid" in k("apply", "-f", "-", ok=False, input="apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, "
                                                       "labels: {'a b': c}}\n").err


def test_kubectl_watches_waits_rolls(k):
    with k.stream("get", "pods", "-l", "app=web", "-w") as watch, k.stream("get", "cm", "-w", "-o", "name") as names:
        watch.wait_line(r"2/2 +Running")
        names.wait_line("configmap/page")
        k("create", "configmap", "later", "--from-literal=a=b")
        names.wait_line("configmap/later")
        k("scale", "deploy/web", "--replicas=2")
        watch.wait_line(r"ContainerCreating|Pending")
        watch.wait_line(r"2/2 +Running")
        k("wait", "--for=condition=Available", "deploy/web", "--timeout=10s")
        k("rollout", "status", "deploy/web", "--timeout=10s")
        assert k("get", "deploy/web", "-o", "jsonpath={.status.readyReplicas}").out == "2"
        k("scale", "deploy/web", "--replicas=1", "--current-replicas=2")
        watch.wait_line(r"Terminating")
    assert "Expected replicas to be 7, was 1" in k("scale", "deploy/web", "--replicas=3", "--current-replicas=7", ok=False).err
    until("one pod", lambda: len(k("get", "pods", "-l", "app=web", "-o", "name").out.split()) == 1)
    before = pod_of(k)
    assert "restarted" in k("rollout", "restart", "deploy/web").out
    assert "successfully rolled out" in k("rollout", "status", "deploy/web", "--timeout=15s").out
    k("wait", "--for=delete", "pod/" + before, "--timeout=10s")
    assert pod_of(k) != before
    # what a Deployment owns goes with it
    k("create", "deployment", "owned", "--image=x")
    until("its pod", lambda: "owned" in k("get", "pods", "-l", "app=owned", "-o", "name").out)
    k("delete", "deployment", "owned", "--wait")
    until("no pods", lambda: not k("get", "pods,rs", "-l", "app=owned", "-o", "name").out)


def test_kubectl_logs(k):
    pod = pod_of(k)
    with k.stream("logs", "-f", pod, "-c", "ticker", "--tail=1") as log:
        n = int(log.wait_line(r"^tick \d+").split()[1])
        log.wait_line(f"^tick {n + 3}$", 3)
    assert k("logs", pod, "-c", "ticker").out.startswith("first\ntick 1\n")
    assert len(k("logs", pod, "-c", "ticker", "--tail=2").out.splitlines()) == 2
    assert 3 <= len(k("logs", pod, "-c", "ticker", "--since=1s").out.splitlines()) <= 14
    for line in k("logs", pod, "-c", "ticker", "--tail=3", "--timestamps").out.splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z tick \d+", line)
    every = k("logs", "-l", "app=web", "--all-containers", "--tail=1", "--prefix").out
    assert f"[pod/{pod}/ticker] tick" in every
    assert "tick" in k("logs", "deploy/web", "-c", "ticker", "--tail=1").out
    assert len(k("logs", pod, "-c", "ticker", "--limit-bytes=7").out) == 7
    k("apply", "-f", "-", input="apiVersion: v1\nkind: Pod\nmetadata: {name: twice}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: a, image: x, "
      "command: [sh, -c, 'echo life; sleep 0.3; exit 3']}]}\n")
    until("a restart", lambda: k("get", "pod", "twice", "-o", "jsonpath={.status.containerStatuses[0].restartCount}").out not in ("", "0"))
    assert k("logs", "twice", "--previous").out == "life\n"
    last = json.loads(k("get", "pod", "twice", "-o", "json").out)["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] == 3 and last["reason"] == "Error"
    k("delete", "pod", "twice")


def test_kubectl_exec(k):
    pod = pod_of(k)
    assert k("exec", pod, "-c", "ticker", "--", "echo", "a b").out == "a b\n"
    p = k("exec", pod, "-c", "ticker", "--", "sh", "-c", "echo out; echo err >&2; exit 7", ok=False)
    assert (p.rc, p.out) == (7, "out\n") and p.err == "err\ncommand terminated with exit code 7\n"
    text = "".join(f"line {i}\n" for i in range(20000))
    assert k("exec", "-i", pod, "-c", "ticker", "--", "cat", input=text).out == text
    assert "executable file not found in $PATH" in k("exec", pod, "-c", "ticker", "--", "nosuch", ok=False).err
    assert f"container nosuch is not valid for pod {pod}" in k("exec", pod, "-c", "nosuch", "--", "true", ok=False).err
    # a terminal, and its size
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    p = subprocess.Popen(k.argv("exec", "-it", pod, "-c", "ticker", "--", "sh", "-c",
                                "tty; until [ \"$(stty size)\" = '30 90' ]; do sleep 0.02; done; echo first-size; "
                                "until [ \"$(stty size)\" = '41 101' ]; do sleep 0.02; done; echo second-size; exit 5"),
                         env=k.cluster.env, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=os.setsid)
    os.close(theirs)
    out = b""

    def read_to(word):
        nonlocal out
        end = time.monotonic() + 8
        os.set_blocking(ours, False)
        while word not in out:
            try:
                out += os.read(ours, 4096)
            except BlockingIOError:
                time.sleep(0.01)
            assert time.monotonic() < end, out
    try:
        read_to(b"first-size")
        assert b"/dev/pts/" in out
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 101, 0, 0))
        os.kill(p.pid, signal.SIGWINCH)
        read_to(b"second-size")
        assert p.wait(5) == 5
    finally:
        p.kill()
        p.wait()
        os.close(ours)


def test_kubectl_port_forward_and_cp(k, tmp_path):
    pod = pod_of(k)
    for what in (f"pod/{pod}", "svc/web", "deploy/web"):
        with k.stream("port-forward", what, ":80" if what.startswith("svc") else ":8000") as fwd:
            port = re.search(r"127\.0\.0\.1:(\d+) ->", fwd.wait_line(r"Forwarding from 127")).group(1)
            for _ in range(3):
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read() == b"served"
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    blob = os.urandom(3_000_000)
    (tmp_path / "tree" / "sub" / "blob").write_bytes(blob)
    (tmp_path / "tree" / "a file").write_text("spaces")
    k("cp", str(tmp_path / "tree"), f"{k.ns}/{pod}:/tmp/tree", "-c", "ticker")
    assert k("exec", pod, "-c", "ticker", "--", "cat", "/tmp/tree/a file").out == "spaces"
    k("cp", f"{k.ns}/{pod}:/tmp/tree", str(tmp_path / "back"), "-c", "ticker")
    assert (tmp_path / "back" / "sub" / "blob").read_bytes() == blob
    # tar's words are shown, unless kubectl comes to the (empty) archive's end before it reads them
    k("cp", f"{k.ns}/{pod}:/tmp/nosuch", str(tmp_path / "x"), "-c", "ticker", ok=None)
    assert not (tmp_path / "x").exists()
    # a path that climbs stays in the container: there is nothing of the host's to find
    k("cp", f"{k.ns}/{pod}:../../../../etc/passwd", str(tmp_path / "passwd"), "-c", "ticker", ok=None)
    host = open("/etc/shadow").read()
    shadow = k("exec", pod, "-c", "ticker", "--", "cat", "/etc/shadow", ok=None)
    assert shadow.out == "" or shadow.out not in host


# ---- an apply under load ----

def test_apply_reaches_the_data_plane(c):
    """Within 200 ms of the API server's answer. The machine may be busy with other things: the best of some tries counts."""
    took = []
    with Load(c, "one", "curl", "api.example.net", "/") as load:
        load.wait("502")
        for i in range(4):
            assert c.api.ask("POST", ENTRIES, entry("quick", "api.example.net"))[0] == 201
            t = time.time()
            took.append(load.wait("200", t - 0.5, 3).start - t)
            assert c.api.ask("DELETE", f"{ENTRIES}/quick")[0] == 200
            t = time.time()
            took.append(load.wait("502", t, 3).start - t)
            if max(took[-2:]) <= 0.2:
                break
    assert max(took[-2:]) <= 0.2, took


def test_apply_drops_nothing(c):
    c.example("1-service-entry.yaml")
    c.example("2-http-through-gateway.yaml")
    with Load(c, "one", "curl", "httpbin.org") as load, Load(c, "two", "curl", "httpbin.org", "/delay/1", 0) as slow:
        t = load.wait("200").start
        slow.wait("200")
        for i in range(5):
            c.kubectl("label", "--overwrite", "virtualservice", "--all", "-A", f"turn=t{i}")
            assert c.api.ask("POST", ENTRIES, entry(f"more{i}", f"more{i}.example.net"))[0] == 201
            vs = c.api.ask("GET", "/apis/networking.istio.io/v1/virtualservices")[1]["items"][0]
            for h in vs["spec"]["http"]:
                h["timeout"] = f"{10 + i}s"
            path = f"/apis/networking.istio.io/v1/namespaces/{vs['metadata']['namespace']}/virtualservices/{vs['metadata']['name']}"
            assert c.api.ask("PUT", path, vs)[0] == 200
            load.wait("200", time.time() + 0.2)
        slow.wait("200", time.time(), 4)
        for i in range(5):
            c.api.ask("DELETE", f"{ENTRIES}/more{i}")
        load.wait("200", time.time() + 0.2)
        assert not load.bad(t) and not slow.bad() and len(load.requests) > 100


# ---- kill -9, one after the other ----

def recovered(t, load):
    """Seconds from t to the first request that went well after the last one that did not."""
    bad = load.bad(t - 5)
    return load.wait("200", bad[-1].start if bad else t, 5).end - t


def test_kill_controller(c):
    c.example("1-service-entry.yaml")
    c.example("2-http-through-gateway.yaml")
    with Load(c, "one", "curl", "httpbin.org") as load, Load(c, "two", "curl", "api.example.net", "/") as other:
        load.wait("200")
        other.wait("502")
        first = load.requests[0].start
        t = kill9(c.processes("controller")[0])
        assert c.api.ask("POST", ENTRIES, entry("other", "api.example.net"))[0] == 201
        assert other.wait("200", t, 5).end - t < 2
        assert c.api.ask("DELETE", ENTRIES + "/other")[0] == 200
        other.wait("502", time.time())
        assert not load.bad(load.wait("200", first).start)


def test_kill_apiserver(c):
    with Load(c, "one", "curl", "httpbin.org") as load, Load(c, "two", "curl", "api.example.net", "/") as other:
        start = load.wait("200").start
        other.wait("502")
        assert c.api.ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "kept"}, "data": {"a": "b"}})[0] == 201
        t = kill9(c.pid("apiserver.pid"))

        def answers():
            try:
                return c.api.ask("GET", "/api/v1/namespaces/default/configmaps/kept")[1]["data"] == {"a": "b"}
            except OSError:
                return False
        until("the API server", answers)
        assert time.time() - t < 2
        assert c.api.ask("POST", ENTRIES, entry("other", "api.example.net"))[0] == 201
        assert other.wait("200", t, 5).end - t < 2, "the controller's watch did not come back in time"
        c.kubectl("delete", "cm", "kept", "-n", "default")
        c.api.ask("DELETE", ENTRIES + "/other")
        assert c.kubectl("exec", "one", "-n", "curl", "-c", "c", "--", "echo", "here").out == "here\n"
        other.wait("502", time.time())
        assert not load.bad(start)


def test_kill_node(c):
    pids = {p: c.container_pid(p, "curl", "sleep") for p in ("one", "two", "curl")}
    with Load(c, "one", "curl", "httpbin.org") as load:
        start = load.wait("200").start
        t = kill9(c.pid("node.pid"))
        until("exec", lambda: c.kubectl("exec", "one", "-n", "curl", "-c", "c", "--", "getent", "hosts", "httpbin.org", ok=None).rc == 0, every=0.05)
        assert time.time() - t < 2
        c.apply(LOADER.replace("curl", "default") % ("three", "three"))
        c.kubectl("wait", "--for=condition=Ready", "pod/three", "-n", "default", "--timeout=10s")
        c.kubectl("delete", "pod", "three", "-n", "default")
        load.wait("200", time.time())
        assert not load.bad(start)
    assert pids == {p: c.container_pid(p, "curl", "sleep") for p in pids}, "the node's death must not touch its containers"
    assert all(s["restartCount"] == 0 for p in pids for s in c.pod(p, "curl")["status"]["containerStatuses"])


def test_kill_sidecar(c):
    uid = c.pod("one", "curl")["metadata"]["uid"]
    with Load(c, "one", "curl", "httpbin.org") as load, Load(c, "two", "curl", "httpbin.org") as other:
        load.wait("200")
        start = other.wait("200").start
        t = kill9(c.processes("proxy", "sidecar", uid=uid)[0])
        until("something to fail", lambda: load.bad(t - 0.1), 3)
        assert recovered(t, load) < 2
        assert not other.bad(start), "the death of one pod's sidecar is that pod's matter"

    def count():
        return {s["name"]: s["restartCount"] for s in c.pod("one", "curl")["status"]["containerStatuses"]}
    until("the restart in the status", lambda: count() == {"c": 0, "istio-proxy": 1})


def test_kill_gateway(c):
    with Load(c, "one", "curl", "httpbin.org") as load:
        load.wait("200")
        t = kill9(c.processes("proxy", "router")[0])
        until("something to fail", lambda: load.bad(t - 0.1), 3)
        assert recovered(t, load) < 2


def crash(cluster):
    for role in ("supervisor.lock", "apiserver.pid", "node.pid"):
        pid = cluster.pid(role)
        os.kill(pid, signal.SIGKILL)
        until(f"the end of {role}", lambda: not os.path.exists(f"/proc/{pid}") or "(zombie)" in open(f"/proc/{pid}/status").read())


def test_kill_everything_but_the_pods(c):
    """Supervisor, API server and node are gone: requests go on, also while the next `up` takes the cluster over, and then all is as before."""
    with Load(c, "one", "curl", "httpbin.org") as load, Load(c, "two", "curl", "api.example.net", "/") as other:
        start = load.wait("200").start
        pods = c.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}").out
        crash(c)
        load.wait("200", time.time() + 0.3)
        c.up()
        assert c.api.ask("POST", ENTRIES, entry("other", "api.example.net"))[0] == 201
        other.wait("200", time.time(), 3)
        assert c.api.ask("DELETE", ENTRIES + "/other")[0] == 200
        assert c.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}").out == pods
        assert c.kubectl("exec", "one", "-n", "curl", "-c", "c", "--", "echo", "here").out == "here\n"
        load.wait("200", time.time())
        assert not load.bad(start)


# ---- bad input ----

def refused(c, text):
    p = c.apply(text, ok=False)
    assert "created" not in p.out and "configured" not in p.out
    return p.err


def istio(kind, spec, ns="default"):
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "bad", "namespace": ns}, "spec": spec}


def se(**changed):
    return istio("ServiceEntry", dict({"hosts": ["a.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"}, **changed))


def vs(**http):
    return istio("VirtualService", {"hosts": ["a.example.com"], "http": [dict({"route": [{"destination": {"host": "a.example.com"}}]}, **http)]})


BAD = {
    "broken YAML": ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a\ndata: x\n", [r"line [34]"]),
    "unknown field": (se(port=[]), [r"spec\.port", r'did you mean "ports"']),
    "unknown field, deep": (vs(rout=[]), [r"spec\.http\[0\]\.rout", r'did you mean "route"']),
    "unknown field of a pod": ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {"contaners": []}}, [r"spec\.contaners", r'did you mean "containers"']),
    "wrong type": (se(ports=[{"number": "eighty", "name": "a", "protocol": "HTTP"}]), [r"spec\.ports\[0\]\.number: ", r'got a string "eighty"']),
    "wrong enum": (se(resolution="DNSS"), [r"spec\.resolution", r'unknown value "DNSS" \(did you mean "DNS"\?\)']),
    "missing hosts": (se(hosts=[]), [r"spec\.hosts"]),
    "port 0": (se(ports=[{"number": 0, "name": "a", "protocol": "HTTP"}]), [r"spec\.ports\[0\]\.number", r"between 1 and 65535, not 0"]),
    "port 70000": (se(ports=[{"number": 70000, "name": "a", "protocol": "HTTP"}]), [r"spec\.ports\[0\]\.number", r"between 1 and 65535, not 70000"]),
    "bad host": (se(hosts=["a..b/"]), [r'spec\.hosts\[0\]: "a\.\.b/" is not a host']),
    "negative duration": (vs(timeout="-1s"), [r"spec\.http\[0\]\.timeout", r"-1s"]),
    "absurd duration": (vs(timeout="999999999999h"), [r"spec\.http\[0\]\.timeout", r'"999999999999h"']),
    "no duration": (vs(timeout="soon"), [r"spec\.http\[0\]\.timeout", r'expected a duration such as .*"soon"']),
    "negative attempts": (vs(retries={"attempts": -2}), [r"spec\.http\[0\]\.retries\.attempts", r"-2"]),
    "destination port": (vs(route=[{"destination": {"host": "a", "port": {"number": 70000}}}]), [r"destination\.port\.number", r"70000"]),
    "container port": ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 70000}]}]}},
                       [r"spec\.containers\[0\]\.ports\[0\]\.containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]),
    "service port": ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad"}, "spec": {"ports": [{"port": 0}]}}, [r"spec\.ports\[0\]\.port: Invalid value: 0"]),
    "restart policy": ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {"restartPolicy": "Sometimes", "containers": [{"name": "a", "image": "x"}]}},
                       [r'spec\.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"']),
    "name": ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Bad_Name"}}, [r"metadata\.name: Invalid value: \"Bad_Name\"", r"RFC 1123"]),
    "unknown kind": ({"apiVersion": "v1", "kind": "Nosuch", "metadata": {"name": "bad"}}, [r'no matches for kind "Nosuch" in version "v1"']),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_object(c, case):
    text, wanted = BAD[case]
    err = refused(c, text)
    for w in wanted:
        assert re.search(w, err), err


def test_dangling_references_are_reported(c):
    p = c.apply(istio("VirtualService", {"hosts": ["a.example.com"], "gateways": ["nosuch-gateway"],
                                         "http": [{"route": [{"destination": {"host": "nosuch-host.example.com"}}]}]}))
    assert "created" in p.out and "Warning:" in p.err and "nosuch-gateway" in p.err and "nosuch-host.example.com" in p.err
    c.kubectl("delete", "virtualservice", "bad", "-n", "default")


def test_bad_requests(c, tmp_path):
    cms = "/api/v1/namespaces/default/configmaps"

    def status(method, path, *a, **kw):
        code, body = c.api.ask(method, path, *a, **kw)
        assert body["kind"] == "Status" and body["status"] == "Failure" and body["code"] == code, body
        return code, body["message"]
    assert status("POST", cms, b'{"a":') == (400, "error decoding the request's JSON: body:1:6: the text ends where a value is expected")
    assert status("POST", cms, b"[]")[0] == 400
    assert status("POST", cms, b"\xff\xfe")[0] == 400
    assert status("POST", cms, b'{"a":' * 5000)[0] == 400
    assert status("POST", cms, {"kind": "Pod", "apiVersion": "v1"}) == (400, "the kind in the data (Pod) does not match the expected kind (ConfigMap)")
    code, message = status("POST", cms, b"<a/>", type="text/xml")
    assert code == 415 and "application/json" in message
    assert status("PATCH", cms + "/x", b"{}", type="application/json")[0] == 415
    assert status("DELETE", "/api/v1/nosuch/x")[0] == 404
    assert status("GET", "/api/v1/pods?watch=1&resourceVersion=abc")[0] == 400
    # who are you?
    assert status("GET", "/api/v1/nodes", cert=False)[0] == 401
    files = str(tmp_path / "crt"), str(tmp_path / "key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-out", files[0], "-keyout", files[1],
                    "-subj", "/O=system:masters/CN=kubernetes-admin", "-days", "1"], check=True, capture_output=True)
    p = subprocess.run(["kubectl", "--server", f"https://127.0.0.1:{c.api.port}", "--certificate-authority", c.api.files["ca"],
                        "--client-certificate", files[0], "--client-key", files[1], "get", "nodes"], capture_output=True, text=True, timeout=20,
                       env=dict(os.environ, KUBECONFIG=str(tmp_path / "none")))
    assert p.returncode == 1 and re.search("unknown certificate authority|Unauthorized", p.stderr), p.stderr
    # paths that climb
    for path in ("/api/v1/namespaces/curl/pods/..%2f..%2fx/exec?command=id&stdout=1", "/api/v1/namespaces/curl/pods/one/exec?command=id&stdout=1&container=../../x",
                 "/api/v1/namespaces/curl/pods/one/log?container=..%2f..%2f..%2fetc/passwd", "/api/v1/namespaces/../../etc/passwd",
                 "/api/v1/namespaces/curl/pods/%00/log"):
        assert status("GET", path)[0] == 400
    assert status("GET", "/api/v1/namespaces/curl/pods/one/log?container=c&tailLines=-5") == (400, "tailLines must be a whole number, 0 or more")
    assert status("GET", "/api/v1/namespaces/default/pods/nosuch/log")[0] == 404


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


@pytest.mark.parametrize("framing", ["content-length: 100000000", "transfer-encoding: chunked"])
def test_100_mb_body(c, framing):
    before = rss_kib(c.pid("apiserver.pid"))
    s = c.api.connect()
    s.sendall(f"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n".encode())
    sent, piece = 0, b"x" * 65536
    try:
        while sent < 100_000_000:
            s.sendall(b"10000\r\n" + piece + b"\r\n" if "chunked" in framing else piece)
            sent += len(piece)
    except OSError:
        pass
    assert sent < 20_000_000
    answer = s.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"larger than 3145728 bytes" in answer, answer
    s.close()
    assert rss_kib(c.pid("apiserver.pid")) - before < 16 << 10
    assert c.api.ask("GET", "/healthz")[0] == 200


def test_too_large_for_kubectl(c, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 4_000_000)
    err = c.kubectl("create", "configmap", "big", f"--from-file={tmp_path}/big", ok=False).err
    assert "larger than 3145728 bytes" in err or "must have at most 1048576 bytes" in err


PODS_THAT_FAIL = """
apiVersion: v1
kind: Pod
metadata: {name: nosuch}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: a, image: x, command: [nosuchcommand]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nocommand}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: exits}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: a, image: x, command: [sh, -c, 'echo bye; exit 3']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec: {restartPolicy: Never, containers: [{name: a, image: x, command: ["false"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec: {terminationGracePeriodSeconds: 2, containers: [{name: a, image: x, command: [sh, -c, 'trap "" TERM; echo deaf; while true; do sleep 0.1; done']}]}
"""


def test_pods_that_fail(c):
    c.kubectl("create", "namespace", "failing")

    def k(*argv, **kw):
        return c.kubectl("-n", "failing", *argv, **kw)

    def waiting(pod):
        return c.pod(pod, "failing")["status"].get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {})
    k("apply", "-f", "-", input=PODS_THAT_FAIL)
    until("deaf", lambda: k("logs", "stubborn", ok=None).out == "deaf\n")
    until("a back-off", lambda: waiting("exits").get("reason") == "CrashLoopBackOff")
    assert "back-off" in waiting("exits")["message"]
    assert k("logs", "exits").out == "bye\n"
    until("a failed pod", lambda: c.pod("once", "failing")["status"]["phase"] == "Failed")
    assert re.search(r"once\s+0/1\s+Error", k("get", "pods").out)
    until("a reason", lambda: waiting("nocommand").get("reason") == "CreateContainerConfigError")
    assert "has no command" in waiting("nocommand")["message"] and "set command" in waiting("nocommand")["message"]
    assert 'exec: "nosuchcommand": executable file not found in $PATH' in k("describe", "pod", "nosuch").out
    assert 'container "a" in pod "nocommand" is waiting to start' in k("logs", "nocommand", ok=False).err
    assert 'container "a"' in k("exec", "nocommand", "--", "true", ok=False).err
    t = time.monotonic()
    k("delete", "pod", "stubborn")
    assert 1.9 < time.monotonic() - t < 6, "SIGKILL follows the grace period"
    assert "exit code" not in k("delete", "pod", "nosuch", "nocommand", "exits", "once").err
    k("delete", "namespace", "failing")


def test_bad_command_lines(c, tmp_path):
    def bad(*argv, env=None, rc=None):
        p = c.postern(*argv, env=dict(os.environ, **env) if env else None, ok=False)
        assert rc is None or p.rc == rc
        return p.err
    assert 'is up already' in bad("up", "--offline", "--name", NAME) and "--name" in bad("up", "--offline", "--name", NAME)
    assert 'start one with "postern up"' in bad("install", "-y", env={"KUBECONFIG": str(tmp_path / "none")})
    (tmp_path / "empty").write_text("apiVersion: v1\nkind: Config\n")
    assert "postern up" in bad("install", "-y", env={"KUBECONFIG": str(tmp_path / "empty")})
    assert 'unknown profile "nosuch": the profiles are default, demo, minimal and empty' in bad("install", "-y", "--set", "profile=nosuch")
    assert 'meshConfig.outboundTraficPolicy: unknown field (did you mean "outboundTrafficPolicy"?)' in \
        bad("install", "-y", "--set", "meshConfig.outboundTraficPolicy.mode=ALLOW_ANY")
    assert 'did you mean "egressGateways"' in bad("install", "-y", "--set", "components.egresGateways[0].enabled=true")
    assert 'unknown value "ALLOW"' in bad("install", "-y", "--set", "meshConfig.outboundTrafficPolicy.mode=ALLOW")
    assert "PATH=VALUE" in bad("install", "-y", "--set", "profile")
    assert 'did you mean "install"' in bad("instal", rc=2)
    assert 'did you mean "--offline"' in bad("up", "--ofline", rc=2)
    assert "lower-case letters" in bad("up", "--name", "A_b", rc=2)
    assert c.postern("down", "--name", "nosuch", ok=True).out == 'There is no cluster "nosuch".\n'
    # nothing of a cluster is started when its kubeconfig could not be written, or runc is not there
    other = Cluster(NAME + "x", tmp_path)
    (tmp_path / "broken").write_text("clusters: [a\n")
    for path, why in ((tmp_path, "is a folder"), ("/proc/nosuch/config", "cannot be written"), (tmp_path / "broken", "bad YAML")):
        err = bad("up", "--offline", "--name", other.name, env={"KUBECONFIG": str(path)})
        assert why in err and "--kubeconfig" in err, err
        assert not other.left()
    assert (tmp_path / "broken").read_text() == "clusters: [a\n"
    (tmp_path / "plain").write_text("")
    p = subprocess.run(["unshare", "-m", "sh", "-c", 'mount --bind "$1" "$(readlink -f "$(command -v runc)")" && exec "$2" up --offline --name "$3"', "sh",
                        str(tmp_path / "plain"), postern_binary(), other.name], capture_output=True, text=True, env=other.env, timeout=30)
    assert p.returncode == 1 and "runc is missing" in p.stderr and "apt-get install runc" in p.stderr, p
    p = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", postern_binary(), "up", "--name", other.name], capture_output=True, text=True, timeout=30)
    assert p.returncode == 1 and "needs root" in p.stderr, p
    assert not other.left()


# ---- beginnings and ends ----

def links():
    return sorted(line.split(":")[1].split("@")[0].strip() for line in subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout.splitlines())


def tables():
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout


def test_two_clusters_a_crash_and_the_end(c, tmp_path):
    host = links(), tables()
    other = Cluster(NAME + "b", tmp_path, kubeconfig=c.kubeconfig)
    try:
        other.up()
        contexts = other.kubectl("config", "get-contexts", "-o", "name").out.split()
        assert contexts == [c.context, other.context]
        other.kubectl("create", "configmap", "mine", "--from-literal=a=b")
        other.apply(LOADER.replace("curl", "default") % ("p", "p"))
        other.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=10s")
        assert c.kubectl("get", "cm", "mine", "-n", "default", ok=False).err == 'Error from server (NotFound): configmaps "mine" not found\n'
        assert other.name in other.postern("status").out and NAME in other.postern("status").out
        # everything dies at once; what was stored is there after the next up, and pods run
        crash(other)
        other.up()
        assert other.kubectl("get", "cm", "mine", "-o", "jsonpath={.data.a}").out == "b"
        until("the pod again", lambda: other.kubectl("exec", "p", "--", "echo", "again", ok=None).out == "again\n", 10, 0.05)
        assert other.kubectl("exec", "p", "--", "getent", "hosts", "httpbin.org").out
        other.apply(LOADER.replace("curl", "default") % ("q", "q"))
        other.kubectl("wait", "--for=condition=Ready", "pod/q", "--timeout=10s")
        # and down after the same removes all
        crash(other)
    finally:
        other.down()
    assert not other.left()
    assert (links(), tables()) == host
    assert c.kubectl("config", "get-contexts", "-o", "name").out.split() == [c.context]
    assert c.kubectl("exec", "one", "-n", "curl", "-c", "c", "--", "echo", "here").out == "here\n"
    assert other.postern("down", "--name", other.name, ok=True).out == f'There is no cluster "{other.name}".\n'


def test_down_with_a_real_network(tmp_path):
    """Not offline: NAT in a table of its own, in a network namespace that plays the host here."""
    world = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"], stdout=subprocess.PIPE, text=True)
    assert world.stdout.readline() == "up\n"

    def inside(*argv, timeout=60):
        return subprocess.run(["nsenter", "-t", str(world.pid), "-n", *argv], capture_output=True, text=True, env=cluster.env, timeout=timeout)
    cluster = Cluster(NAME + "r", tmp_path, offline=False)
    try:
        p = inside(postern_binary(), "up", "--name", cluster.name)
        assert p.returncode == 0, p.stdout + p.stderr
        assert "postern" in inside("nft", "list", "tables").stdout
        assert inside("kubectl", "get", "nodes").returncode == 0
        crash(cluster)
        p = inside(postern_binary(), "down", "--name", cluster.name)
        assert p.returncode == 0, p.stdout + p.stderr
        assert not cluster.left()
        assert inside("nft", "list", "tables").stdout == ""
        assert len(inside("ip", "-o", "link").stdout.splitlines()) == 1
    finally:
        inside(postern_binary(), "down", "--name", cluster.name)
        world.kill()
        world.wait()
