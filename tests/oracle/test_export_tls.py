"""TLS: the server is who the certificate says, or nothing leaves; certificates are openssl's work."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from flowtop.errors import FlowtopError
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportStatistics
from tests.oracle.collectors import needs
from tests.oracle.test_export_tcp import collector, exporter, flow_ids, killed_five_times
from tests.unit.export.flows import flows, until


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(directory: Path, name: str) -> Path:
    """A self-signed CA; gives the certificate, the key is beside it."""
    certificate = directory / f"{name}.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign",
            "-keyout", certificate.with_suffix(".key"), "-out", certificate)
    return certificate


def certificate(directory: Path, name: str, ca: Path, alternative: str, *dates: str) -> tuple[Path, Path]:
    """A certificate from the CA, and its key."""
    path, request, extensions = directory / f"{name}.pem", directory / f"{name}.csr", directory / f"{name}.cnf"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", path.with_suffix(".key"), "-out", request)
    index = directory / f"{name}.index"
    index.touch()
    extensions.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={index}\nnew_certs_dir={directory}\nrand_serial=yes\ndefault_md=sha256\n"
        f"policy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName={alternative}\n"
        "keyUsage=digitalSignature\n")
    openssl("ca", "-batch", "-notext", "-config", extensions, "-cert", ca, "-keyfile", ca.with_suffix(".key"),
            "-in", request, "-out", path, *(dates or ("-days", "2")))
    return path, path.with_suffix(".key")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    own, other = authority(directory, "own"), authority(directory, "other")
    certificate(directory, "server", own, "DNS:collector.test,IP:127.0.0.1")
    certificate(directory, "stranger", other, "IP:127.0.0.1")
    certificate(directory, "elsewhere", own, "DNS:elsewhere.test,IP:127.0.0.2")
    certificate(directory, "expired", own, "IP:127.0.0.1", "-startdate", "20200101000000Z", "-enddate",
                "20200102000000Z")
    certificate(directory, "server6", own, "IP:::1")
    certificate(directory, "client", own, "DNS:exporter.test")
    return directory


def test_a_verified_server_gets_everything(tmp_path: Path, pki: Path) -> None:
    with collector(tmp_path / "in", pki / "server.pem", pki / "server.key") as server:
        export = exporter(f"ipfix+tls://127.0.0.1:{server.port}?ca={pki / 'own.pem'}&servername=collector.test",
                          tmp_path / "state")
        export.consume(flows(2_000))
        figures = export.stop(10.0)
        assert (figures.sent_records, figures.spooled_records) == (2_000, 0), figures
        octets, = server.sessions()
    assert sorted(flow_ids(octets, tmp_path)) == list(range(1, 2_001))


def test_a_verified_server_on_ipv6_gets_everything(tmp_path: Path, pki: Path) -> None:
    with collector(tmp_path / "in", pki / "server6.pem", pki / "server6.key", host="::1") as server:
        export = exporter(f"ipfix+tls://[::1]:{server.port}?ca={pki / 'own.pem'}", tmp_path / "state")
        export.consume(flows(500))
        figures = export.stop(10.0)
        octets, = server.sessions()
    assert (figures.sent_records, figures.spooled_records) == (500, 0), figures
    assert sorted(flow_ids(octets, tmp_path)) == list(range(1, 501))


def test_a_tls_collector_killed_five_times_under_load_gets_every_record(tmp_path: Path, pki: Path) -> None:
    with collector(tmp_path / "in", pki / "server.pem", pki / "server.key") as server:
        killed_five_times(server, f"ipfix+tls://127.0.0.1:{server.port}?ca={pki / 'own.pem'}&reconnect=0.05s", tmp_path)


@pytest.mark.parametrize(("name", "says"), [
    ("stranger", "unable to get local issuer certificate"), ("expired", "certificate has expired"),
    ("elsewhere", "IP address mismatch"),
])
def test_a_server_that_is_not_who_it_should_be_gets_nothing(tmp_path: Path, pki: Path, name: str, says: str) -> None:
    with collector(tmp_path / "in", pki / f"{name}.pem", pki / f"{name}.key") as server:
        figures = refused(f"ipfix+tls://127.0.0.1:{server.port}?ca={pki / 'own.pem'}&reconnect=0.1s", tmp_path)
        assert server.sessions() == []
    assert says in figures.last_error


def test_a_server_that_does_not_speak_tls_gets_no_record(tmp_path: Path, pki: Path) -> None:
    with collector(tmp_path / "in") as server:
        refused(f"ipfix+tls://127.0.0.1:{server.port}?ca={pki / 'own.pem'}&reconnect=60s", tmp_path, wait=False)
        received = b"".join(path.read_bytes() for path in server.directory.iterdir())
    assert received[:1] == b"\x16"  # TLS handshake: a ClientHello, and nothing in the clear.
    assert b"eth0" not in received and bytes([192, 0, 2, 1]) not in received


def test_no_tls_older_than_1_2_is_offered(tmp_path: Path, pki: Path) -> None:
    with collector(tmp_path / "in") as server:
        refused(f"ipfix+tls://127.0.0.1:{server.port}?ca={pki / 'own.pem'}&reconnect=60s", tmp_path, wait=False)
        hello = b"".join(path.read_bytes() for path in server.directory.iterdir())
    (tmp_path / "hello.txt").write_text("000000 " + hello.hex(" "))
    subprocess.run([needs("text2pcap"), "-q", "-T", "40000,4740", tmp_path / "hello.txt", tmp_path / "hello.pcap"],
                   check=True, capture_output=True)
    read = subprocess.run([needs("tshark"), "-r", tmp_path / "hello.pcap", "-d", "tcp.port==4740,tls", "-T", "fields",
                           "-e", "tls.handshake.extensions.supported_version"],
                          check=True, capture_output=True, text=True)
    assert set(read.stdout.strip().split(",")) == {"0x0304", "0x0303"}, "TLS 1.3 and 1.2"


def test_a_server_that_speaks_tls_1_1_at_most_gets_nothing(tmp_path: Path, pki: Path) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(pki / "server.pem", pki / "server.key")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")  # Else OpenSSL 3 refuses to serve it at all.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_once, args=(listener, old))
        thread.start()
        url = f"ipfix+tls://127.0.0.1:{listener.getsockname()[1]}?ca={pki / 'own.pem'}&reconnect=60s"
        figures = refused(url, tmp_path)
        thread.join()
    assert "alert protocol version" in figures.last_error


def serve_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with connection, suppress(ssl.SSLError):
        context.wrap_socket(connection, server_side=True).close()


def test_a_server_that_asks_for_a_client_certificate_takes_ours_and_none_else(tmp_path: Path, pki: Path) -> None:
    with collector(tmp_path / "in", pki / "server.pem", pki / "server.key", pki / "own.pem") as server:
        url = f"ipfix+tls://127.0.0.1:{server.port}?ca={pki / 'own.pem'}&reconnect=0.1s"
        figures = refused(url, tmp_path)
        assert server.sessions() == [] and "certificate required" in figures.last_error
        export = exporter(f"{url}&cert={pki / 'client.pem'}&key={pki / 'client.key'}", tmp_path / "state")
        figures = export.stop(10.0)
        octets, = server.sessions()
    assert (figures.sent_records, figures.spooled_records) == (100, 0)
    assert sorted(flow_ids(octets, tmp_path)) == list(range(1, 101))


def refused(url: str, tmp_path: Path, *, wait: bool = True) -> ExportStatistics:
    """Export 100 records to who must not get them: all of them stay."""
    export = exporter(url, tmp_path / "state")
    export.consume(flows(100))
    if wait:
        until(lambda: export.statistics().last_error != "", export.statistics)
    else:
        until(lambda: any(path.stat().st_size for path in (tmp_path / "in").iterdir()), export.statistics)
    figures = export.stop(0.05)
    assert (figures.sent_records, figures.spooled_records, figures.not_sent_records) == (0, 100, 0)
    return figures


@pytest.mark.parametrize("option", ["ca", "cert"])
def test_a_certificate_that_cannot_be_read_is_said_before_anything_starts(tmp_path: Path, option: str) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    for path in (tmp_path / "x.pem", tmp_path / "none.pem"):
        with pytest.raises(FlowtopError, match="cannot read the"):
            open_exporter(f"ipfix+tls://127.0.0.1?{option}={path}", tmp_path / "state")
