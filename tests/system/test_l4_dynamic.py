"""Configuration that changes: files as the source (path_config_source), the same for Envoy and Postern. Connections live through updates that do
not concern them; a bad update changes nothing and is counted."""
import json
import os
import socket

import pytest

import peers
from peers import Server, any_, chain, cluster, connect, endpoints, exchange, free_port, listener, named_server, read_all, read_exactly, tcp_proxy, wait_for

CLUSTER, LISTENER, CLA = ("envoy.config.cluster.v3.Cluster", "envoy.config.listener.v3.Listener", "envoy.config.endpoint.v3.ClusterLoadAssignment")


class Files:
    """cds.json, lds.json, eds.json in a folder; moved into place, as a control plane's agent does."""

    def __init__(self, folder):
        self.folder, self.version = str(folder), 0
        os.makedirs(self.folder, exist_ok=True)

    def path(self, kind):
        return os.path.join(self.folder, kind + ".json")

    def write(self, kind, type_name, resources, raw=None):
        self.version += 1
        text = raw if raw is not None else json.dumps({"version_info": str(self.version), "resources": [any_(type_name, **r) for r in resources]})
        with open(self.path(kind) + ".new", "w") as f:
            f.write(text)
        os.rename(self.path(kind) + ".new", self.path(kind))

    def clusters(self, *c):
        self.write("cds", CLUSTER, c)

    def listeners(self, *ls):
        self.write("lds", LISTENER, ls)

    def endpoints(self, *e):
        self.write("eds", CLA, e)

    def source(self, kind):
        return {"path_config_source": {"path": self.path(kind)}, "resource_api_version": "V3"}

    def bootstrap(self, admin):
        return {"node": {"id": "n", "cluster": "c"}, "admin": {"address": peers.address(admin)},
                "dynamic_resources": {"cds_config": self.source("cds"), "lds_config": self.source("lds")}}


@pytest.fixture
def dynamic(tmp_path, proxies):
    def start(kind, clusters, listeners, eds=()):
        f = Files(tmp_path / kind)
        if eds:
            f.endpoints(*eds)
        f.clusters(*clusters)
        f.listeners(*listeners)
        return f, proxies(kind, f.bootstrap(free_port()))
    return start


def test_listener_comes_and_goes(kind, dynamic):
    with named_server("A") as a:
        one, two = free_port(), free_port()
        f, p = dynamic(kind, [cluster("a", a.port)], [listener("one", one, chain(tcp_proxy("a")))])
        assert exchange(one)[0] == b"A"
        f.listeners(listener("one", one, chain(tcp_proxy("a"))), listener("two", two, chain(tcp_proxy("a"))))
        wait_for("listener two", lambda: exchange(two)[0] == b"A")
        f.listeners(listener("two", two, chain(tcp_proxy("a"))))
        wait_for("listener one to go", lambda: exchange(one)[1] in ("refused", "reset"))
        assert exchange(two)[0] == b"A"


def test_update_in_place_keeps_connections(kind, dynamic):
    """Another filter chain is added: connections of the unchanged chain go on, and nothing is refused meanwhile."""
    with Server() as up, named_server("B") as b:
        port = free_port()
        old = chain(tcp_proxy("up"), match={"source_prefix_ranges": [{"address_prefix": "127.0.0.1", "prefix_len": 32}]})
        new = chain(tcp_proxy("b"), match={"source_prefix_ranges": [{"address_prefix": "127.0.0.2", "prefix_len": 32}]})
        f, p = dynamic(kind, [cluster("up", up.port), cluster("b", b.port)], [listener("l", port, old)])
        with connect(port) as s:
            s.sendall(b"1")
            assert read_exactly(s, 1) == b"1"
            f.listeners(listener("l", port, old, new))
            wait_for("the new chain", lambda: exchange(port, source=("127.0.0.2", 0))[0] == b"B")
            s.sendall(b"2")
            assert read_exactly(s, 1) == b"2"
        assert p.stat("listener_manager.listener_in_place_updated") == 1


