"""Confine this process before it parses anything: the steps in their order, and what holds afterwards."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from flowtop.confine import seccomp
from flowtop.confine.account import Account, give_up_privileges, unreadable
from flowtop.confine.landlock import Access, Ruleset, version
from flowtop.errors import EXIT_UNAVAILABLE, FlowtopError

Mode = Literal["on", "strict", "off"]

INSTALL_HINT = "install flowtop where every user can read it, such as /opt/flowtop"
STRICT_HINT = "flowtop --check says what this host lacks; --confine on does what is possible"

_SYSTEM = tuple(map(Path, (
    "/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/nix/store", "/gnu/store", "/run/systemd/resolve",
    "/run/systemd/userdb", "/run/resolvconf", "/run/NetworkManager", "/run/connman", "/run/nscd", "/var/lib/sss",
    "/var/cache/nscd")))
"""Where libraries, time zones, names of hosts, users and services are read from, at any time."""
_RANDOM = (Path("/dev/urandom"), Path("/dev/random"), Path("/dev/zero"))
DEVICES = (Path("/dev/null"), Path("/dev/tty"), Path("/dev/full"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run needs.

    Attributes:
        mode: "strict" fails where something is missing.
        account: to become; None: the user stays.
        access: files and ports, beside what every run needs.
        calls: system calls.
        faults: what is missing already.
        keep: mask of capabilities that stay.
    """

    mode: Mode = "on"
    account: Account | None = None
    access: Access = field(default_factory=Access)
    calls: seccomp.Calls = field(default_factory=seccomp.Calls)
    faults: tuple[str, ...] = ()
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds.

    Attributes:
        uid: the user.
        seccomp: only listed system calls.
        landlock: version of Landlock; 0: none.
        faults: what is missing, and why; empty: nothing.
        mode: as asked for.
    """

    uid: int
    seccomp: bool = False
    landlock: int = 0
    faults: tuple[str, ...] = ()
    mode: Mode = "on"

    @property
    def record(self) -> dict[str, object]:
        """For JSON."""
        return {"uid": self.uid, "seccomp": self.seccomp, "landlock": self.landlock, "missing": list(self.faults)}


def code_directories() -> tuple[Path, ...]:
    """Where Python imports from, now and later; without the working directory, which `python -m` looks into first."""
    package, here = Path(__file__).resolve().parents[1], ""
    with suppress(OSError):  # it is gone
        here = os.path.realpath(Path.cwd())
    entries = [os.path.realpath(entry) for entry in sys.path if entry]
    places = [package, *(Path(entry) for entry in entries if entry not in (here, "/")), Path(sys.base_prefix, "lib")]
    return tuple(dict.fromkeys(places))


def usable(account: Account | None) -> tuple[Account | None, str]:
    """The account, if it can read flowtop's own code; else None, and why. For a process without further threads."""
    if account is None:
        return None, ""
    try:
        hidden = unreadable(account, code_directories())
    except OSError as error:  # root without capabilities
        return None, f"it stays user {os.geteuid()}: it cannot become user {account.uid}: {error.strerror}"
    if hidden is None:
        return account, ""
    return None, f"it stays user 0, without capabilities: user {account.uid} cannot read {hidden}"


def confine(plan: Plan) -> Confinement:
    """Do it. For a process without further threads: Landlock is for the thread that asks for it, and its children.

    Raises FlowtopError (EXIT_UNAVAILABLE): rights cannot be given up; or with "strict", something is missing.
    """
    if plan.mode == "off":
        return Confinement(os.geteuid(), mode="off", faults=("turned off",))
    faults = list(plan.faults)
    if _tasks() > 1:
        faults.append("Landlock does not hold for threads that were there before")
    rules = _rules(plan.access, code_directories(), faults)
    if faults and plan.mode == "strict":  # before anything has changed
        raise _too_little(faults)
    try:
        give_up_privileges(plan.account, plan.keep)
    except OSError as error:
        raise FlowtopError(f"cannot give up rights: {error.strerror}", hint="--no-confine runs with them",
                           exit_code=EXIT_UNAVAILABLE) from error
    held = Confinement(os.geteuid(), mode=plan.mode)
    if rules is not None:
        try:
            rules.apply()
            held = replace(held, landlock=rules.version)
        except OSError as error:
            faults.append(f"no Landlock: {error.strerror}")
    try:
        seccomp.install(plan.calls)
        held = replace(held, seccomp=True)
    except OSError as error:
        faults.append(f"no seccomp: {error.strerror}")
    if faults and plan.mode == "strict":
        raise _too_little(faults)
    return replace(held, faults=tuple(faults))


def _tasks() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - it is only counted
    except OSError:
        return 1


def _rules(access: Access, code: tuple[Path, ...], faults: list[str]) -> Ruleset | None:
    try:
        return Ruleset(replace(access, read=(*_SYSTEM, *_RANDOM, *code, *access.read),
                               devices=(*DEVICES, *access.devices)))
    except OSError as error:
        faults.append(f"no Landlock: {(error.strerror or str(error)).lower()}")
        return None


def _too_little(faults: list[str]) -> FlowtopError:
    return FlowtopError(f"cannot be confined: {'; '.join(faults)}", hint=STRICT_HINT, exit_code=EXIT_UNAVAILABLE)


def possible(account: Account | None, user: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What this host can do, changing nothing: what would hold, and what is missing.

    Args:
        account: that a run would use.
        user: effective user id.
    """
    holds, missing = [], []
    account, fault = usable(account)
    behind = account is not None and account.behind_sudo
    holds.append(f"user {user if account is None else account.uid}{' (who ran sudo)' if behind else ''}")
    missing += [fault] if fault else []
    holds.append("no capabilities")
    if os.uname().machine in seccomp.MACHINES and Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        holds.append("listed system calls only")
    else:
        missing.append("no seccomp for this kernel and machine")
    if number := version():
        holds.append(f"named files{' and TCP ports' if number >= 4 else ''} only (Landlock {number})")
    else:
        missing.append("no Landlock (Linux 5.13, and in the boot option lsm=)")
    return tuple(holds), tuple(missing)
