"""Pods on one machine: processes, files, networks. Needs root; makes its own namespaces and removes them."""
import json
import os
import signal
import subprocess
import time

import pytest

from fakeapi import FakeApi
from nodetest import CLIENT, SLEEP, Node, binary, c, connect, server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def node():
    n = Node("pytest-node")
    yield n
    n.close()


# ---- a pod, from outside ----

def test_status_and_events(node):
    node.pod("plain", c(SLEEP), labels={"app": "x"})
    ip = node.wait_running("plain")
    s = node.status("plain")
    assert s["phase"] == "Running" and ip.startswith("10.244.") and s["hostIP"] == "10.244.0.1" and s["podIPs"] == [{"ip": ip}]
    conditions = {x["type"]: x["status"] for x in s["conditions"]}
    assert conditions == {"PodReadyToStartContainers": "True", "Initialized": "True", "ContainersReady": "True", "Ready": "True"}
    status = node.container("plain", "c")
    assert status["ready"] and status["started"] and status["restartCount"] == 0 and "running" in status["state"]
    node.api.wait("events", lambda: node.api.said("Started", "Started container c"))
    assert len(node.api.said("ImageNameOnly", '"busybox"')) == 1
    node.delete("plain")
    assert node.api.said("Killing", "Stopping container c")


def test_nothing_of_the_host_is_visible(node):
    node.pod("inside", c(SLEEP))
    node.wait_running("inside")
    assert node.run("inside", "ls", "/root", "/home/app", "/var/lib", "/srv", "/mnt").stdout.split() == ["/home/app:", "/mnt:", "/root:", "/srv:", "/var/lib:"]
    assert node.run("inside", "ls", "/etc/shadow", "/etc/ssh", "/etc/ssl/private", "/boot", ok=False).stdout == ""
    assert "root:x:0:0:root:/root:/bin/sh" in node.run("inside", "cat", "/etc/passwd").stdout
    assert len(node.run("inside", "ps", "-e", "-o", "pid=").stdout.split()) <= 2
    caps = node.run("inside", "grep", "Cap", "/proc/self/status").stdout
    assert all(line.split()[1].strip("0") == "" for line in caps.splitlines()), caps
    for command in (["mount", "-t", "tmpfs", "x", "/mnt"], ["touch", "/usr/x"], ["chroot", "/", "true"], ["unshare", "-U", "true"], ["unshare", "-n", "true"],
                    ["sh", "-c", "echo 1 > /proc/sys/kernel/panic"], ["mknod", "/tmp/sda", "b", "8", "0"], ["dmesg"], ["nsenter", "-t", "1", "-n", "true"]):
        assert node.run("inside", *command, ok=False).returncode != 0, command
    links = node.run("inside", "ip", "-o", "link").stdout
    assert "eth0" in links and "pbr0" not in links
    node.run("inside", "sh", "-c", "echo ok > /tmp/x && echo ok > /var/tmp/y && echo ok > /root/z")
    assert os.path.exists("/root/z") is False
    node.delete("inside")


def test_user_and_read_only_root(node):
    node.pod("user", c("id -u; id -g; id -G; touch /tmp/x || echo read-only; touch /data/x && echo data; " + SLEEP,
                       securityContext={"runAsUser": 1337, "runAsGroup": 1337, "readOnlyRootFilesystem": True},
                       volumeMounts=[{"name": "data", "mountPath": "/data"}]),
             securityContext={"fsGroup": 2000}, volumes=[{"name": "data", "emptyDir": {}}])
    node.wait_running("user")
    text = node.wait_log("user", "data")
    assert text.startswith("1337\n1337\n1337 2000\n") and "read-only" in text
    node.delete("user")


def test_asked_for_capability(node):
    node.pod("caps", c(SLEEP, securityContext={"capabilities": {"add": ["NET_ADMIN"]}}))
    node.wait_running("caps")
    node.run("caps", "ip", "link", "set", "lo", "mtu", "1400")
    node.delete("caps")


# ---- how containers end ----

