"""Processes that keep rights for one that gives them up: each answers typed requests on a socketpair, and ends with it.

A request is a message with the member `op`, one of a fixed list, and members of fixed types: see `messages`. What has
another form ends the helper. Long work is done by a process of its own (`Helper.begin`), so that nobody else waits.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from flowtop import libc
from flowtop.confine import seccomp
from flowtop.confine.account import Account, give_up_privileges
from flowtop.confine.landlock import Access, Ruleset
from flowtop.confine.messages import ProtocolError, member, receive, send
from flowtop.errors import FlowtopError

Answer = tuple[Mapping[str, object], Sequence[int]]
"""A message, and the descriptors that go with it; they are closed once they are sent."""
Operation = Callable[[Mapping[str, Any], Sequence[int]], Answer]
"""Takes a request and its descriptors, which are closed afterwards. Raises OSError, FlowtopError; ProtocolError: it is
no valid request."""
_PROGRAMS = seccomp.Calls(programs=True)
MOST_APART = 16
"""Processes that work at the same time for one helper: who asks may be an attacker, and compiling takes memory."""
_ENDINGS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)


class Operations:
    """What a helper does: for derived classes."""

    def at_once(self, op: str) -> Operation | None:
        """One of those that are done one after another; None: there is none of this name."""

    def apart(self, op: str) -> Operation | None:
        """One of those that are each done by a process of its own."""

    def close(self) -> None:
        """Undo what must not outlive the process that asked for it."""


class Pending:
    """The answer of an operation that is done apart. `close` ends it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def result(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for it. Once. Raises as Helper.ask."""
        return _checked(_received(self._end))

    def close(self) -> None:
        """Do not wait any longer: what works for it ends. A second call does nothing."""
        with suppress(OSError):  # another thread may be waiting
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()


class Helper:
    """The end of the process that asks. For any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def ask(self, op: str, descriptors: Sequence[int] = (), **members: object) -> tuple[dict[str, Any], list[int]]:
        """Have something done, and wait for it. Returns the answer, and its descriptors, which are the caller's.

        Raises OSError, FlowtopError: as the operation did; OSError (EPIPE): the helper has ended.
        """
        with self._lock:
            try:
                send(self._end, {"op": op, **members}, descriptors)
            except ProtocolError as error:
                raise OSError(errno.EMSGSIZE, str(error)) from error
            answered = _received(self._end)
        return _checked(answered)

    def begin(self, op: str, **members: object) -> Pending:
        """Have something done apart. Does not wait for the helper. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                with self._lock:
                    send(self._end, {"op": op, **members}, [theirs.fileno()])
            except (OSError, ProtocolError):
                ours.close()
                raise
        return Pending(ours)

    def close(self) -> None:
        """The helper ends."""
        self._end.close()


def _received(end: socket.socket) -> tuple[dict[str, Any], list[int]]:
    try:
        answered = receive(end)
    except ProtocolError as error:
        raise OSError(errno.EPROTO, str(error)) from error
    if answered is None:
        raise OSError(errno.EPIPE, "the helper process has ended")
    return answered


def _checked(answered: tuple[dict[str, Any], list[int]]) -> tuple[dict[str, Any], list[int]]:
    answer, descriptors = answered
    if "fault" in answer:
        message, hint, code = answer["fault"]
        raise FlowtopError(message, hint=hint, exit_code=code)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    if answer.get("descriptors", 0) != len(descriptors):  # no more than this process may open are passed on
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return answer, descriptors


def start_helper(keeps: Sequence[int], operations: Operations, calls: seccomp.Calls = _PROGRAMS,
                 access: Access | None = None, account: Account | None = None) -> Helper:
    """Start one. For a process without further threads. Raises OSError.

    Args:
        keeps: numbers of the capabilities that it keeps, as far as it has them.
        operations: what it does.
        calls: system calls that it may make.
        access: files that it may open; None: all of its user's.
        account: user that it becomes; None: the user stays.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if child:
        theirs.close()
        return Helper(ours)
    try:
        _detach(parent, theirs.fileno())
        rules: Ruleset | None = None
        with suppress(OSError):  # a kernel without Landlock
            rules = None if access is None else Ruleset(access)
        give_up_privileges(account, sum(1 << number for number in keeps))
        _end_with(parent)  # once more: another user id forgets it
        with suppress(OSError):
            if rules is not None:
                rules.apply()
        with suppress(OSError):  # or without seccomp
            seccomp.install(calls)
        _serve(theirs, operations)
    finally:
        os._exit(0)


def _detach(parent: int, keep: int) -> None:
    """Be a process that ends with its parent, without terminal and open files of it."""
    signal.signal(signal.SIGTERM, _end)
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _count_ended)
    _end_with(parent)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _end_with(parent: int) -> None:
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)


def _end(*_: object) -> NoReturn:
    raise SystemExit


def _serve(end: socket.socket, operations: Operations) -> None:
    """Answer until the other end is closed or breaks the rules."""
    try:
        with suppress(ProtocolError, OSError, SystemExit):
            while (asked := receive(end)) is not None:
                request, descriptors = asked
                op = member(request, "op", str)
                apart = operations.apart(op)
                if apart is None:
                    _reply(end, operations.at_once(op), request, descriptors)
                else:
                    _begin(end, apart, request, descriptors)
    finally:
        operations.close()


def _begin(end: socket.socket, operation: Operation, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Start a process for one operation; the request came with where it answers. Raises ProtocolError."""
    if len(descriptors) != 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ProtocolError("nowhere to answer")
    parent = os.getpid()
    with socket.socket(fileno=descriptors[0]) as answer:
        try:
            child = fork_apart()
        except OSError as error:
            with suppress(OSError):
                send(answer, {"errno": error.errno, "text": error.strerror})
            return
        if child == 0:
            try:
                end.close()
                libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    _reply(answer, operation, {**request, "end": answer.fileno()}, ())
            finally:
                os._exit(0)


_apart = [0]
"""Processes of `fork_apart` that have not ended; of this process."""


def fork_apart() -> int:
    """As os.fork, for a helper. Raises OSError (EAGAIN): MOST_APART processes work already."""
    if _apart[0] >= MOST_APART:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    _apart[0] += 1
    try:
        child = os.fork()
    except OSError:
        _apart[0] -= 1
        raise
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return child


def _count_ended(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            _apart[0] -= 1


def _reply(end: socket.socket, operation: Operation | None, request: Mapping[str, Any],
           descriptors: Sequence[int]) -> None:
    """Do one operation and answer. Raises OSError; ProtocolError: no valid request."""
    sent: Sequence[int] = ()
    try:
        if operation is None:
            raise ProtocolError("no such operation")
        message, sent = operation(request, descriptors)
        answer = {**message, "descriptors": len(sent)}
    except FlowtopError as error:
        answer = {"fault": [error.message, error.hint, error.exit_code]}
    except OSError as error:
        answer = {"errno": error.errno or errno.EIO, "text": error.strerror or str(error)}
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    send(end, answer, sent)
    for descriptor in sent:
        os.close(descriptor)
