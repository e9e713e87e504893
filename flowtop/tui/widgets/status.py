"""The bottom two lines: whether every packet is accounted for, and which keys there are."""

from __future__ import annotations

import math

from textual import events
from textual.message import Message
from textual.strip import Strip

from flowtop.export.statistics import ExportStatistics
from flowtop.model.exporters import CollectingStatistics, facts, faults
from flowtop.query.query import Books, Page
from flowtop.recording.recording import RecordingStatistics
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.line import Part, justify
from flowtop.tui.state.exports import accuracy_parts
from flowtop.tui.widgets.hints import NOTHING, Hints, Situation, hint_at, key_hints
from flowtop.tui.widgets.lines import SteadyLines


class StatusLine(SteadyLines):
    """Accuracy and keys; paints what changed."""

    DEFAULT_CSS = "StatusLine { height: 2; width: 1fr; dock: bottom; }"

    def __init__(self) -> None:
        super().__init__()
        self._page: Page | None = None
        self._exports: tuple[ExportStatistics, ...] = ()
        self._notice = ""
        self._hints: Hints = ()
        self._packets: RecordingStatistics | None = None
        self._of_now = False
        self.books = True
        self._situation = Situation()

    class KeyClicked(Message):
        """The hint of a key was clicked: its action."""

        def __init__(self, action: str) -> None:
            super().__init__()
            self.action = action

    def on_click(self, event: events.Click) -> None:
        """Act as the key does whose hint was clicked."""
        if event.screen_y - self.region.y == 1 and not self._notice:
            action = hint_at(event.screen_x - self.region.x, self.size.width, self._hints, self._situation)
            if action:
                self.post_message(self.KeyClicked(action))

    def show(self, page: Page | None, exports: tuple[ExportStatistics, ...] = (), notice: str = "",
             hints: Hints = (), packets: RecordingStatistics | None = None, *, of_now: bool = False,
             books: bool = True, situation: Situation = NOTHING) -> None:
        """Paint what differs.

        Args:
            page: the page on view.
            exports: their figures.
            notice: a message; takes the place of the keys.
            hints: keys that act now, and what they do; none: those of the list.
            packets: figures of the packets that are written.
            of_now: the list is of another time than the counters; say that these are of now.
            books: the counters, also while all is well.
            situation: what the keys of the list act on.
        """
        self.books, self._situation = books, situation
        self._of_now = of_now
        self._page, self._exports, self._notice, self._hints = page, exports, notice, hints
        self._packets = packets
        self.again()

    def make(self, width: int) -> list[Strip]:
        """See SteadyLines."""
        keys = justify([Part(self._notice, theme.CHIP)], [], width) if self._notice else key_hints(
            width, self._hints, self._situation)
        return [accuracy_line(self._page, width, self._exports, self._packets, of_now=self._of_now,
                              books=self.books), keys]


def accuracy_line(page: Page | None, width: int, exports: tuple[ExportStatistics, ...] = (),
                  packets: RecordingStatistics | None = None, *, of_now: bool = False, books: bool = True) -> Strip:
    """The counters in one line, with `now:` before them where the list is of another time; at its right end exports,
    packets written, and flowtop's own cost. Without `books`, one sign for those that say that all is well."""
    if page is None:
        return Strip.blank(width)
    usage = page.usage
    cost = [
        Part(f"{usage.cpu * 100:.1f} %", label="cpu ", rank=4),
        Part(f"{usage.resident_octets / 1e6:.0f} MB", rank=5),
    ]
    now = [Part("now:", theme.WARNING, rank=1)] if of_now else []
    left = _accounts(page) if books else _sign(page)
    return justify([*now, *left], [*_exports(exports), *_packets(packets), *cost], width)


def _exports(exports: tuple[ExportStatistics, ...]) -> list[Part]:
    if not exports:
        return []
    return accuracy_parts(exports)


def _packets(figures: RecordingStatistics | None) -> list[Part]:
    """Packets in the file, and packets of the same flows that are not."""
    if figures is None or figures.state == "ended":
        return []
    parts = [Part(units.count(figures.written), label="written ", rank=1)]
    if figures.dropped:
        parts.append(Part(f"dropped {units.count(figures.dropped)}", theme.ALARM))
    return [*parts, *([Part(units.count(figures.capped), label="capped ", rank=2)] if figures.capped else [])]


EVERY_PACKET = "✓ every packet counted"


def _sign(page: Page) -> list[Part]:
    """One sign while all is well, beside what is unusual; all counters where something is not, or where they are those
    of exporters."""
    parts = _accounts(page)
    if page.collecting is not None or any(part.style is theme.ALARM for part in parts):
        return parts
    usual = {part.label for part in _usual(page)}
    return [Part(EVERY_PACKET, theme.GOOD), *(part for part in parts[1:] if part.label not in usual)]


