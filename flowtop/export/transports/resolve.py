"""Resolve names of collectors; a hanging resolver does not delay a stop."""

from __future__ import annotations

import queue
import socket
import threading

from flowtop.export.context import ExportContext

_POLL_S = 0.02
_TIMEOUT_S = 30.0

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


def resolve(host: str, port: int, kind: socket.SocketKind, context: ExportContext) -> list[Address]:
    """Addresses of a collector, in the resolver's order. Raises OSError: it has none. Raises Abandoned."""
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            results = socket.getaddrinfo(host, port, type=kind)
        except OSError as error:
            answers.put(OSError(error.errno, f"cannot resolve {host}: {error.strerror}"))
        except Exception as error:  # noqa: BLE001 - the waiting thread needs an answer
            answers.put(OSError(f"cannot resolve {host}: {error}"))
        else:
            answers.put([(family, address) for family, _, _, _, address in results  # type: ignore[misc]
                         if family in (socket.AF_INET, socket.AF_INET6)])

    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    deadline = context.monotonic() + _TIMEOUT_S
    while answers.empty():
        context.wait(None, write=False, timeout_s=_POLL_S)
        if context.monotonic() >= deadline:
            raise OSError(f"cannot resolve {host}: no answer in {_TIMEOUT_S:.0f} s")
    answer = answers.get()
    if isinstance(answer, OSError):
        raise answer
    return answer