def test_completed_and_failed(node):
    node.pod("good", c("echo hello; exit 0"), restartPolicy="Never")
    node.pod("bad", c("echo problem >&2; exit 7"), restartPolicy="Never")
    node.wait_phase("good", "Succeeded")
    node.wait_phase("bad", "Failed")
    end = node.container("good", "c")["state"]["terminated"]
    assert end["exitCode"] == 0 and end["reason"] == "Completed"
    end = node.container("bad", "c")["state"]["terminated"]
    assert end["exitCode"] == 7 and end["reason"] == "Error" and end["finishedAt"] >= end["startedAt"]
    assert node.logs("good") == "hello\n" and node.logs("bad") == "problem\n"
    node.delete("good")
    node.delete("bad")


def test_crash_loop(node):
    node.pod("crash", c("echo run; exit 1"))
    w = node.wait_waiting("crash", "c", "CrashLoopBackOff")
    assert "back-off 10s restarting failed container=c pod=crash_default" in w["message"]
    status = node.container("crash", "c")
    assert status["restartCount"] == 1 and status["lastState"]["terminated"]["exitCode"] == 1
    node.api.wait("event", lambda: node.api.said("BackOff", "Back-off restarting failed container c"))
    node.delete("crash")


def test_on_failure_restarts(node):
    node.pod("again", c("test -e /data/x && exit 0; touch /data/x; exit 1", volumeMounts=[{"name": "d", "mountPath": "/data"}]),
             restartPolicy="OnFailure", volumes=[{"name": "d", "emptyDir": {}}])
    node.wait_phase("again", "Succeeded")
    assert node.container("again", "c")["restartCount"] == 1
    node.delete("again")


def test_command_that_does_not_exist(node):
    node.pod("typo", {"name": "c", "image": "x", "command": ["sleeep", "1"]}, restartPolicy="Never")
    node.wait_phase("typo", "Failed")
    end = node.container("typo", "c")["state"]["terminated"]
    assert end["reason"] == "StartError" and end["exitCode"] == 128 and '"sleeep": executable file not found in $PATH' in end["message"]
    node.api.wait("event", lambda: node.api.said("Failed", "sleeep"))
    node.delete("typo")


def test_no_command(node):
    node.pod("image-only", {"name": "c", "image": "nginx"})
    w = node.wait_waiting("image-only", "c", "CreateContainerConfigError")
    assert 'container "c" has no command' in w["message"] and '"nginx" is a label only' in w["message"]
    node.delete("image-only")


