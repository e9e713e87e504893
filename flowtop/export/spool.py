"""Flow Records on disk while their collector is away: RFC 5655 files, limited, in order, kept after a restart."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.owners import OwnerTexts
from flowtop.model.kinds import Direction, Kind
from flowtop.model.record import FLOW_RECORD_DTYPE, RELAYED_RECORD_DTYPE, FlowRecords, joined
from flowtop.wire import flow_templates as ft
from flowtop.wire import tcp_metrics, tunnels
from flowtop.wire.data_set import DataSet
from flowtop.wire.flow_templates import PROFILES, announcement, flow_sets, flow_templates
from flowtop.wire.ipfix import MAX_MESSAGE_OCTETS, encode_messages, template_sets
from flowtop.wire.ipfix_decoder import decode_message, split_messages
from flowtop.wire.ipfix_template import IpfixDecodeError, Template
from flowtop.wire.owners import Sets, collect_owners, owned_sets, without_owners
from flowtop.wire.relayed import Bases, RelayedTemplates, fill_back
from flowtop.wire.template_store import TemplateStore

_COPIED = {"flow_id": "flowId", "start_ms": "flowStartMilliseconds", "end_ms": "flowEndMilliseconds",
           "octet_delta": "octetDeltaCount", "packet_delta": "packetDeltaCount", "protocol": "protocolIdentifier",
           "ip_version": "ipVersion", "direction": "flowDirection", "end_reason": "flowEndReason",
           "source_mac": "sourceMacAddress", "destination_mac": "destinationMacAddress", "vlan_id": "vlanId",
           "customer_vlan_id": "dot1qCustomerVlanId", "tcp_control_bits": "tcpControlBits", "tos": "ipClassOfService",
           "source_port": "sourceTransportPort", "destination_port": "destinationTransportPort",
           **{member: element for element, member in tcp_metrics.SENT.items()}}
_STRICT = flow_templates(PROFILES["strict"])
_BASES = Bases((*_STRICT.flows.values(), *_STRICT.tunnelled.values()))
_KINDS = {ft.IPV4_FRAGMENT: Kind.FRAGMENT, ft.IPV6_FRAGMENT: Kind.FRAGMENT, ft.AGGREGATE: Kind.AGGREGATE}
_ICMP = {ft.IPV4_ICMP: "icmpTypeCodeIPv4", ft.IPV6_ICMP: "icmpTypeCodeIPv6"}
_ADDRESSES = {"source_address": ("sourceIPv4Address", "sourceIPv6Address"),
              "destination_address": ("destinationIPv4Address", "destinationIPv6Address")}


def flow_records(messages: list[bytes], owners: OwnerTexts | None = None) -> FlowRecords:
    """Flow Records of the messages of one file, in order, with the fields of the `strict` profile; other fields are 0.

    Args:
        owners: gets the texts of the records' owners; None: the records have none.

    Raises IpfixDecodeError: invalid message.
    """
    store = TemplateStore()
    parts = [np.empty(0, FLOW_RECORD_DTYPE)]
    for octets in messages:
        message = decode_message(octets, store, session=None, datagram=False)
        parts += [_records(data_set, owners) for data_set in message.data_sets if not data_set.template.scope_count]
    return joined(parts)


def _records(data_set: DataSet, owners: OwnerTexts | None) -> FlowRecords:
    wire, template = data_set.records, tcp_metrics.without_measurements(without_owners(data_set.template))
    measured = tcp_metrics.ELEMENTS.intersection(data_set.template.names)
    base = _BASES.of(template)
    form = ft.shape((base or template).id)
    records = np.zeros(len(wire), FLOW_RECORD_DTYPE if base is None else RELAYED_RECORD_DTYPE)
    for column, name in _COPIED.items():
        if name in template.names or name in measured:
            records[column] = wire[name]
    for column, names in _ADDRESSES.items():
        for name in names:
            if name in template.names:  # V4 into V16: numpy pads with zeros.
                records[column] = wire[name]
    if form in _ICMP:
        records["destination_port"] = wire[_ICMP[form]]
    if form != (base or template).id:
        records["tunnel"], records["tunnel_id"] = tunnels.of_observation_points(wire["observationPointId"])
    ingress = records["direction"] == Direction.INGRESS
    records["ifindex"] = np.where(ingress, wire["ingressInterface"], wire["egressInterface"])
    records["kind"] = _KINDS.get(form, Kind.FLOW)
    if base is not None:
        fill_back(records, wire, base)
    if owners is not None:
        found = collect_owners(data_set.template, wire, lambda pid, octets: owners.codes.code("", pid, octets))
        if found is not None:
            records["owner"] = found
            owners.restore(records)
    return records


MAX_OCTETS = 1 << 30
_BEGUN = "-begun"
"""In the name of a file that is being sent."""
_FIRST_NUMBER = 10**9
"""File numbers increase from here, and decrease for records that have to be sent before all others."""


class SpoolInUse(FlowtopError):  # noqa: N818 - a FlowtopError that a caller may step around
    """Another export uses the directory."""


Write = Callable[[int, bytes], int]


@dataclass(slots=True)
class _File:
    number: int
    records: int
    octets: int
    begun: bool = False
    """Sending it has begun: after a kill, the collector may have what is sent once more."""


class Spool:
    """A directory of files, each complete and readable: the records of one `store` in the `strict` profile.

    For one thread, except `records`. The directory is locked for one export.

    Args:
        directory: created with mode 0700 if needed; files have mode 0600.
        domain: Observation Domain ID in the files.
        wall: clock, seconds since 1970 UTC.
        max_octets: limit of all files together.
        write: os.write; injected for tests.

    Attributes:
        owners: the texts of the records' owners, which go to the files too; None: they have none.

    Raises FlowtopError: the directory cannot be created or read. Raises SpoolInUse.
    """

    owners: OwnerTexts | None = None

    def __init__(self, directory: Path, *, domain: int, wall: Callable[[], float], max_octets: int = MAX_OCTETS,
                 write: Write = os.write) -> None:
        self._directory = directory
        self._domain = domain
        self._wall = wall
        self._max_octets = max_octets
        self._write = write
        self._templates = flow_templates(PROFILES["strict"])
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                owner = os.fstat(self._lock).st_uid
                if owner not in (os.geteuid(), directory.parent.stat().st_uid):  # it was given away with the one above
                    raise PermissionError(errno.EPERM, f"it is user {owner}'s")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._files = self._earlier_files()
            except OSError:
                os.close(self._lock)
                raise
        except BlockingIOError as error:
            raise SpoolInUse(f"another flowtop uses the spool {directory}",
                             hint="stop it, or export to the collector from only one of them") from error
        except OSError as error:
            raise FlowtopError(f"cannot use the spool directory {directory}: {error.strerror}",
                               hint="choose a directory that can be written", exit_code=EXIT_USAGE) from error
        self._records = sum(file.records for file in self._files)
        self._octets = sum(file.octets for file in self._files)

    @property
    def records(self) -> int:
        """Number of Flow Records on disk."""
        return self._records

    @property
    def oldest_records(self) -> int:
        """Number of Flow Records in the first file."""
        return self._files[0].records

    def begin(self) -> int:
        """Mark the first file as being sent, as kill -9 may come before `forget`.

        Returns:
            The number of its records that may have been sent before, by a run that was killed.
        """
        file = self._files[0]
        if file.begun:
            return file.records
        before = self._path(file)
        file.begun = True
        try:
            before.rename(self._path(file))
        except OSError:  # a disk that cannot be written: the mark is lost, the records are not
            file.begun = False
        return 0

    @property
    def octets(self) -> int:
        """Octets on disk."""
        return self._octets

    def store(self, records: FlowRecords, *, first: bool = False) -> tuple[FlowRecords, str]:
        """Store records after all others, or before them; returns those that could not be stored, and the reason."""
        messages = self._messages(records)
        octets = sum(map(len, messages))
        if self.octets + octets > self._max_octets:
            return records, f"the spool is full: {self._max_octets} octets in {self._directory}"
        file = _File(self._number(first), len(records), octets)
        try:
            self._write_file(self._path(file), b"".join(messages))
        except OSError as error:
            return records, f"cannot spool to {self._directory}: {error.strerror}"
        self._add(file, first=first)
        return records[:0], ""

    def oldest(self) -> FlowRecords:
        """The records of the first file; fewer than `oldest_records` if it was truncated.

        Raises FlowtopError: it cannot be read, and was renamed to `.damaged`. Call only if `records` is not 0.
        """
        path = self._path(self._files[0])
        try:
            return flow_records(_whole_messages(path.read_bytes()), self.owners)
        except Exception as error:  # what is in the file may be anything, and the export goes on
            with suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            reason = error if isinstance(error, OSError | IpfixDecodeError) else "its records are not flowtop's"
            raise FlowtopError(f"cannot replay {path.name}: {reason}",
                               hint=f"it is kept as {path.with_suffix('.damaged')}") from error

    def forget(self, place: int = 0) -> None:
        """Delete a file that is no longer needed: the first, or the one at that index."""
        file = self._files[place]
        del self._files[place]
        self._records -= file.records
        self._octets -= file.octets
        self._path(file).unlink(missing_ok=True)

    def adopt(self, other: Spool) -> None:
        """Move another spool's files to the end of this one, and close the other.

        Raises OSError: not all were moved.
        """
        try:
            while other._files:
                theirs = other._files[0]
                ours = _File(self._number(first=False), theirs.records, theirs.octets, theirs.begun)
                other._path(theirs).rename(self._path(ours))
                self._add(ours)
                other.forget()
        finally:
            other.close()

    def close(self) -> None:
        """Close the spool; files remain for the next run, and an empty directory is removed."""
        os.close(self._lock)
        if not self._files:
            with suppress(OSError):  # Not empty: damaged files are kept.
                self._directory.rmdir()

    def _add(self, file: _File, *, first: bool = False) -> None:
        if first:
            self._files.appendleft(file)
        else:
            self._files.append(file)
        self._records += file.records
        self._octets += file.octets

    def _messages(self, records: FlowRecords) -> list[bytes]:
        relayed, measured = RelayedTemplates(), dict[int, Template]()
        templates: list[Template] = []

        def plain(some: FlowRecords) -> Sets:
            return (*flow_sets(some, self._templates, relayed, measured), None)

        def template(id_: int) -> Template:
            of_id = {each.id: each for each in relayed.templates}
            return {**self._templates.flows, **self._templates.tunnelled, **measured, **of_id}[id_]

        if self.owners is not None and records["owner"].any():
            (sets, _, _), templates, _ = owned_sets(records, self.owners.texts, plain, template, MAX_MESSAGE_OCTETS)
        else:
            sets, _, _ = plain(records)
        announced = announcement(self._templates)
        announced += template_sets([*measured.values(), *relayed.templates, *templates])
        if records["tunnel"].any():
            announced += announcement(self._templates, tunnelled=True)
        return encode_messages([*announced, *sets], domain=self._domain, sequence=0,
                               export_time_s=int(self._wall())).messages

    def _number(self, first: bool) -> int:
        if not self._files:
            return _FIRST_NUMBER
        return self._files[0].number - 1 if first else self._files[-1].number + 1

    def _path(self, file: _File) -> Path:
        return self._directory / f"{file.number:010d}-{file.records}{_BEGUN if file.begun else ''}.ipfix"

    def _write_file(self, path: Path, octets: bytes) -> None:
        """Write a file completely under its final name, or raise OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            left = memoryview(octets)
            while left:
                count = self._write(descriptor, left)  # type: ignore[arg-type]
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                left = left[count:]
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        partial.rename(path)

    def _earlier_files(self) -> deque[_File]:
        """Files of an earlier run, in order; incomplete ones are deleted. Raises OSError."""
        for path in self._directory.glob("*.partial"):
            if path.is_file():
                path.unlink()
        candidates = ((re.fullmatch(rf"([0-9]{{10}})-([0-9]{{1,9}})({_BEGUN})?\.ipfix", path.name), path)
                      for path in self._directory.iterdir() if path.is_file())
        files = [_File(int(name[1]), int(name[2]), path.stat().st_size, name[3] is not None)
                 for name, path in candidates if name]
        return deque(sorted(files, key=lambda file: file.number))


def _whole_messages(octets: bytes) -> list[bytes]:
    return split_messages(octets)[0]
