"""Observation Points: keeps programs attached to the selected interfaces while interfaces change."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from flowtop.capture.ebpf import start
from flowtop.capture.ebpf.attach import Attacher, Attachment, UnseenDirectionError
from flowtop.capture.ebpf.interfaces import Counters, Interface, LinkChanges, Links, Selection
from flowtop.capture.ebpf.netlink import DumpInterruptedError
from flowtop.capture.ebpf.totals import UNASSIGNED, Totals
from flowtop.errors import EXIT_NO_PERMISSION, FlowtopError
from flowtop.model.kinds import Direction, Layer
from flowtop.model.record import Unobserved

ProgramTable = Mapping[Direction, int]
"""File descriptor of the program for each direction."""

_LAST_WORDS_NS = 2_000_000_000
"""How long to wait for the notification of an interface that is no longer listed; load delays it."""
_MOST_MOVES = 3
"""How often flowtop goes before the programs of others on one interface: another one may want to be first too."""
_MOST_INSPECTED = 32
"""Interfaces whose programs are listed at one drain."""


def unobserved(interface: str, unseen: Mapping[Direction, str]) -> list[Unobserved]:
    """What of an interface is not observed: a direction each, or once that it is not, if both are unseen.

    Args:
        unseen: directions that cannot be observed, and why.
    """
    if set(unseen) == set(Direction):
        return [Unobserved(interface, "; ".join(dict.fromkeys(unseen[direction] for direction in Direction)))]
    return [Unobserved(interface, reason, direction) for direction, reason in unseen.items()]


class Companion(Protocol):
    """Additional programs, attached temporarily beside the counting ones."""

    def programs(self, layer: Layer) -> ProgramTable:
        """Programs to attach to an interface of this layer."""

    def describe(self, ifindex: int, name: str, layer: Layer) -> None:
        """Name and type of an interface; called before attaching."""


@dataclass(slots=True)
class _Observed:
    """An observed interface.

    Attributes:
        attachments: of the counting programs.
        beside: attachments of the companion; None if not attached yet.
        unseen: directions without a hook, and why.
        unwritten: directions in which the companion has no hook, and why.
        hidden: directions in which others' programs keep packets from flowtop's, and which.
    """

    name: str
    layer: Layer
    attachments: dict[Direction, Attachment]
    beside: dict[Direction, Attachment] | None = None
    unseen: dict[Direction, str] = field(default_factory=dict)
    unwritten: dict[Direction, str] = field(default_factory=dict)
    hidden: dict[Direction, str] = field(default_factory=dict)


class ObservationPoints:
    """Attaches to selected interfaces, after opening their totals; detaches from removed ones.

    Args:
        selection: interfaces to observe.
        links: queries interfaces.
        attacher: how to attach.
        programs: the counting programs.
        totals: totals of the interfaces.
        clock_ns: monotonic time.
    """

    def __init__(
        self, selection: Selection, links: Links, attacher: Attacher, programs: ProgramTable, totals: Totals,
        clock_ns: Callable[[], int],
    ) -> None:
        self._selection = selection
        self._links = links
        self._attacher = attacher
        self._programs = programs
        self._totals = totals
        self._clock_ns = clock_ns
        self._observed: dict[int, _Observed] = {}
        self._names: dict[int, str] = {}
        self._refused: dict[int, Unobserved] = {}
        self._full: set[int] = set()  # of the refused: those without room for a program, or for its link
        self._moves: Counter[int] = Counter()
        self._missing_since: dict[int, int] = {}
        self._postponed = LinkChanges()
        self._companion: Companion | None = None

    @property
    def unobserved(self) -> tuple[Unobserved, ...]:
        """What of the selected interfaces is not observed."""
        found = list(self._refused.values())
        for observed in self._observed.values():
            found += unobserved(observed.name, observed.unseen)
            found += [replace(one, packets=True) for one in unobserved(observed.name, observed.unwritten)]
            found += [Unobserved(observed.name, reason, direction, in_part=True)
                      for direction, reason in observed.hidden.items()]
        return tuple(sorted(found, key=lambda one: (one.interface, one.direction or 0)))

    def attached(self) -> tuple[str, ...]:
        """Names of the interfaces that are observed, sorted."""
        return tuple(sorted(observed.name for observed in self._observed.values()))

    def names(self) -> dict[int, str]:
        """Name by ifindex of every interface with totals."""
        known = self._totals.known()
        self._names = {ifindex: name for ifindex, name in self._names.items() if ifindex in known}
        return self._names | ({UNASSIGNED: "?"} if self._totals.unassigned_counted() else {})

    def reconcile(self, changes: LinkChanges, budget_ns: int) -> bool:
        """Attach to and detach from interfaces so that the selected ones are observed.

        Attaching takes an RCU grace period each, so with hundreds of interfaces this stops after about `budget_ns`.

        Returns:
            Whether all selected interfaces are observed; if not, call it again (without changes) for the rest.
        """
        deadline = self._clock_ns() + budget_ns
        changes = self._postponed.then(changes)
        try:
            listed = self._links.list()
        except DumpInterruptedError:
            self._postponed = changes  # the list may be incomplete: detach nothing
            return False
        self._postponed = LinkChanges()
        existing = {interface.index: interface for interface in listed}
        for ifindex in list(self._observed):
            if self._ended(ifindex, existing, changes):
                self._forget(ifindex, changes.final.get(ifindex))
            elif ifindex in existing:
                self._observed[ifindex].name = self._names[ifindex] = existing[ifindex].name
        for ifindex in list(self._moves):
            if ifindex not in existing:
                del self._moves[ifindex]
        self._refused = {ifindex: refusal for ifindex, refusal in self._refused.items()
                         if ifindex in existing and ifindex not in changes.suspect}
        self._full &= self._refused.keys()
        waiting = [interface for interface in existing.values() if self._selection.selects(interface)
                   and interface.index not in self._observed and interface.index not in self._refused]
        for interface in waiting:
            self._observe(interface)
            if self._clock_ns() > deadline:
                return interface is waiting[-1] and not self._missing_since and self._accompanied(deadline)
        return self._accompanied(deadline) and not self._missing_since

    def accompany(self, companion: Companion | None) -> None:
        """Attach the companion's programs too, to observed interfaces in the next `reconcile`; None detaches them.

        They are attached before the counting programs and detached after them, so they see every counted packet.
        """
        for observed in self._observed.values():
            _close(observed)
        self._companion = companion

    def _accompanied(self, deadline: int) -> bool:
        """Attach the companion's programs where missing; returns whether they are attached everywhere."""
        if self._companion is None:
            return True
        for ifindex, observed in self._observed.items():
            if observed.beside is None:
                if self._clock_ns() > deadline:
                    return False
                self._attach_companion(ifindex, observed)
        return True

    def _attach_companion(self, ifindex: int, observed: _Observed) -> None:
        """Attach the companion's programs to one interface, where it has none. Counting goes on without them."""
        if self._companion is None:
            return
        if observed.beside is None:
            observed.beside = {}
            self._companion.describe(ifindex, observed.name, observed.layer)
        for direction, program in self._companion.programs(observed.layer).items():
            if direction in observed.beside:
                continue
            try:
                observed.beside[direction] = self._attacher.attach(ifindex, direction, program)
            except UnseenDirectionError as error:
                if direction not in observed.unseen:  # else it is said of the counting program
                    observed.unwritten[direction] = str(error)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    observed.unwritten[direction] = f"cannot attach: {error.strerror}"
            else:
                observed.unwritten.pop(direction, None)

    def _attach(self, ifindex: int, direction: Direction, observed: _Observed) -> None:
        """Attach the counting program, in the companion's place if there is no other.

        Raises:
            OSError, UnseenDirectionError: see Attacher.attach.
        """
        try:
            attachment = self._attacher.attach(ifindex, direction, self._programs[direction])
        except UnseenDirectionError as error:
            beside = (observed.beside or {}).pop(direction, None)
            observed.unwritten.pop(direction, None)
            if beside is None:
                raise
            beside.close()
            attachment = self._attacher.attach(ifindex, direction, self._programs[direction])
            observed.unwritten[direction] = str(error)
        observed.attachments[direction] = attachment

    def _ended(self, ifindex: int, existing: Mapping[int, Interface], changes: LinkChanges) -> bool:
        """Whether an interface or its attachments are gone."""
        attachments = self._observed[ifindex].attachments.values()
        if ifindex in existing:
            self._missing_since.pop(ifindex, None)
            suspect = changes.all_suspect or ifindex in changes.suspect
            return suspect and not all(attachment.alive() for attachment in attachments)
        # The interface leaves the list before the notification with its last counters arrives: wait for that.
        since = self._missing_since.setdefault(ifindex, self._clock_ns())
        return ifindex in changes.final or changes.all_suspect or self._clock_ns() - since > _LAST_WORDS_NS

    def _observe(self, interface: Interface) -> None:
        if interface.layer is None:
            self._refused[interface.index] = Unobserved(interface.name, interface.refusal)
            return
        observed = _Observed(interface.name, interface.layer, {})
        self._observed[interface.index], self._names[interface.index] = observed, interface.name
        try:
            self._totals.claim(interface.index, interface.layer)
            self._attach_companion(interface.index, observed)
            for direction in Direction:
                self._observe_direction(interface, direction, observed)
            if not observed.attachments:
                self._forget(interface.index, None)
                (self._refused[interface.index],) = unobserved(interface.name, observed.unseen)
                self._full.add(interface.index)
        except OSError as error:
            self._forget(interface.index, None)
            if error.errno in (errno.EPERM, errno.EACCES):
                raise FlowtopError(f"cannot attach to {interface.name}: operation not permitted",
                                   hint=start.HINT, exit_code=EXIT_NO_PERMISSION) from error
            if error.errno != errno.ENODEV:
                self._refused[interface.index] = Unobserved(interface.name, f"cannot attach: {error.strerror}")
            if error.errno == errno.EMFILE:  # there is room when another interface goes
                self._full.add(interface.index)

    def _observe_direction(self, interface: Interface, direction: Direction, observed: _Observed) -> None:
        """Begin to count the packets of one direction, or note why that is not possible. Raises OSError."""
        counters = self._links.counters_of(interface.index)
        if counters is None:
            raise OSError(errno.ENODEV, "the interface is gone")
        # What no hook sees is not compared either: it is another interface's, or said.
        compared = direction not in interface.never_seen
        self._totals.baseline(interface.index, direction, counters if compared else None)
        try:
            self._attach(interface.index, direction, observed)
        except UnseenDirectionError as error:
            observed.unseen[direction] = str(error)
            self._totals.baseline(interface.index, direction, None)
        else:
            observed.unseen.pop(direction, None)

    def fill_gaps(self) -> None:
        """Attach where there was no room for a program, if there is now: nobody says when another one goes."""
        places = {ifindex: (observed.unseen, observed.unwritten) for ifindex, observed in self._observed.items()
                  if observed.unseen or observed.unwritten}
        roomy = [ifindex for ifindex, (unseen, unwritten) in places.items()
                 if any(self._attacher.has_room(ifindex, direction) for direction in {*unseen, *unwritten})]
        roomy += [ifindex for ifindex in self._full
                  if any(self._attacher.has_room(ifindex, direction) for direction in Direction)]
        if not roomy:
            return
        existing = {interface.index: interface for interface in self._listed()}
        for ifindex in roomy:
            if (interface := existing.get(ifindex)) is None:
                continue  # it is gone: the notification follows
            if ifindex in self._full:
                self._full.discard(ifindex)
                del self._refused[ifindex]
                self._observe(interface)
                continue
            observed = self._observed[ifindex]
            try:
                for direction in list(observed.unseen):
                    self._observe_direction(interface, direction, observed)
            except OSError:
                continue  # as above
            self._attach_companion(ifindex, observed)

    def inspect(self, short: Iterable[tuple[int, Direction]]) -> None:
        """Look for programs that keep packets from flowtop's, and go before them where that is possible.

        Args:
            short: (ifindex, direction) where fewer packets were seen than the interface has counted.
        """
        places = list(short)[:_MOST_INSPECTED]
        for ifindex, observed in self._observed.items():
            for direction in [direction for direction in observed.hidden if (ifindex, direction) not in places]:
                del observed.hidden[direction]
        for ifindex, direction in places:
            found = self._observed.get(ifindex)
            attachment = found.attachments.get(direction) if found else None
            if found is None or attachment is None:
                continue
            try:
                ahead = attachment.ahead()
            except OSError:
                continue  # the interface is gone: the notification follows
            if not ahead.programs:
                found.hidden.pop(direction, None)
                continue
            programs = tuple(dict.fromkeys(ahead.programs))  # a u32 filter is several
            reason, runs = f"packets end at {', '.join(programs[:3])}", "runs" if len(programs) == 1 else "run"
            if ahead.passable and self._moves[ifindex] < _MOST_MOVES:
                self._moves[ifindex] += 1
                interface = next((one for one in self._listed() if one.index == ifindex), None)
                if interface is None:
                    continue
                self._forget(ifindex, None)
                self._observe(interface)
                if (moved := self._observed.get(ifindex)) is not None:
                    moved.hidden[direction] = f"{reason}, which ran first until now"
            else:
                found.hidden[direction] = f"{reason}, which {runs} before flowtop's"

    def _listed(self) -> list[Interface]:
        try:
            return self._links.list()
        except DumpInterruptedError:
            return []

    def _forget(self, ifindex: int, final: Counters | None) -> None:
        """Detach from an interface and close its totals. `final`: its last counters, if it was deleted."""
        observed = self._observed.pop(ifindex)
        self._missing_since.pop(ifindex, None)
        for direction, attachment in observed.attachments.items():
            self._totals.count_interface(ifindex, direction, final or self._links.counters_of(ifindex))
            attachment.close()
        _close(observed)
        self._totals.vanish(ifindex)

    def detach(self, changes: LinkChanges) -> None:
        """Detach all programs; the counters of each interface are read just before.

        Args:
            changes: changes of interfaces that were not handled yet.
        """
        changes = self._postponed.then(changes)
        for ifindex in list(self._observed):
            self._forget(ifindex, changes.final.get(ifindex))


def _close(observed: _Observed) -> None:
    """Detach the companion's programs from an interface."""
    for attachment in (observed.beside or {}).values():
        attachment.close()
    observed.beside = None
    observed.unwritten.clear()
