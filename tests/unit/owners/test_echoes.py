"""Who gets the answers of ping, and the questions of others' ping."""

from __future__ import annotations

import numpy as np

from flowtop.capture.ebpf.owners import _name_refusals, _pair_echoes
from flowtop.model.kinds import Direction, Protocol
from flowtop.model.owners import KERNEL, NO_OWNER, owner_id
from tests.unit.factories import ACK, FIN, PSH, RST, SYN, counters
from tests.unit.owners.test_conversations import flow, keys

REQUEST, REPLY = 8 << 8, 0
REQUEST_V6, REPLY_V6 = 128 << 8, 129 << 8
PING, OTHER = owner_id(7, 1 << 20), owner_id(8, 1 << 20)


def test_a_reply_is_of_who_asked_and_a_request_of_who_answers() -> None:
    icmp = Protocol.ICMP
    flows = keys(
        flow("10.0.0.1", 0, "10.0.0.2", REQUEST, icmp), flow("10.0.0.2", 0, "10.0.0.1", REPLY, icmp),
        flow("10.0.0.3", 0, "10.0.0.1", REQUEST, icmp), flow("10.0.0.1", 0, "10.0.0.3", REPLY, icmp),
        flow("10.0.0.4", 0, "10.0.0.1", REPLY, icmp),  # that nobody asked for
        flow("10.0.0.2", 0, "10.0.0.1", 3 << 8, icmp),  # unreachable
        flow("10.0.0.2", 8, "10.0.0.1", REPLY, Protocol.UDP),
        flow("::1", 0, "::1", REQUEST_V6, Protocol.ICMPV6), flow("::1", 0, "::1", REQUEST_V6, Protocol.ICMPV6),
        flow("::1", 0, "::1", REPLY_V6, Protocol.ICMPV6), flow("::1", 0, "::1", REPLY_V6, Protocol.ICMPV6))
    into, out = int(Direction.INGRESS), int(Direction.EGRESS)
    flows["direction"] = [out, into, into, out, into, into, into, out, into, out, into]
    owners = np.array([PING, NO_OWNER, NO_OWNER, KERNEL, NO_OWNER, NO_OWNER, NO_OWNER, OTHER, NO_OWNER, KERNEL,
                       NO_OWNER], np.uint64)
    _pair_echoes(flows, owners)
    assert owners.tolist() == [PING, PING, KERNEL, KERNEL, NO_OWNER, NO_OWNER, NO_OWNER, OTHER, KERNEL, KERNEL, OTHER]


def test_a_reset_of_no_socket_is_the_kernels_answer() -> None:
    """To a scanner in a container, whose own socket would be found for the conversation; but a flow of a connection
    had a socket once, and what comes in is somebody else's."""
    seen = [SYN, RST | ACK, RST, RST | PSH | ACK, FIN | RST | ACK, ACK, RST | ACK, RST | ACK]
    flows = keys(*(flow("10.0.0.1", 22, "10.0.0.2", 1000 + number) for number in range(len(seen))))
    into, out = int(Direction.INGRESS), int(Direction.EGRESS)
    flows["direction"] = [out] * 6 + [into, out]
    owners = np.array([NO_OWNER] * 7 + [OTHER], np.uint64)
    _name_refusals(flows, np.concatenate([counters(tcp_bits=bits) for bits in seen]), owners)
    assert owners.tolist() == [NO_OWNER, KERNEL, KERNEL, *[NO_OWNER] * 4, OTHER]