def test_what_is_not_offered(node):
    node.pod("host", c(SLEEP), hostNetwork=True)
    node.wait_phase("host", "Failed")
    assert "spec.hostNetwork" in node.status("host")["message"]
    node.pod("path", c(SLEEP, volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=[{"name": "v", "hostPath": {"path": "/"}}])
    node.api.wait("event", lambda: node.api.said("FailedMount", "hostPath volumes are not offered"))
    node.pod("privileged", c(SLEEP, securityContext={"privileged": True}))
    assert "privileged" in node.wait_waiting("privileged", "c", "CreateContainerConfigError")["message"]
    for name in ("host", "path", "privileged"):
        node.delete(name)


def test_stop_signals(node):
    node.pod("polite", c("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"), terminationGracePeriodSeconds=20)
    node.pod("deaf", c("trap '' TERM; echo up; while :; do sleep 0.05; done"))
    node.wait_log("polite", "up")
    node.wait_log("deaf", "up")
    seen = {}

    def gone(name):
        obj = node.api.get("pods", "default", name)
        state = node.container(name, "c").get("state", {}) if obj else {}
        if "terminated" in state:
            seen[name] = state["terminated"]["exitCode"]
        return obj is None
    start = time.monotonic()
    node.api.delete_pod("default", "polite")
    node.api.wait("gone", lambda: gone("polite"))
    assert seen["polite"] == 3 and time.monotonic() - start < 5
    start = time.monotonic()
    node.api.delete_pod("default", "deaf")
    node.api.wait("gone", lambda: gone("deaf"))
    assert seen["deaf"] == 137 and 0.9 < time.monotonic() - start < 5


def test_out_of_memory(node):
    if not os.path.exists("/sys/fs/cgroup/memory") and "memory" not in open("/sys/fs/cgroup/cgroup.controllers").read():
        pytest.skip("no memory controller here")
    node.pod("eater", {"name": "c", "image": "x", "command": ["/usr/bin/python3", "-c", "x = bytearray(200 << 20)"], "resources": {"limits": {"memory": "64Mi"}}},
             restartPolicy="Never")
    node.wait_phase("eater", "Failed")
    end = node.container("eater", "c")["state"]["terminated"]
    assert end["reason"] == "OOMKilled" and end["exitCode"] == 137
    node.delete("eater")


# ---- order ----

def test_init_containers_and_sidecars(node):
    mounts = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    node.pod("ordered", c("echo main >> /d/log; cat /d/log; exit 0", **mounts),
             init=[c("sleep 0.2; echo one >> /d/log", "one", **mounts),
                   dict(c("echo side >> /d/log; trap 'exit 0' TERM; while :; do sleep 0.05; done", "side", **mounts), restartPolicy="Always"),
                   c("echo two >> /d/log", "two", **mounts)],
             restartPolicy="Never", volumes=[{"name": "d", "emptyDir": {"medium": "Memory"}}])
    node.wait_phase("ordered", "Succeeded")
    assert node.logs("ordered") == "one\nside\ntwo\nmain\n"
    assert node.container("ordered", "side")["state"]["terminated"]["exitCode"] == 0
    node.delete("ordered")


def test_failing_init_container(node):
    node.pod("no-init", c(SLEEP), init=[c("exit 4", "broken")], restartPolicy="Never")
    node.wait_phase("no-init", "Failed")
    assert node.container("no-init", "c")["state"]["waiting"]["reason"] == "PodInitializing"
    node.delete("no-init")


def test_the_proxy_is_ready_first(node):
    proxy = c("sleep 0.5; touch /tmp/ready; " + SLEEP, "istio-proxy", securityContext={"runAsUser": 1337, "runAsGroup": 1337},
              startupProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 60})
    node.pod("gated", proxy, c("date +%s.%N; " + SLEEP), annotations={"sidecar.istio.io/status": "{}"})
    seen = []

    def waiting():
        s = node.status("gated").get("containerStatuses", [])
        if len(s) == 2 and "running" in s[0]["state"] and not s[0]["started"]:
            seen.append(list(s[1]["state"]))
        return node.status("gated").get("phase") == "Running"
    node.api.wait("running", waiting)
    assert seen and all(x == ["waiting"] for x in seen)
    node.delete("gated")


def test_hooks(node):
    node.pod("hooked", c("trap 'echo term; exit 0' TERM; while :; do sleep 0.05; done", lifecycle={
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /tmp/hook"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}}}), terminationGracePeriodSeconds=20)
    node.wait_running("hooked")
    node.api.wait("hook", lambda: node.run("hooked", "cat", "/tmp/hook", ok=False).stdout == "started\n")
    node.api.delete_pod("default", "hooked")
    text = node.wait_log("hooked", "term")
    assert text == "stopping\nterm\n"
    node.api.wait("gone", lambda: node.api.get("pods", "default", "hooked") is None)


# ---- probes ----

def test_readiness_and_liveness(node):
    node.pod("probed", c("touch /tmp/live; " + SLEEP, readinessProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1},
                         livenessProbe={"exec": {"command": ["test", "-e", "/tmp/live"]}, "periodSeconds": 1, "failureThreshold": 1}))
    node.api.wait("unready", lambda: node.api.said("Unhealthy", "Readiness probe failed"))
    assert node.container("probed", "c")["ready"] is False
    node.run("probed", "touch", "/tmp/ready")
    node.wait_running("probed")
    node.run("probed", "rm", "/tmp/ready")
    node.api.wait("unready again", lambda: not node.container("probed", "c")["ready"])
    node.run("probed", "rm", "/tmp/live")
    node.api.wait("restarted", lambda: node.container("probed", "c")["restartCount"] == 1)
    assert node.api.said("Killing", "failed liveness probe, will be restarted")
    node.delete("probed")


def test_tcp_probe(node):
    node.pod("tcp", server(8080))
    node.wait_running("tcp")
    node.delete("tcp")


# ---- volumes ----

def test_volumes_and_live_updates(node):
    api = node.api
    api.apply("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a.conf": "one", "b.conf": "same"}})
    api.apply("secrets", {"metadata": {"name": "key", "namespace": "default"}, "data": {"password": "aHVudGVyMg=="}})
    node.pod("files", c(SLEEP, volumeMounts=[{"name": "cm", "mountPath": "/cm"}, {"name": "key", "mountPath": "/key"}, {"name": "info", "mountPath": "/info"},
                                              {"name": "all", "mountPath": "/all"}, {"name": "cm", "mountPath": "/one", "subPath": "a.conf"}]),
             labels={"app": "files"},
             volumes=[{"name": "cm", "configMap": {"name": "cm"}}, {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
                      {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                      {"name": "all", "projected": {"sources": [
                          {"serviceAccountToken": {"path": "token", "audience": "a", "expirationSeconds": 600}},
                          {"configMap": {"name": "cm", "items": [{"key": "a.conf", "path": "x/y"}]}}]}}])
    node.wait_running("files")

    def read(path):
        return node.run("files", "cat", path).stdout
    assert (read("/cm/a.conf"), read("/key/password"), read("/info/labels"), read("/all/x/y"), read("/one")) == ("one", "hunter2", 'app="files"', "one", "one")
    assert read("/all/token") == "token-for-default/default"
    assert node.run("files", "touch", "/cm/x", ok=False).returncode != 0
    api.apply("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a.conf": "two", "c.conf": "new"}})
    api.wait("update", lambda: read("/cm/a.conf") == "two")
    assert read("/all/x/y") == "two" and sorted(node.run("files", "ls", "/cm").stdout.split()) == ["a.conf", "c.conf"]
    node.delete("files")


