"""The boundaries: what each makes of octets from outside. What they may raise is what their callers expect."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import socket
import struct
import tempfile
import unicodedata
from collections.abc import Callable, Hashable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.url import parse_listen_url
from flowtop.capture.ebpf import compiling, conntrack, netlink
from flowtop.capture.ebpf.expressions import is_kernel_filter
from flowtop.capture.files.capture import FileConfig
from flowtop.capture.files.messages import Payload, read_payloads
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.cli.settings import read_settings
from flowtop.confine.checks import number, text
from flowtop.confine.helper import _serve
from flowtop.confine.messages import LONGEST, ProtocolError, receive
from flowtop.confine.writer import Permitted, _Opening
from flowtop.errors import FlowtopError
from flowtop.export.spool import Spool
from flowtop.export.url import parse_export_url
from flowtop.filters.filter import compile_filter
from flowtop.filters.kernel import split
from flowtop.model.kinds import IpVersion, Protocol
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.names_seen.book import NameBook
from flowtop.names_seen.reader import DNS_PORT, HTTPS_PORT, NameReader
from flowtop.output.dump import entries, entry_text
from flowtop.owners.socket_list import SocketList
from flowtop.tui.saved import parse_view
from tests.fuzz.engine import Target
from tests.kernel import frames as f
from tests.unit.capture.collector import test_sflow as agent
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read
from tests.unit.export.flows import flows
from tests.unit.names_seen import initials, messages
from tests.unit.wire.damaged import CASES

CORPUS = Path(__file__).parent / "corpus"
"""Inputs by target that ended badly once."""
NOW_S = 1_780_000_000.0


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]


@cache
def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="flowtop-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def _bits(number: int) -> int:
    """How large it is, so that not each number is an outcome of its own."""
    return int(number).bit_length()


def _one_line(error: FlowtopError, *, marked: bool = False) -> str:
    """Where it was raised. A message is one line, without control characters; or, marked, three."""
    for said in (*error.message.split("\n" if marked else "\0", 2), error.hint):
        assert not any(unicodedata.category(character) == "Cc" for character in said), repr(said)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""


# ---- files and datagrams

def _messages() -> list[bytes]:
    return [case(7).octets for case in CASES.values()]


def _sflow() -> bytes:
    return agent.datagram(agent.COUNTERS, agent.sample(agent.raw_header(agent.frame()), agent.OTHER_RECORD),
                          agent.sample(agent.raw_header(agent.frame(90, 7)), expanded=True))


def _frames() -> list[bytes]:
    inner = f.ipv4(f.udp(50_000, 53, b"x" * 20), f.UDP)
    packets = [(f.IPV4, inner), (f.IPV4, f.ipv4(f.tcp(443, 50_000, 0x12), f.TCP)),
               (f.IPV4, f.ipv4(f.icmp(8, 0), f.ICMP)), (f.IPV6, f.ipv6(f.tcp(22, 50_000, 2), f.TCP)),
               (f.IPV6, f.ipv6(f.extension(f.UDP, 8) + f.udp(1, 2), f.HOP_BY_HOP)),
               (f.IPV4, f.ipv4(f.udp(1, 2, b"y" * 16), f.UDP, offset=8, more=True)),
               (f.MPLS, f.mpls((16 << 12, 17 << 12 | 1 << 8), inner))]
    return [*(f.ethernet(kind, packet) for kind, packet in packets),
            f.ethernet(f.IPV4, inner, tags=((f.SERVICE_VLAN, 7), (f.VLAN, 42)))]


def _captures() -> list[bytes]:
    frames = _frames()
    rows = [(1_700_000_000 * w.SECOND + number, frame) for number, frame in enumerate(frames)]
    ng = w.section() + w.interface(name="eth0") + b"".join(w.enhanced(time, frame) for time, frame in rows)
    return [w.pcap(rows), w.pcap(rows, order=">", nano=True), ng, *(w.pcap(rows[:3], link_type=kind) for kind in (
        0, 12, 101, 113, 276, 105, 127)), ng + ng]


def _capture() -> Target:
    path = _place() / "capture"

    def run(octets: bytes) -> Hashable:
        path.write_bytes(octets)
        try:
            found = read(path, FileConfig(str(path), decap=bool(octets) and bool(octets[-1] & 1)))
        except FlowtopError as error:
            return _one_line(error)
        found.assert_balanced()
        return (_bits(len(found.flows)), tuple(sorted(found.ignored())), found.fault[:20])

    return Target(run, [*_captures(), *corpus("capture")])


def _collector() -> Target:
    state: dict[str, Any] = {"process": CollectingProcess(), "count": 0}

    def run(octets: bytes) -> Hashable:
        state["count"] += 1
        if state["count"] % 200 == 0:
            state["process"] = CollectingProcess()
        process, count = state["process"], state["count"]
        before = process.statistics()
        process.receive(octets, Session(count % 3, "192.0.2.1", count % 5 != 0), NOW_S + count)
        keys, counters, _ = process.drain()
        assert len(keys) == len(counters)
        after = process.statistics()
        told = {str(part[0]) for part in set(after.skipped) - set(before.skipped)}
        return _bits(len(keys)), _bits(after.messages - before.messages), _bits(len(after.refused)), tuple(sorted(told))

    return Target(run, [*_messages(), _sflow(), *corpus("collector")])


def _dump() -> Target:
    path = _place() / "dump"

    def run(octets: bytes) -> Hashable:
        path.write_bytes(octets)
        found: list[Hashable] = []
        try:
            with closing(OctetStream(str(path))) as stream:
                for entry in entries(read_payloads(stream)):
                    found.append((entry.damaged, len(entry.refusals), _bits(len(entry_text(entry, "text")))))
                    json.loads(entry_text(entry, "json"))
        except FlowtopError as error:
            return _one_line(error)
        except DamagedError:
            found.append("damaged")
        for entry in entries([Payload(octets, "192.0.2.1:1", "192.0.2.2:2", True)]):
            assert "\x1b" not in entry_text(entry, "text")
            json.loads(entry_text(entry, "json"))
        return tuple(found[:5])

    datagrams = [(1_700_000_000 * w.SECOND, f.ethernet(f.IPV4, f.ipv4(f.udp(50_000, 2055, one), f.UDP)))
                 for one in _messages()[:6]]
    return Target(run, [*_messages(), _sflow(), w.pcap(datagrams), *corpus("dump")])


def _spool() -> Target:
    place = _place() / "spool"
    first = Spool(place, domain=1, wall=lambda: NOW_S)
    first.store(flows(40))
    [path] = place.glob("*.ipfix")
    whole = path.read_bytes()
    first.close()

    def run(octets: bytes) -> Hashable:
        for other in place.iterdir():
            other.unlink()
        path.write_bytes(octets)
        spool = Spool(place, domain=1, wall=lambda: NOW_S)
        try:
            return _bits(len(spool.oldest()))
        except FlowtopError as error:
            assert not path.exists(), "it is put aside"
            return _one_line(error)
        finally:
            spool.close()

    return Target(run, [whole, *corpus("spool")])


def _kernel() -> Target:
    from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, compile_program, kernel_release
    from tests.kernel.observer import Observer
    from tests.kernel.test_files_agree import file_table, kernel_table

    program = compile_program(map_entries=4096, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)

    def run(octets: bytes) -> Hashable:
        frame = octets[:1500]
        if len(frame) < 14:
            return None
        table, ignored, counters, refused = kernel_table(Observer(program), [frame])
        if refused[0]:
            return "refused"
        assert file_table([frame]) == (table, ignored, counters)
        return (len(table), tuple(sorted(ignored)), counters)

    return Target(run, [*_frames(), *corpus("kernel")])


# ---- texts

def _filter() -> Target:
    def run(octets: bytes) -> Hashable:
        text = octets.decode("utf-8", "replace")
        try:
            whole = compile_filter(text)
        except FlowtopError as error:
            return _one_line(error, marked=True)
        found = []
        for decap in (False, True):
            parts = split(whole, observation_points=True, decap=decap)
            assert is_kernel_filter(parts.expression)
            if parts.expression:
                assert compile_filter(parts.kernel), "what runs in the kernel can be typed"
            found.append((bool(parts.expression), bool(parts.rest)))
        return (*found, _bits(len(text)))

    seeds = ("tcp and port 443", "host 10.0.0.1 or net 2001:db8::/32", "not (udp and src port 53)", "rate > 1M",
             "process nginx and user root", "portrange 1-1024", "vlan 7 and dir in", "packets >= 10 and rtt > 50ms",
             "tunnel vxlan and vni 42", "name *.example.net", "flags syn and not flags ack", "port 80,443 or port 1-9",
             "192.0.2.1:80", "[2001:db8::1]:443", "'web server' or 'a''b'", "interface eth0 and bytes > 1.5Gi")
    return Target(run, [*(seed.encode() for seed in seeds), *corpus("filter")], text=True)


def _url() -> Target:
    def run(octets: bytes) -> Hashable:
        text, found = octets.decode("utf-8", "surrogateescape"), []
        for parse in (parse_export_url, parse_listen_url):
            try:
                found.append(type(parse(text)).__name__ + str(getattr(parse(text), "kind", "")))
            except FlowtopError as error:
                found.append(_one_line(error))
        return tuple(found)

    seeds = (b"ipfix://192.0.2.1:4739?domain=7&refresh=1m", b"ipfix+tcp://[2001:db8::1%25eth0]:1?reconnect=100ms",
             b"ipfix+tls://host.example?ca=/ca.pem&cert=/c.pem&key=/k.pem&servername=x",
             b"jsonl:flows.jsonl?compress=zstd",
             b"file:/var/log/x.ipfix?rotate-size=1.5Gi&rotate-time=1h30m&biflow=on", b"csv:-", b"jsonl+udp://host:5170",
             b"udp://:2055?sampling=1000&allow=192.0.2.0/24", b"tcp://[::]:4739", b"sflow://", b"parquet:x.parquet")
    return Target(run, [*seeds, *corpus("url")], text=True)


def _toml() -> Target:
    path = _place() / "config.toml"
    known = {"batch": "flag", "sort": "text", "delay": "number", "export": "list"}

    def run(octets: bytes) -> Hashable:
        path.write_bytes(octets)
        found: list[Hashable] = []
        try:
            settings, views, limits = read_settings(path, known, must_exist=True)  # type: ignore[arg-type]
            found.append((tuple(settings), _bits(len(views)), tuple(limits)))
        except FlowtopError as error:
            found.append(_one_line(error))
        with suppress(ValueError):
            found.append(bool(parse_view(octets.decode())))
        return tuple(found)

    seeds = (b"batch = true\nsort = 'rate'\ndelay = 1.5\nexport = ['file:x.ipfix']\n",
             b"[views.db]\nfilter = 'port 5432'\ngroup = 'source'\n[trouble]\nscan = 100\n",
             b"theme = 'dark'\norder = ['rate', 'bytes']\nhidden = []\ngreeted = true\n",
             b"a = [[[[1]]]]\nb = {c = nan}\n")
    return Target(run, [*seeds, *corpus("toml")], text=True)


# ---- the kernel's and the host's own

def _netlink() -> Target:
    def run(octets: bytes) -> Hashable:
        found = []
        for kind, flags, _, body in netlink.split(octets):
            names = [attribute for attribute, _ in netlink.attributes(body, 16)]
            found.append((kind % 64, bool(flags & 2), tuple(names[:4]), conntrack.translation_of(body) is None))
        with suppress(ValueError, KeyError, TypeError, IndexError, struct.error):  # of scan.py, a process of flowtop's
            SocketList.of(octets)
        return tuple(found[:4])

    def message(kind: int, *attributes: bytes) -> bytes:
        body = bytes(4) + b"".join(attributes)
        return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body + bytes(-len(body) % 4)

    pack = netlink.pack_attribute
    addresses = pack(1, pack(1, b"\x0a\0\0\1") + pack(2, b"\x0a\0\0\2"))
    end = addresses + pack(2, pack(1, b"\6") + pack(2, b"\0P") + pack(3, b"\1\1"))
    return Target(run, [message(0x100, pack(0x8001, end), pack(0x8002, end), pack(3, b"\0\0\0\x30")),
                        message(16, pack(3, b"eth0\0"), pack(4, bytes(4)), pack(23, bytes(96))), *corpus("netlink")])


def _names() -> Target:
    keys = []
    for protocol, source, destination in (
            (Protocol.UDP, DNS_PORT, 50_000), (Protocol.TCP, DNS_PORT, 50_000), (Protocol.UDP, 50_000, DNS_PORT),
            (Protocol.TCP, 50_000, HTTPS_PORT), (Protocol.UDP, 50_000, HTTPS_PORT), (Protocol.TCP, 50_000, 80)):
        key = np.zeros(1, FLOW_KEY_DTYPE)
        key["protocol"], key["ip_version"] = int(protocol), int(IpVersion.V4)
        key["source_port"], key["destination_port"] = source, destination
        keys.append(key.tobytes())
    state: dict[str, Any] = {"count": 0}

    def run(octets: bytes) -> Hashable:
        if state["count"] % 1000 == 0:
            state["reader"] = NameReader(NameBook())
        state["count"] += 1
        reader = state["reader"]
        before = reader.statistics()
        for key in keys:
            reader.read(key, state["count"] * 10**6, octets[:2048], len(octets), 0)
        after = reader.statistics()
        return tuple(name for name in ("malformed", "incomplete", "named", "answers", "questions")
                     if getattr(after, name, 0) != getattr(before, name, 0)), _bits(len(octets))

    return Target(run, [*_name_seeds(), b"GET / HTTP/1.1\r\nHost: www.example.net\r\n\r\n", *corpus("names")])


def _name_seeds() -> list[bytes]:
    answer = messages.answer("www.example.net", [messages.address_record(address) for address in (
        "192.0.2.7", "2001:db8::7")])
    return [messages.query("www.example.net"), answer, struct.pack("!H", len(answer)) + answer,
            messages.client_hello("www.example.org"), initials.VERSION_1, initials.VERSION_2]


def _helper() -> Target:
    place = _place() / "helper"
    place.mkdir()
    permitted = Permitted(frozenset([str(place / "x.jsonl")]), (place,), None)

    def run(octets: bytes) -> Hashable:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.send(octets[:LONGEST] or b" ")
            found: list[Hashable] = []
            try:
                answered = receive(theirs)
            except ProtocolError:
                return "no message"
            assert answered is not None
            message = answered[0]
            for check in (lambda: compiling._expression(message), lambda: number(message, "entries"),
                          lambda: compiling._ports(message), lambda: text(message, "name")):
                try:
                    found.append(type(check()).__name__)
                except ProtocolError:
                    found.append("")
            ours.send(octets[:LONGEST] or b" ")
            ours.shutdown(socket.SHUT_WR)
            _serve(theirs, _Opening(permitted))
            with suppress(OSError):
                theirs.shutdown(socket.SHUT_WR)
            answer, descriptors, _, _ = socket.recv_fds(ours, LONGEST, 8)
            for descriptor in descriptors:
                os.close(descriptor)
            said = json.loads(answer) if answer else {}
            found.append((tuple(sorted(said)), said.get("errno")))
            assert {path.name.partition("-")[0].partition(".")[0] for path in place.iterdir()} <= {"x"} or all(
                path.suffix in {".jsonl", ".csv", ".json", ".ipfix", ".pcapng", ".parquet", ".gz", ".zst"}
                for path in place.iterdir())
            for path in place.iterdir():
                path.unlink()
        return tuple(found)

    def asked(**members: object) -> bytes:
        return json.dumps(members).encode()

    name = str(place / "x.jsonl")
    return Target(run, [
        asked(op="open", path=name, new=False, wall_s=1.0), asked(op="check", path=name),
        asked(op="undo", path=name, regular=True, made=True, device=1, inode=2, aside=None),
        asked(op="save", path=name, text="x"), asked(op="open", path=str(place / "y.csv"), new=True, wall_s=1.0),
        asked(expression="((key)->source_port == 443 && !(key)->kind == 1)", entries=65536, tunnel_ports=[[4789, 1]],
              name="eth0"), *corpus("helper")], text=True)


TARGETS: dict[str, Callable[[], Target]] = {
    "capture": _capture, "collector": _collector, "dump": _dump, "spool": _spool, "kernel": _kernel, "filter": _filter,
    "url": _url, "toml": _toml, "netlink": _netlink, "names": _names, "helper": _helper}


def available(name: str) -> str:
    """Why a target cannot be tried here; "": it can."""
    if name == "kernel" and os.geteuid() != 0:
        return "kernel programs need root"
    if name == "names" and importlib.util.find_spec("dns") is None:
        return os.strerror(errno.ENOENT)
    return ""
