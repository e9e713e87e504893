"""Containers by control groups as runtimes name them, and their names from made-up copies of the runtimes' files.

Paths and contents: as systemd's and cgroupfs' drivers of Docker, Podman, containerd and CRI-O make them; the kubelet's
/var/log/pods/NAMESPACE_NAME_UID and /var/log/containers/NAME_NAMESPACE_CONTAINER-ID.log; annotations of
containerd's pkg/cri/annotations, CRI-O's pkg/annotations, nerdctl's pkg/labels; containers/storage's containers.json.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowtop.model.owners import CONTAINER_IDS, CONTAINERS, IMAGES, NAMESPACES, PODS, owner_id
from flowtop.owners.book import Owner, OwnerBook
from flowtop.owners.cgroups import CgroupPaths
from flowtop.owners.containers import (
    Container,
    ContainerFiles,
    ContainerNames,
    Place,
    UnreadableError,
    ask,
    place_in,
    place_of,
)

ID = "4f5e" * 16
OTHER = "0123456789abcdef" * 4
UID = "0f7f9d4a-7c1e-4b2c-9a57-1d2e3f405162"
UID_ = UID.replace("-", "_")

PLACES: dict[str, Place | None] = {
    f"/system.slice/docker-{ID}.scope": Place(ID, "docker"),
    f"/docker/{ID}": Place(ID, "docker"),
    f"/docker/{ID}/init.scope": Place(ID, "docker"),
    f"/docker/{OTHER}/docker/{ID}": Place(ID, "docker"),
    f"/machine.slice/libpod-{ID}.scope/container": Place(ID, "libpod"),
    f"/machine.slice/libpod-conmon-{ID}.scope": None,
    f"/system.slice/nginx.service/libpod-payload-{ID}": Place(ID, "libpod-payload"),
    f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope": Place(ID, "libpod", uid=1000),
    f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope/container": Place(ID, "libpod", OTHER),
    f"/user.slice/user-7.slice/user@7.service/user.slice/user-libpod_pod_{OTHER}.slice/libpod-{ID}.scope":
        Place(ID, "libpod", OTHER, 7),
    f"/libpod_parent/{OTHER}/libpod-{ID}": Place(ID, "libpod", OTHER),
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope":
        Place(ID, "cri-containerd", UID),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope": Place(ID, "crio", UID),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope": None,
    f"/kubepods/besteffort/pod{UID}/{ID}": Place(ID, "", UID),
    f"/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}":
        Place(ID, "cri-containerd", UID),
    f"/kubepods/pod{OTHER[:32]}/{ID}": Place(ID, "", OTHER[:32]),
    f"/system.slice/nerdctl-{ID}.scope": Place(ID, "nerdctl"),
    "/lxc.payload.web-1/system.slice/ssh.service": Place("web-1", "lxc", named=True),
    "/lxc/web-1": Place("web-1", "lxc", named=True),
    "/machine.slice/systemd-nspawn@web.service/payload": Place("web", "nspawn", named=True),
    "/machine.slice/machine-my\\x2dweb.scope": Place("my-web", "nspawn", named=True),
    "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope": None,
    f"/kubepods/besteffort/pod{UID}": None,
    f"/system.slice/docker-{ID[:-1]}.scope": None,
    f"/system.slice/{ID}0": None,
    "/system.slice/docker.service": None,
    "/": None,
    "": None,
}


@pytest.mark.parametrize("path", PLACES)
def test_the_container_of_a_control_group(path: str) -> None:
    assert place_of(path) == PLACES[path]


def test_where_the_runtime_uses_the_hierarchies_of_v1_these_count() -> None:
    text = f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n"
    assert place_in(text) == (f"/docker/{ID}", Place(ID, "docker"))
    assert place_in(f"1:name=systemd:/docker/{OTHER}\n0::/docker/{ID}\n")[1] == Place(ID, "docker")
    assert place_in("3:cpu:/\n0::/\n") == ("", None)
    assert place_in("rubbish\n:\n0:\n") == ("", None)


USER = 1000 if os.geteuid() == 0 else os.geteuid()
HOME = f"home/user{USER}"


def give(path: Path) -> None:
    """To whom its home directory belongs; only root can, and for others it is theirs."""
    if HOME in str(path) and os.geteuid() == 0:
        os.chown(path, USER, USER)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    give(path)


def read(root: Path, place: Place) -> Container:
    found, faults = ContainerFiles(root, lambda uid: f"/home/user{uid}").read(place)
    assert faults == ()
    return found


# ---- files of runtimes


DOCKER = {"ID": ID, "Name": "/web", "Image": "sha256:" + OTHER, "Config": {
    "Image": "nginx:1.27", "Hostname": "4f5e4f5e4f5e", "Labels": {"maintainer": "someone"}}}


@pytest.mark.parametrize("directory", ["var/lib/docker", "var/lib/docker/100000.100000", "srv/docker",
                                       "var/snap/docker/common/var-lib-docker"])
def test_docker(tmp_path: Path, directory: str) -> None:
    write(tmp_path / "etc/docker/daemon.json", {"data-root": "/srv/docker"})
    write(tmp_path / directory / "containers" / ID / "config.v2.json", DOCKER)
    assert read(tmp_path, Place(ID, "docker")) == Container(ID, "web", "nginx:1.27")


def test_docker_of_a_user(tmp_path: Path) -> None:
    write(tmp_path / HOME / ".local/share/docker/containers" / ID / "config.v2.json", DOCKER)
    assert read(tmp_path, Place(ID, "docker", uid=USER)).name == "web"
    assert read(tmp_path, Place(ID, "docker", uid=USER + 1)).name == ""


def test_a_pod_of_docker(tmp_path: Path) -> None:
    labels = {"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "api-6d4cf",
              "io.kubernetes.pod.namespace": "shop"}
    write(tmp_path / "var/lib/docker/containers" / ID / "config.v2.json", {
        "Name": f"/k8s_app_api-6d4cf_shop_{UID}_0", "Config": {"Image": "api:2", "Labels": labels}})
    assert read(tmp_path, Place(ID, "docker", UID)) == Container(ID, "app", "api:2", "api-6d4cf", "shop")


STORED = [
    {"id": OTHER, "names": ["another"], "metadata": "{}"},
    {"id": ID, "names": ["contenedor1"], "image": OTHER, "layer": OTHER,
     "metadata": json.dumps({"image-name": "quay.io/centos7/httpd-24-centos7:latest", "image-id": OTHER,
                             "name": "contenedor1", "created-at": 1711141194})}]


@pytest.mark.parametrize("name", ["containers.json", "volatile-containers.json"])
@pytest.mark.parametrize(("directory", "uid"), [
    ("var/lib/containers/storage", 0), (f"{HOME}/.local/share/containers/storage", USER),
    ("run/containers/storage", 0)])
def test_podman(tmp_path: Path, directory: str, uid: int, name: str) -> None:
    write(tmp_path / directory / "overlay-containers" / name, STORED)
    expected = Container(ID, "contenedor1", "quay.io/centos7/httpd-24-centos7:latest")
    assert read(tmp_path, Place(ID, "libpod", uid=uid)) == expected


PODMAN_SCHEMA = """
    CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT,
                                 JSON TEXT NOT NULL);
    CREATE TABLE PodConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, JSON TEXT NOT NULL);