def test_missing_configmap_is_waited_for(node):
    node.pod("early", c("cat /cm/k; " + SLEEP, volumeMounts=[{"name": "cm", "mountPath": "/cm"}]), volumes=[{"name": "cm", "configMap": {"name": "late"}}])
    node.pod("early-env", c("echo $K; " + SLEEP, envFrom=[{"configMapRef": {"name": "late"}}]))
    node.api.wait("event", lambda: node.api.said("FailedMount", 'configmap "late" not found'))
    node.wait_waiting("early-env", "c", "CreateContainerConfigError")
    node.api.apply("configmaps", {"metadata": {"name": "late", "namespace": "default"}, "data": {"K": "came"}})
    node.wait_running("early")
    node.wait_log("early-env", "came")
    node.delete("early")
    node.delete("early-env")


def test_sub_path_cannot_leave_the_volume(node):
    node.pod("escape", c("ln -s / /d/out; sleep 0.2; exit 0", "c", volumeMounts=[{"name": "d", "mountPath": "/d"}]), restartPolicy="Never",
             volumes=[{"name": "d", "emptyDir": {}}], init=[c("ln -s /etc /d/link", "plant", volumeMounts=[{"name": "d", "mountPath": "/d"}]),
                                                            c("ls /e", "use", volumeMounts=[{"name": "d", "mountPath": "/e", "subPath": "link"}])])
    w = node.wait_waiting("escape", "use", "CreateContainerConfigError")
    assert "is not in the volume" in w["message"]
    node.delete("escape")


# ---- the network ----

def test_pods_reach_each_other_with_their_own_address(node):
    node.pod("s", server(80))
    node.pod("k", c(SLEEP))
    ip, mine = node.wait_running("s"), node.wait_running("k")
    assert connect(node, "k", ip, 80) == "s " + mine
    node.delete("s")
    node.delete("k")


def test_service_addresses(node):
    node.pod("w1", server(8080))
    node.pod("w2", server(8080))
    node.pod("client", c(SLEEP))
    ips = [node.wait_running("w1"), node.wait_running("w2")]
    mine = node.wait_running("client")
    node.service("web", "10.96.0.50", {"http": (80, 8080)})
    node.endpoints("web", ips, {"http": 8080})
    node.api.wait("service", lambda: "w" in connect(node, "client", "10.96.0.50", 80, ok=False))
    seen = {connect(node, "client", "10.96.0.50", 80) for _ in range(24)}
    assert seen == {"w1 " + mine, "w2 " + mine}
    assert connect(node, "w1", "10.96.0.50", 80)                       # hairpin or not, it answers
    assert {connect(node, "w1", "10.96.0.50", 80).split()[0] for _ in range(24)} == {"w1", "w2"}
    # without endpoints: refused, at once
    node.endpoints("web", [], {"http": 8080})
    node.api.wait("refused", lambda: connect(node, "client", "10.96.0.50", 80, ok=False).startswith("error"))
    start = time.monotonic()
    assert connect(node, "client", "10.96.0.50", 80, ok=False) == "error 111 ConnectionRefusedError"
    assert connect(node, "client", "10.96.77.77", 80, ok=False) == "error 111 ConnectionRefusedError"
    assert time.monotonic() - start < 3
    for name in ("w1", "w2", "client"):
        node.delete(name)
    node.api.remove("services", "default", "web")


