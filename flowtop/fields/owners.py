"""Whose socket it is: process, pid, user, systemd unit, container, pod, command line, parents, program and cgroup."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from flowtop.fields import make
from flowtop.fields.field import EVERYWHERE, Detail, DetailFormatter, Field, Known, Member
from flowtop.fields.reported import of_records
from flowtop.model import owners
from flowtop.model.flows import Array, FlowColumns, FlowSource
from flowtop.model.kinds import Kind
from flowtop.model.reported import USERS
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.model.translations import TRANSLATIONS, Flow
from flowtop.text import operands, units
from flowtop.text.lookups import Lookups, Texts

_LONGEST_DETAIL, _LONGEST_MEMBER = 400, 4_096
_PROCESS_PRIORITY, _PRIORITY = 2, 13
"""Of the columns: those with the largest numbers are the first to be left out."""


def _of_flows(source: FlowSource) -> Array:
    return source.columns["owner"]


def _of_records(columns: FlowColumns) -> Array:
    return columns["owner"]


def _texts(table: str) -> Texts:
    return Texts(lambda lookups: lookups.named(table), lambda _: "")


def _names(lookups: Lookups) -> Mapping[int, str]:
    return lookups.named(owners.PROCESSES)


def _missing(owner: int) -> str:
    """Of a process that is not known by name."""
    pid = owners.pid_of(owner)
    return owners.MARKS.get(owner, f"pid {pid}" if pid else "")


def _with_unknown(made: Field) -> Field:
    """The field with a filter for flows that have none, and shown only where some flow has one."""
    assert made.column
    assert made.group
    assert made.key
    group, word = made.group, made.key.word
    column = replace(made.column, of_reports=True)
    return made.but(
        column=column, biflow_columns=(column,),
        group=replace(group, term=lambda key, lookups: group.term(key, lookups) or f"not {word} ?*"),
        members=tuple(replace(member, of_reports=True) for member in made.members))


def _text(name: str, header: str, doc: str, json: str, texts: Texts, *, example: str, expected: str, width: int = 8,
          priority: int = _PRIORITY, line: str = "", rank: int = 3, on_request: bool = False,
          grouped: bool = True, least: int = 0, beside: str = "",
          codes: Callable[[FlowSource], Array] = _of_flows, records: Callable[[FlowColumns], Array] = _of_records,
          known: tuple[Known, ...] = EVERYWHERE) -> Field:
    made = _with_unknown(make.text(
        name, header, doc, json=json, texts=texts, codes=codes, records=records, width=width, priority=priority,
        example=example, expected=expected, known=known))
    assert made.column
    column = replace(made.column, on_request=on_request, width=least or made.column.width,
                     longest=_LONGEST_NAME if least else 0)
    group = made.group and replace(made.group, keys=lambda columns: (records(columns),), beside=beside)
    group = group if grouped else None

    def detail(row: FlowRow, formatter: DetailFormatter) -> str:
        return units.printable(texts.text(row.more.get(name, 0), formatter.lookups), _LONGEST_DETAIL)

    def member(flow: FlowValues, lookups: Lookups) -> str | None:
        known_here = name in flow.more
        text = texts.text(flow.more.get(name, 0), lookups) if known_here else ""
        return units.printable(text, _LONGEST_MEMBER) or None

    return made.but(column=column, biflow_columns=(column,), group=group,
                    members=tuple(replace(each, value=member) for each in made.members),
                    detail=Detail(line or name, detail, of_way=False, optional=True, rank=rank))


def _pid() -> Field:
    made = make.numeric(
        "pid", "PID", "Process id of the local socket's process.", json="processId",
        values=lambda source: owners.pids_of(source.columns["owner"]),
        records=lambda columns: owners.pids_of(columns["owner"]), text=str, width=7, priority=_PRIORITY,
        read=operands.ReadInteger(0, (1 << owners.PID_BITS) - 1), expected="a process id, such as 1234",
        example="pid 1234", group=True, zero_unknown=True)
    assert made.column
    assert made.group
    group = replace(made.group, keys=lambda columns: (owners.pids_of(columns["owner"]),))
    column = replace(made.column, of_reports=True, term=lambda row, _: f"pid {row.more['pid']}" if row.more.get(
        "pid") else "")
    return made.but(
        column=column, biflow_columns=(column,), group=group,
        members=tuple(replace(member, of_reports=True) for member in made.members),
        detail=Detail("process", lambda row, _: f"pid {row.more['pid']}" if row.more.get("pid") else "", of_way=False,
                      optional=True, rank=3))


class _Either(Mapping[int, str]):
    """Two tables of texts whose codes differ."""

    def __init__(self, one: Mapping[int, str], other: Mapping[int, str]) -> None:
        self._one, self._other = one, other

    def __getitem__(self, code: int) -> str:
        return self._one[code] if code in self._one else self._other[code]

    def __iter__(self) -> Iterator[int]:
        yield from self._one
        yield from self._other

    def __len__(self) -> int:
        return len(self._one) + len(self._other)


def _started() -> Field:
    doc = "Start of the local socket's process, in UTC: with the pid it names one process."
    texts = _texts(owners.STARTS)

    def code(flow: FlowRow | FlowValues) -> int:
        return int(flow.more.get("process", 0))

    def shown(flow: FlowRow | FlowValues, lookups: Lookups) -> str:
        return units.printable(texts.text(code(flow), lookups))

    return Field(
        "started", doc,
        members=(Member("processStart", lambda flow, lookups: shown(flow, lookups) or None, doc, of_packets=True,
                        of_reports=True),),
        detail=Detail("started", lambda row, formatter: shown(row, formatter.lookups), of_way=False, optional=True,
                      rank=4), texts=texts, code=code)


def _user() -> Field:
    """Of the process; or as an exporter reports it: a flow has only one of the two, and their codes differ."""
    def codes(columns: FlowColumns, reported: Array) -> Array:
        processes = np.where(owners.are_processes(columns["owner"]), columns["owner"], np.uint64(0))
        return np.where(reported != 0, reported.astype(np.uint64), processes)

    def names(lookups: Lookups) -> Mapping[int, str]:
        of_processes, of_flows = lookups.named(owners.USERS), lookups.named(USERS)
        return _Either(of_processes, of_flows) if of_processes and of_flows else of_processes or of_flows

    of_user = of_records("user")
    return _text(
        "user", "USER", "User of the local socket's process, or as the exporter reports it.", "userName",
        Texts(names, lambda _: ""), example="user www-data", expected="a user's name, such as alice or *admin*",
        line="process", codes=lambda source: codes(source.columns, source.columns["user"]),
        records=lambda columns: codes(columns, of_user(columns)))


def _other_side(flow: FlowRow | FlowValues, lookups: Lookups) -> str:
    """`address:port > address:port` of the same packets on the other side of address translation; "": not known."""
    known = lookups.named(TRANSLATIONS)
    if not known or flow.kind != Kind.FLOW:
        return ""
    return known.get(Flow(flow.source_address, flow.destination_address, flow.source_port, flow.destination_port,
                          flow.protocol, flow.ip_version).code, "")


def _translation() -> Field:
    doc = "Ends of the same packets on the other side of this host's address translation (NAT)."
    return Field(
        "translation", doc,
        members=(Member("translatedFlow", lambda flow, lookups: _other_side(flow, lookups) or None, doc,
                        of_packets=True, of_reports=True),),
        detail=Detail("nat", lambda row, formatter: _other_side(row, formatter.lookups), of_way=False, optional=True,
                      rank=3), known=("live",))


_LONGEST_NAME = 15
"""TASK_COMM_LEN without the terminating zero."""

PROCESS = (
    _text("process", "PROCESS", "Process of the local socket; `kernel`, `forwarded`: none.",
          "processName", Texts(_names, _missing), example="process nginx", width=10, priority=_PROCESS_PRIORITY,
          expected="a process's name, such as nginx or python*", least=len("PROCESS"), beside="service"),
)
"""What is beside the addresses on screen."""

MORE = (
    _pid(),
    _started(),
    _user(),
    _text("unit", "UNIT", "systemd unit of the local socket's process; its slice where it has no unit.", "systemdUnit",
          _texts(owners.UNITS), example="unit ssh.service", width=10, line="process",
          expected="a unit's name, such as ssh.service"),
    _text("container", "CONTAINER", "Container of the local socket's process: its name, else its short id.",
          "containerName", _texts(owners.CONTAINERS), example="container web*", width=10, line="container",
          expected="a container's name or short id, such as web*"),
    _text("image", "IMAGE", "Image of the container.", "containerImage", _texts(owners.IMAGES), example="image *nginx*",
          width=10, line="container", on_request=True, expected="an image's name, such as *nginx*"),
    _text("container_id", "CID", "Id of the container.", "containerId", _texts(owners.CONTAINER_IDS),
          example="container_id 4f5e*", width=10, line="container", on_request=True,
          expected="an id in hexadecimal, such as 4f5e*"),
    _text("pod", "POD", "Kubernetes pod of the local socket's process.", "podName", _texts(owners.PODS),
          example="pod ~ api", width=10, line="pod", expected="a pod's name, such as api-*"),
    _text("namespace", "NAMESPACE", "Kubernetes namespace of the pod.", "podNamespace", _texts(owners.NAMESPACES),
          example="namespace kube-system", width=10, line="pod", on_request=True,
          expected="a namespace, such as kube-system"),
    _text("command", "COMMAND", "Command line of the local socket's process.", "processCommand",
          _texts(owners.COMMANDS), example="command *backup*", width=10, on_request=True, grouped=False,
          expected="a command line; * and ? stand for any"),
    _text("parents", "PARENTS", "Parent of the local socket's process, its parent, and so on.", "processParents",
          _texts(owners.PARENTS), example="parents *sshd*", width=10, on_request=True, grouped=False,
          expected="names of processes; * and ? stand for any"),
    _text("program", "PROGRAM", "File that the local socket's process executes.", "processExecutable",
          _texts(owners.EXECUTABLES), example="program /usr/sbin/nginx", width=10, on_request=True, grouped=False,
          expected="a path; * and ? stand for any"),
    _text("cgroup", "CGROUP", "Control group (v2) of the local socket's process.", "processCgroup",
          _texts(owners.CGROUPS), example="cgroup /system.slice/*", width=10, on_request=True,
          expected="a path such as /system.slice/*"),
    _translation(),
)
"""Flows without a local socket have no owner, nor have packets in files, and flows of exporters other than flowtop (but
for the user)."""

OWNED = (*PROCESS, *MORE)
"""All fields of owners: exports have their texts (wire/owners.py)."""
