"""The egress gateway tutorial, typed: each command is shown, run, and its output checked against what the tutorial promises.

Started by `./dev demo`. Exits non-zero naming the step that differed."""
import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BOLD, DIM, GREEN, RED, OFF = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 5

INSTALL = """istioctl install --set profile=minimal \\
 --set "components.egressGateways[0].name=istio-egressgateway" \\
 --set "components.egressGateways[0].enabled=true" \\
 --set meshConfig.outboundTrafficPolicy.mode={mode} \\
 --set meshConfig.accessLogFile=/dev/stdout -y"""

IP = r"\d+\.\d+\.\d+\.\d+"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\]"
GATEWAY_HTTP_LINE = (
    TIME + r' "GET /headers HTTP/2" 200 - via_upstream - "-" 0 \d+ \d+ \d+ "10\.\S+" "curl/[^"]+" "' + UUID + r'" "httpbin\.org" '
    r'"' + IP + r':80" outbound\|80\|\|httpbin\.org (10\.\S+):\d+ (10\.\S+):8080 10\.\S+:\d+ - -')
GATEWAY_TLS_LINE = (
    TIME + r' "- - -" 0 - - - "-" \d+ \d+ \d+ - "-" "-" "-" "-" "' + IP + r':443" outbound\|443\|\|httpbin\.org 10\.\S+:\d+ 10\.\S+:8443 10\.\S+:\d+ '
    r'httpbin\.org -')
SIDECAR_KEYS = {"APP_CONTAINERS", "CLUSTER_ID", "INSTANCE_IPS", "ISTIO_VERSION", "LABELS", "MESH_ID", "NAME", "NAMESPACE", "OWNER", "WORKLOAD_NAME"}
GATEWAY_KEYS = SIDECAR_KEYS - {"APP_CONTAINERS"}


class Differs(Exception):
    pass


def say(text):
    print(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="  "), flush=True)


def title(text):
    print(f"\n{BOLD}== {text}{OFF}", flush=True)


def sh(command, check=None, notice=None, ok=(0,), timeout=60, shown=None):
    """Types one command, shows what it prints, and hands that to `check`."""
    print(f"\n{BOLD}$ {shown or command}{OFF}", flush=True)
    p = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, errors="replace")
    out = p.stdout.rstrip("\n")
    if out:
        print(out, flush=True)
    if ok is not None and p.returncode not in ok:
        raise Differs(f"exit status {p.returncode}, expected {' or '.join(map(str, ok))}")
    if check:
        check(out)
    if notice:
        print(f"{GREEN}  ✓ {notice}{OFF}", flush=True)
    return out


def has(*patterns):
    def check(out):
        for p in patterns:
            if not re.search(p, out):
                raise Differs(f"the output does not contain /{p}/")
    return check


def hasnt(*patterns):
    def check(out):
        for p in patterns:
            if re.search(p, out):
                raise Differs(f"the output must not contain /{p}/")
    return check


def apply(path, notice):
    with open(os.path.join(ROOT, path)) as f:
        text = f.read()
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    command = f"kubectl apply -f - <<EOF\n{body}\nEOF"

    def check(out):
        if not re.search(r"created|configured|unchanged", out):
            raise Differs("nothing was applied")
        hasnt("Warning:")(out)
    sh(command, check, notice)


def poll(command, pattern, seconds=2.0):
    """The last line of a command's output that matches, waiting for logs to arrive."""
    until = time.monotonic() + seconds
    while True:
        out = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace").stdout
        lines = [line for line in out.splitlines() if re.search(pattern, line)]
        if lines:
            return lines[-1]
        if time.monotonic() > until:
            raise Differs(f"no line like /{pattern}/ in the output of {command}; it printed:\n{out[-2000:]}")
        time.sleep(0.05)


def struct_keys(encoded):
    """Top-level keys of a google.protobuf.Struct in base64."""
    raw, keys, i = base64.b64decode(encoded), set(), 0
    while i < len(raw):
        assert raw[i] == 0x0A, "not a Struct"
        n, shift, i = 0, 0, i + 1
        while True:
            b = raw[i]
            n |= (b & 0x7F) << shift
            shift, i = shift + 7, i + 1
            if not b & 0x80:
                break
        entry = raw[i:i + n]
        assert entry[0] == 0x0A
        keys.add(entry[2:2 + entry[1]].decode())
        i += n
    return keys