def dig(node, pod, name, kind="A", tcp=False):
    """What a resolver would see, asked with Python's own few lines of DNS."""
    code = r"""
import socket, struct, sys
name, kind, tcp = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
q = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0" + struct.pack("!HH", kind, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM); s.settimeout(5); s.connect(("10.96.0.10", 53))
if tcp:
    s.sendall(struct.pack("!H", len(q)) + q); n = struct.unpack("!H", s.recv(2))[0]; a = b""
    while len(a) < n: a += s.recv(n - len(a))
else:
    s.send(q); a = s.recv(4096)
ident, flags, qd, an, ns, ar = struct.unpack("!HHHHHH", a[:12])
def skip(i):
    while a[i]:
        if a[i] >= 192: return i + 2
        i += a[i] + 1
    return i + 1
i = skip(12) + 4
out = []
for _ in range(an):
    i = skip(i); t, c, ttl, n = struct.unpack("!HHIH", a[i:i+10]); i += 10; d = a[i:i+n]; i += n
    out.append(socket.inet_ntoa(d) if t == 1 else str(struct.unpack("!H", d[4:6])[0]) if t == 33 else "type%d" % t)
print(flags & 15, *sorted(out))
"""
    kinds = {"A": 1, "AAAA": 28, "SRV": 33, "PTR": 12}
    return node.run(pod, "/usr/bin/python3", "-c", code, name, str(kinds[kind]), "1" if tcp else "0").stdout.split()


def test_names(node):
    node.pod("asker", c(SLEEP))
    ip = node.wait_running("asker")
    node.service("db", "10.96.0.60", {"sql": (5432, 5432)}, ns="shop")
    node.service("peers", "None", {"p2p": (7000, 7000)}, ns="shop")
    node.endpoints("peers", ["10.244.9.1", "10.244.9.2"], {"p2p": 7000}, ns="shop", hostnames=["a", "b"])
    node.service("ext", "", {}, ns="shop", type="ExternalName", externalName="httpbin.org")
    node.api.wait("known", lambda: dig(node, "asker", "db.shop.svc.cluster.local") == ["0", "10.96.0.60"])
    table = [
        (("DB.Shop.svc.cluster.local",), ["0", "10.96.0.60"]),
        (("db.shop.svc.cluster.local", "AAAA"), ["0"]),
        (("nope.shop.svc.cluster.local",), ["3"]),
        (("peers.shop.svc.cluster.local",), ["0", "10.244.9.1", "10.244.9.2"]),
        (("a.peers.shop.svc.cluster.local",), ["0", "10.244.9.1"]),
        (("10-244-9-2.peers.shop.svc.cluster.local",), ["3"]),          # it has a hostname: that is its name
        (("_p2p._tcp.peers.shop.svc.cluster.local", "SRV"), ["0", "7000", "7000"]),
        (("_sql._tcp.db.shop.svc.cluster.local", "SRV"), ["0", "5432"]),
        (("_sql._udp.db.shop.svc.cluster.local", "SRV"), ["3"]),
        (("ext.shop.svc.cluster.local",), ["0", "type5"]),
        (("60.0.96.10.in-addr.arpa", "PTR"), ["0", "type12"]),
        ((ip.replace(".", "-") + ".default.pod.cluster.local",), ["0", ip]),
        (("10-9-9-9.default.pod.cluster.local",), ["3"]),
        (("httpbin.org",), ["0", "198.18.0.10"]),
        (("deep.sub.example.com",), ["0", "198.18.0.21"]),
        (("example.net",), ["0"]),
        (("google.com",), ["3"]),
    ]
    for question, want in table:
        assert dig(node, "asker", *question) == want, question
        assert dig(node, "asker", *question, tcp=True) == want, question
    assert node.run("asker", "getent", "hosts", "db.shop").stdout.split()[0] == "10.96.0.60"     # by the search list
    node.delete("asker")


