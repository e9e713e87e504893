"""Containers: which one a control group belongs to, and its name, image, Kubernetes pod and namespace.

The id is in the path of the control group. Names are in files that runtimes and the kubelet keep on this host; where
those say nothing, the runtime's local socket is asked. No network, no cloud, no API server. Nothing is looked for as
long as no process of a container was seen.

All of it is text that strangers chose; some files belong to the users who run the containers.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

SHORT_ID = 12
"""Digits of an id that runtimes show."""
MOST_CONTAINERS = 16_384
_MOST_PATHS = 65_536
_MOST_OCTETS = 4 << 20
"""Of a file or an answer: a list of 4,000 containers."""
_ANSWER_S = 2.0
"""Time limit for a whole answer."""
_ENDING_S = 0.5
"""How long an end waits for one that is on its way."""
_AGAIN_S = (1.0, 4.0, 15.0)
"""Names may be written after the container's first packet: pauses before it is looked for again."""
_RENEW_S = 60.0
"""A container may be renamed."""
_LONGEST = 253
"""Longest name of Kubernetes (DNS subdomain)."""

_ID = re.compile(r"(?:(?:.*:)?(?P<runtime>[a-z][a-z-]*)[-:])?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=[/:]|$)")
_PODMAN_POD = re.compile(r"/(?:(?:machine|user)-libpod_pod_|libpod_parent/)([0-9a-f]{64})(?:\.slice)?/")
"""A pod of Podman: drivers systemd, and cgroupfs."""
_USER = re.compile(r"/user-(\d{1,10})\.slice/")
_BY_NAME = (re.compile(r"lxc\.payload\.(.+)"), re.compile(r"systemd-nspawn@(.+)\.service"),
            re.compile(r"machine-(?!qemu)(.+)\.scope"))
"""Control groups that have the name of a container: LXC and Incus, systemd-nspawn."""
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Place:
    """What the path of a control group says of its container.

    Attributes:
        id: 64 hexadecimal digits, or a name.
        runtime: docker, libpod, cri-containerd, crio and so on; "": not said.
        pod: uid of the Kubernetes pod, or id of Podman's; "": none.
        uid: user who runs it; 0: the system.
        named: the id is the name.
    """

    id: str
    runtime: str = ""
    pod: str = ""
    uid: int = 0
    named: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """A container; "": not known. Untrusted text.

    Attributes:
        id: of the runtime.
        name: given by people, or by the runtime; of a pod's container: in the pod.
        image: name.
        pod, namespace: of Kubernetes; Podman has pods too.
    """

    id: str
    name: str = ""
    image: str = ""
    pod: str = ""
    namespace: str = ""

    @property
    def label(self) -> str:
        """The name, else the short id."""
        return self.name or self.id[:SHORT_ID]

    def but(self, other: Container) -> Container:
        """With what `other` knows in addition."""
        return replace(self, name=self.name or other.name, image=self.image or other.image, pod=self.pod or other.pod,
                       namespace=self.namespace or other.namespace)

    @property
    def complete(self) -> bool:
        """Whether name and image are known."""
        return bool(self.name and self.image)

    def complete_in(self, place: Place) -> bool:
        """Whether nothing more can be found there: a pod is named, too, where there is one."""
        return self.complete and bool(self.pod or not place.pod)


def place_of(cgroup: str) -> Place | None:
    """The innermost container that a control group belongs to; None: none.

    Args:
        cgroup: path from the root of its hierarchy.
    """
    user = _USER.search(cgroup)
    uid = int(user[1]) if user else 0
    names = cgroup.split("/")
    for place in range(len(names) - 1, 0, -1):
        name = names[place]
        match = _ID.fullmatch(name)
        if match:
            runtime = match["runtime"] or (names[place - 1] if names[place - 1] in _RUNTIMES else "")
            if runtime.endswith("conmon"):  # the monitor of a container is outside of it
                return None
            pod = _POD.search(cgroup) or _PODMAN_POD.search(cgroup)
            return Place(match["id"], runtime, pod[1].replace("_", "-") if pod else "", uid)
        for pattern in _BY_NAME:
            match = pattern.fullmatch(name)
            if match:
                text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), match[1])
                return Place(text, "lxc" if "lxc" in pattern.pattern else "nspawn", uid=uid, named=True)
    if len(names) > 2 and names[1] == "lxc":
        return Place(names[2], "lxc", uid=uid, named=True)
    return None


