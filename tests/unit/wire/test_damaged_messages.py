"""One bad part of a message costs that part, and is counted by kind; only what is no message is refused whole."""

from __future__ import annotations

import random
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from flowtop.api.decoding import Decoder
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.messages import Payload
from flowtop.output.dump import Entry, entries, entry_text
from flowtop.wire.datagrams import decode_export
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.template_store import TemplateStore
from tests.unit.capture.collector.exports import NOW_S, set_of, template
from tests.unit.wire.damaged import CASES, FLOWS, Damaged, flow, ipfix

UDP = Session("udp", "192.0.2.1", True)
TCP = Session("tcp", "192.0.2.1", False)


def received(*messages: bytes, session: Session = UDP) -> CollectingProcess:
    process = CollectingProcess()
    for octets in messages:
        assert process.receive(octets, session, NOW_S)
    return process


def dumped(*messages: bytes) -> list[Entry]:
    return list(entries(Payload(octets, "192.0.2.1:1", "192.0.2.2:2", True) for octets in messages))


@pytest.mark.parametrize("name", CASES)
def test_what_is_right_in_a_damaged_message_is_collected(name: str) -> None:
    case = CASES[name](7)
    process = received(case.octets)
    statistics = process.statistics()
    assert len(process.take_rows()[0]) == case.flows
    assert (dict(statistics.skipped), statistics.refused, statistics.messages) == (case.skipped, (), 1)


@pytest.mark.parametrize("name", CASES)
def test_what_is_right_in_a_damaged_message_is_shown(name: str) -> None:
    case = CASES[name](7)
    (entry,) = dumped(case.octets)
    assert entry.message is not None and entry.refusals == []
    assert entry.damaged == bool(case.skipped.keys() - {"count", "padding"})
    assert sum(part.count for part in entry.message.data_sets if not part.template.scope_count
               and part.template.id != 300) == case.flows
    assert ("skipped: " in entry_text(entry, "text")) == bool(case.skipped)
    assert len(entry.message.remarks) >= sum(case.skipped.values())


@pytest.mark.parametrize("name", CASES)
def test_the_library_refuses_or_reads_what_is_right(name: str) -> None:
    case = CASES[name](7)
    decoder = Decoder(strict=False)
    message = decoder.decode(case.octets)
    assert sum("sourceIPv4Address" in record for record in message.records) == case.flows
    assert dict(message.skipped) == dict(decoder.statistics.skipped) == case.skipped


def test_more_messages_in_one_datagram_are_all_read() -> None:
    datagram = b"".join(ipfix(7, *sets) for sets in ((FLOWS,), (set_of(256, flow(7, 1)),), (set_of(256, flow(7, 2)),)))
    process = received(datagram)
    assert (len(process.take_rows()[0]), process.statistics().messages, process.statistics().skipped) == (2, 3, ())
    assert [entry.number for entry in dumped(datagram)] == [1, 2, 3]


SHORT = ((8, 4), (12, 4), (2, 4), (1, 4))
"""Records of 16 octets, which 51 octets of FLOW hold three of."""
WITHDRAWN = set_of(2, struct.pack(">HH", 256, 0))
DATA = set_of(256, flow(7, 1))