"""


def podman_database(path: Path, *statements: str, mode: str = "DELETE") -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        for statement in statements:
            database.executescript(statement)
    give(path)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize(("uid", "directory"), [(0, "var/lib"), (USER, f"{HOME}/.local/share")])
def test_a_pod_of_podman(tmp_path: Path, uid: int, directory: str, mode: str) -> None:
    """Older versions of Podman have set WAL."""
    configuration = json.dumps({"rootfsImageName": "docker.io/library/nginx:1.27", "pod": OTHER})
    path = tmp_path / directory / "containers/storage/db.sql"
    podman_database(path, PODMAN_SCHEMA, f"""
        INSERT INTO ContainerConfig VALUES ('{OTHER}', 'infra', '{OTHER}', '{{}}');
        INSERT INTO ContainerConfig VALUES ('{ID}', 'web', '{OTHER}', '{configuration}');
        INSERT INTO PodConfig VALUES ('{OTHER}', 'shop', '{{}}');""", mode=mode)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    assert read(tmp_path, Place(ID, "libpod", OTHER, uid)) == Container(
        ID, "web", "docker.io/library/nginx:1.27", "shop")
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


ENDLESS = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT 'x' AS Name, '{}' AS JSON, 'x' AS ID FROM n WHERE i < 0"""


@pytest.mark.parametrize("content", [
    b"", b"SQLite format 3\0" + bytes(4000), b"no database" * 500, (PODMAN_SCHEMA,),
    (f"CREATE VIEW ContainerConfig AS {ENDLESS};",), (
        "CREATE TABLE ContainerConfig(ID TEXT, Name, JSON);", "CREATE TABLE PodConfig(ID TEXT, Name);",
        f"INSERT INTO ContainerConfig VALUES ('{ID}', x'00ff', 7);",
        f"INSERT INTO PodConfig VALUES ('{OTHER}', NULL);"),
    ], ids=["empty", "zeros", "text", "no rows", "endless", "types"])