def _accounts(page: Page) -> list[Part]:
    parts, books = _usual(page), page.books
    optional = (("filtered ", books.filtered_packets), ("aggregated ", books.aggregated_packets),
                ("fragments ", books.unjoined_fragments), ("length lies ", books.lying_lengths),
                ("decrypted ", books.decrypted_packets), ("evicted ", books.evicted_flows),
                ("unlisted ", books.unlisted_packets))
    parts += [Part(units.count(amount), rank=2, label=label) for label, amount in optional if amount]
    if page.own_hidden:
        parts.append(Part(units.things(page.own_hidden, "flow"), rank=3, label="own DNS hidden "))
    if page.owners is not None:
        parts += [Part(words, theme.ALARM, rank=3) for words in page.owners.faults]
    if page.names is not None:
        parts += [Part(words, theme.ALARM, rank=3) for words in page.names.faults]
    networks = page.lookups.networks
    if networks is not None and networks.faults:
        parts.append(Part(f"AS/country: {len(networks.faults)} bad", theme.ALARM, rank=2))
    return parts if page.collecting is None else [*parts, *_collecting(page.collecting)]


def _usual(page: Page) -> list[Part]:
    """The counters that are always there."""
    books = page.books
    parts = [_balance(books, page.collecting), *_coverage(books, page.ingress.packet_rate + page.egress.packet_rate)]
    parts.append(Part(f"{books.observed_packets:,}", rank=2, label="seen "))
    parts.append(Part(units.count(books.ignored_packets), rank=3, label="ignored "))
    if books.lost_packets:
        parts.append(Part(f"lost {books.lost_packets:,}", theme.ALARM))
    else:
        parts.append(Part("0", rank=1, label="lost "))
    parts.append(Part(units.count(books.duplicate_packets), rank=4, label="dup "))
    return parts


def _collecting(statistics: CollectingStatistics) -> list[Part]:
    """How exporters' flows arrive: what was refused or lost, in the units of their protocols."""
    parts = [Part(value, rank=4, label=f"{label} ") for label, value in facts(statistics)]
    return parts + [Part(f"{words} {count:,}", theme.ALARM, rank=2) for words, count in faults(statistics)]


def _balance(books: Books, statistics: CollectingStatistics | None) -> Part:
    """Whether all counters add up, and which share of the observed packets is in a flow or a named counter.

    Figures of exporters are as exact as these; of sampled packets they are estimates.
    """
    if books.unexplained_packets:
        return Part(f"counters off by {books.unexplained_packets:+,}", theme.ALARM)
    if books.unexplained_octets:
        return Part(f"octets off by {books.unexplained_octets:+,}", theme.ALARM)
    if statistics is not None:
        if statistics.unknown_sampling and statistics.sampling_interval == 1:
            return Part("sampled, interval unknown", theme.ALARM)
        return Part("as reported" if statistics.sampling_interval == 1 else "estimates (sampled)")
    observed = books.observed_packets
    share = percent(100_000 * (observed - books.lost_packets) // observed if observed else 100_000)
    return Part(f"exact {share}", theme.ALARM if books.lost_packets else theme.GOOD)


def _coverage(books: Books, packet_rate: float) -> list[Part]:
    """Observed packets against the interfaces' own counters; what is off stays on narrow screens.

    More at egress than an interface has sent is a queue's drops, and no alarm.
    """
    on_their_way = packet_rate * IN_FLIGHT_S
    parts = []
    if books.coverage is not None:
        thousandths = math.floor(books.coverage * 100_000)
        short = thousandths < SHORT_OF and books.interface_packets * (1 - books.coverage) > on_their_way
        parts.append(Part(percent(thousandths), theme.ALARM if short else theme.PLAIN, 2 if short else 6, "coverage "))
    slack = max(on_their_way, books.interface_packets * (100_000 - SHORT_OF) / 100_000)
    if books.excess_ingress_packets > slack:
        parts.append(Part(f"in excess {books.excess_ingress_packets:,}", theme.ALARM, 2))
    if books.excess_egress_packets > slack:
        parts.append(Part(f"{books.excess_egress_packets:,}", theme.PLAIN, 4, "not sent "))
    return parts


IN_FLIGHT_S = 0.2
"""What the interfaces count in this time may be between their counters' reading and ours: no alarm for that much."""

SHORT_OF = 99_900
"""Coverage below this many thousandths of a per cent is an alarm; above, packets in flight explain the difference."""


def percent(thousandths: int) -> str:
    """Thousandths of a per cent as per cent. Callers round down, so that 100.000 % is all of it."""
    return f"{thousandths // 1000}.{thousandths % 1000:03} %"
