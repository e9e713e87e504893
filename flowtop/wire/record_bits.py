"""What the records of a Template do not say, and which end of a biflow they say began it: model.kinds.RecordBits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import reverse_name
from flowtop.model.kinds import SOURCE_LENGTH_SHIFT, BiflowDirection, RecordBits
from flowtop.wire.record_fields import RecordFields

_ICMP_TYPES = ("icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "icmpTypeIPv4", "icmpTypeIPv6")
_OF_KEY = {
    RecordBits.NO_SOURCE_PORT: ("sourceTransportPort", "udpSourcePort", "tcpSourcePort"),
    RecordBits.NO_DESTINATION_PORT: ("destinationTransportPort", "udpDestinationPort", "tcpDestinationPort"),
    RecordBits.NO_PROTOCOL: ("protocolIdentifier", "nextHeaderIPv6"),
    RecordBits.NO_VLAN_ID: ("vlanId", "dot1qVlanId"),
    RecordBits.NO_CUSTOMER_VLAN_ID: ("dot1qCustomerVlanId",),
    RecordBits.NO_SOURCE_MAC: ("sourceMacAddress",),
    RecordBits.NO_DESTINATION_MAC: ("destinationMacAddress", "postDestinationMacAddress"),
    RecordBits.NO_ICMP_TYPE: (*_ICMP_TYPES, "destinationTransportPort"),
}
_OF_PACKETS = {
    RecordBits.NO_TCP_CONTROL_BITS: ("tcpControlBits",),
    RecordBits.NO_TOS: ("ipClassOfService",),
    RecordBits.NO_TTL: ("ipTTL", "minimumTTL"),
}
"""Elements that the reverse direction has of its own."""
_ENDS = ((RecordBits.NO_SOURCE_PORT, RecordBits.NO_DESTINATION_PORT),
         (RecordBits.NO_SOURCE_MAC, RecordBits.NO_DESTINATION_MAC),
         (RecordBits.SOURCE_PREFIX, RecordBits.DESTINATION_PREFIX))
"""Bits of the source and of the destination."""
_LENGTHS = (1 << SOURCE_LENGTH_SHIFT) - 1


def turned(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Bits of flows whose ends are swapped, shape (n,)."""
    lengths = bits >> np.uint32(SOURCE_LENGTH_SHIFT)
    wide = np.uint32(8)
    found = bits & np.uint32(_LENGTHS) | (lengths >> wide | (lengths & np.uint32(0xFF)) << wide) << np.uint32(
        SOURCE_LENGTH_SHIFT)
    for pair in _ENDS:
        one, other = map(np.uint32, pair)
        differ = ((bits & one > 0) != (bits & other > 0)).astype(np.uint32)
        found = found ^ differ * (one | other)
    return found


def unreported(fields: RecordFields, reverse: bool) -> int:
    """The bits of what no record of the Template says of one direction, with the ends as they are in the record."""
    bits = sum(bit for bit, names in _OF_KEY.items() if not any(map(fields.has, names)))
    return int(bits) + sum(bit for bit, names in _OF_PACKETS.items() if not any(
        fields.has(reverse_name(name) if reverse else name) for name in names))


def began(fields: RecordFields, reverse: bool, default: int) -> npt.NDArray[np.uint32] | int:
    """Which end began the conversation: INITIATOR, RESPONDER or 0 for each record, shape (n,), or for all.

    Args:
        default: biflowDirection of records that do not have it.
    """
    bits = {BiflowDirection.INITIATOR: RecordBits.INITIATOR, BiflowDirection.REVERSE_INITIATOR: RecordBits.RESPONDER}
    if reverse:
        bits = {direction: bit ^ (RecordBits.INITIATOR | RecordBits.RESPONDER) for direction, bit in bits.items()}
    values = fields.integers(("biflowDirection",))
    if values is None:
        return int({int(direction): bit for direction, bit in bits.items()}.get(default, 0))
    found = np.zeros(fields.count, np.uint32)
    for direction, bit in bits.items():
        found[values == int(direction)] = bit
    return found
