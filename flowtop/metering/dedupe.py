"""The same packet at several Observation Points (veth, bridge, bond, VLAN device, uplink): counted once in totals.

Flows with the same conversation (CONVERSATION_BYTES: addresses, ports, protocol, version, kind) are one stream of
packets seen more than once, unless they are of one Observation Point (interface and direction): then they differ in
VLAN, which are different packets. So are those of different tunnels (VNIs, GRE keys): each tunnel of a conversation
has a primary of its own, and only flows outside tunnels (on the tunnel's device) repeat what the head's tunnel
carries. The Observation Point that saw the conversation first is its primary; flows of any other are duplicates.
"First" is by first_ns, then where a local socket sends (the clock is coarse: a packet may pass several points in one
tick of it), then ingress before egress, then ifindex, among those of one batch; later batches do not change it. When
the primary ends, or is quiet for TAKEOVER_NS while another goes on (the route changed), another takes its place: what
it carried until then stays counted as duplicate, so nothing counts twice.

What this cannot tell: two streams with equal addresses and ports in different VLANs or tunnels that are seen only on
different devices of those; and address translation, where the two sides are different conversations and both count.

In the store, `head` is the slot of the conversation's head, a flow of the primary (-1: takes no part; -2 - head: it
took part until it ended), and `members`, at the head, how many live flows it has.
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
    """Keeps `duplicate`, `head` and `members` of a FlowStore."""

    def __init__(self, store: FlowStore, rng: np.random.Generator) -> None:
        self._store = store
        self._index = KeyIndex(rng, CONVERSATION_BYTES)

    @property
    def nbytes(self) -> int:
        """Octets of memory held, the store's fields not included."""
        return self._index.nbytes

    def join(self, new: list[Slots]) -> None:
        """Flows born in this tick find their conversations. Aggregates stand for many flows: they have none."""
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
        """Flows that came and went, each alone in its conversation: without ever being in the index."""
        self._store.head[ended] = -2 - ended

    def leave(self, ended: Slots) -> None:
        """Flows that have just ended (end_reason is set) leave; where a head left others behind, one takes over."""
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
        """Where duplicates go on and their primary has been quiet, one of them becomes primary."""
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
        # The primary may hold several flows (VLANs): it is quiet when all of them are.
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
        """Which flows are not of their head's Observation Point."""
        differs: npt.NDArray[np.bool_]
        differs = self._store.observation_points(slots) != self._store.observation_points(heads)
        return differs

    def _other_tunnel(self, slots: Slots, heads: Slots) -> npt.NDArray[np.bool_]:
        """Which flows are in a tunnel while their head is in another one."""
        tunnels, ids = self._store.keys["tunnel"], self._store.keys["tunnel_id"]
        other: npt.NDArray[np.bool_] = (tunnels[slots] != 0) & (tunnels[heads] != 0) & (
            (tunnels[slots] != tunnels[heads]) | (ids[slots] != ids[heads]))
        return other

    def _streams(self, members: Slots, heads: Slots) -> npt.NDArray[np.int64]:
        """A number from 0 for each flow, the same for those of one conversation in one tunnel."""
        other = self._other_tunnel(members, heads)
        if not other.any():
            found = np.unique(heads, return_inverse=True)[1]
        else:
            tunnels, ids = (np.where(other, self._store.keys[name][members], 0) for name in ("tunnel", "tunnel_id"))
            found = np.unique(np.stack((heads, tunnels, ids), axis=1), axis=0, return_inverse=True)[1]
        streams: npt.NDArray[np.int64] = found.reshape(-1)
        return streams

    def _members_of(self, heads: Slots) -> Slots:
        """Live flows of these conversations, by one look at all flows: rare enough not to keep lists of members."""
        store = self._store
        wanted = np.zeros(store.top, np.bool_)
        wanted[heads] = True
        slots = np.flatnonzero(store.live & (store.head[:store.top] >= 0))
        return slots[wanted[store.head[slots]]]

    def _elect(self, members: Slots, rank: npt.NDArray[np.int64]) -> None:
        """Give each conversation whose live flows these all are the head of lowest rank, then the first seen; each of
        its other tunnels has a primary likewise."""
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
    """Slot of the head of each flow's conversation, i4, one a slot below top; -1 where there is none.

    An ended flow's head may have ended as well, and its slot may be another conversation's by now.
    """
    head = store.head[:store.top]
    return np.where(head < -1, -2 - head, head)