def test_a_hostile_database_of_podman_names_nothing(tmp_path: Path, content: bytes | tuple[str, ...]) -> None:
    path = tmp_path / "var/lib/containers/storage/db.sql"
    if isinstance(content, bytes):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    else:
        podman_database(path, *content)
    found, _ = ContainerFiles(tmp_path, home=str).read(Place(ID, "libpod", OTHER))
    assert found == Container(ID)


def test_a_database_of_podman_that_is_no_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/containers/storage/db.sql"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    _, faults = ContainerFiles(tmp_path, home=str).read(Place(ID, "libpod", OTHER))
    assert faults == (f"{path}: not a regular file",)


CONTAINERD = {"ociVersion": "1.1.0", "process": {"args": ["/api"]}, "annotations": {
    "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.image-name": "registry.example/api:2", "io.kubernetes.cri.sandbox-id": OTHER,
    "io.kubernetes.cri.sandbox-name": "api-6d4cf", "io.kubernetes.cri.sandbox-namespace": "shop",
    "io.kubernetes.cri.sandbox-uid": UID}}


@pytest.mark.parametrize("directory", ["run/containerd", "run/k3s/containerd"])
def test_containerd(tmp_path: Path, directory: str) -> None:
    tasks = tmp_path / directory / "io.containerd.runtime.v2.task"
    write(tasks / "moby" / OTHER / "config.json", {"annotations": {}})
    write(tasks / "k8s.io" / ID / "config.json", CONTAINERD)
    assert read(tmp_path, Place(ID, "cri-containerd", UID)) == Container(
        ID, "app", "registry.example/api:2", "api-6d4cf", "shop")


def test_nerdctl(tmp_path: Path) -> None:
    write(tmp_path / "run/containerd/io.containerd.runtime.v2.task/default" / ID / "config.json", {"annotations": {
        "nerdctl/name": "web", "nerdctl/namespace": "default", "nerdctl/hostname": "4f5e"}})
    assert read(tmp_path, Place(ID, "nerdctl")).name == "web"


def test_cri_o(tmp_path: Path) -> None:
    state = tmp_path / "run/containers/storage/overlay-containers" / ID / "userdata/config.json"
    write(state, {"annotations": {
        "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.ImageName": "quay.io/api:2",
        "io.kubernetes.cri-o.Metadata": "{\"name\":\"app\",\"attempt\":1}", "io.kubernetes.cri-o.SandboxID": OTHER,
        "io.kubernetes.pod.name": "api-6d4cf", "io.kubernetes.pod.namespace": "shop"}})
    assert read(tmp_path, Place(ID, "crio", UID)) == Container(ID, "app", "quay.io/api:2", "api-6d4cf", "shop")
    state.unlink()
    write(tmp_path / "var/lib/containers/storage/overlay-containers/containers.json", [{
        "id": ID, "names": [f"k8s_app_api-6d4cf_shop_{UID}_1"], "metadata": json.dumps({
            "image-name": "quay.io/api:2", "name": f"k8s_app_api-6d4cf_shop_{UID}_1"})}])
    assert read(tmp_path, Place(ID, "crio", UID)) == Container(ID, "app", "quay.io/api:2", "api-6d4cf", "shop")


def test_the_first_container_of_a_pod_has_no_name_of_its_own(tmp_path: Path) -> None:
    values = {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "api-6d4cf",
              "io.kubernetes.cri.sandbox-namespace": "shop"}
    write(tmp_path / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / ID / "config.json",
          {"annotations": values})
    assert read(tmp_path, Place(ID, "cri-containerd", UID)) == Container(ID, "POD", "", "api-6d4cf", "shop")


def test_names_of_the_kubelet(tmp_path: Path) -> None:
    (tmp_path / f"var/log/pods/shop_api-6d4cf_{UID}/app").mkdir(parents=True)
    (tmp_path / f"var/log/pods/other_api_{OTHER[:32]}").mkdir(parents=True)
    logs = tmp_path / "var/log/containers"
    logs.mkdir()
    (logs / f"api-6d4cf_shop_app-{ID}.log").symlink_to(f"/var/log/pods/shop_api-6d4cf_{UID}/app/0.log")
    (logs / f"api-6d4cf_shop_sidecar-{OTHER}.log").symlink_to("/nowhere")
    assert read(tmp_path, Place(ID, "", UID)) == Container(ID, "app", "", "api-6d4cf", "shop")
    assert read(tmp_path, Place("a" * 64, "", UID)) == Container("a" * 64, "", "", "api-6d4cf", "shop")


