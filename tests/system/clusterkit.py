"""What the tests of a whole cluster share: `postern up` under a name of its own, kubectl, the API without kubectl, and load from inside a pod."""
import base64
import collections
import http.client
import json
import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import yaml

from peers import ROOT, postern_binary

Done = collections.namedtuple("Done", "rc out err")
INSTALL = ["install", "-y", "--set", "profile=minimal", "--set", "components.egressGateways[0].name=istio-egressgateway",
           "--set", "components.egressGateways[0].enabled=true", "--set", "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY",
           "--set", "meshConfig.accessLogFile=/dev/stdout"]


def until(what, check, seconds=5.0, every=0.01):
    """Calls check() until it gives something true, which is returned."""
    end = time.monotonic() + seconds
    while True:
        got = check()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}; last saw {got!r}")
        time.sleep(every)


class Stream:
    """A program that goes on, read line by line."""

    def __init__(self, argv, env=None, stdin=None, preexec_fn=None):
        self.p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=stdin, text=True, env=env, errors="replace",
                                  preexec_fn=preexec_fn)
        self.lines, self.seen = queue.Queue(), []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.p.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_line(self, pattern, seconds=8):
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line like /{pattern}/ in {seconds} s; there were: {self.seen[-20:]}")
            self.seen.append(line)
            if re.search(pattern, line):
                return line

    def stop(self):
        if self.p.poll() is None:
            self.p.kill()
        rc = self.p.wait(5)
        self.reader.join(5)
        return rc

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class Api:
    """The API server as a program sees it, with the administrator's certificate."""

    def __init__(self, kubeconfig, context, folder):
        with open(kubeconfig) as f:
            conf = yaml.safe_load(f)

        def entry(kind):
            return next(x for x in conf[kind + "s"] if x["name"] == context)[kind]
        cluster, user = entry("cluster"), entry("user")
        self.host, port = cluster["server"].split("//")[1].split(":")
        self.port = int(port)
        self.files = {}
        for name, data in (("ca", cluster["certificate-authority-data"]), ("cert", user["client-certificate-data"]), ("key", user["client-key-data"])):
            self.files[name] = os.path.join(folder, f"{context}.{name}")
            with open(self.files[name], "wb") as f:
                f.write(base64.b64decode(data))

    def context(self, cert=True):
        ctx = ssl.create_default_context(cafile=self.files["ca"])
        if cert:
            ctx.load_cert_chain(*((self.files["cert"], self.files["key"]) if cert is True else cert))
        return ctx

    def connect(self, cert=True):
        s = socket.create_connection((self.host, self.port), timeout=10)
        return self.context(cert).wrap_socket(s, server_hostname=self.host)

    def ask(self, method, path, body=None, type="application/json", cert=True):
        k = http.client.HTTPSConnection(self.host, self.port, context=self.context(cert), timeout=10)
        try:
            k.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body, {"content-type": type})
            r = k.getresponse()
            text = r.read()
            return r.status, json.loads(text) if r.getheader("content-type", "").startswith("application/json") else text.decode(errors="replace")
        finally:
            k.close()


