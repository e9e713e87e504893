"""Many steps of a file's time in one batch: where packets are few, a batch for each costs far more than they do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowtop.capture.files.frames import Integers
from flowtop.capture.files.pieces import PacketPiece
from flowtop.record import Steps

LEAST_STEPS = 8
"""With fewer there is little to gain."""
MOST_STEPS = 1_000
"""In one batch: should they have to be taken singly after all, a run can be ended after so many."""
MOST_PACKETS = 1_000
"""Of a step on average: with more, a batch's cost is theirs."""


class Stretch(NamedTuple):
    """What is left of a piece, or the first of it, cut into steps as if each were handed over by itself.

    Attributes:
        now_ns: the time of each batch there would be.
        step: which of them each packet would be in.
        boundary_ns: where the step ends that is open then.
    """

    now_ns: Integers
    step: Integers
    boundary_ns: int

    def steps(self, piece: PacketPiece, start: int, entry: Integers) -> Steps:
        """What the batch says of it.

        Args:
            start: the stretch's first packet.
            entry: the step of each entry.
        """
        ignored = self.now_ns[self.step[piece.ignored(start, start + len(self.step))]].tolist()
        return Steps(self.now_ns, entry, (ignored[0], ignored[-1]) if ignored else (0, 0))


def stretch(clock_ns: Integers, start_ns: int, boundary_ns: int, step_ns: int) -> Stretch | None:
    """The steps of these packets; None: they are too few, or too full.

    A step ends where the next begins, or, where the next with packets is another, there and where that one begins;
    the last of a piece, which goes on in the next one, with its last packet.

    Args:
        clock_ns: of each packet; never falls.
        start_ns: where the file's time begins.
        boundary_ns: where the open step ends.
        step_ns: how long a step is.
    """
    open_step = (boundary_ns - start_ns) // step_ns - 1
    if len(clock_ns) > MOST_PACKETS * ((int(clock_ns[-1]) - start_ns) // step_ns - open_step + 1):
        return None
    numbers = np.maximum((clock_ns - start_ns) // step_ns, open_step)
    changes = np.diff(numbers, prepend=open_step)
    at = np.flatnonzero(changes)[:MOST_STEPS]  # the first packets of all steps but the open one
    if len(at) < LEAST_STEPS:
        return None
    skips = changes[at] > 1
    following, whole = numbers[at], len(at) < MOST_STEPS
    batches = np.zeros(len(clock_ns) if whole else int(at[-1]), np.int64)
    batches[at[:len(at) - (not whole)]] = 1 + skips[:len(at) - (not whole)]
    boundary = following[-1] + (whole or not skips[-1])
    skips[-1] &= whole
    ends_ns = start_ns + (np.concatenate(([open_step], following[:-1])) + 1) * step_ns
    both_ns = np.stack((ends_ns, start_ns + following * step_ns), axis=1)
    now_ns = both_ns[np.stack((np.ones(len(at), np.bool_), skips), axis=1)]
    return Stretch(np.append(now_ns, clock_ns[-1]) if whole else now_ns, np.cumsum(batches),
                   int(start_ns + boundary * step_ns))