# ---- what is hostile, broken or not readable


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", "\"text\"", "{\"Name\": 7, \"Config\": []}",
                                     "[" * 100_000, "{\"Name\": \"" + "x" * 300 + "\"}", "1" * 5000,
                                     "{\"annotations\": \"no\"}",
                                     "[{\"id\": 1}, 2, {\"id\": \"" + ID + "\", \"names\": 3}]"],
                         ids=lambda content: content[:20] or "empty")
def test_broken_files_give_no_names_and_do_no_harm(tmp_path: Path, content: str) -> None:
    for path in (f"var/lib/docker/containers/{ID}/config.v2.json",
                 f"run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json",
                 "var/lib/containers/storage/overlay-containers/containers.json", "etc/docker/daemon.json"):
        write(tmp_path / path, content)
    found, _ = ContainerFiles(tmp_path).read(Place(ID))
    assert found == Container(ID)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A user may put anything where their containers' files are: a pipe that nobody writes to would be waited for."""
    state = tmp_path / HOME / ".local/share/docker/containers" / ID
    state.mkdir(parents=True)
    os.mkfifo(state / "config.v2.json")
    found, faults = ContainerFiles(tmp_path, lambda uid: f"/home/user{uid}").read(Place(ID, "docker", uid=USER))
    assert (found, faults) == (Container(ID), (f"{state / 'config.v2.json'}: not a regular file",))
    (state / "config.v2.json").unlink()
    (state / "config.v2.json").symlink_to("/dev/zero")
    found, faults = ContainerFiles(tmp_path, lambda uid: f"/home/user{uid}").read(Place(ID, "docker", uid=USER))
    assert (found, faults) == (Container(ID), (f"{state / 'config.v2.json'}: not a regular file",))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read what is another user's")
def test_a_link_of_a_user_to_a_file_of_another_is_not_read(tmp_path: Path) -> None:
    """Root reads there: what the link leads to may be nobody else's business."""
    for name in ("config.v2.json", "db.sql"):
        (tmp_path / name).touch()
    write(tmp_path / "config.v2.json", DOCKER)
    state = tmp_path / HOME / ".local/share/docker/containers" / ID
    state.mkdir(parents=True)
    (state / "config.v2.json").symlink_to(tmp_path / "config.v2.json")
    storage = tmp_path / HOME / ".local/share/containers/storage"
    storage.mkdir(parents=True)
    (storage / "db.sql").symlink_to(tmp_path / "db.sql")
    for runtime, file in (("docker", state / "config.v2.json"), ("libpod", storage / "db.sql")):
        found, faults = ContainerFiles(tmp_path, lambda uid: f"/home/user{uid}").read(Place(ID, runtime, uid=USER))
        assert found == Container(ID) and faults == (f"{file}: not user {USER}'s",)


