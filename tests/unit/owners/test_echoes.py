"""Who gets the answers of ping, and the questions of others' ping."""

from __future__ import annotations

import numpy as np

from flowtop.capture.ebpf.owners import _pair_echoes
from flowtop.model.kinds import Direction, Protocol
from flowtop.model.owners import KERNEL, NO_OWNER, owner_id
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
