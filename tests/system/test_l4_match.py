"""Filter chain match, listener filters and hand-over: the same configuration through Envoy and Postern. Each chain leads to a server that says
its name."""
import socket

import pytest

import peers
from peers import (LogFile, bootstrap, chain, client_hello, cluster, connect, exchange, file_log, free_port, http_inspector, listener, named_server,
                   read_all, split_records, tcp_proxy, tls_inspector)

NAMES = ["A", "B", "C", "D", "E"]


@pytest.fixture(scope="module")
def servers():
    s = {n: named_server(n) for n in NAMES}
    yield s
    for x in s.values():
        x.close()


@pytest.fixture
def ports():
    return {k: (free_port(), free_port()) for k in ("envoy", "postern")}


def to(name, match=None, chain_name=None):
    return chain(tcp_proxy(name), match=match, name=chain_name)


def config(ports, servers, chains, **more):
    clusters = [cluster(n, s.port) for n, s in servers.items()]

    def make(kind):
        admin, port = ports[kind]
        extra = {k: (v(kind) if callable(v) else v) for k, v in more.items()}
        return bootstrap(admin, [listener("l", port, *[c(kind) if callable(c) else c for c in chains], **extra)], clusters)
    return make


def first_byte(port, data, source=None, host="127.0.0.1"):
    try:
        with connect(port, source=source, host=host) as s:
            s.sendall(data)             # no half-close: Envoy's inspectors give up on a client that has already ended
            return s.recv(1).decode()
    except ConnectionResetError:
        return ""


SNI = [
    to("A", {"server_names": ["www.example.com"]}),
    to("B", {"server_names": ["*.example.com"]}),
    to("C", {"server_names": ["*.com"]}),
    to("D", {"transport_protocol": "tls"}),
    to("E"),
]


@pytest.mark.parametrize("sni, want", [
    ("www.example.com", "A"), ("WWW.Example.COM", "A"), ("other.example.com", "B"), ("a.b.example.com", "B"), ("example.com", "C"),
    ("x.com", "C"), ("x.org", "D"), (None, "D"), ("plain", "E"),
])
def test_sni(compare, ports, servers, sni, want):
    data = b"GET / HTTP/1.1\r\n\r\n" if sni == "plain" else client_hello(sni)
    make = config(ports, servers, SNI, listener_filters=[tls_inspector()])
    assert compare(make, lambda p: first_byte(ports[p.kind][1], data)) == want


def test_many_hellos(compare, ports, servers):
    """Fragments, records split at every size, garbage, no SNI: one proxy of each kind takes them all."""
    hello = client_hello("www.example.com", ["h2", "http/1.1"])
    shapes = {
        "whole": [hello],
        "in two": [hello[:40], hello[40:]],
        "byte by byte": [hello[i:i + 1] for i in range(len(hello))],
        "records of 1": [split_records(hello, 1)],
        "records of 7": [split_records(hello, 7)],
        "records of 100": [split_records(hello, 100)],
        "truncated": [hello[:60]],
        "not tls": [b"SSH-2.0-OpenSSH_9\r\n"],
        "wrong type": [bytes([23]) + hello[1:]],
        "tls then junk": [hello[:5] + b"\xff" * (len(hello) - 5)],
        "sslv2": [b"\x80\x2e\x01\x03\x01" + b"\0" * 43],
    }

    def scenario(p):
        seen = {}
        for name, parts in shapes.items():
            with connect(ports[p.kind][1]) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    for part in parts:
                        s.sendall(part)
                    if name == "truncated":
                        s.shutdown(socket.SHUT_WR)
                    seen[name] = s.recv(1).decode()
                except ConnectionResetError:    # Envoy leaves what it peeked at in the socket, so its close is a reset
                    seen[name] = ""
        return seen
    seen = compare(config(ports, servers, SNI, listener_filters=[tls_inspector()]), scenario)
    for shape in ("whole", "in two", "byte by byte", "records of 1", "records of 7", "records of 100"):
        assert seen[shape] == "A", shape


@pytest.mark.parametrize("alpn, want", [(["h2"], "A"), (["http/1.1"], "B"), (["x", "http/1.1"], "B"), (["http/1.1", "h2"], "B"), ([], "C"), (["x"], "C")])
def test_alpn(compare, ports, servers, alpn, want):
    chains = [to("A", {"application_protocols": ["h2"]}), to("B", {"application_protocols": ["http/1.1"]}), to("C")]
    make = config(ports, servers, chains, listener_filters=[tls_inspector()])
    assert compare(make, lambda p: first_byte(ports[p.kind][1], client_hello("x.org", alpn))) == want