def test_replaced_listener_drains(kind, dynamic):
    """The chain changes: new connections take the new one at once; the old connection ends when the drain time (1 s) is over."""
    with Server() as up, named_server("B") as b:
        port = free_port()
        f, p = dynamic(kind, [cluster("up", up.port), cluster("b", b.port)], [listener("l", port, chain(tcp_proxy("up")))])
        with connect(port) as s:
            s.sendall(b"1")
            assert read_exactly(s, 1) == b"1"
            f.listeners(listener("l", port, chain(tcp_proxy("b"))))
            wait_for("the new listener", lambda: exchange(port)[0] == b"B")
            s.settimeout(5)
            assert read_all(s) == (b"", "eof")


def test_cluster_update_and_removal(kind, dynamic):
    with named_server("A") as a, named_server("B") as b:
        port = free_port()
        ls = [listener("l", port, chain(tcp_proxy("c")))]
        f, p = dynamic(kind, [cluster("c", a.port)], ls)
        assert exchange(port)[0] == b"A"
        f.clusters(cluster("c", b.port))
        wait_for("the new cluster", lambda: exchange(port)[0] == b"B")
        f.clusters()
        wait_for("the cluster to go", lambda: exchange(port)[0] == b"")
        f.clusters(cluster("c", a.port))
        wait_for("the cluster to come back", lambda: exchange(port)[0] == b"A")


def test_endpoints(kind, dynamic):
    """EDS: hosts change under a cluster that stays; a connection to a host that leaves goes on."""
    with Server() as up, named_server("B") as b:
        port = free_port()
        eds = lambda f: {"name": "c", "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": f.source("eds"), "service_name": "svc"}}
        import pathlib
        folder = pathlib.Path(os.environ.get("TMPDIR", "/tmp"))
        f, p = dynamic(kind, [], [listener("l", port, chain(tcp_proxy("c")))], eds=[endpoints("svc", up.port)])
        f.clusters(eds(f))
        wait_for("the cluster", lambda: exchange(port, b"x")[0] == b"x")
        with connect(port) as s:
            s.sendall(b"1")
            assert read_exactly(s, 1) == b"1"
            f.endpoints(endpoints("svc", b.port))
            wait_for("the new endpoint", lambda: exchange(port)[0] == b"B")
            s.sendall(b"2")
            assert read_exactly(s, 1) == b"2"
        assert p.stat("cluster.c.membership_total") == 1


BAD = [
    ("broken JSON", None, "{"),
    ("unknown field", {"name": "l", "adress": {}}, None),
    ("bad chain", "chain", None),
    ("unsupported filter", "filter", None),
]


@pytest.mark.parametrize("what", [b[0] for b in BAD])
def test_bad_update_changes_nothing(kind, dynamic, what):
    with named_server("A") as a:
        port = free_port()
        f, p = dynamic(kind, [cluster("a", a.port)], [listener("l", port, chain(tcp_proxy("a")))])
        assert exchange(port)[0] == b"A"
        if what == "broken JSON":
            f.write("lds", LISTENER, [], raw="{")
        elif what == "unknown field":
            f.write("lds", LISTENER, [{"name": "l", "adress": {}}])
        elif what == "bad chain":
            f.listeners(listener("l", port, chain(tcp_proxy("a"), match={"server_names": ["*a.org"]})))
        else:
            f.listeners(listener("l", port, chain({"name": "x", "typed_config": any_("google.protobuf.Duration", value="1s")})))
        if kind == "postern":
            wait_for("the refusal in the log", lambda: "lds" in p.log().lower() and ("rror" in p.log() or "reject" in p.log()))
        assert exchange(port)[0] == b"A"
        f.listeners(listener("l", port, chain(tcp_proxy("a"))), listener("m", free_port(), chain(tcp_proxy("a"))))
        wait_for("a good update", lambda: "m" in p.admin("/listeners"))
        assert exchange(port)[0] == b"A"


def test_many_updates(dynamic):
    """A hundred listener updates under a stream of connections: not one is refused or lost."""
    with named_server("A") as a:
        port = free_port()
        f, p = dynamic("postern", [cluster("a", a.port)], [listener("l", port, chain(tcp_proxy("a")))])
        for i in range(100):
            f.listeners(listener("l", port, chain(tcp_proxy("a", stat_prefix=f"p{i}"))))
            assert exchange(port) == (b"A", "eof")
        wait_for("the last update", lambda: "p99" in p.admin("/config_dump"))
