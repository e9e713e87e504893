"""Runs of the command in processes that need not import it: what a start of Python and its imports cost, a half second
of a processor each time, is paid once by each process of tests.

Each run is a process of its own, a child of the tests' process, with all that Popen offers. It is forked from one that
has imported what every run that reads a file imports; what it needs for exports and other things, it imports itself,
with the rights it has then. For tests of what a run writes and says; where the start itself is the subject, or what a
run inherits (descriptors, limits, signals, namespaces), begin `python -m flowtop`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
IMPORTED = ("flowtop.cli.main", "flowtop.cli.run", "flowtop.cli.sources", "flowtop.cli.settings",
            "flowtop.cli.confining", "flowtop.cli.networks", "flowtop.filters.build", "flowtop.capture.files.capture",
            "flowtop.pipeline.pipeline", "flowtop.output.batch")
PR_SET_CHILD_SUBREAPER = 36


class Flowtop(subprocess.Popen[Any]):
    """`python -m flowtop ARGUMENT...`; or of another module, that of the command's other names."""

    def __init__(self, *arguments: str | Path, module: str = "flowtop", **options: Any) -> None:
        assert not options.keys() - {"stdin", "stdout", "stderr", "text", "cwd", "env"}, "not of a prepared process"
        super().__init__([module, *map(str, arguments)], **options)

    def _execute_child(self, args: list[str], *options: Any) -> None:  # type: ignore[override]
        # As Popen's own; of its three pairs of descriptors, the child has one each, or this process's where it is -1.
        cwd, env, pipes = options[4], options[5], options[9:15]
        child = [number if end == -1 else end for number, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        server = _server()
        # Who is left without its parent, which ends at once, becomes a child of this process.
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            env = dict(os.environ if env is None else env)
            request = {"arguments": args, "cwd": str(cwd or Path.cwd()), "env": env}
            socket.send_fds(server, [json.dumps(request).encode()], child)
            self.pid = int(server.recv(64))
        finally:
            libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def run_flowtop(*arguments: str | Path, input: Any = None, timeout: float = 60, text: bool = False,  # noqa: A002
            **options: Any) -> subprocess.CompletedProcess[Any]:
    """A run to its end, as of subprocess.run(..., capture_output=True); without input, it has an empty one."""
    given = subprocess.DEVNULL if input is None else subprocess.PIPE
    with Flowtop(*arguments, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text,
                 **options) as process:
        try:
            output, errors = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@functools.cache
def _server() -> socket.socket:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, str(far.fileno())], cwd=REPOSITORY,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[far.fileno()])
    far.close()

    def end() -> None:
        near.close()
        process.wait()

    atexit.register(end)
    return near


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """What to run, in a new process for each request; None when there are no more."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            return None
        here, there = os.pipe()
        if not (between := os.fork()):
            if pid := os.fork():
                os.write(there, str(pid).encode())
                os._exit(0)
            for descriptor in here, there, requests.detach():
                os.close(descriptor)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return json.loads(message)  # type: ignore[no-any-return]
        os.waitpid(between, 0)
        requests.send(os.read(here, 64))
        for descriptor in here, there, *descriptors:
            os.close(descriptor)


def _main() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command itself does; who has threads cannot be forked
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    module, *sys.argv[1:] = request["arguments"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
