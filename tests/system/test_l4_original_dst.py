"""Transparent redirection as a mesh does it: a network namespace, nft redirect to one port, and the listener that hands connections over to those
that are not bound (use_original_dst). Needs root."""
import os
import subprocess

import pytest

import peers
from peers import LogFile, bootstrap, chain, cluster, file_log, free_port, tcp_proxy, tls_inspector

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

REDIRECT = """
table ip t {
  chain out { type nat hook output priority -100;
    meta skgid 1337 return
    ip daddr 127.0.0.0/8 return
    tcp dport 1-65535 redirect to :15001
  }
}
"""

SERVER = """
import socket, sys, threading
def serve(ip, port, name):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((ip, port)); s.listen(16)
    def run():
        while True:
            c, _ = s.accept(); c.settimeout(3); c.sendall(name.encode()); c.shutdown(socket.SHUT_WR)
            try:        # what came in must be read, or closing would reset the connection and take the answer with it
                while c.recv(4096): pass
            except OSError: pass
            c.close()
    threading.Thread(target=run, daemon=True).start()
for spec in sys.argv[1:]:
    ip, port, name = spec.split("/"); serve(ip, int(port), name)
print("up", flush=True)
threading.Event().wait()
"""

CLIENT = """
import socket, sys
for spec in sys.argv[1:]:
    ip, port, data = (spec.split("/") + [""])[:3]
    try:
        s = socket.create_connection((ip, int(port)), 3); s.settimeout(3)
        if data: s.sendall(bytes.fromhex(data))
        print(s.recv(100).decode() or "closed"); s.close()
    except OSError as e:
        print(type(e).__name__)
"""


def ns(name, *command, **kw):
    return subprocess.run(["ip", "netns", "exec", name, *command], check=True, capture_output=True, text=True, **kw).stdout


@pytest.fixture
def netns():
    name = f"pst-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ns(name, "ip", "link", "set", "lo", "up")
        for ip in ("198.18.0.1", "198.18.0.2", "198.18.0.3"):
            ns(name, "ip", "addr", "add", f"{ip}/32", "dev", "lo")
        ns(name, "nft", "-f", "-", input=REDIRECT)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def servers(netns):
    p = subprocess.Popen(["ip", "netns", "exec", netns, "/usr/bin/python3", "-c", SERVER, "198.18.0.1/80/one", "198.18.0.2/80/two", "198.18.0.3/90/three"],
                         stdout=subprocess.PIPE, text=True)
    p.stdout.readline()
    yield
    p.terminate()
    p.wait()


def clusters():
    return [{"name": "passthrough", "type": "ORIGINAL_DST", "connect_timeout": "1s", "lb_policy": "CLUSTER_PROVIDED"},
            {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "1s"}]


def virtual_outbound(log, fields, cluster_name="passthrough"):
    hole = chain(tcp_proxy("BlackHoleCluster", stat_prefix="BlackHoleCluster"), match={"destination_port": 15001}, name="virtualOutbound-blackhole")
    catchall = chain(tcp_proxy(cluster_name, stat_prefix=cluster_name, access_log=[file_log(log, fields)]), name="virtualOutbound-catchall-tcp")
    return peers.listener("virtualOutbound", 15001, hole, catchall, host="0.0.0.0", use_original_dst=True, traffic_direction="OUTBOUND")


def unbound(host, port, *chains, **more):
    return peers.listener(f"{host}_{port}", port, *chains, host=host, bind_to_port=False, **more)


def run(kind, proxies, netns, tmp_path, listeners, requests):
    config = bootstrap(15000, listeners, clusters())
    # As the mesh's proxy user, whose group the redirection leaves alone.
    p = proxies(kind, config, netns=netns, group=1337)
    out = ns(netns, "/usr/bin/python3", "-c", CLIENT, *requests).split()
    return p, out


FIELDS = "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_ADDRESS% %BYTES_SENT%"


def test_passthrough(kind, proxies, netns, servers, tmp_path):
    """Nothing is bound for these destinations: the catch-all chain sends each where it wanted to go."""
    log = LogFile(tmp_path / "log")
    p, out = run(kind, proxies, netns, tmp_path, [virtual_outbound(log.path, FIELDS)], ["198.18.0.1/80", "198.18.0.2/80", "198.18.0.3/90"])
    assert out == ["one", "two", "three"]
    assert sorted(log.wait(3)) == ["- 198.18.0.1:80 passthrough 198.18.0.1:80 3", "- 198.18.0.2:80 passthrough 198.18.0.2:80 3",
                                   "- 198.18.0.3:90 passthrough 198.18.0.3:90 5"]


def test_blackhole(kind, proxies, netns, servers, tmp_path):
    log = LogFile(tmp_path / "log")
    p, out = run(kind, proxies, netns, tmp_path, [virtual_outbound(log.path, FIELDS, "BlackHoleCluster")], ["198.18.0.1/80"])
    assert out == ["closed"]
    assert log.wait() == ["UH - BlackHoleCluster 198.18.0.1:80 0"]


def test_hand_over(kind, proxies, netns, servers, tmp_path):
    """An exact address first, then the wildcard of the port, then the catch-all. The receiving listener runs its own filters."""
    log = LogFile(tmp_path / "log")
    fixed = {"name": "to-three", "type": "STATIC", "connect_timeout": "1s", "load_assignment": peers.endpoints("to-three", 90, host="198.18.0.3")}
    ls = [virtual_outbound(log.path, FIELDS),
          unbound("198.18.0.1", 80, chain(tcp_proxy("to-three"))),
          unbound("0.0.0.0", 80, chain(tcp_proxy("passthrough"))),
          unbound("0.0.0.0", 443, chain(tcp_proxy("to-three"), match={"server_names": ["three.org"]}), listener_filters=[tls_inspector()])]
    config = bootstrap(15000, ls, clusters() + [fixed])
    proxies(kind, config, netns=netns, group=1337)
    out = ns(netns, "/usr/bin/python3", "-c", CLIENT, "198.18.0.1/80", "198.18.0.2/80", "198.18.0.3/90",
             "198.18.0.2/443/" + peers.client_hello("three.org").hex(), "198.18.0.2/443/" + peers.client_hello("other.org").hex()).split()
    assert out == ["three", "two", "three", "three", "closed"] or out == ["three", "two", "three", "three", "ConnectionResetError"]


def test_direct_to_the_port(kind, proxies, netns, servers, tmp_path):
    """Somebody who connects to 15001 itself gets the black hole, not a loop."""
    log = LogFile(tmp_path / "log")
    p, out = run(kind, proxies, netns, tmp_path, [virtual_outbound(log.path, FIELDS)], ["127.0.0.1/15001"])
    assert out == ["closed"]