def test_offline_internet(node):
    node.pod("web", c(SLEEP))
    ip = node.wait_running("web")

    def curl(*args):
        return node.run("web", "curl", "-sS", "--max-time", "10", *args, ok=False)
    assert json.loads(curl("http://httpbin.org/headers").stdout)["headers"] == {"Accept": "*/*", "Host": "httpbin.org", "User-Agent": json.loads(
        curl("http://httpbin.org/user-agent").stdout)["user-agent"]}
    assert json.loads(curl("http://api.example.net/ip").stdout)["origin"] == ip
    assert "Could not resolve host" in curl("http://nope.org").stderr
    assert curl("http://198.18.3.3/").returncode != 0 and curl("http://8.8.8.8/").returncode != 0
    head = curl("-o", "/dev/null", "-D", "-", "https://httpbin.org/headers").stdout
    assert head.startswith("HTTP/2 200") and "server: gunicorn/" in head.lower()
    assert json.loads(curl("https://httpbin.org/headers").stdout)["headers"]["Host"] == "httpbin.org"
    assert json.loads(curl("https://any.example.com/ip").stdout)["origin"] == ip
    assert json.loads(curl("--http1.1", "-d", "a=b", "https://example.com/post").stdout)["form"] == {"a": "b"}
    assert curl("-o", "/dev/null", "-w", "%{size_download}", "https://httpbin.org/bytes/90000").stdout == "90000"
    node.delete("web")


REDIRECT_SERVER = r"""
import socket, struct, threading
def serve(port):
    s = socket.socket(); s.bind(("0.0.0.0", port)); s.listen(64)
    while True:
        c, peer = s.accept()
        d = c.getsockopt(socket.SOL_IP, 80, 16)
        c.sendall(("%d was for %s:%d\n" % (port, socket.inet_ntoa(d[4:8]), struct.unpack("!H", d[2:4])[0])).encode()); c.close()
for p in (15001, 15006, 15021): threading.Thread(target=serve, args=(p,)).start()
print("up", flush=True)
"""


def test_redirection(node):
    proxy = {"name": "istio-proxy", "image": "p", "command": ["/usr/bin/python3", "-c", REDIRECT_SERVER],
             "securityContext": {"runAsUser": 1337, "runAsGroup": 1337}, "readinessProbe": {"tcpSocket": {"port": 15021}, "periodSeconds": 1}}
    node.pod("mesh", proxy, c(SLEEP), annotations={"sidecar.istio.io/status": "{}", "traffic.sidecar.istio.io/excludeOutboundPorts": "9999",
                                                   "traffic.sidecar.istio.io/excludeInboundPorts": "8081"})
    node.pod("plain", server(8081), server(9999, "d"))
    mesh, plain = node.wait_running("mesh"), node.wait_running("plain")
    # out: everything of the application goes to the proxy, whatever the address; the proxy itself gets out
    assert connect(node, "mesh", "198.18.0.10", 80) == "15001 was for 198.18.0.10:80"
    assert connect(node, "mesh", "203.0.113.9", 4444) == "15001 was for 203.0.113.9:4444"
    assert connect(node, "mesh", plain, 8081) == "15001 was for %s:8081" % plain
    assert connect(node, "mesh", plain, 8081, container="istio-proxy") == "plain " + mesh
    assert connect(node, "mesh", plain, 9999) == "plain " + mesh
    # in
    assert connect(node, "plain", mesh, 8080) == "15006 was for %s:8080" % mesh
    assert connect(node, "plain", mesh, 15021) == "15021 was for %s:15021" % mesh
    assert connect(node, "plain", mesh, 8081, ok=False).startswith("error 111")
    # loopback: the application to itself is left alone; the proxy to its own pod's address counts as inbound
    assert connect(node, "mesh", "127.0.0.1", 15006).startswith("15006 was for 127.0.0.1:15006")
    assert connect(node, "mesh", mesh, 7777, ok=False).startswith("error 111")
    assert connect(node, "mesh", mesh, 7777, container="istio-proxy") == "15006 was for %s:7777" % mesh
    # IPv6 does not slip by
    out = node.run("mesh", "/usr/bin/python3", "-c", CLIENT, "2001:db8::1", "80", ok=False).stdout
    assert out.startswith("error")
    node.pod("wrong", c(SLEEP), annotations={"sidecar.istio.io/status": "{}", "traffic.sidecar.istio.io/excludeOutboundPorts": "all"})
    node.api.wait("event", lambda: node.api.said("FailedCreatePodSandBox", "traffic.sidecar.istio.io/excludeOutboundPorts"))
    for name in ("mesh", "plain", "wrong"):
        node.delete(name)