def place_in(cgroups: str) -> tuple[str, Place | None]:
    """The container of a process, and the path that says so.

    Args:
        cgroups: /proc/PID/cgroup: the path in the hierarchy of cgroup v2 counts, else those of v1, where a host has
            both and its runtime uses these.
    """
    lines = cgroups.splitlines()
    paths = [line[3:] for line in lines if line.startswith("0::")]
    paths += [line.split(":", 2)[2] for line in lines if not line.startswith("0::") and line.count(":") > 1]
    for path in paths:
        place = place_of(path)
        if place is not None:
            return path, place
    return "", None


# ---- files and sockets


class UnreadableError(Exception):
    """A file or an answer is there, but cannot be read, or is not what it should be."""


def read_json(path: Path, uid: int = 0) -> Any:
    """A file's content; None: there is no such file. Follows links, but reads regular files only, and never waits.

    Args:
        path: of the file.
        uid: user in whose directory it is, and whose it must be: a link there may lead to anything that root may read.
            0: the system's.

    Raises UnreadableError: no permission, too large, not JSON, another user's.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError(f"{path}: not a regular file")
            if uid not in (0, status.st_uid):
                raise UnreadableError(f"{path}: not user {uid}'s")
            return _parsed(file.read(_MOST_OCTETS + 1) or b"", str(path))
        except OSError as error:
            raise UnreadableError(f"{path}: {error.strerror or error}") from error


def _parsed(octets: bytes, source: str) -> Any:
    if len(octets) > _MOST_OCTETS:
        raise UnreadableError(f"{source}: too large")
    try:
        return json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{source}: not JSON") from error


def ask(path: Path, target: str, limit_s: float = _ANSWER_S) -> Any:
    """The JSON that a local socket answers to an HTTP GET; None: there is no such socket, or no such object.

    Raises UnreadableError: no permission, no answer in time, too large, not JSON.
    """
    deadline_s = time.monotonic() + limit_s
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(limit_s)
            connection.connect(str(path))
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while len(answer) <= _MOST_OCTETS:
                connection.settimeout(max(deadline_s - time.monotonic(), 0.001))
                octets = connection.recv(1 << 16)
                if not octets:
                    break
                answer += octets
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if status[1:2] == [b"404"]:
        return None
    if status[1:2] != [b"200"]:
        raise UnreadableError(f"{path}: refused")
    return _parsed(body, str(path))


def _text(value: Any) -> str:
    """A text of JSON; "": it is something else, or too long for a name."""
    return value if isinstance(value, str) and len(value) <= _LONGEST else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _nested(value: Any) -> Mapping[str, Any]:
    """JSON in a text of JSON; empty: it is something else."""
    try:
        return _mapping(json.loads(value)) if isinstance(value, str) else {}
    except (ValueError, RecursionError):
        return {}


def _first(values: Mapping[str, Any], *keys: str) -> str:
    return next((text for text in (_text(values.get(key)) for key in keys) if text), "")


def of_annotations(container_id: str, values: Mapping[str, Any]) -> Container:
    """What the annotations of an OCI config.json, or labels of Docker, say: those of containerd's CRI, CRI-O, the
    kubelet, nerdctl."""
    sandbox = "sandbox" in (values.get("io.kubernetes.cri.container-type"), values.get(
        "io.kubernetes.cri-o.ContainerType"))
    metadata = _nested(values.get("io.kubernetes.cri-o.Metadata"))
    name = "POD" if sandbox else _first(values, "io.kubernetes.cri.container-name", "io.kubernetes.container.name",
                                        "nerdctl/name") or _first(metadata, "name")
    return Container(
        container_id, name,
        _first(values, "io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"),
        _first(values, "io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name") or (
            _first(values, "io.kubernetes.cri-o.KubeName") if sandbox else ""),
        _first(values, "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace",
               "io.kubernetes.cri-o.Namespace"))


def of_docker(container_id: str, values: Any) -> Container:
    """What Docker's config.v2.json says, or its answer to GET /containers/ID/json; Podman's is alike."""
    config = _mapping(_mapping(values).get("Config"))
    labelled = of_annotations(container_id, _mapping(config.get("Labels")))
    own = Container(container_id, _first(_mapping(values), "Name").removeprefix("/"), _first(config, "Image"))
    return labelled.but(own) if labelled.pod else own.but(labelled)


def of_storage(container_id: str, values: Any) -> Container:
    """What containers.json of containers/storage (Podman, CRI-O) says."""
    for entry in values if isinstance(values, list) else ():
        found = _mapping(entry)
        if found.get("id") == container_id:
            metadata = _nested(found.get("metadata"))
            names = found.get("names")
            name = _text(names[0]) if isinstance(names, list) and names else _first(metadata, "name")
            if name.startswith("k8s_"):  # k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT
                parts = name.split("_")
                if len(parts) == 6:
                    return Container(container_id, parts[1], _first(metadata, "image-name"), parts[2], parts[3])
            return Container(container_id, name, _first(metadata, "image-name"))
    return Container(container_id)


def home_of(uid: int) -> str:
    """The home directory of a user; "": none."""
    try:
        return pwd.getpwuid(uid).pw_dir
    except (KeyError, OverflowError):
        return ""


class ContainerFiles:
    """Reads what is known of a container.

    Args:
        root: of the file system.
        home: home directory by user id.
    """

    def __init__(self, root: Path = Path("/"), home: Callable[[int], str] = home_of) -> None:
        self._root = root
        self._home = home

    def read(self, place: Place) -> tuple[Container, tuple[str, ...]]:
        """What is known of it, and what could not be read: of files before sockets, of the runtime that the path names,
        else of all."""
        found, faults = Container(place.id, place.id if place.named else ""), []
        for source in () if place.named else self._sources(place):
            try:
                found = found.but(source(place))
            except UnreadableError as error:
                faults.append(str(error))
            except OSError as error:
                faults.append(f"{error.filename}: {error.strerror}")
            if found.complete_in(place):
                break
        return found, tuple(faults)

    def _sources(self, place: Place) -> Iterator[Callable[[Place], Container]]:
        any_runtime = place.runtime not in _RUNTIMES
        if place.pod:
            yield self._of_kubelet
        if any_runtime or _RUNTIMES[place.runtime] == "containerd":
            yield self._of_containerd
        if any_runtime or _RUNTIMES[place.runtime] == "docker":
            yield self._of_docker
            yield self._of_docker_socket
        if any_runtime or _RUNTIMES[place.runtime] in ("podman", "crio"):
            yield self._of_storage
        if any_runtime or _RUNTIMES[place.runtime] == "podman":
            yield self._of_podman_database
            yield self._of_podman_socket
        if any_runtime or _RUNTIMES[place.runtime] == "crio":
            yield self._of_crio_socket

    def _of_kubelet(self, place: Place) -> Container:
        """/var/log/pods/NAMESPACE_POD_UID, /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log: none of the names has an
        underscore."""
        found, ending = Container(place.id), f"-{place.id}.log"
        for name in _names(self._root / "var/log/pods"):
            parts = name.split("_")
            if len(parts) == 3 and parts[2] == place.pod:
                found = replace(found, namespace=parts[0], pod=parts[1])
        for name in _names(self._root / "var/log/containers"):
            parts = name.removesuffix(ending).split("_")
            if name.endswith(ending) and len(parts) == 3:
                found = replace(found, pod=parts[0], namespace=parts[1], name=parts[2])
        return found

    def _of_containerd(self, place: Place) -> Container:
        """State of the tasks of containerd, k3s, MicroK8s; Docker's have no names there."""
        for directory in ("run/containerd", "run/k3s/containerd", "var/snap/microk8s/common/run/containerd"):
            tasks = self._root / directory / "io.containerd.runtime.v2.task"
            for namespace in _names(tasks):
                found = _of_oci(place.id, tasks / namespace / place.id / "config.json")
                if found.name:
                    return found
        return Container(place.id)

    def _of_docker(self, place: Place) -> Container:
        roots = [self._of_user(place.uid) / "docker"] if place.uid else self._docker_roots()
        for root in roots:
            for directory in (root, *sorted(root.glob("[0-9]*.[0-9]*"))):  # the latter: userns-remap
                values = read_json(directory / "containers" / place.id / "config.v2.json", place.uid)
                if values is not None:
                    return of_docker(place.id, values)
        return Container(place.id)

    def _docker_roots(self) -> list[Path]:
        try:
            configured = _text(_mapping(read_json(self._root / "etc/docker/daemon.json")).get("data-root"))
        except UnreadableError:
            configured = ""
        usual = ("var/lib/docker", "var/snap/docker/common/var-lib-docker")
        return [self._root / directory for directory in (configured.lstrip("/"), *usual) if directory]

    def _of_storage(self, place: Place) -> Container:
        """State of Podman and CRI-O: annotations while the container runs, and the lists of all."""
        if place.uid:
            directories = [self._root / f"run/user/{place.uid}/containers/overlay-containers",
                           self._of_user(place.uid) / "containers/storage/overlay-containers"]
        else:
            directories = [self._root / directory / "containers/storage/overlay-containers"
                           for directory in ("run", "var/lib")]
        found = Container(place.id)
        for directory in directories:
            found = found.but(_of_oci(place.id, directory / place.id / "userdata/config.json", place.uid))
        for directory in directories:
            for name in ("containers.json", "volatile-containers.json"):
                if not found.complete:
                    found = found.but(of_storage(place.id, read_json(directory / name, place.uid)))
        return found

    def _of_podman_database(self, place: Place) -> Container:
        from flowtop.owners.podman import database_names  # few hosts need SQLite

        root = self._of_user(place.uid) / "containers/storage" if place.uid else (
            self._root / "var/lib/containers/storage")
        try:
            name, configuration, pod = database_names(root / "db.sql", place.id, place.pod, place.uid)
        except (FileNotFoundError, NotADirectoryError):
            return Container(place.id)
        return Container(place.id, _text(name), _first(_nested(configuration), "rootfsImageName"), _text(pod))

    def _of_docker_socket(self, place: Place) -> Container:
        return of_docker(place.id, ask(self._run_of(place) / "docker.sock", f"/containers/{place.id}/json"))

    def _of_podman_socket(self, place: Place) -> Container:
        return of_docker(place.id, ask(self._run_of(place) / "podman/podman.sock", f"/containers/{place.id}/json"))

    def _of_crio_socket(self, place: Place) -> Container:
        """CRI-O's own answer to GET /containers/ID."""
        values = _mapping(ask(self._run_of(place) / "crio/crio.sock", f"/containers/{place.id}"))
        found = of_annotations(place.id, _mapping(values.get("labels")))
        return found.but(Container(place.id, image=_first(values, "image_name", "image")))

    def _run_of(self, place: Place) -> Path:
        return self._root / (f"run/user/{place.uid}" if place.uid else "run")

    def _of_user(self, uid: int) -> Path:
        return self._root / self._home(uid).lstrip("/") / ".local/share"


