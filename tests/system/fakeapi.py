"""A Kubernetes API for tests of one room: objects in memory, lists, watches, merge patches, graceful deletion of pods. The embedded API server
has its own tests; this one is here so that a test of the node says something about the node only."""
import http.server
import json
import os
import queue
import socketserver
import threading
import time
import urllib.parse
import uuid


def merge(target, patch):
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


def parse_path(path):
    """-> (group/version, resource, namespace or '', name or '', subresource or '')"""
    parts = [urllib.parse.unquote(p) for p in path.strip("/").split("/")]
    if parts[0] == "api":
        version, rest = parts[1], parts[2:]
    else:
        version, rest = "/".join(parts[1:3]), parts[3:]
    ns = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        ns, rest = rest[1], rest[2:]
    return version, rest[0], ns, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("unix", 0)


class FakeApi:
    def __init__(self, unix=None):
        self.lock = threading.Condition()
        self.objects = {}       # (resource, ns, name) -> object
        self.version = 1
        self.watchers = []      # (resource, queue)
        self.requests = []
        self.events = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do(self):
                api.handle(self)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do

        if unix:
            if os.path.exists(unix):
                os.unlink(unix)
            self.server = UnixServer(unix, Handler)
            self.url = "unix:" + unix
        else:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.server.daemon_threads = True
            self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.server.handle_error = lambda *args: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            for _, q in self.watchers:
                q.put(None)

    # ---- what a test does ----

    def apply(self, resource, obj):
        meta = obj.setdefault("metadata", {})
        with self.lock:
            key = (resource, meta.get("namespace", ""), meta["name"])
            old = self.objects.get(key)
            meta.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            self.put(key, obj, "MODIFIED" if old else "ADDED")
        return obj

    def get(self, resource, ns, name):
        with self.lock:
            obj = self.objects.get((resource, ns, name))
            return json.loads(json.dumps(obj)) if obj else None

    def remove(self, resource, ns, name):
        with self.lock:
            obj = self.objects.pop((resource, ns, name), None)
            if obj:
                self.version += 1
                obj["metadata"]["resourceVersion"] = str(self.version)
                self.tell(resource, "DELETED", obj)

    def delete_pod(self, ns, name, grace=None):
        with self.lock:
            obj = json.loads(json.dumps(self.objects[("pods", ns, name)]))
            if grace is None:
                grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
            obj["metadata"]["deletionTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            obj["metadata"]["deletionGracePeriodSeconds"] = grace
            self.put(("pods", ns, name), obj, "MODIFIED")

    def wait(self, what, condition, timeout=20):
        """Waits until condition() is true; it is asked again after every change."""
        until = time.monotonic() + timeout
        with self.lock:
            while True:
                value = condition()
                if value:
                    return value
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError("not in time: " + what)
                self.lock.wait(min(left, 0.5))

    def said(self, reason, text=""):
        return [e for e in self.events if e["reason"] == reason and text in e["message"]]

    # ---- inside ----

    def put(self, key, obj, kind):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self.tell(key[0], kind, obj)

    def tell(self, resource, kind, obj):
        text = json.dumps({"type": kind, "object": obj})
        for of, q in self.watchers:
            if of == resource:
                q.put(text)
        self.lock.notify_all()

    def handle(self, h):
        url = urllib.parse.urlsplit(h.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(h.headers.get("content-length") or 0)
        body = json.loads(h.rfile.read(length)) if length else None
        _, resource, ns, name, sub = parse_path(url.path)
        with self.lock:
            self.requests.append((h.command, h.path))
        if h.command == "GET" and not name:
            if query.get("watch") in ("1", "true"):
                return self.watch(h, resource)
            return self.list(h, resource, ns)
        with self.lock:
            status, answer = self.change(h.command, resource, ns, name, sub, body)
            self.lock.notify_all()
        self.answer(h, status, answer)

    def list(self, h, resource, ns):
        with self.lock:
            items = [o for (r, n, _), o in self.objects.items() if r == resource and (not ns or n == ns)]
            self.answer(h, 200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}, "items": items})

    def watch(self, h, resource):
        since = int(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(h.path).query)).get("resourceVersion") or 0)
        q = queue.Queue()
        with self.lock:
            for (r, _, _), o in self.objects.items():
                if r == resource and int(o["metadata"]["resourceVersion"]) > since:
                    q.put(json.dumps({"type": "MODIFIED", "object": o}))
            self.watchers.append((resource, q))
        h.send_response(200)
        h.send_header("content-type", "application/json")
        h.send_header("transfer-encoding", "chunked")
        h.end_headers()
        try:
            while True:
                line = q.get()
                if line is None:
                    break
                data = line.encode() + b"\n"
                h.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                h.wfile.flush()
        except OSError:
            pass
        with self.lock:
            self.watchers = [w for w in self.watchers if w[1] is not q]
        h.close_connection = True

    def change(self, method, resource, ns, name, sub, body):
        key = (resource, ns, name)
        if method == "POST" and sub == "token":
            return 201, {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": {
                "token": "token-for-%s/%s" % (ns, name),
                "expirationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))}}
        if method == "POST":
            key = (resource, ns, body["metadata"]["name"])
            if key in self.objects:
                return 409, {"kind": "Status", "reason": "AlreadyExists"}
            body["metadata"]["uid"] = str(uuid.uuid4())
            self.put(key, body, "ADDED")
            if resource == "events":
                self.events.append(body)
            return 201, body
        if key not in self.objects:
            return 404, {"kind": "Status", "reason": "NotFound"}
        old = self.objects[key]
        if method == "PATCH":
            new = merge(old, body)
            self.put(key, new, "MODIFIED")
            return 200, new
        if method == "DELETE":
            if body and body.get("preconditions", {}).get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                return 409, {"kind": "Status", "reason": "Conflict"}
            del self.objects[key]
            self.version += 1
            old["metadata"]["resourceVersion"] = str(self.version)
            self.tell(resource, "DELETED", old)
            return 200, old
        return 200, old

    def answer(self, h, status, obj):
        data = json.dumps(obj).encode()
        h.send_response(status)
        h.send_header("content-type", "application/json")
        h.send_header("content-length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)