@pytest.mark.parametrize("data, want", [
    (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "A"), (b"POST /x HTTP/1.0\r\n\r\n", "B"), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "C"), (b"\x00\x01binary", "D"),
    (b"HELO mail\r\n", "D"), (b"GET / HTTP/9.9\r\n\r\n", "B"), (b"SSH-2.0-x\r\n", "D"),
])
def test_http_inspector(compare, ports, servers, data, want):
    chains = [to("A", {"application_protocols": ["http/1.1"]}), to("B", {"application_protocols": ["http/1.0"]}),
              to("C", {"application_protocols": ["h2c"]}), to("D")]
    make = config(ports, servers, chains, listener_filters=[http_inspector()])
    assert compare(make, lambda p: first_byte(ports[p.kind][1], data)) == want


def test_istio_shape(compare, ports, servers):
    """Istio's outbound port 80: HTTP in one chain, everything else in the other."""
    chains = [to("A", {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]})]
    make = config(ports, servers, chains, default_filter_chain=to("B", {}, "PassthroughFilterChain"), listener_filters=[http_inspector()], listener_filters_timeout="0s", continue_on_listener_filters_timeout=True)

    def scenario(p):
        return [first_byte(ports[p.kind][1], d) for d in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"xyz\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
    assert compare(make, scenario) == ["A", "B", "B", "A"]


def test_order_port_before_name(compare, ports, servers):
    """The destination port decides first, and there is no way back: the right name in another port's chain does not count."""
    chains = [lambda kind: to("A", {"destination_port": ports[kind][1], "server_names": ["one.org"]}), to("B", {"server_names": ["two.org"]}),
              to("C", {"transport_protocol": "tls"})]

    def scenario(p):
        return [first_byte(ports[p.kind][1], client_hello(n)) for n in ("one.org", "two.org", "three.org")]
    assert compare(config(ports, servers, chains, listener_filters=[tls_inspector()]), scenario) == ["A", "", ""]


def test_order_address_before_name(compare, ports, servers):
    chains = [to("A", {"prefix_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}], "server_names": ["one.org"]}),
              to("B", {"prefix_ranges": [{"address_prefix": "127.0.0.1", "prefix_len": 32}], "server_names": ["two.org"]}),
              to("C")]

    def scenario(p):
        return [first_byte(ports[p.kind][1], client_hello(n)) for n in ("one.org", "two.org", "three.org")]
    assert compare(config(ports, servers, chains, listener_filters=[tls_inspector()]), scenario) == ["", "B", ""]


def test_source_prefix_and_type(compare, ports, servers):
    chains = [to("A", {"source_prefix_ranges": [{"address_prefix": "127.0.0.2", "prefix_len": 32}]}),
              to("B", {"source_prefix_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 24}]}),
              to("D")]

    def scenario(p):
        return [first_byte(ports[p.kind][1], b"x", source=(ip, 0)) for ip in ("127.0.0.2", "127.0.0.9", "127.9.9.9")]
    assert compare(config(ports, servers, chains), scenario) == ["A", "B", "D"]


def test_source_type(compare, ports, servers):
    """Local is the same address or 127.0.0.1 itself."""
    chains = [to("A", {"source_type": "SAME_IP_OR_LOOPBACK"}), to("B", {"source_type": "EXTERNAL"}),
              to("C", {"source_prefix_ranges": [{"address_prefix": "127.0.0.2", "prefix_len": 32}]})]

    def scenario(p):
        return [first_byte(ports[p.kind][1], b"x", source=(ip, 0)) for ip in ("127.0.0.1", "127.0.0.2", "127.9.9.9")]
    assert compare(config(ports, servers, chains), scenario) == ["A", "B", "B"]


def test_source_port(compare, ports, servers):
    sources = {k: (free_port(), free_port()) for k in ("envoy", "postern")}
    chains = [lambda kind: to("A", {"source_ports": [sources[kind][0]]}), to("B")]

    def scenario(p):
        return [first_byte(ports[p.kind][1], b"x", source=("127.0.0.1", port)) for port in sources[p.kind]]
    assert compare(config(ports, servers, chains), scenario) == ["A", "B"]


def test_direct_source(compare, ports, servers):
    chains = [to("A", {"direct_source_prefix_ranges": [{"address_prefix": "127.0.0.5", "prefix_len": 32}]}), to("B")]

    def scenario(p):
        return [first_byte(ports[p.kind][1], b"x", source=(ip, 0)) for ip in ("127.0.0.5", "127.0.0.6")]
    assert compare(config(ports, servers, chains), scenario) == ["A", "B"]


def test_no_match(compare, ports, servers, tmp_path):
    """No chain: the connection is closed, counted and in the listener's log with flag NR."""
    logs = {k: LogFile(tmp_path / f"{k}.log") for k in ports}
    make = config(ports, servers, [to("A", {"server_names": ["a.org"]})], listener_filters=[tls_inspector()],
                  access_log=lambda kind: [file_log(logs[kind].path, "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQUESTED_SERVER_NAME% %UPSTREAM_CLUSTER%")])

    def scenario(p):
        port = ports[p.kind][1]
        seen = first_byte(port, client_hello("b.org"))
        return seen, logs[p.kind].wait(), p.stat(f"listener.127.0.0.1_{port}.no_filter_chain_match")
    assert compare(make, scenario) == ("", ["NR filter_chain_not_found b.org -"], 1)


def test_default_chain(compare, ports, servers):
    make = config(ports, servers, [to("A", {"server_names": ["a.org"]})], listener_filters=[tls_inspector()], default_filter_chain=to("B"))
    assert compare(make, lambda p: [first_byte(ports[p.kind][1], client_hello(n)) for n in ("a.org", "b.org")]) == ["A", "B"]


def test_filter_timeout(compare, ports, servers):
    """A silent client: closed, or passed on without knowledge."""
    def scenario(p):
        with connect(ports[p.kind][1]) as s:
            got = read_all(s)
        return got, p.stat(f"listener.127.0.0.1_{ports[p.kind][1]}.downstream_pre_cx_timeout")
    make = config(ports, servers, [to("A")], listener_filters=[tls_inspector()], listener_filters_timeout="0.2s")
    assert compare(make, scenario) == ((b"", "eof"), 1)


def test_filter_timeout_continue(compare, ports, servers):
    make = config(ports, servers, [to("A")], listener_filters=[tls_inspector()], listener_filters_timeout="0.2s", continue_on_listener_filters_timeout=True)

    def scenario(p):
        with connect(ports[p.kind][1]) as s:
            return peers.read_exactly(s, 1)
    assert compare(make, scenario) == b"A"


def test_oversized_hello(compare, ports, servers):
    """A hello that claims 16 MiB is not collected: no TLS, says Envoy, and so do we."""
    import struct
    record = bytes([22, 3, 1]) + struct.pack(">H", 16000) + bytes([1, 0xff, 0xff, 0xff]) + b"\0" * 15996

    def scenario(p):
        with connect(ports[p.kind][1]) as s:
            try:
                s.sendall(record)
                return s.recv(1), p.stat("tls_inspector.client_hello_too_large")
            except OSError:
                return b""
    compare(config(ports, servers, [to("A")], listener_filters=[tls_inspector()]), scenario)


REFUSED = [
    ([to("A", {"server_names": ["a.org"]}), to("B", {"server_names": ["a.org"]})], "filter_chains[1]"),
    ([to("A", {"server_names": ["*w.org"]})], "server_names[0]"),
    ([to("A", {"prefix_ranges": [{"address_prefix": "10.0.0.999", "prefix_len": 8}]})], "prefix_ranges[0]"),
    ([to("A", {"destination_port": 70000})], "destination_port"),
]


@pytest.mark.parametrize("chains, where", REFUSED)
def test_refused(ports, servers, tmp_path, binary, chains, where):
    """What Envoy refuses, Postern refuses, and says where."""
    import json
    import subprocess
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(config(ports, servers, chains)("postern")))
    got = subprocess.run([binary, "proxy", "-c", str(path), "--mode", "validate"], capture_output=True, text=True)
    assert got.returncode == 1 and where in got.stderr and "static_resources.listeners[0]" in got.stderr, got.stderr
    if peers.envoy_binary():
        assert subprocess.run([peers.envoy_binary(), "-c", str(path), "--mode", "validate"], capture_output=True).returncode != 0