# ---- the node comes and goes ----

def test_node_killed_and_started_again(node):
    node.pod("stay", c("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"))
    node.pod("ends", c("trap 'exit 5' USR1; echo up; while :; do sleep 0.02; done"), restartPolicy="Never")
    ip = node.wait_running("stay")
    node.wait_log("ends", "up")
    pid = int(open("%s/ctr/%s/c-0/pid" % (node.run_dir, node.api.get("pods", "default", "ends")["metadata"]["uid"])).read())
    node.kill()
    count = node.logs("stay").count("\n")
    os.kill(pid, signal.SIGUSR1)
    node.wait_log("stay", "line %d\n" % (count + 5))                    # it writes on without a node
    node.start()
    node.wait_phase("ends", "Failed")
    assert node.container("ends", "c")["state"]["terminated"]["exitCode"] == 5
    assert node.wait_running("stay") == ip and node.container("stay", "c")["restartCount"] == 0
    lines = node.logs("stay").splitlines()
    assert lines == ["line %d" % (i + 1) for i in range(len(lines))]
    # a pod deleted while no node ran goes too
    node.kill()
    before = len([x for x in os.listdir("/run/netns") if "postern-pytest-node.pod" in x])
    node.api.remove("pods", "default", "stay")
    node.start()
    node.api.wait("namespace removed", lambda: len([x for x in os.listdir("/run/netns") if "postern-pytest-node.pod" in x]) < before)
    node.delete("ends")


def test_shim_killed(node):
    node.pod("orphan", c("echo run; " + SLEEP))
    node.wait_running("orphan")
    uid = node.api.get("pods", "default", "orphan")["metadata"]["uid"]
    out = subprocess.run(["pgrep", "-f", "postern shim .*%s" % uid], capture_output=True, text=True).stdout.split()
    assert len(out) == 1
    os.kill(int(out[0]), signal.SIGKILL)
    node.api.wait("restarted", lambda: node.container("orphan", "c")["restartCount"] == 1 and "running" in node.container("orphan", "c")["state"])
    assert "shim" in node.container("orphan", "c")["lastState"]["terminated"]["message"]
    node.delete("orphan")


def test_two_clusters_and_removal():
    a, b = Node("pytest-a"), Node("pytest-b", offline=False)
    try:
        for n in (a, b):
            n.pod("p", server(80))
        ips = [a.wait_running("p"), b.wait_running("p")]
        assert ips[0] == ips[1]                                         # the same address, and no trouble
        assert subprocess.run(["nft", "list", "table", "ip", "postern_pytest_b"], capture_output=True).returncode == 0
        b.kill()
        b.remove()
        assert a.run("p", "cat", "/etc/hostname").stdout == "p\n"
        # everything of a killed at once, then removed
        a.pod("q", c("trap '' TERM; " + SLEEP, volumeMounts=[{"name": "m", "mountPath": "/m"}]), volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}])
        a.wait_running("q")
        a.kill()
        for pid in subprocess.run(["pgrep", "-f", "postern shim .*/run/postern/pytest-a/"], capture_output=True, text=True).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        a.remove()
    finally:
        for n in (a, b):
            n.close()
    left = [x for x in os.listdir("/run/netns") if x.startswith(("postern-pytest-a", "postern-pytest-b"))]
    assert left == []
    assert subprocess.run(["nft", "list", "table", "ip", "postern_pytest_b"], capture_output=True).returncode != 0
    for n in ("pytest-a", "pytest-b"):
        assert not os.path.exists("/run/postern/" + n) and not os.path.exists("/var/lib/postern/" + n)
        assert n not in open("/proc/self/mountinfo").read()
        assert subprocess.run(["pgrep", "-f", "shim .*/run/postern/%s/" % n], capture_output=True).stdout == b""
    subprocess.run([binary(), "node", "--name", "pytest-a", "--remove"], check=True)       # again: nothing to do