_RUNTIMES = {"docker": "docker", "cri-containerd": "containerd", "nerdctl": "containerd", "crio": "crio",
             "libpod": "podman", "libpod-payload": "podman"}
"""Runtime by the word before the id in the name of a control group."""


def _names(directory: Path) -> list[str]:
    """What is in a directory; nothing when it does not exist. Raises OSError: no permission."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return []


def _of_oci(container_id: str, path: Path, uid: int = 0) -> Container:
    return of_annotations(container_id, _mapping(_mapping(read_json(path, uid)).get("annotations")))


_STATE = {
    "Docker": ("var/lib/docker/containers", "var/snap/docker/common/var-lib-docker/containers"),
    "containerd": ("run/containerd/io.containerd.runtime.v2.task", "run/k3s/containerd/io.containerd.runtime.v2.task",
                   "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task"),
    "Podman or CRI-O": ("var/lib/containers/storage/overlay-containers",
                        "run/containers/storage/overlay-containers"),
    "the kubelet": ("var/log/pods",),
}


def runtimes(root: Path = Path("/")) -> tuple[list[str], list[str]]:
    """Whose files are there and can be read, and which cannot be, in words."""
    found, faults = [], []
    for name, directories in _STATE.items():
        for directory in directories:
            try:
                if _names(root / directory) and name not in found:
                    found.append(name)
            except OSError as error:
                faults.append(f"{root / directory}: {(error.strerror or str(error)).lower()}")
    return found, faults


class ReadsContainers(Protocol):
    """ContainerFiles, or a helper's."""

    def read(self, place: Place) -> tuple[Container, tuple[str, ...]]:
        """See ContainerFiles.read."""