@pytest.mark.parametrize(("session", "messages", "flows", "dropped"), [
    # A Data Set behind a withdrawal is of the Template that was withdrawn, or of none.
    (TCP, [[FLOWS], [WITHDRAWN], [DATA], [template(256, SHORT)]], 0, 1),
    (TCP, [[FLOWS], [WITHDRAWN], [DATA], [FLOWS]], 1, 0),
    (TCP, [[FLOWS, WITHDRAWN, DATA, template(256, SHORT)]], 0, 0),
    (TCP, [[DATA], [WITHDRAWN], [template(256, SHORT)]], 0, 1),
    (TCP, [[DATA], [set_of(2, struct.pack(">HH", 2, 0))], [template(256, SHORT)]], 0, 1),
    (TCP, [[DATA, WITHDRAWN], [template(256, SHORT)]], 0, 0),
    # Over UDP there are no withdrawals; a first Template is for all that waits.
    (UDP, [[DATA], [WITHDRAWN], [FLOWS]], 1, 0),
    (UDP, [[DATA], [FLOWS]], 1, 0),
    # A Template that cannot be read takes the place of the one before it.
    (UDP, [[FLOWS], [set_of(2, struct.pack(">HHHH", 256, 1, 82, 0))], [DATA], [template(256, SHORT)]], 0, 1),
    (UDP, [[FLOWS], [set_of(2, struct.pack(">HHHH", 256, 1, 82, 0))], [DATA]], 0, 0),
])
def test_what_waits_for_a_template_that_is_gone_is_not_read_with_the_next(
    session: Session, messages: list[list[bytes]], flows: int, dropped: int,
) -> None:
    process = received(*(ipfix(7, *sets) for sets in messages), session=session)
    rows = process.take_rows()[0]
    assert (len(rows), process.statistics().dropped_sets) == (flows, dropped)
    assert not flows or rows["packets"].tolist() == [2]


@pytest.mark.parametrize(("fields", "flows", "dropped"), [(None, 1, 0), (SHORT, 0, 1)])
def test_over_udp_what_waits_since_a_template_has_expired_is_of_that(
    fields: tuple[tuple[int, int], ...] | None, flows: int, dropped: int,
) -> None:
    process = CollectingProcess(correct_clocks=False)
    process.receive(ipfix(7, FLOWS), UDP, NOW_S)
    process.receive(ipfix(8), UDP, NOW_S + 2_000)
    process.receive(ipfix(7, DATA), UDP, NOW_S + 2_001)
    assert process.statistics().waiting_sets == 1
    process.receive(ipfix(7, template(256, fields) if fields else FLOWS), UDP, NOW_S + 2_002)
    assert (len(process.take_rows()[0]), process.statistics().dropped_sets) == (flows, dropped)


def test_sets_of_a_withdrawn_template_are_shown_as_dropped() -> None:
    messages = [ipfix(7, FLOWS), ipfix(7, WITHDRAWN), ipfix(7, DATA), ipfix(7, template(256, SHORT))]
    shown = list(entries(Payload(octets, "a", "b", False) for octets in messages))
    assert not shown[3].late and "dropped" in shown[3].refusals[0]


def test_templates_that_are_gone_are_bounded() -> None:
    store = TemplateStore()
    for number in range(40):
        ids = range(300 + 200 * number, 500 + 200 * number)
        sets = [template(id_, SHORT) for id_ in ids] + [set_of(2, struct.pack(">HH", id_, 0)) for id_ in ids]
        decode_export(ipfix(number, *sets), store, session="s", datagram=False, strict=False)
    assert len(store.former("s")) <= 4_096 and store.fields == 0


@pytest.mark.parametrize("seed", range(8))
def test_no_octets_raise_anything_else(seed: int) -> None:
    """Damaged cases, damaged further: cut, overwritten, joined, repeated."""
    chance = random.Random(seed)
    good = [case(number).octets for number, case in enumerate(CASES.values())]
    process, store = CollectingProcess(), TemplateStore()
    tracemalloc.start()
    try:
        for _ in range(400):
            octets = bytearray(chance.choice(good))
            for _ in range(chance.randrange(6)):
                octets[chance.randrange(len(octets))] = chance.choice((0, 1, 2, 3, 4, 127, 128, 254, 255))
            if chance.random() < 0.3:
                octets = octets[:chance.randrange(1, len(octets) + 1)]
            if chance.random() < 0.2:
                octets += chance.choice(good)
            session = chance.choice((UDP, TCP))
            process.receive(bytes(octets), session, NOW_S)
            try:
                message = decode_export(bytes(octets), store, session=session.key, datagram=session.datagram,
                                        strict=False)
            except IpfixDecodeError as refusal:
                assert refusal.fault in ("version", "length", "template")
                continue
            assert sum(part.count for part in message.data_sets) <= len(octets)
        process.take_rows()[0]
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def withdrawn(number: int) -> bytes:
    """A Template that is withdrawn, and an empty Set of it."""
    return set_of(2, struct.pack(">HH", 256 + number, 0)) + set_of(256 + number, b"")