# ---- a way out ----

WORLD = r"""
import socket, struct, sys, threading
ns = [l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver") and ":" not in l][0]
def web():
    s = socket.socket(); s.bind(("203.0.113.1", 80)); s.listen(64)
    while True:
        c, peer = s.accept(); c.sendall(("world sees %s\n" % peer[0]).encode()); c.close()
def dns():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((ns, 53))
    while True:
        q, peer = s.recvfrom(4096)
        name = q[12:].split(b"\0")[0]
        if b"silent" in name: continue
        a = q[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + q[12:12 + len(name) + 5] + struct.pack("!HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton("203.0.113.1")
        if b"liar" in name: a = a[:12] + a[12:].replace(b"liar", b"liaR").replace(b"liaR", b"LIES", 1)
        s.sendto(a, peer)
threading.Thread(target=web, daemon=True).start(); print("up", flush=True); dns()
"""


def run(*command):
    subprocess.run(command, check=True)


@pytest.fixture
def host():
    """A host of our own: a namespace with a way to the world, which is another namespace with a web server and the resolver of resolv.conf."""
    servers = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver") and ":" not in line]
    if not servers or servers[0].startswith("127."):
        pytest.skip("needs a resolv.conf whose first server is not this machine")
    for ns in ("pytest-host", "pytest-world"):
        subprocess.run(["ip", "netns", "del", ns], stderr=subprocess.DEVNULL)
        run("ip", "netns", "add", ns)
        run("ip", "-n", ns, "link", "set", "lo", "up")
    run("ip", "-n", "pytest-host", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "pytest-world")
    for ns, ip in (("pytest-host", "203.0.113.2/24"), ("pytest-world", "203.0.113.1/24")):
        run("ip", "-n", ns, "addr", "add", ip, "dev", "eth0")
        run("ip", "-n", ns, "link", "set", "eth0", "up")
    run("ip", "-n", "pytest-world", "addr", "add", servers[0] + "/32", "dev", "lo")
    run("ip", "-n", "pytest-host", "route", "add", "default", "via", "203.0.113.1")
    world = subprocess.Popen(["nsenter", "--net=/run/netns/pytest-world", "/usr/bin/python3", "-c", WORLD], stdout=subprocess.PIPE)
    assert world.stdout.readline() == b"up\n"
    yield ["nsenter", "--net=/run/netns/pytest-host"]
    world.kill()
    world.wait()
    for ns in ("pytest-host", "pytest-world"):
        run("ip", "netns", "del", ns)


def in_host(*command):
    return subprocess.run(["nsenter", "--net=/run/netns/pytest-host"] + list(command), capture_output=True, text=True).stdout


def test_way_out(host, tmp_path):
    def forwarding():
        return in_host("cat", "/proc/sys/net/ipv4/conf/eth0/forwarding").strip()

    links = in_host("ip", "-o", "link")
    assert forwarding() == "0"
    api = FakeApi(unix=str(tmp_path / "api"))
    n = Node("pytest-out", offline=False, api=api, before=host)
    try:
        n.pod("p", c(SLEEP))
        n.wait_running("p")
        assert connect(n, "p", "203.0.113.1", 80) == "world sees 203.0.113.2"
        assert dig(n, "p", "www.world.test") == ["0", "203.0.113.1"]
        assert dig(n, "p", "www.world.test", "AAAA") == ["0"]
        assert dig(n, "p", "kubernetes.default.svc.cluster.local") == ["3"]            # never asked outside
        assert dig(n, "p", "60.0.96.10.in-addr.arpa", "PTR") == ["3"]
        assert n.run("p", "curl", "-sS", "--max-time", "5", "--http0.9", "http://www.world.test/", ok=False).stdout == "world sees 203.0.113.2\n"
        assert connect(n, "p", "10.244.200.200", 80, ok=False).startswith("error 113")  # no such pod: not the world's business
        assert "postern_pytest_out" in in_host("nft", "list", "tables") and forwarding() == "1"
        n.kill()                                                        # a crash; started again it finds everything
        n.start()
        assert connect(n, "p", "203.0.113.1", 80) == "world sees 203.0.113.2"
    finally:
        n.close()
    assert in_host("nft", "list", "tables") == "" and in_host("ip", "-o", "link") == links and forwarding() == "0"
