"""tcp_proxy: the same configuration through Envoy and Postern."""
import re
import socket
import threading

import pytest

import peers
from peers import (LogFile, Server, bootstrap, chain, client_hello, cluster, connect, exchange, file_log, free_port, http_inspector, listener,
                   named_server, read_all, read_exactly, split_records, tcp_proxy, tls_inspector, unused_port)

FIELDS = ("%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
          "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% "
          "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQUESTED_SERVER_NAME% %ROUTE_NAME% \"%REQ(:METHOD)%\" "
          "%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %REQ(X?Y):3%")
ISTIO = ("[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
         "%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
         "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" "
         "\"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
         "%REQUESTED_SERVER_NAME% %ROUTE_NAME%")


def normal(line):
    """Ports of the moment and times become words."""
    line = re.sub(r"127\.0\.0\.1:\d+", "IP:PORT", line)
    return re.sub(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\]", "[TIME]", line)


def one(tmp_path, filt, clusters, listen_port, admin_port, **more):
    return bootstrap(admin_port, [listener("l", listen_port, chain(filt), **more)], clusters)


class Setup:
    """Ports for one proxy, and its log."""

    def __init__(self, tmp_path, kind):
        self.admin, self.port = free_port(), free_port()
        self.log = LogFile(tmp_path / f"{kind}.log")


@pytest.fixture
def setups(tmp_path):
    return {k: Setup(tmp_path, k) for k in ("envoy", "postern")}


def simple(setups, clusters, cluster_name="c", fields=FIELDS, **more):
    def make(kind):
        s = setups[kind]
        return bootstrap(s.admin, [listener("l", s.port, chain(tcp_proxy(cluster_name, access_log=[file_log(s.log.path, fields)], **more)))], clusters)
    return make


def test_echo_and_log(compare, setups):
    with Server() as up:
        def scenario(p):
            s = setups[p.kind]
            seen = exchange(s.port, b"hello" * 1000)
            return seen, [normal(x) for x in s.log.wait()]
        seen, log = compare(simple(setups, [cluster("c", up.port)]), scenario)
        assert seen == (b"hello" * 1000, "eof")
        assert log[0].startswith('- 0 - - - "-" 5000 5000 "IP:PORT" c c')


def test_istio_default_format(compare, setups):
    with Server() as up:
        def scenario(p):
            s = setups[p.kind]
            exchange(s.port, b"x")
            return [re.sub(r'"-" 1 1 \d+ -', '"-" 1 1 N -', normal(x)) for x in s.log.wait()]
        log = compare(simple(setups, [cluster("outbound|443||httpbin.org", up.port)], "outbound|443||httpbin.org", ISTIO), scenario)
        assert log == ['[TIME] "- - -" 0 - - - "-" 1 1 N - "-" "-" "-" "-" "IP:PORT" outbound|443||httpbin.org IP:PORT IP:PORT IP:PORT - -']


def test_half_close_down(compare, setups):
    """The upstream sees the client's end, and may still answer afterwards."""
    def late(s, c):
        data, c.how = read_all(s)
        c.received = data
        s.sendall(b"got %d" % len(data))
    with Server(late) as up:
        def scenario(p):
            return exchange(setups[p.kind].port, b"a" * 70000)
        assert compare(simple(setups, [cluster("c", up.port)]), scenario) == (b"got 70000", "eof")


def test_half_close_up(compare, setups):
    """The upstream ends first; the client may go on sending."""
    done = {}

    def early(s, c):
        s.sendall(b"bye")
        s.shutdown(socket.SHUT_WR)
        c.received, c.how = read_all(s)

    with Server(early) as up:
        def scenario(p):
            before = len(up.connections)
            with connect(setups[p.kind].port) as s:
                first, how = read_all(s)
                s.sendall(b"still here")
                s.shutdown(socket.SHUT_WR)
                c = up.wait_connections(before + 1)[before]
                assert c.ended.wait(5)
                return first, how, c.received, c.how
        assert compare(simple(setups, [cluster("c", up.port)]), scenario) == (b"bye", "eof", b"still here", "eof")


def test_upstream_refuses(compare, setups):
    dead = unused_port()

    def scenario(p):
        s = setups[p.kind]
        seen = exchange(s.port, b"x")
        log = [normal(x) for x in s.log.wait()]
        stats = p.stats("cluster.c.upstream_cx_")
        return seen[0], log, {k: stats[k] for k in ("cluster.c.upstream_cx_connect_fail", "cluster.c.upstream_cx_total",
                                                    "cluster.c.upstream_cx_active", "cluster.c.upstream_cx_connect_attempts_exceeded")}
    log = compare(simple(setups, [cluster("c", dead)]), scenario)[1]
    assert " UF,URX " in log[0] and "Connection_refused" in log[0]


def test_connect_attempts(compare, setups):
    dead = unused_port()

    def scenario(p):
        exchange(setups[p.kind].port, b"x")
        setups[p.kind].log.wait()
        return p.stat("cluster.c.upstream_cx_connect_fail")
    assert compare(simple(setups, [cluster("c", dead)], max_connect_attempts=3), scenario) == 3