WORST: dict[str, Callable[[int], bytes]] = {
    "empty options template sets": lambda share: ipfix(7, *[b"\0\1\0\4"] * (16_000 // share)),
    "templates of reserved ids": lambda share: ipfix(7, set_of(2, b"\0\x64\0\1\0\1\0\4" * (8_000 // share))),
    "zeros": lambda share: ipfix(7, bytes(65_000 // share)),
    "padding between sets": lambda share: ipfix(7, *[bytes(3) + b"\1\0\0\4"] * (9_000 // share)),
    "empty sets before their template": lambda share: ipfix(7, *[b"\1\0\0\4"] * (8_000 // share), FLOWS),
    "withdrawals": lambda share: ipfix(7, *map(withdrawn, range(5_000 // share))),
    "a set too short, then empty ones": lambda share: ipfix(7, FLOWS, b"\1\0\0\3", *[b"\1\0\0\4"] * (16_000 // share)),
    "sets too short among empty ones": lambda share: ipfix(7, FLOWS, *[b"\1\0\0\4\1\0\0\3"] * (8_000 // share)),
}


def calls_for(octets: bytes, session: Session) -> int:
    """How many functions are called to receive a message: the same on any machine, unlike a time."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    assert len(octets) <= 65_535
    sys.setprofile(count)
    try:
        received(octets, session=session)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("session", [UDP, TCP], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", WORST)
def test_a_message_of_many_small_bad_parts_is_read_in_linear_time(name: str, session: Session) -> None:
    fourth, whole = (calls_for(WORST[name](share), session) for share in (4, 1))
    assert whole < 4.2 * fourth + 1_000


SHARED = Path(__file__).parents[4] / "shared" / "data" / "cases"


@pytest.mark.parametrize(("name", "part"), [("options-without-scope/noscope.pcap", "template"),
                                            ("ipfix-length-and-padding/pad.pcap", "padding")])
def test_datagrams_of_others_are_read(name: str, part: str) -> None:
    """The expectation is of their README: one flow of 10 packets and 1,000 octets."""
    if not (SHARED / name).exists():
        pytest.skip("the captures are not there")
    octets = (SHARED / name).read_bytes()
    payload = octets[24 + 16 + 14 + 20 + 8:]  # a file of one Ethernet frame
    process = received(payload)
    assert [(int(row["packets"]), int(row["octets"])) for row in process.take_rows()[0]] == [(10, 1000)]
    assert process.statistics().skipped == ((part, 1),)


def test_cases_are_what_they_say() -> None:
    assert isinstance(CASES["whole"](1), Damaged) and len(CASES) > 50


@pytest.mark.parametrize(("behind", "lost"), [(b"", 5), (bytes(2), 5), (b"\xff" * 8, 5)])
def test_losses_show_behind_messages_that_are_padded(behind: bytes, lost: int) -> None:
    first = ipfix(7, FLOWS, set_of(256, flow(7, 1))) + behind
    later = ipfix(7, set_of(256, flow(7, 2)))
    assert received(first, later[:8] + struct.pack(">I", 6) + later[12:] + behind).statistics().lost_records == lost


def test_no_loss_is_counted_for_records_that_were_skipped() -> None:
    damaged = ipfix(7, FLOWS, set_of(256, flow(7, 1) + flow(7, 2)[:20]))
    later = ipfix(7, set_of(256, flow(7, 2)))
    assert received(damaged, later[:8] + struct.pack(">I", 2) + later[12:]).statistics().lost_records == 0
