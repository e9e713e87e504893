"""Names seen: real clients and servers in network namespaces. The tests, and tshark, know who asked for what."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
from flowtop.capture.ebpf.compiler import kernel_release
from flowtop.capture.ebpf.start import begin
from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import IpVersion, Protocol
from flowtop.model.names_seen import CODE_MASK, NAMES, OF_SOURCE, NameStatistics, Origin, name_origins
from flowtop.model.record import FlowBatch
from tests.kernel.netns import Lab, Namespace, Recorder, eventually, process, run
from tests.unit.names_seen.initials import VERSION_1
from tests.unit.names_seen.messages import AAAA, CNAME, QUESTION, address_record, answer, encoded, query, record

needs_tcx = pytest.mark.skipif(kernel_release() < (6, 6), reason="TCX links need Linux 6.6")
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
SERVER_V6 = "2001:db8:77::2"
CONFIG = TableConfig(idle_timeout_s=3600, active_timeout_s=3600, end_timeout_s=3600, dedupe="off")


@dataclass(frozen=True)
class Called:
    """A flow, and what its peer is called."""

    source: str
    destination: str
    ports: tuple[int, int]
    protocol: Protocol
    name: str
    origin: Origin | None
    of_source: bool


def called(table: FlowTable, texts: Any) -> list[Called]:
    columns, found = table.columns, []
    for slot in table.visible.nonzero()[0].tolist():
        size = 4 if columns["ip_version"][slot] == IpVersion.V4 else 16
        ends = [str(ipaddress.ip_address(bytes(columns[f"{end}_address"][slot])[:size]))
                for end in ("source", "destination")]
        value = columns["peer_name"][slot:slot + 1]
        origin = int(name_origins(value)[0])
        if int(columns["protocol"][slot]) in (Protocol.TCP, Protocol.UDP):
            found.append(Called(*ends, (int(columns["source_port"][slot]), int(columns["destination_port"][slot])),
                                Protocol(int(columns["protocol"][slot])),
                                texts.get(NAMES, {}).get(int(value[0]) & CODE_MASK, ""),
                                Origin(origin & OF_SOURCE - 1) if origin else None, bool(origin & OF_SOURCE)))
    return found


class NamingCapture(EbpfCapture):
    """A capture whose batches are also in a flow table, which keeps every flow."""

    table: FlowTable
    last: FlowBatch

    def _metered(self, batch: FlowBatch) -> FlowBatch:
        if not hasattr(self, "table"):
            self.table = FlowTable(CONFIG)
        self.table.update(batch)
        self.last = batch
        return batch

    def drain(self) -> FlowBatch:
        return self._metered(super().drain())

    def close(self) -> FlowBatch:
        return self._metered(super().close())


def recorder(namespace: Namespace, *interfaces: str) -> Recorder:
    return Recorder(namespace, *interfaces, capture=NamingCapture, names_seen=True)


def flows_of(made: Recorder) -> tuple[list[Called], NameStatistics]:
    """Every flow so far; call it when the recording has ended."""
    assert isinstance(made.capture, NamingCapture)
    last = made.capture.last
    assert last.name_statistics is not None
    return called(made.capture.table, last.texts), last.name_statistics


ZONE: dict[tuple[str, int], list[bytes]] = {
    ("www.example.com", 1): [record(QUESTION, CNAME, encoded("edge.cdn.example")),
                             record(encoded("edge.cdn.example"), CNAME, encoded("node7.cdn.example")),
                             address_record(SERVER, encoded("node7.cdn.example"))],
    ("www.example.com", AAAA): [address_record(SERVER_V6)],
    ("other.example.com", 1): [address_record(SERVER)],
    ("hostile.example.com", 1): [record(QUESTION, CNAME, encoded("\x1b[2J\x07.example")),
                                 address_record(SERVER, encoded("\x1b[2J\x07.example"))],
}


def reply(octets: bytes) -> bytes:
    """The zone's answer to a query, with the question as it was asked."""
    end = octets.index(b"\0", 12) + 5
    labels, at = [], 12
    while octets[at]:
        labels.append(octets[at + 1:at + 1 + octets[at]].decode("latin-1"))
        at += 1 + octets[at]
    name = ".".join(labels)
    records = ZONE.get((name.lower(), int.from_bytes(octets[end - 4:end - 2], "big")), [])
    made = answer(name, records, int.from_bytes(octets[end - 4:end - 2], "big"), int.from_bytes(octets[:2], "big"))
    return made if records else made[:3] + b"\x83" + made[4:]


