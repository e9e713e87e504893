"""Detect the same packets at several Observation Points (veth, bridge, bond, VLAN device, uplink), to count them once.

Flows of the same conversation (CONVERSATION_BYTES: addresses, ports, protocol, version, kind) are one stream of
packets, seen several times. Exceptions: flows of one Observation Point (interface and direction) differ in VLAN, so
they are different packets. Flows in different tunnels (VNIs, GRE keys) are different packets too: each tunnel of a
conversation has a primary of its own, and only flows outside tunnels (on the tunnel's device) repeat packets of the
head's tunnel.

The Observation Point that saw the conversation first is its primary; flows of other points are duplicates. Within a
batch, the order is by first_ns, then points with a sending local socket (the clock is coarse: a packet may pass several
points within one tick), then ingress before egress, then ifindex; later batches do not change it. If the primary ends,
or is quiet for TAKEOVER_NS while another flow continues (the route changed), another becomes primary. Its packets so
far remain counted as duplicate, so nothing is counted twice.

Limits: two streams with equal addresses and ports in different VLANs or tunnels count as one if they are seen only on
different devices; and with address translation both sides count, as they are different conversations.

In the store, `head` is the slot of the conversation's head, a flow of the primary (-1: not deduplicated; -2 - head:
after the flow has ended), and `members` at the head is the number of its live flows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import KeyIndex, Slots
from flowtop.metering.store import FlowStore
from flowtop.model.kinds import Kind
from flowtop.model.record import CONVERSATION_BYTES

TAKEOVER_NS = 2_000_000_000


class Deduplicator:
    """Maintains `duplicate`, `head` and `members` of a FlowStore."""

    def __init__(self, store: FlowStore, rng: np.random.Generator) -> None:
        self._store = store
        self._index = KeyIndex(rng, CONVERSATION_BYTES)

    @property
    def nbytes(self) -> int:
        """Octets of memory, without the store's fields."""
        return self._index.nbytes

    def join(self, new: list[Slots]) -> None:
        """Assign new flows to conversations. Aggregates contain several flows and have no conversation."""
        store = self._store
        newcomers: list[Slots] = []
        for part in new:
            store.head[part] = -1
            slots = part[store.keys["kind"][part] != Kind.AGGREGATE]
            owners = self._index.find_or_insert(store.key_words[slots], slots, store.key_words)
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
        settled, heads = joined[~undecided], heads[~undecided]
        store.duplicate[settled] = self._differs(settled, heads)
        others = self._other_tunnel(settled, heads)
        if others.any():
            members = self._members_of(np.unique(heads[others]))
            stays = store.head[members] == members
            self._elect(members, np.where(stays, -1, np.where(fresh[members], 2, store.duplicate[members])))

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
        self._index.remove(store.key_words[alone], alone)
        bereft = leaving[store.members[leaving] > 0]
        if len(bereft):
            left = self._members_of(bereft)
            self._elect(left, store.duplicate[left].astype(np.int64))

    def take_over(self, touched: Slots) -> None:
        """Let a duplicate become primary if it continues while the primary has been quiet."""
        store = self._store
        duplicates = touched[store.duplicate[touched]]
        heads = store.head[duplicates].astype(np.int64)
        quiet = (store.last_ns[duplicates] - store.last_ns[heads] > TAKEOVER_NS) | self._other_tunnel(duplicates, heads)
        if not quiet.any():
            return
        members = self._members_of(np.unique(heads[quiet]))
        group = self._streams(members, store.head[members].astype(np.int64))
        newest = np.zeros(group.max() + 1, np.int64)
        np.maximum.at(newest, group, store.last_ns[members])
        # The primary may have several flows (VLANs); it is quiet if all of them are.
        primary = ~store.duplicate[members]
        newest_primary = np.zeros(len(newest), np.int64)
        np.maximum.at(newest_primary, group[primary], store.last_ns[members[primary]])
        yields = (newest - newest_primary > TAKEOVER_NS)[group]
        stale = newest[group] - store.last_ns[members] > TAKEOVER_NS
        whole = np.isin(store.head[members], store.head[members[yields]])  # all tunnels of a conversation, or none
        stays = ~yields & (store.head[members] == members)
        rank = np.where(stays, -1, np.where(yields, stale, store.duplicate[members]))
        self._elect(members[whole], rank[whole])

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

    def _elect(self, members: Slots, rank: npt.NDArray[np.int64]) -> None:
        """Make the flow of lowest rank, then the first seen, the head of each conversation; tunnels likewise.

        Args:
            members: all live flows of these conversations.
            rank: rank of each.
        """
        store = self._store
        if len(members) == 0:
            return
        old = store.head[members].astype(np.int64)
        keys = store.keys
        order = np.lexsort((store.flow_id[members], keys["ifindex"][members], keys["direction"][members],
                            store.socket_cookie[members] == 0, store.first_ns[members], rank, old))
        members, old = members[order], old[order]
        starts = np.flatnonzero(np.concatenate(([True], old[1:] != old[:-1])))
        sizes = np.diff(np.append(starts, len(old)))
        new = members[starts]
        changed = new != old[starts]
        gone, come = old[starts][changed], new[changed]
        self._index.replace(store.key_words[gone], gone, come)
        store.members[gone] = 0
        store.members[new] = sizes
        heads = np.repeat(new, sizes)
        store.head[members] = heads
        firsts = np.unique(self._streams(members, heads), return_index=True, return_inverse=True)
        store.duplicate[members] = self._differs(members, members[firsts[1]][firsts[2].reshape(-1)])


def heads_of(store: FlowStore) -> npt.NDArray[np.int32]:
    """Slot of the head of each flow's conversation, i4, one per slot below top; -1 if there is none.

    The head of an ended flow may have ended too, and its slot may be used by another conversation.
    """
    head = store.head[:store.top]
    return np.where(head < -1, -2 - head, head)