class Cluster:
    def __init__(self, name, folder, kubeconfig=None, offline=True):
        self.name, self.folder, self.offline = name, str(folder), offline
        self.kubeconfig = kubeconfig or os.path.join(self.folder, "kubeconfig")
        self.context = "postern-" + name
        self.env = dict(os.environ, KUBECONFIG=self.kubeconfig)
        self.run_dir, self.state_dir = "/run/postern/" + name, "/var/lib/postern/" + name

    def postern(self, *argv, timeout=60, env=None, ok=None):
        p = subprocess.run([postern_binary(), *argv], capture_output=True, text=True, timeout=timeout, env=env or self.env)
        note(["postern", *argv], p)
        if ok is not None:
            assert (p.returncode == 0) == ok, f"postern {' '.join(argv)}: {p.returncode}\n{p.stdout}{p.stderr}"
        return Done(p.returncode, p.stdout, p.stderr)

    def up(self):
        self.postern("up", "--name", self.name, *(["--offline"] if self.offline else []), ok=True)
        self.api = Api(self.kubeconfig, self.context, self.folder)

    def down(self):
        self.postern("down", "--name", self.name, ok=True)

    def kubectl(self, *argv, input=None, ok=True, timeout=30, binary="kubectl"):
        argv = [binary, "--context", self.context, *argv]
        p = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout, env=self.env, errors="replace")
        note(argv[:1] + argv[3:], p)
        if ok is not None:
            assert (p.returncode == 0) == ok, f"{' '.join(argv)}: exit status {p.returncode}\n{p.stdout}{p.stderr}"
        return Done(p.returncode, p.stdout, p.stderr)

    def apply(self, text, **kw):
        return self.kubectl("apply", "-f", "-", input=text if isinstance(text, str) else json.dumps(text), **kw)

    def example(self, file):
        return self.kubectl("apply", "-f", os.path.join(ROOT, "examples", file))

    def pod(self, name, ns):
        return self.api.ask("GET", f"/api/v1/namespaces/{ns}/pods/{name}")[1]

    def pid(self, role):
        with open(f"{self.run_dir}/{role}") as f:
            return int(f.read())

    def processes(self, *words, uid=None):
        """Pids of this cluster's processes whose arguments contain all words; `uid`: only those in that pod."""
        found = []
        for p in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{p}/cmdline") as f:
                    args = f.read().split("\0")[:-1]
                with open(f"/proc/{p}/mountinfo") as f:
                    mounts = f.read()
            except OSError:
                continue
            of_pod = f"/{self.name}/" in mounts
            ours = self.name in args or any(self.run_dir + "/" in a or self.state_dir + "/" in a for a in args) or of_pod
            if ours and all(w in args for w in words) and (not uid or (of_pod and uid in mounts)):
                found.append(int(p))
        return found

    def container_pid(self, pod, ns, *words):
        pids = until(f"a process {words} of {ns}/{pod}", lambda: self.processes(*words, uid=self.pod(pod, ns)["metadata"]["uid"]))
        return pids[0]

    def left(self):
        """What `down` must have removed."""
        left = [p for p in (self.run_dir, self.state_dir) if os.path.exists(p)]
        left += ["netns " + n for n in os.listdir("/run/netns") if re.fullmatch(f"postern-{self.name}(-.*)?", n)] if os.path.isdir("/run/netns") else []
        with open("/proc/self/mountinfo") as f:
            left += [line for line in f if f"postern/{self.name}/" in line or f"postern-{self.name} " in line]
        left += [f"process {p}" for p in self.processes()]
        return left


def note(argv, p):
    """POSTERN_TRANSCRIPT names a file that keeps what was typed and answered, for a person who reads the messages."""
    if os.environ.get("POSTERN_TRANSCRIPT"):
        with open(os.environ["POSTERN_TRANSCRIPT"], "a") as f:
            f.write(f"$ {' '.join(argv)}\n{p.stdout[-3000:]}{p.stderr[-2000:]}[{p.returncode}]\n")


LOAD = r'''
import http.client, socket, sys, time
host, path, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
at = None
while True:
    t = time.time()
    try:
        if at is None:
            at = socket.gethostbyname(host)
        c = http.client.HTTPConnection(at, 80, timeout=5)
        c.request("GET", path, headers={"Host": host})
        r = c.getresponse()
        r.read()
        what = str(r.status)
        c.close()
    except Exception as e:
        what = type(e).__name__
    print("%.4f %.4f %s" % (t, time.time(), what), flush=True)
    time.sleep(pause)
'''


class Load:
    """Requests, one after another, from inside of a pod, by a program of its own: it needs neither kubectl nor the node to go on."""
    Request = collections.namedtuple("Request", "start end what")

    def __init__(self, cluster, pod, ns, host, path="/headers", pause=0.005):
        pid = cluster.container_pid(pod, ns, "sleep")
        self.requests = []
        self.p = subprocess.Popen(["nsenter", "-t", str(pid), "-m", "-n", "-r", "-w", "/usr/bin/python3", "-c", LOAD, host, path, str(pause)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.p.stdout:
            start, end, what = line.split()
            self.requests.append(self.Request(float(start), float(end), what))

    def wait(self, what, since=0.0, seconds=5.0):
        """The first request begun after `since` that ended so."""
        return until(f"a request that ends with {what}", lambda: next((r for r in self.requests if r.start >= since and r.what == what), None), seconds, 0.003)

    def bad(self, since=0.0):
        return [r for r in self.requests if r.start >= since and r.what != "200"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.p.kill()
        self.p.wait()
        self.reader.join(5)


def kill9(pid):
    os.kill(pid, signal.SIGKILL)
    return time.time()
