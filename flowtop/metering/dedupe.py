"""Detect the same packets at several Observation Points (veth, bridge, bond, VLAN device, uplink), to count them once.

Flows of the same conversation (CONVERSATION_BYTES: addresses, ports, protocol, version, kind) may have the same
packets. Whether they have is decided for each batch (a second of packets, or less), from how many packets each flow had
in it, and when: see repeats.py. So a conversation that moves to another interface (a route change, a failover, ECMP)
loses nothing, and what several points saw at the same time counts once. A flow may have both: packets that count, and
packets that are duplicates.

Exceptions: flows of one Observation Point (interface and direction) differ in VLAN, so they are different packets.
Flows in different tunnels (VNIs, GRE keys) are different packets too; only flows outside tunnels (on the tunnel's
device) repeat packets of the head's tunnel.

The Observation Point that saw the conversation first is its primary: packets count there, if it had them. Within a
batch, the order is by first_ns, then points with a sending local socket (the clock is coarse: a packet may pass several
points within one tick), then ingress before egress, then ifindex; later batches do not change it. If the primary ends,
or is quiet for TAKEOVER_NS while another flow continues, another becomes primary.

A flow is marked `duplicate` while most of its packets are duplicates. When a flow becomes primary it is not marked, and
the quiet one that it replaces is, if the new one had most of its packets: those count at the new one from then on where
flows are listed or summed. Totals and records do not change: each packet is reported once.

Limits: two streams with equal addresses and ports in different VLANs or tunnels count as one if they are seen only on
different devices at the same time. So do the packets of one conversation that are spread over several paths within a
batch (packets sent over two uplinks in turn, a path that is left and returned to): every second packet looks the same
as all packets after a delay, and which interfaces pass packets to each other is not known (devices stack, but programs
redirect, too). The two sides of a connection with address translation are one conversation where the batch says so
(FlowBatch.conversations), from the first batch of a flow on; else both count.

In the store, `head` is the slot of the conversation's head, a flow of the primary (-1: not deduplicated; -2 - head:
after the flow has ended), and `members` at the head is the number of its live flows. `repeated` is how many packets of
a flow are duplicates; `ahead` at the head is how many packets other flows had before it, the latest at `ahead_ns`;
`before_ns` is the time of a flow's last packet up to the latest batch with packets of the conversation (0: not known).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import KeyIndex, Slots, Words
from flowtop.metering.repeats import Repeats, Seen, octets_of, same_span, united
from flowtop.metering.store import I8, FlowStore
from flowtop.model.kinds import Kind
from flowtop.model.record import CONVERSATION_BYTES, FLOW_KEY_DTYPE

TAKEOVER_NS = 2_000_000_000


def _words(member: str) -> Words:
    """A key with all bits of a member set, and no others."""
    key = np.zeros(1, FLOW_KEY_DTYPE)
    key[member] = np.iinfo(FLOW_KEY_DTYPE[member]).max
    return key.view(np.uint64)


# Words of a key; in that of the direction, all else is of the conversation.
_DIRECTION, _TAGS_AND_INTERFACE, _TUNNEL = (
    int(np.flatnonzero(_words(name))[0]) for name in ("direction", "ifindex", "tunnel"))
_VLAN_ID, _IFINDEX = (_words(name)[_TAGS_AND_INTERFACE] for name in ("vlan_id", "ifindex"))


class Deduplicator:
    """Maintains `duplicate`, `repeated`, `head`, `members` and `ahead` of a FlowStore."""

    def __init__(self, store: FlowStore, rng: np.random.Generator) -> None:
        self._store = store
        self._index = KeyIndex(rng, CONVERSATION_BYTES)
        self._place = np.empty(0, np.int32)  # by slot; all -1 between calls

    @property
    def nbytes(self) -> int:
        """Octets of memory, without the store's fields."""
        return self._index.nbytes + self._place.nbytes

    def join(self, new: list[Slots]) -> None:
        """Assign new flows to conversations. Aggregates contain several flows and have no conversation."""
        store = self._store
        newcomers: list[Slots] = []
        for part in new:
            store.head[part] = -1
            slots = part[store.keys["kind"][part] != Kind.AGGREGATE]
            owners = self._index.find_or_insert(store.conversation_words[slots], slots, store.conversation_words)
            store.head[slots] = owners
            store.members[slots[owners == slots]] = 1
            newcomers.append(slots[owners != slots])
            np.add.at(store.members, owners[owners != slots], 1)
        joined = np.concatenate(newcomers) if newcomers else np.empty(0, np.int64)
        if len(joined) == 0:
            return
        heads = store.head[joined].astype(np.int64)
        fresh = np.zeros(store.top, np.bool_)
        for part in new:
            fresh[part] = True
        undecided = fresh[heads]
        candidates = np.concatenate((joined[undecided], np.unique(heads[undecided])))
        self._elect(candidates, np.zeros(len(candidates), np.int64))

    def match(self, slots: Slots, counters: npt.NDArray[np.void], since_ns: int) -> Repeats | None:
        """Find the duplicates among the packets of a batch, and mark flows. Another flow may become primary.

        Args:
            slots: flow of each entry, each once; the counters have been added to it.
            counters: FLOW_COUNTERS_DTYPE, shape (n,).
            since_ns: when the batch began: the time of the previous one.

        Returns:
            The entries with duplicates; None: there are none.
        """
        store = self._store
        heads = store.head[slots]
        rows = np.flatnonzero((heads >= 0) & (store.members[heads] > 1))
        if not len(rows):
            return None
        slot, head = slots[rows], heads[rows].astype(np.int64)
        seen = Seen(*(counters[name][rows].astype(np.int64) for name in ("packets", "first_ns", "last_ns")))
        own = slot == head
        simple = self._simple(slot, head, own, seen)
        repeated = np.where(own, 0, seen.packets)
        all_simple = simple.all()
        if not all_simple:
            odd = np.flatnonzero(~self._all_of(head, simple))
            repeated[odd] = self._unite(slot[odd], head[odd], seen.take(odd), since_ns)
        others = np.flatnonzero(~own)
        marked = others if all_simple else np.flatnonzero((repeated > 0) | ~own)
        store.repeated[slot[marked]] += repeated[marked].astype(np.uint64)
        self._mark(slot[marked])
        store.before_ns[slot] = seen.last_ns
        store.before_ns[head] = store.last_ns[head]
        self._take_over(slot[others], head[others])
        some = marked[(repeated[marked] > 0) | (seen.packets[marked] == 0)]
        return Repeats(rows[some], repeated[some].astype(np.uint64),
                       octets_of(repeated[some], seen.packets[some], counters["octets"][rows[some]]))

    def _simple(self, slot: Slots, head: Slots, own: npt.NDArray[np.bool_], seen: Seen) -> npt.NDArray[np.bool_]:
        """Whether an entry is the head's, or surely repeats packets of the head's entry: this is so for nearly all."""
        store = self._store
        place = self._places()
        mine, others = np.flatnonzero(own), np.flatnonzero(~own)
        place[head[mine]] = mine
        lead = place[head[others]].astype(np.int64)
        place[head[mine]] = -1
        theirs, leading = seen.take(others), seen.take(lead)
        surely = (lead >= 0) & (theirs.packets <= leading.packets) & same_span(theirs, leading)
        keys, of_head = (store.key_words.take(at, axis=0) for at in (slot[others], head[others]))
        # A point may have several flows of a conversation, in different VLANs or tunnels: those are added up.
        surely &= keys[:, _TUNNEL] == of_head[:, _TUNNEL]
        surely &= keys[:, _TAGS_AND_INTERFACE] & _VLAN_ID == 0
        surely &= (keys[:, _DIRECTION] != of_head[:, _DIRECTION]) | (
            (keys[:, _TAGS_AND_INTERFACE] ^ of_head[:, _TAGS_AND_INTERFACE]) & _IFINDEX != 0)
        simple = np.empty(len(slot), np.bool_)
        simple[others] = surely
        simple[mine] = store.ahead[slot[mine]] == 0
        return simple

    def _all_of(self, head: Slots, simple: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether all entries of each one's conversation are simple."""
        place = self._places()
        odd = head[~simple]
        place[odd] = 1
        whole: npt.NDArray[np.bool_] = place[head] < 0
        place[odd] = -1
        return whole

    def _places(self) -> npt.NDArray[np.int32]:
        if len(self._place) < self._store.capacity:
            self._place = np.full(self._store.capacity, -1, np.int32)
        return self._place

    def _unite(self, slot: Slots, head: Slots, seen: Seen, since_ns: int) -> I8:
        """How many packets of each entry are duplicates, for whole conversations."""
        store, keys = self._store, self._store.keys
        stream = self._streams(slot, head)
        order = np.lexsort((store.flow_id[slot], keys["ifindex"][slot], keys["direction"][slot],
                            store.socket_cookie[slot] == 0, store.first_ns[slot], store.duplicate[slot],
                            slot != head, stream))
        ordered, of = slot[order], head[order]
        alike = ~self._other_tunnel(ordered, of)  # the stream of the head, which need not be in the batch
        repeated = np.empty(len(slot), np.int64)
        repeated[order] = united(store, stream[order], ordered, np.where(alike, of, -1), seen.take(order),
                                 since_ns)
        return repeated

    def _mark(self, slots: Slots) -> None:
        store = self._store
        store.duplicate[slots] = 2 * store.repeated[slots] > store.packet_total[slots]

    def pass_by(self, ended: Slots) -> None:
        """Flows began and ended within a batch, each alone in its conversation; the index is not used."""
        self._store.head[ended] = -2 - ended

    def leave(self, ended: Slots) -> None:
        """Remove flows that have just ended (end_reason is set).

        If a head leaves other flows, one of them takes over.
        """
        store = self._store
        ended = ended[store.head[ended] >= 0]
        heads = store.head[ended].astype(np.int64)
        np.subtract.at(store.members, heads, 1)
        leaving = ended[heads == ended]
        store.head[ended] = -2 - heads
        alone = leaving[store.members[leaving] == 0]
        self._index.remove(store.conversation_words[alone], alone)
        bereft = leaving[store.members[leaving] > 0]
        if len(bereft):
            left = self._members_of(bereft)
            self._elect(left, np.zeros(len(left), np.int64))

    def _take_over(self, touched: Slots, heads: Slots) -> None:
        """Let another flow become primary if it continues while the primary has been quiet.

        Args:
            touched: flows with packets in the batch.
            heads: of each, another flow.
        """
        store = self._store
        quiet = heads[store.last_ns[touched] - store.last_ns[heads] > TAKEOVER_NS]
        if not len(quiet):
            return
        members = self._members_of(np.unique(quiet))
        heads = store.head[members].astype(np.int64)
        newest = np.zeros(store.top, np.int64)
        np.maximum.at(newest, heads, store.last_ns[members])
        self._elect(members, (newest[heads] - store.last_ns[members] > TAKEOVER_NS).astype(np.int64), replaces=True)

    def _differs(self, slots: Slots, heads: Slots) -> npt.NDArray[np.bool_]:
        """Whether flows are of another Observation Point than their head."""
        differs: npt.NDArray[np.bool_]
        differs = self._store.observation_points(slots) != self._store.observation_points(heads)
        return differs

    def _other_tunnel(self, slots: Slots, heads: Slots) -> npt.NDArray[np.bool_]:
        """Whether flows are in a tunnel while their head is in another one."""
        tunnels, ids = self._store.keys["tunnel"], self._store.keys["tunnel_id"]
        other: npt.NDArray[np.bool_] = (tunnels[slots] != 0) & (tunnels[heads] != 0) & (
            (tunnels[slots] != tunnels[heads]) | (ids[slots] != ids[heads]))
        return other

    def _streams(self, members: Slots, heads: Slots) -> npt.NDArray[np.int64]:
        """Number the streams: the same number for flows of one conversation in one tunnel."""
        other = self._other_tunnel(members, heads)
        if not other.any():
            numbers = np.unique(heads, return_inverse=True)[1]
        else:
            tunnels, ids = (np.where(other, self._store.keys[name][members], 0) for name in ("tunnel", "tunnel_id"))
            numbers = np.unique(np.stack((heads, tunnels, ids), axis=1), axis=0, return_inverse=True)[1]
        streams: npt.NDArray[np.int64] = numbers.reshape(-1)
        return streams

    def _members_of(self, heads: Slots) -> Slots:
        """Live flows of these conversations. It scans all flows, which is rare enough."""
        store = self._store
        chosen = np.zeros(store.top, np.bool_)
        chosen[heads] = True
        slots = np.flatnonzero(store.live & (store.head[:store.top] >= 0))
        return slots[chosen[store.head[slots]]]

    def _elect(self, members: Slots, rank: npt.NDArray[np.int64], replaces: bool = False) -> None:
        """Make the flow of lowest rank, not marked, then the first seen, the head of each conversation.

        Args:
            members: all live flows of these conversations.
            rank: rank of each.
            replaces: the old heads are live, and packets of the new ones count in place of theirs.
        """
        store = self._store
        if len(members) == 0:
            return
        old = store.head[members].astype(np.int64)
        keys = store.keys
        order = np.lexsort((store.flow_id[members], keys["ifindex"][members], keys["direction"][members],
                            store.socket_cookie[members] == 0, store.first_ns[members], store.duplicate[members],
                            rank, old))
        members, old = members[order], old[order]
        starts = np.flatnonzero(np.concatenate(([True], old[1:] != old[:-1])))
        sizes = np.diff(np.append(starts, len(old)))
        new = members[starts]
        changed = new != old[starts]
        gone, come = old[starts][changed], new[changed]
        self._index.replace(store.conversation_words[gone], gone, come)
        store.members[gone] = 0
        store.members[new] = sizes
        heads = np.repeat(new, sizes)
        store.head[members] = heads
        store.ahead[come] = 0
        if replaces:
            store.repeated[gone] += np.minimum(store.repeated[come], store.packet_total[gone] - store.repeated[gone])
            self._mark(gone)
        at_point = members[np.repeat(changed, sizes) & ~self._differs(members, heads)
                           & ~self._other_tunnel(members, heads)]
        at_point = at_point[~np.isin(at_point, gone)]
        store.repeated[at_point] = 0
        store.duplicate[at_point] = False


def heads_of(store: FlowStore) -> npt.NDArray[np.int32]:
    """Slot of the head of each flow's conversation, i4, one per slot below top; -1 if there is none.

    The head of an ended flow may have ended too, and its slot may be used by another conversation.
    """
    head = store.head[:store.top]
    return np.where(head < -1, -2 - head, head)