class ContainerNames:
    """Containers by control group. `of` returns what is known now; a thread of its own finds the rest.

    Args:
        files: reads what is known of a container.
        clock: seconds, monotonic.
        again_s: pauses before a container is looked for again.
        renew_s: pause before one that has a name is read again.
    """

    def __init__(self, files: ReadsContainers | None = None, *, clock: Callable[[], float] = time.monotonic,
                 again_s: tuple[float, ...] = _AGAIN_S, renew_s: float = _RENEW_S) -> None:
        self._files = files or ContainerFiles()
        self._clock = clock
        self._again_s = again_s
        self._renew_s = renew_s
        self._changed = threading.Condition()
        self._places: dict[str, tuple[str, Place | None]] = {}
        self._known: OrderedDict[str, Container] = OrderedDict()
        self._asked: dict[str, tuple[float, int, Place]] = {}
        self._found: list[Container] = []
        self._nameless: set[str] = set()
        self._faults: dict[str, tuple[str, ...]] = {}
        self._ending = False
        self._thread: threading.Thread | None = None

    @property
    def nameless(self) -> int:
        """Number of containers whose name could not be found."""
        return len(self._nameless)

    @property
    def faults(self) -> tuple[str, ...]:
        """What could not be read, each once."""
        with self._changed:
            return tuple(dict.fromkeys(fault for number in self._nameless for fault in self._faults.get(number, ())))

    def of(self, cgroups: str) -> Container | None:
        """The container of a process, as far as it is known now; None: it is in none. Any thread.

        Args:
            cgroups: text of /proc/PID/cgroup.
        """
        known = self._places.get(cgroups)
        if known is None:
            if len(self._places) >= _MOST_PATHS:
                self._places.clear()
            known = self._places[cgroups] = place_in(cgroups)
        place = known[1]
        if place is None:
            return None
        with self._changed:
            found = self._known.get(place.id)
            if found is None:
                found = self._known[place.id] = Container(place.id, place.id if place.named else "")
                self._ask(place, 0.0, 0)
                while len(self._known) > MOST_CONTAINERS:
                    gone, _ = self._known.popitem(last=False)
                    self._asked.pop(gone, None)
                    self._nameless.discard(gone)
                    self._faults.pop(gone, None)
            elif place.id not in self._asked:
                self._ask(place, self._renew_s, len(self._again_s))
            self._known.move_to_end(place.id)
            return found

    def _ask(self, place: Place, after_s: float, attempt: int) -> None:
        if place.named:
            return
        self._asked[place.id] = self._clock() + after_s, attempt, place
        if self._thread is None and not self._ending:
            self._thread = threading.Thread(target=self._run, name="containers", daemon=True)
            self._thread.start()
        self._changed.notify()

    def take_found(self) -> list[Container]:
        """Containers of which more, or something else, is known since the last call. Any thread."""
        with self._changed:
            found, self._found = self._found, []
            return found

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._next()
                while due is None and not self._ending:
                    soonest_s = min((at_s for at_s, _, _ in self._asked.values()), default=None)
                    self._changed.wait(None if soonest_s is None else max(0.01, soonest_s - self._clock()))
                    due = self._next()
                if self._ending or due is None:
                    return
            attempt, place = due
            self._take(place, attempt, *self._files.read(place))

    def _next(self) -> tuple[int, Place] | None:
        now_s = self._clock()
        for number, (at_s, attempt, place) in self._asked.items():
            if at_s <= now_s:
                del self._asked[number]
                return attempt, place
        return None

    def _take(self, place: Place, attempt: int, found: Container, faults: tuple[str, ...]) -> None:
        with self._changed:
            before = self._known.get(place.id)
            if before is None:  # forgotten meanwhile
                return
            found = found.but(before)  # its files are gone with it
            if found != before:
                self._known[place.id] = found
                self._found.append(found)
            self._faults[place.id] = faults
            if found.name:
                self._nameless.discard(place.id)
            elif attempt >= len(self._again_s):
                self._nameless.add(place.id)
            if not found.complete_in(place) and attempt < len(self._again_s):
                self._ask(place, self._again_s[attempt], attempt + 1)

    def close(self) -> None:
        """End the thread. One that waits for an answer of a socket ends later, and does nothing more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_ENDING_S)