def headers_of(out):
    return {k.lower(): v for k, v in json.loads(out[out.index("{"):])["headers"].items()}


def expect_headers(want, keys):
    def check(out):
        got = headers_of(out)
        for name, pattern in want.items():
            if not re.fullmatch(pattern, got.get(name.lower(), "")):
                raise Differs(f"httpbin saw {name}: {got.get(name.lower())!r}, expected /{pattern}/")
        have = struct_keys(got["x-envoy-peer-metadata"])
        if have != keys:
            raise Differs(f"X-Envoy-Peer-Metadata has the keys {sorted(have)}, expected {sorted(keys)}")
    return check


CURL = "kubectl exec curl -n curl -c curl -- curl -sS "
GATEWAY_LOGS = "kubectl logs -l istio=egressgateway -c istio-proxy -n istio-system"


def environment():
    title("Environment setup")
    sh("kind create cluster", has("Set kubectl context to"), "a cluster without a container engine: an API server and a node, in a network namespace of their own")
    sh("kubectl version --client=false 2>/dev/null || kubectl version", has("Server Version"), "an unmodified kubectl talks to it")
    sh(INSTALL.format(mode="REGISTRY_ONLY"), has("Installation complete"), "the control plane and an egress gateway")
    sh("kubectl get pods -A", has(r"istio-egressgateway-\S+\s+1/1\s+Running", r"istiod-\S+\s+1/1\s+Running"), "both are running pods")
    sh("kubectl get svc istio-egressgateway -n istio-system", has(r"80(:\d+)?/TCP,443(:\d+)?/TCP"))
    sh("kubectl apply -f examples/example-apps.yaml", has("pod/curl created"))
    sh("kubectl wait --for=condition=Ready pod/curl -n curl --timeout=30s", has("condition met"))
    sh("kubectl get pods -n curl", has(r"curl\s+2/2\s+Running"), "2/2: the application and the sidecar that injection added")


def before():
    title("Before any ServiceEntry")
    sh(CURL + "-w '\\n%{http_code}\\n' http://httpbin.org/headers", has(r"\n502$", r"no ServiceEntry or Service admits httpbin\.org:80", "REGISTRY_ONLY"),
       "502, and the body says why")
    line = poll("kubectl logs curl -n curl -c istio-proxy", r"httpbin\.org.*REGISTRY_ONLY|REGISTRY_ONLY.*httpbin\.org")
    print(f"\n{BOLD}$ kubectl logs curl -n curl -c istio-proxy | tail -1{OFF}\n{line}")
    has("502", "no ServiceEntry or Service admits")(line)
    sh(CURL + "https://httpbin.org", None, "HTTPS: the connection is closed", ok=(35, 52, 56))
    line = poll("kubectl logs curl -n curl -c istio-proxy", "BlackHoleCluster")
    print(f"\n{BOLD}$ kubectl logs curl -n curl -c istio-proxy | tail -1{OFF}\n{line}")
    has("BlackHoleCluster", "no ServiceEntry or Service admits", "REGISTRY_ONLY")(line)


def service_entry():
    title("ServiceEntry, no egress gateway")
    apply("examples/1-service-entry.yaml", "httpbin.org is admitted")
    time.sleep(0.2)
    sh(CURL + "http://httpbin.org/headers",
       expect_headers({"X-Envoy-Attempt-Count": "1", "X-Envoy-Decorator-Operation": r"httpbin\.org:80/\*",
                       "X-Envoy-Peer-Metadata-Id": r"sidecar~10\.\S+~curl\.curl~curl\.svc\.cluster\.local"}, SIDECAR_KEYS),
       "X-Envoy-Peer-Metadata-Id is the sidecar's id")


def http():
    title("HTTP through the egress gateway")
    apply("examples/2-http-through-gateway.yaml", "a Gateway, and a VirtualService with a route for each hop")
    time.sleep(0.2)
    sh(CURL + "http://httpbin.org/headers",
       expect_headers({"X-Envoy-Attempt-Count": "1", "X-Envoy-Decorator-Operation": r"httpbin\.org:80/\*", "X-Envoy-Internal": "true",
                       "X-Envoy-Peer-Metadata-Id": r"router~10\.\S+~istio-egressgateway-\S+\.istio-system~istio-system\.svc\.cluster\.local"}, GATEWAY_KEYS),
       "X-Envoy-Peer-Metadata-Id is the egress gateway's id now")
    poll(GATEWAY_LOGS, GATEWAY_HTTP_LINE)
    sh(GATEWAY_LOGS + " | tail -1", lambda out: re.fullmatch(GATEWAY_HTTP_LINE, out) or has(GATEWAY_HTTP_LINE)(out),
       "the request went through the gateway; the hop before it was HTTP/2, which follows from the Service's port name")