def test_a_file_that_is_too_large_is_said(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/docker/containers" / ID / "config.v2.json"
    write(path, "[" + " " * (5 << 20) + "]")
    assert ContainerFiles(tmp_path).read(Place(ID, "docker"))[1] == (f"{path}: too large",)


# ---- sockets


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short path: those of sockets have at most 107 octets."""
    with tempfile.TemporaryDirectory(prefix="ft") as directory:
        yield Path(directory)


class Daemon:
    """Answers once, with these octets; keeps the request."""

    def __init__(self, path: Path, answer: bytes, *, end: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._answer, self._end = answer, end
        self.request = b""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self.request = connection.recv(4096)
            try:
                connection.sendall(self._answer)
            except OSError:
                return
            if not self._end:
                self._done.wait(30)

    def close(self) -> None:
        self._done.set()
        self._socket.close()


def http(body: object, status: str = "200 OK") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{json.dumps(body)}".encode()


@pytest.mark.parametrize(("runtime", "path"), [("docker", "run/docker.sock"), ("libpod", "run/podman/podman.sock")])
def test_sockets_are_asked_where_files_say_nothing(short: Path, runtime: str, path: str) -> None:
    daemon = Daemon(short / path, http({"Id": ID, "Name": "/web", "Config": {"Image": "nginx:1.27", "Labels": None}}))
    assert read(short, Place(ID, runtime)) == Container(ID, "web", "nginx:1.27")
    assert daemon.request.startswith(f"GET /containers/{ID}/json HTTP/1.0\r\n".encode())
    daemon.close()


def test_cri_o_is_asked(short: Path) -> None:
    daemon = Daemon(short / "run/crio/crio.sock", http({
        "name": "k8s_app", "image": "quay.io/api:2", "labels": {
            "io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "api-6d4cf",
            "io.kubernetes.pod.namespace": "shop"}}))
    assert read(short, Place(ID, "crio", UID)) == Container(ID, "app", "quay.io/api:2", "api-6d4cf", "shop")
    daemon.close()


def test_a_socket_that_does_not_answer_is_left(short: Path) -> None:
    path = short / "docker.sock"
    daemon = Daemon(path, b"HTTP/1.0 200 OK\r\n\r\n{", end=False)
    with pytest.raises(UnreadableError, match="timed out"):
        ask(path, "/x", 0.2)
    daemon.close()


@pytest.mark.parametrize("answer", [b"", b"\xff" * 100, http({}, "500 Internal Server Error"),
                                    b"HTTP/1.0 200 OK\r\n\r\n{"])
def test_strange_answers(short: Path, answer: bytes) -> None:
    daemon = Daemon(short / "docker.sock", answer)
    with pytest.raises(UnreadableError):
        ask(short / "docker.sock", "/x")
    daemon.close()


def test_no_socket_no_object_no_daemon(short: Path) -> None:
    assert ask(short / "docker.sock", "/x") is None
    daemon = Daemon(short / "docker.sock", http({"message": "No such container"}, "404 Not Found"))
    assert ask(short / "docker.sock", "/x") is None
    daemon.close()
    assert ask(short / "docker.sock", "/x") is None  # the socket's file is left behind


# ---- names come later than processes


def eventually(holds: Any) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_names_are_found_by_a_thread_and_nothing_is_asked_without_containers(tmp_path: Path) -> None:
    names = ContainerNames(ContainerFiles(tmp_path))
    before = threading.active_count()
    assert names.of("0::/system.slice/ssh.service") is None
    assert threading.active_count() == before
    write(tmp_path / "var/lib/docker/containers" / ID / "config.v2.json", DOCKER)
    first = names.of(f"0::/docker/{ID}")
    assert first is not None
    assert first.label in (ID[:12], "web")
    eventually(lambda: names.take_found() == [Container(ID, "web", "nginx:1.27")])
    assert names.of(f"0::/docker/{ID}") == Container(ID, "web", "nginx:1.27")
    names.close()


def test_containers_without_a_name_are_counted_after_some_attempts(tmp_path: Path) -> None:
    names = ContainerNames(ContainerFiles(tmp_path), again_s=(0.01, 0.01), renew_s=0.02)
    path = tmp_path / "var/lib/docker/containers" / ID / "config.v2.json"
    write(path, "broken")
    names.of(f"0::/docker/{ID}")
    eventually(lambda: names.nameless == 1)
    assert names.faults == (f"{path}: not JSON",)
    write(path, DOCKER)
    eventually(lambda: names.of(f"0::/docker/{ID}") == Container(ID, "web", "nginx:1.27"))
    assert (names.nameless, names.faults) == (0, ())
    write(path, DOCKER | {"Name": "/renamed"})
    eventually(lambda: names.of(f"0::/docker/{ID}") == Container(ID, "renamed", "nginx:1.27"))
    names.close()


def test_every_process_of_a_container_gets_its_names(tmp_path: Path) -> None:
    """Of one that is read from /proc before the names are known, and of one that is noted after."""
    proc, files = tmp_path / "proc", tmp_path / "root"
    for pid in (77, 78):
        write(proc / str(pid) / "stat", f"{pid} (nginx) S 5 " + "0 " * 17 + "12345 0\n")
        write(proc / str(pid) / "cgroup",
              f"0::/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope\n")
    names = ContainerNames(ContainerFiles(files))
    owners = OwnerBook(CgroupPaths(None), clock=lambda: 0.0, proc=proc, containers=names)

    def note(pid: int) -> int:
        number = owner_id(pid, 12345 * 10_000_000)
        owners.note([(number, Owner(pid, 12345 * 10_000_000, "nginx", 0))])
        owners.complete()
        return number

    first = note(77)
    assert owners.texts()[CONTAINERS][first] == ID[:12]
    assert owners.texts()[CONTAINER_IDS][first] == ID
    write(files / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / ID / "config.json", CONTAINERD)

    def named() -> bool:
        owners.complete()
        return owners.texts()[CONTAINERS].get(first) == "app"

    eventually(named)
    second = note(78)
    texts = owners.texts()
    for number in (first, second):
        assert [texts[table][number] for table in (CONTAINERS, IMAGES, PODS, NAMESPACES)] == [
            "app", "registry.example/api:2", "api-6d4cf", "shop"]
    names.close()
