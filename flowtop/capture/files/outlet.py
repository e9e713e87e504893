"""Packets of a capture file on their way to whoever writes them."""

from __future__ import annotations

import threading

from flowtop.capture.files.pieces import Piece
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.packets import PacketRequest


class PacketOutlet:
    """Holds packets back until the batch that they are in is in the flow table, where their flows may be looked up.

    `ask` may be called by any thread, the rest by the capture's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request: PacketRequest | None = None
        self._held: tuple[Piece, int, int] | None = None
        self._over = False

    def ask(self, request: PacketRequest | None) -> None:
        """From now on packets go there; None: nowhere.

        Raises FlowtopError: there are none to come.
        """
        with self._lock:
            if request is not None and self._over:
                raise FlowtopError("the file has been read to its end", exit_code=EXIT_USAGE,
                                   hint="start again with -w")
            self._request = request

    @property
    def asked(self) -> bool:
        """Whether packets go anywhere."""
        return self._request is not None

    def hold(self, piece: Piece, start: int, stop: int) -> None:
        """The packets `start` to `stop` are in the batch that is handed over now."""
        self._held = piece, start, stop

    def flush(self, *, ended: bool) -> None:
        """The batch has been metered, and the buffer it is in is about to be used again: write its packets.

        Args:
            ended: no packet follows.

        Raises FlowtopError: what is read has no packets.
        """
        with self._lock:
            held, self._held = self._held, None
            self._over = self._over or ended
            request = self._request
            if request is None:
                return
            if held is not None:
                packets = held[0].packets_between(held[1], held[2])
                if packets is None:
                    raise FlowtopError("there are no packets in this file, only flow records", exit_code=EXIT_USAGE,
                                       hint="packets are written of pcap and pcapng files")
                request.sink.write(packets)
            if ended:
                request.sink.finish()