def passthrough():
    title("HTTPS throughout, by PASSTHROUGH")
    apply("examples/3-passthrough.yaml", "port 443, chosen by SNI")
    time.sleep(0.2)
    sh(CURL.replace("-sS ", "-sSL ") + "-o /dev/null -D - https://httpbin.org/headers", has(r"^HTTP/2 200", r"server: gunicorn/"),
       "TLS from end to end: the certificate that curl checked is httpbin.org's own")
    poll(GATEWAY_LOGS, GATEWAY_TLS_LINE)
    sh(GATEWAY_LOGS + " | tail -1", has(GATEWAY_TLS_LINE), "outbound|443: the TLS port, and the server name at the end of the line")


def allow_any():
    title("meshConfig.outboundTrafficPolicy.mode=ALLOW_ANY")
    sh(CURL + "-o /dev/null -w '%{http_code}\\n' http://example.com/headers", has("^502$"), "example.com is not registered")
    sh(INSTALL.format(mode="ALLOW_ANY"), has("Installation complete"))
    until = time.monotonic() + 2
    while True:
        try:
            sh(CURL + "-o /dev/null -w '%{http_code}\\n' http://example.com/headers", has("^200$"), "it passes now, without a ServiceEntry")
            break
        except Differs:
            if time.monotonic() > until:
                raise
    line = poll("kubectl logs curl -n curl -c istio-proxy", "PassthroughCluster")
    print(f"\n{BOLD}$ kubectl logs curl -n curl -c istio-proxy | tail -1{OFF}\n{line}")


STEPS = [environment, before, service_entry, http, passthrough, allow_any]


def main():
    ap = argparse.ArgumentParser(prog="./dev demo", description="types Istio's egress gateway tutorial into a fresh cluster and checks every output")
    ap.add_argument("--keep", action="store_true", help="leave the cluster up and say what to type next")
    ap.add_argument("--postern", default=os.path.join(ROOT, "build/src/cmd/postern"), help=argparse.SUPPRESS)
    args = ap.parse_args()
    os.chdir(ROOT)
    tmp = tempfile.mkdtemp(prefix="postern-demo-")
    for name in ("postern", "kind", "istioctl"):
        os.symlink(os.path.abspath(args.postern), os.path.join(tmp, name))
    os.environ["PATH"] = tmp + os.pathsep + os.environ["PATH"]
    if not args.keep:
        os.environ["KUBECONFIG"] = os.path.join(tmp, "kubeconfig")      # the user's own stays as it is
    failed = None
    started = time.monotonic()
    if subprocess.run(["postern", "status", "--name", "kind"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        print('./dev demo: a cluster named "kind" is up already; "postern down --name kind" removes it', file=sys.stderr)
        shutil.rmtree(tmp)
        return 1
    subprocess.run(["postern", "down", "--name", "kind"], stdout=subprocess.DEVNULL)     # what a crash may have left
    try:
        for step in STEPS:
            failed = step.__name__
            step()
        failed = None
    except (Differs, subprocess.TimeoutExpired) as e:
        print(f"\n{RED}✗ step \"{failed}\" differed: {e}{OFF}", flush=True)
        if os.environ.get("POSTERN_DEMO_DEBUG"):
            subprocess.run("kubectl get pods -A -o wide; kubectl describe pods -A | tail -80; for f in /var/lib/postern/kind/log/*.log; do tail -n 20 $f; done", shell=True)
    finally:
        if args.keep and not failed:
            print(f"\nThe cluster is up. To go on by hand:\n\n  {os.path.relpath(args.postern)} shell\n  kubectl get pods -A\n"
                  f"  {CURL}http://httpbin.org/headers\n  kind delete cluster")
        else:
            title("Taking the cluster down")
            sh("kind delete cluster", None, ok=None)
        shutil.rmtree(tmp)
    if failed:
        return 1
    print(f"\n{GREEN}The tutorial ran as written, in {time.monotonic() - started:.0f} s.{OFF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
