"""What the tests of the node share: a node against a fake API, and short words for pods."""
import json
import os
import re
import signal
import socket
import subprocess
import time

from fakeapi import FakeApi

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def binary():
    path = os.environ.get("POSTERN") or os.path.join(ROOT, "build", "src", "cmd", "postern")
    return path


class Node:
    def __init__(self, name, offline=True, api=None, extra=(), before=()):
        self.name = name
        self.node_name = name + "-control-plane"
        self.api = api or FakeApi()
        self.offline = offline
        self.extra = list(extra)
        self.before = list(before)      # a command that runs the node
        self.run_dir = "/run/postern/" + name
        self.state_dir = "/var/lib/postern/" + name
        self.process = None
        self.log_path = "/tmp/postern-%s.log" % name
        open(self.log_path, "w").close()
        self.start()

    def start(self):
        r, w = os.pipe()
        args = self.before + [binary(), "node", "--name", self.name, "--server", self.api.url, "--ready-fd", str(w)] + self.extra
        if self.offline:
            args.append("--offline")
        self.process = subprocess.Popen(args, pass_fds=[w], stderr=open(self.log_path, "a"))
        os.close(w)
        told = os.read(r, 16)
        os.close(r)
        assert told == b"ready\n", "the node did not start: " + open(self.log_path).read()

    def kill(self, signo=signal.SIGKILL):
        self.process.send_signal(signo)
        self.process.wait()

    def log(self):
        return open(self.log_path).read()

    def remove(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        subprocess.run(self.before + [binary(), "node", "--name", self.name, "--remove"], check=True)

    def close(self):
        self.remove()
        self.api.close()

    # ---- pods ----

    def pod(self, name, *containers, ns="default", init=(), labels=None, annotations=None, **spec):
        spec.setdefault("terminationGracePeriodSeconds", 1)
        body = {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": ns, "labels": labels or {}, "annotations": annotations or {}},
                "spec": dict(spec, nodeName=self.node_name, containers=list(containers))}
        if init:
            body["spec"]["initContainers"] = list(init)
        return self.api.apply("pods", body)

    def status(self, name, ns="default"):
        return (self.api.get("pods", ns, name) or {}).get("status") or {}

    def container(self, pod, name, ns="default"):
        s = self.status(pod, ns)
        for c in s.get("containerStatuses", []) + s.get("initContainerStatuses", []):
            if c["name"] == name:
                return c
        return {}

    def wait_running(self, name, ns="default", timeout=20):
        def ready():
            return [c for c in self.status(name, ns).get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"]
        try:
            self.api.wait("pod %s ready" % name, ready, timeout)
        except AssertionError as e:
            raise AssertionError("%s; %s; %s" % (e, json.dumps(self.status(name, ns)), [x["message"] for x in self.api.events[-5:]])) from None
        return self.status(name, ns)["podIP"]

    def wait_phase(self, name, phase, ns="default", timeout=20):
        try:
            self.api.wait("pod %s %s" % (name, phase), lambda: self.status(name, ns).get("phase") == phase, timeout)
        except AssertionError as e:
            raise AssertionError("%s; %s" % (e, json.dumps(self.status(name, ns)))) from None

    def wait_waiting(self, pod, container, reason, timeout=20):
        def waiting():
            w = self.container(pod, container).get("state", {}).get("waiting", {})
            return w if w.get("reason") == reason else None
        return self.api.wait("container %s waiting for %s" % (container, reason), waiting, timeout)

    def logs(self, pod, container="c", attempt=0, ns="default"):
        uid = self.api.get("pods", ns, pod)["metadata"]["uid"]
        path = "%s/logs/%s_%s_%s/%s/%d.log" % (self.state_dir, ns, pod, uid, container, attempt)
        out = []
        for line in open(path, errors="replace"):
            _, _, tag, text = line.rstrip("\n").split(" ", 3)
            out.append(text + ("\n" if tag == "F" else ""))
        return "".join(out)

    def wait_log(self, pod, text, container="c", attempt=0, timeout=20):
        until = time.monotonic() + timeout
        while True:
            try:
                all_text = self.logs(pod, container, attempt)
            except FileNotFoundError:
                all_text = ""
            if re.search(text, all_text):
                return all_text
            if time.monotonic() > until:
                raise AssertionError("no %r in the log of %s: %s" % (text, pod, all_text))
            time.sleep(0.01)        # a file has no event to wait for from here

    def run(self, pod, *command, container="c", ns="default", timeout=20, ok=True, stdin=None):
        """A command in a running container, past the node."""
        cid = self.container(pod, container, ns)["containerID"].replace("runc://", "")
        done = subprocess.run(["runc", "--root", self.run_dir + "/runc", "exec", cid] + list(command), capture_output=True, text=True, timeout=timeout,
                              input=stdin)
        if ok:
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def delete(self, name, ns="default", grace=None, timeout=20):
        self.api.delete_pod(ns, name, grace)
        self.api.wait("pod %s gone" % name, lambda: self.api.get("pods", ns, name) is None, timeout)

    # ---- Services ----

    def service(self, name, ip, ports, ns="default", **spec):
        """ports: {name: (port, target)}"""
        self.api.apply("services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": ns},
                                    "spec": dict(spec, clusterIP=ip, ports=[
                                        {"name": n, "port": p, "targetPort": t, "protocol": spec.get("_protocol", "TCP")} for n, (p, t) in ports.items()])})

    def endpoints(self, name, ips, ports, ns="default", hostnames=None, ready=True):
        self.api.apply("endpointslices", {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name + "-1", "namespace": ns, "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports.items()],
            "endpoints": [dict({"addresses": [ip], "conditions": {"ready": ready}}, **({"hostname": hostnames[i]} if hostnames else {}))
                          for i, ip in enumerate(ips)]})


def c(command, name="c", **more):
    """A container that runs a shell command."""
    return dict({"name": name, "image": "busybox", "command": ["/bin/sh", "-c", command]}, **more)


SLEEP = "exec sleep infinity"

# A server that answers each connection with its own name and the peer's address.
SERVER = r"""
import socket, sys, os
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", int(sys.argv[1]))); s.listen(64)
print("listening", flush=True)
while True:
    c, peer = s.accept()
    c.sendall(("%s %s\n" % (os.environ["HOSTNAME"], peer[0])).encode()); c.close()
"""

CLIENT = r"""
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print(s.makefile().readline().strip())
except OSError as e:
    print("error", e.errno, type(e).__name__); sys.exit(1)
"""


def server(port, name="c", **more):
    return dict({"name": name, "image": "server", "command": ["/usr/bin/python3", "-c", SERVER, str(port)],
                 "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}}, **more)


def connect(node, pod, ip, port, ok=True, **more):
    return node.run(pod, "/usr/bin/python3", "-c", CLIENT, ip, str(port), ok=ok, **more).stdout.strip()


def unix_request(path, request):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    s.sendall(request)
    return s
