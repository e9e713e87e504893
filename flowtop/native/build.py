"""Makes the library: `python -m flowtop.native.build` in place, for a checkout; a wheel's build, for the wheel.

With --sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer, to be run with their library loaded first:

    python -m flowtop.native.build --sanitize
    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 python -m pytest tests/unit/native
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from flowtop.native.library import FOLDER, LIBRARY, checksum, sources

_FLAGS = (
    "-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra",
    "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack",
    "-Wl,--build-id=none")
"""For any processor of its kind, and the same octets wherever it is built."""
_SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g")


class NotBuiltError(Exception):
    """There is no library, and why."""


def compiler() -> str:
    """The C compiler: $CC, else cc or gcc. Raises NotBuiltError: there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NotBuiltError("no C compiler (gcc and libc6-dev)")


def build(into: Path, folder: Path = FOLDER, *, sanitize: bool = False) -> Path:
    """Compile the sources in `folder`; returns the library, in the directory `into`. One that is there is replaced, and
    stays whole for who uses it. Raises NotBuiltError."""
    program = compiler()
    with tempfile.TemporaryDirectory(prefix="flowtop-native-") as work:
        made = Path(work, LIBRARY)
        # By relative names, in this directory: no path of the builder is in it.
        done = subprocess.run(
            [program, *_FLAGS, *(_SANITIZERS if sanitize else ("-s",)), f"-DFLOWTOP_SOURCES={checksum(folder):#x}u",
             "-o", str(made), *(path.name for path in sources(folder) if path.suffix == ".c")],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise NotBuiltError(f"{program} failed: {next((line for line in lines if 'error' in line), lines[-1])}")
        made.chmod(0o644)
        with tempfile.NamedTemporaryFile(dir=into, prefix=LIBRARY, delete=False) as file:
            file.write(made.read_bytes())
        Path(file.name).chmod(0o644)
        return Path(file.name).rename(into / LIBRARY)


def main() -> int:
    """Build in place."""
    parser = argparse.ArgumentParser(prog="python -m flowtop.native.build", description="Make the library in place.")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer")
    try:
        print(build(FOLDER, sanitize=parser.parse_args().sanitize))
    except (NotBuiltError, OSError) as error:
        print(f"flowtop.native.build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