@contextmanager
def dns_server(namespace: Namespace, address: str = SERVER) -> Iterator[None]:
    """Answers over UDP and TCP at port 53."""
    sockets = namespace.call(lambda: (socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
                                      socket.create_server((address, 53))))
    sockets[0].bind((address, 53))

    def datagrams() -> None:
        while (octets := sockets[0].recvfrom(4096))[0] != b"end":
            sockets[0].sendto(reply(octets[0]), octets[1])

    def connections() -> None:
        while True:
            connection, _ = sockets[1].accept()
            with connection:
                octets = connection.recv(4096)
                if octets == b"end":
                    return
                made = reply(octets[2:])
                connection.sendall(len(made).to_bytes(2, "big") + made)

    threads = [threading.Thread(target=target) for target in (datagrams, connections)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        def end() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", (address, 53))
            with socket.create_connection((address, 53)) as last:
                last.sendall(b"end")

        namespace.call(end)
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()


def look_up(name: str, type_: int = 1, server: str = SERVER) -> None:
    """Ask over UDP, and wait for the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(30)
        asking.connect((server, 53))
        asking.send(query(name, type_))
        assert asking.recv(4096)
    time.sleep(0.05)  # more than a tick of the kernel's clock before what follows


def touch(address: str, port: int, source_port: int, octets: bytes = b"x") -> None:
    """Send one datagram to an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind(("::" if ":" in address else "0.0.0.0", source_port))
        sender.sendto(octets, (address, port))
    time.sleep(0.05)


def add_v6(near: Namespace, far: Namespace) -> None:
    for namespace, host in ((near, 1), (far, 2)):
        namespace.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/veth0/disable_ipv6")
        namespace.ip(f"addr add 2001:db8:77::{host}/64 dev veth0 nodad")


# ---- DNS


@pytest.mark.core
def test_a_flow_is_called_what_its_client_asked_for_last(lab: Lab) -> None:
    """A chain of CNAMEs, an AAAA record, two names of one address, a name nobody gets."""
    near, far = lab.pair()
    add_v6(near, far)
    with dns_server(far), recorder(near, "veth0") as recording:
        def client() -> None:
            touch(SERVER, 9, 30_001)
            look_up("www.EXAMPLE.com")
            touch(SERVER, 9, 30_002)
            look_up("other.example.com")
            touch(SERVER, 9, 30_003)
            look_up("www.example.com", AAAA)
            touch(SERVER_V6, 9, 30_004)
            look_up("nothing.example.com")
            look_up("www.example.com")
            touch(SERVER, 9, 30_005)
            look_up("hostile.example.com")
            touch(SERVER, 9, 30_006)

        near.call(client)
    flows, statistics = flows_of(recording)
    names = {flow.ports[0]: (flow.name, flow.of_source) for flow in flows if 30_000 < flow.ports[0] < 30_010}
    assert names == {
        30_001: ("", False), 30_002: ("www.example.com", False), 30_003: ("other.example.com", False),
        30_004: ("www.example.com", False), 30_005: ("www.example.com", False), 30_006: ("hostile.example.com", False)}
    assert statistics.answers == 5
    assert (statistics.unasked, statistics.malformed, statistics.dropped, statistics.refused) == (0, 0, 0, "")


def test_an_answer_over_tcp_and_a_server_that_sees_its_clients(lab: Lab) -> None:
    near, far = lab.pair()
    with dns_server(far), recorder(far, "veth0") as recording:
        def client() -> None:
            message = query("www.example.com")
            with socket.create_connection((SERVER, 53)) as connection:
                connection.sendall(len(message).to_bytes(2, "big") + message)
                assert connection.recv(4096)
            time.sleep(0.05)
            touch(SERVER, 9, 30_001)

        near.call(client)
    flows, _ = flows_of(recording)
    assert [flow.name for flow in flows if flow.ports == (30_001, 9)] == ["www.example.com"]


def test_forged_answers_name_nothing_and_are_counted(lab: Lab) -> None:
    near, far = lab.pair()
    with recorder(near, "veth0") as recording:
        def forge() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((SERVER, 53))
                for number in range(20):
                    sender.sendto(answer("bank.example", [address_record(SERVER)], number=number), (CLIENT, 30_000))
                for octets in (b"", b"\xff" * 100, b"\xc0\x0c" * 200, encoded("x" * 63) * 20):
                    sender.sendto(octets.ljust(12, b"\1"), (CLIENT, 30_000))

        far.call(forge)
        near.call(lambda: touch(SERVER, 9, 30_001))
    flows, statistics = flows_of(recording)
    assert {flow.name for flow in flows} == {""}
    assert statistics.unasked == 20
    assert statistics.answers == 0


def test_what_the_stub_resolver_of_this_host_answers_counts_for_its_other_addresses(lab: Lab) -> None:
    """The client asks 127.0.0.53 on loopback and connects from its own address, as with systemd-resolved."""
    near, _ = lab.pair()
    near.ip("link set lo up")
    with dns_server(near, "127.0.0.53"), recorder(near, "veth0", "lo") as recording:
        near.call(lambda: (look_up("www.example.com", server="127.0.0.53"), touch(SERVER, 9, 30_001)))
    flows, _ = flows_of(recording)
    assert [flow.name for flow in flows if flow.ports == (30_001, 9)] == ["www.example.com"]


def test_a_port_that_is_used_again_and_again_is_still_read(lab: Lab) -> None:
    """A resolver that asks from one port: more packets than the first ones of a flow."""
    near, far = lab.pair()
    with dns_server(far), recorder(near, "veth0") as recording:
        def client() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.connect((SERVER, 53))
                for number in range(100):
                    asking.send(query("other.example.com", number=number))
                    assert asking.recv(4096)

        near.call(client)
    _, statistics = flows_of(recording)
    assert statistics.answers == 100


@pytest.mark.parametrize("attach", [pytest.param("tcx", marks=needs_tcx), "clsact"])
def test_with_a_capture_filter_lookups_are_still_read(lab: Lab, attach: str) -> None:
    """DNS is not in the table; what it names is."""
    from flowtop.filters.filter import compile_filter
    from flowtop.filters.kernel import places

    expression = places(compile_filter("port 9"), in_kernel=True, observation_points=True).expression
    assert expression

    def filtered(config: EbpfConfig) -> NamingCapture:
        return NamingCapture(config, begin(config.map_entries, expression, names=True))

    near, far = lab.pair()
    with dns_server(far), Recorder(near, "veth0", capture=filtered, names_seen=True, attach=attach) as recording:
        near.call(lambda: (look_up("www.example.com"), touch(SERVER, 9, 30_001)))
    flows, _ = flows_of(recording)
    assert [(flow.ports, flow.name) for flow in flows] == [((30_001, 9), "www.example.com")]


# ---- what connections say themselves


@contextmanager
def tls_server(namespace: Namespace, directory: Path, port: int = 8443) -> Iterator[None]:
    key, certificate = directory / "key.pem", directory / "cert.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate),
        "-subj", "/CN=server.example", "-days", "2")
    with process(*namespace.command("openssl", "s_server", "-accept", str(port), "-cert", str(certificate), "-key",
                                    str(key), "-www", "-quiet"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        eventually(lambda: f":{port} " in namespace.run("ss", "-Hltn"), "the server listens")
        yield


@contextmanager
def http_server(namespace: Namespace, directory: Path, port: int = 8080) -> Iterator[None]:
    with process(*namespace.command("python3", "-m", "http.server", "--directory", str(directory), str(port)),
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        eventually(lambda: f":{port} " in namespace.run("ss", "-Hltn"), "the server listens")
        yield


def curl(namespace: Namespace, *words: str) -> None:
    namespace.run("curl", "-s", "-o", "/dev/null", "--max-time", "60", *words)


def initial() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("0.0.0.0", 30_443))
        sender.sendto(VERSION_1, (SERVER, 443))
    time.sleep(0.05)


def segments(hello: bytes, size: int, source_port: int, port: int) -> None:
    """Send a ClientHello in several segments, slowly, so that they stay so."""
    with socket.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.bind(("0.0.0.0", source_port))
        connection.connect((SERVER, port))
        for start in range(0, len(hello), size):
            connection.sendall(hello[start:start + size])
            time.sleep(0.05)


def hello_for(name: str) -> bytes:
    from tests.unit.names_seen.messages import client_hello

    return client_hello(name)


def talk(near: Namespace) -> None:
    """TLS, HTTP, QUIC and DNS, all to one address; every name is known to tshark too."""
    near.call(lambda: look_up("www.example.com"))
    curl(near, "-k", "--resolve", f"secure.example.com:8443:{SERVER}", "https://secure.example.com:8443/")
    curl(near, "--resolve", f"plain.example.com:8080:{SERVER}", "http://plain.example.com:8080/")
    curl(near, "-x", f"http://{SERVER}:8080", "http://behind-a-proxy.example/")
    near.call(initial)
    hello = hello_for("pieces.example.com")
    near.call(lambda: segments(hello, len(hello) // 3 + 1, 30_444, 8443))


LAST_WORDS = b"that was all"
EXPECTED = {
    (8443, "secure.example.com", Origin.TLS), (8080, "plain.example.com", Origin.HTTP),
    (8080, "www.example.com", Origin.DNS), (443, "example.com", Origin.QUIC), (8443, "pieces.example.com", Origin.TLS),
}


def by_server(flows: list[Called]) -> set[tuple[int, str, Origin | None]]:
    """What each server's port is called by its clients."""
    return {(flow.ports[1], flow.name, flow.origin) for flow in flows if flow.destination == SERVER
            and flow.ports[1] not in (9, 53) and flow.name}


@pytest.mark.core
def test_flows_are_called_what_they_ask_for_themselves_live_and_from_the_capture_of_the_same(
        lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    capture = tmp_path / "same.pcap"
    with dns_server(far), tls_server(far, tmp_path), http_server(far, tmp_path), process(
            *near.command("tcpdump", "-i", "veth0", "-U", "-s", "0", "-w", str(capture)), stderr=subprocess.DEVNULL):
        eventually(lambda: capture.exists() and capture.stat().st_size >= 24, "tcpdump captures")
        with recorder(near, "veth0") as recording:
            talk(near)
        near.call(lambda: touch(SERVER, 9, 30_009, LAST_WORDS))
        eventually(lambda: LAST_WORDS in capture.read_bytes(), "tcpdump has written everything")
    flows, statistics = flows_of(recording)
    assert by_server(flows) == EXPECTED
    back = {(flow.ports[0], flow.name, flow.origin) for flow in flows if flow.source == SERVER and flow.name
            and flow.of_source}
    assert back >= {one for one in EXPECTED if one[2] != Origin.QUIC}, "the other direction has the name too"
    assert (statistics.server_names, statistics.hosts, statistics.initials) == (2, 1, 1)
    assert statistics.dropped == statistics.malformed == 0
    read = FileCapture(FileConfig(str(capture), None, names_seen=True))
    read.open(lambda _: None)
    table = FlowTable(CONFIG)
    while True:
        batch = read.drain()
        table.accumulate(batch)
        assert batch.source is not None
        if batch.source.ended:
            break
    assert by_server(called(table, batch.texts)) == EXPECTED
    read.close()
    assert tshark(capture, "tls.handshake.extensions_server_name") == {
        "secure.example.com", "pieces.example.com", "example.com"}
    assert tshark(capture, "http.host") >= {"plain.example.com:8080"}
    assert tshark(capture, "dns.qry.name") == {"www.example.com"}


def tshark(path: Path, field: str) -> set[str]:
    """Every value of a field in a capture."""
    text = run("tshark", "-r", str(path), "-T", "fields", "-e", field, "-Y", field)
    return {value for line in text.splitlines() for value in line.split(",") if value}


def test_packets_that_come_faster_than_they_are_read_are_counted(lab: Lab) -> None:
    """More than the ring buffer holds while nobody looks at it."""
    near, far = lab.pair()
    with recorder(near, "veth0") as recording:
        seen = recording.capture._names
        assert seen is not None
        seen.take = lambda: None  # type: ignore[method-assign]

        def flood() -> None:
            octets = answer("www.example.com", [address_record(SERVER, encoded("x" * 60 + ".example"))] * 14)
            assert 1_000 < len(octets) < 1_400
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((SERVER, 53))
                for _ in range(5_000):
                    sender.sendto(octets, (CLIENT, 9))

        far.call(flood)
        del seen.take
    _, statistics = flows_of(recording)
    assert statistics.dropped + statistics.unasked == 5_000
    assert statistics.dropped
    assert "names dropped" in " ".join(statistics.faults)


def test_without_names_nothing_is_read(lab: Lab) -> None:
    near, far = lab.pair()
    with dns_server(far), Recorder(near, "veth0", capture=NamingCapture) as recording:
        near.call(lambda: (look_up("www.example.com"), touch(SERVER, 9, 30_001)))
    assert isinstance(recording.capture, NamingCapture)
    assert recording.capture.last.name_statistics is None
    assert {flow.name for flow in called(recording.capture.table, recording.capture.last.texts)} == {""}