def test_no_cluster(compare, setups):
    with Server() as up:
        def scenario(p):
            s = setups[p.kind]
            return exchange(s.port, b"x")[0], [normal(x) for x in s.log.wait()], p.stat("tcp.tcp.downstream_cx_no_route")
        assert compare(simple(setups, [cluster("c", up.port)], "missing"), scenario)[2] == 1


def test_no_host(compare, setups):
    """BlackHoleCluster: static, without hosts."""
    def scenario(p):
        s = setups[p.kind]
        return exchange(s.port, b"x")[0], [normal(x) for x in s.log.wait()], p.stat("cluster.BlackHoleCluster.upstream_cx_none_healthy")
    hole = {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s"}
    seen = compare(simple(setups, [hole], "BlackHoleCluster"), scenario)
    assert " UH " in seen[1][0] and "BlackHoleCluster" in seen[1][0]


def test_reason(proxies, setups):
    """What the configuration says about a refusal is in the log line."""
    s = setups["postern"]
    hole = {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s",
            "metadata": {"filter_metadata": {"postern": {"reason": "nothing admits %REQUESTED_SERVER_NAME% at %DOWNSTREAM_LOCAL_ADDRESS%"}}}}
    proxies("postern", simple(setups, [hole], "BlackHoleCluster")("postern"))
    exchange(s.port, b"x")
    line = s.log.wait()[0]
    assert f'"nothing admits - at 127.0.0.1:{s.port}"' in line and " UH " in line


def test_idle_timeout(compare, setups):
    with Server() as up:
        def scenario(p):
            with connect(setups[p.kind].port) as s:
                s.sendall(b"x")
                seen = read_all(s)
            return seen, [normal(x) for x in setups[p.kind].log.wait()], p.stat("tcp.tcp.idle_timeout")
        assert compare(simple(setups, [cluster("c", up.port)], idle_timeout="0.3s"), scenario)[2] == 1


def test_max_duration(compare, setups):
    with Server() as up:
        def scenario(p):
            with connect(setups[p.kind].port) as s:
                s.sendall(b"x")
                seen = read_all(s)
            return seen, [normal(x) for x in setups[p.kind].log.wait()], p.stat("tcp.tcp.max_downstream_connection_duration")
        seen = compare(simple(setups, [cluster("c", up.port)], max_downstream_connection_duration="0.3s"), scenario)
        assert seen[2] == 1 and " DT " in seen[1][0]


def test_weighted(kind, proxies, setups):
    with named_server("A") as a, named_server("B") as b:
        s = setups[kind]
        config = bootstrap(s.admin, [listener("l", s.port, chain(tcp_proxy(weighted_clusters={"clusters": [
            {"name": "a", "weight": 75}, {"name": "b", "weight": 25}]})))], [cluster("a", a.port), cluster("b", b.port)])
        proxies(kind, config)
        got = [exchange(s.port)[0] for _ in range(400)]
        assert got.count(b"A") + got.count(b"B") == 400
        assert 240 < got.count(b"A") < 360


def test_round_robin(kind, proxies, setups):
    with named_server("A") as a, named_server("B") as b, named_server("C") as c:
        s = setups[kind]
        proxies(kind, simple(setups, [cluster("c", a.port, b.port, c.port)])(kind))
        got = b"".join(exchange(s.port)[0] for _ in range(30))
        assert {x: got.count(x) for x in (b"A", b"B", b"C")} == {b"A": 10, b"B": 10, b"C": 10}


def test_host_weights(kind, proxies, setups):
    with named_server("A") as a, named_server("B") as b:
        s = setups[kind]
        c = cluster("c", a.port, b.port)
        eps = c["load_assignment"]["endpoints"][0]["lb_endpoints"]
        eps[0]["load_balancing_weight"], eps[1]["load_balancing_weight"] = 3, 1
        proxies(kind, simple(setups, [c])(kind))
        got = b"".join(exchange(s.port)[0] for _ in range(40))
        assert abs(got.count(b"A") - 30) <= 1


def test_priorities(compare, setups):
    """An unhealthy priority 0 sends everything to priority 1."""
    with named_server("A") as a, named_server("B") as b:
        c = cluster("c", a.port)
        c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = "UNHEALTHY"
        c["load_assignment"]["endpoints"].append({"priority": 1, **peers.endpoints("c", b.port)["endpoints"][0]})

        def scenario(p):
            return [exchange(setups[p.kind].port)[0] for _ in range(10)]
        assert compare(simple(setups, [c]), scenario) == [b"B"] * 10


def test_panic(compare, setups):
    """All unhealthy: traffic goes to them anyway, unless the threshold is 0."""
    with named_server("A") as a:
        c = cluster("c", a.port)
        c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = "UNHEALTHY"

        def scenario(p):
            return exchange(setups[p.kind].port)[0], p.stat("cluster.c.lb_healthy_panic") > 0
        assert compare(simple(setups, [c]), scenario) == (b"A", True)


def test_no_panic(compare, setups):
    with named_server("A") as a:
        c = cluster("c", a.port, common_lb_config={"healthy_panic_threshold": {"value": 0}})
        c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = "UNHEALTHY"

        def scenario(p):
            return exchange(setups[p.kind].port)[0], [normal(x) for x in setups[p.kind].log.wait()]
        assert compare(simple(setups, [c]), scenario)[0] == b""


def test_circuit_breaker(compare, setups):
    with Server() as up:
        c = cluster("c", up.port, circuit_breakers={"thresholds": [{"max_connections": 2}]})

        def scenario(p):
            s = setups[p.kind]
            held = []
            for _ in range(2):
                held.append(connect(s.port))
                held[-1].sendall(b"x")
                read_exactly(held[-1], 1)
            third = exchange(s.port, b"y")
            overflow, is_open = p.stat("cluster.c.upstream_cx_overflow"), p.stat("cluster.c.circuit_breakers.default.cx_open")
            for h in held:
                h.close()
            line = [x for x in map(normal, s.log.wait(3)) if " UO " in x]
            return third[0], overflow, is_open, line
        assert compare(simple(setups, [c]), scenario)[:3] == (b"", 1, 1)


def test_bulk_both_ways(kind, proxies, setups):
    """More than any buffer, slow reader: nothing is lost, memory stays."""
    size = 64 << 20
    with Server() as up:
        s = setups[kind]
        p = proxies(kind, simple(setups, [cluster("c", up.port)])(kind))
        with connect(s.port, timeout=30) as c:
            def send():
                block = bytes(range(256)) * 256
                for _ in range(size // len(block)):
                    c.sendall(block)
                c.shutdown(socket.SHUT_WR)
            t = threading.Thread(target=send)
            t.start()
            got, want = 0, bytes(range(256))
            while True:
                data = c.recv(1 << 20)
                if not data:
                    break
                assert data == (want[got % 256:] + want * (len(data) // 256 + 1))[:len(data)]
                got += len(data)
            t.join()
        assert got == size
        line = s.log.wait()[0]
        assert f" {size} {size} " in line
        with open(f"/proc/{p.process.pid}/status") as f:
            peak = int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
        if kind == "postern":
            assert peak < 40000, f"{peak} KiB"


def test_upstream_reset(compare, setups):
    import struct

    def rst(s, c):
        s.recv(10)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Server(rst) as up:
        def scenario(p):
            with connect(setups[p.kind].port) as s:
                s.sendall(b"x")
                got, how = read_all(s)
            return got, how, [normal(x) for x in setups[p.kind].log.wait()]
        compare(simple(setups, [cluster("c", up.port)]), scenario)


def test_downstream_reset(compare, setups):
    import struct
    with Server() as up:
        def scenario(p):
            before = len(up.connections)
            s = connect(setups[p.kind].port)
            s.sendall(b"x")
            read_exactly(s, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
            c = up.connections[before]
            assert c.ended.wait(5)
            return [normal(x) for x in setups[p.kind].log.wait()], c.how
        compare(simple(setups, [cluster("c", up.port)]), scenario)


def test_greeting_first(compare, setups):
    """A server that speaks first works without listener filters."""
    with named_server("220 mail") as up:
        def scenario(p):
            return exchange(setups[p.kind].port, b"QUIT")
        assert compare(simple(setups, [cluster("c", up.port)]), scenario)[0] == b"220 mail"


def test_listener_stats(compare, setups):
    with Server() as up:
        def scenario(p):
            s = setups[p.kind]
            for _ in range(3):
                exchange(s.port, b"x")
            s.log.wait(3)
            prefix = f"listener.127.0.0.1_{s.port}."
            p.wait_stat(prefix + "downstream_cx_destroy", 3)
            stats = p.stats(prefix)
            names = ("downstream_cx_total", "downstream_cx_active", "downstream_cx_destroy", "no_filter_chain_match", "downstream_pre_cx_active")
            tcp = {k: v for k, v in p.stats("tcp.tcp.").items() if "flow_control" not in k}
            return {n: stats[prefix + n] for n in names}, {k: tcp[k] for k in ("tcp.tcp.downstream_cx_total", "tcp.tcp.downstream_cx_rx_bytes_total",
                                                                                 "tcp.tcp.downstream_cx_tx_bytes_total")}
        assert compare(simple(setups, [cluster("c", up.port)]), scenario)[0]["downstream_cx_total"] == 3


def test_cluster_stats(compare, setups):
    with Server() as up:
        def scenario(p):
            s = setups[p.kind]
            for _ in range(3):
                exchange(s.port, b"x")
            s.log.wait(3)
            p.wait_stat("cluster.c.upstream_cx_destroy", 3) if p.kind == "postern" else None
            stats = p.stats("cluster.c.")
            names = ("upstream_cx_total", "upstream_cx_active", "upstream_rq_total", "upstream_rq_active", "upstream_rq_pending_total",
                     "upstream_rq_pending_active", "upstream_cx_rx_bytes_total", "upstream_cx_tx_bytes_total", "membership_total", "membership_healthy",
                     "upstream_cx_connect_fail", "upstream_cx_overflow")
            return {n: stats["cluster.c." + n] for n in names}
        compare(simple(setups, [cluster("c", up.port)]), scenario)
