"""Export URLs: what they mean, and what is said about those that mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.url import parse_export_url


@pytest.mark.parametrize(("text", "kind", "host", "port"), [
    ("ipfix://collector", "udp", "collector", 4739),
    ("ipfix+udp://192.0.2.1:2055", "udp", "192.0.2.1", 2055),
    ("ipfix+tcp://[2001:db8::1]", "tcp", "2001:db8::1", 4739),
    ("ipfix+tcp://[::1]:65535", "tcp", "::1", 65535),
    ("ipfix+tls://collector.example", "tls", "collector.example", 4740),
    ("ipfix+tls://collector.example:4739/", "tls", "collector.example", 4739),
    ("IPFIX+TCP://Collector:1", "tcp", "collector", 1),
])
def test_a_collector_is_a_transport_a_host_and_a_port(text: str, kind: str, host: str, port: int) -> None:
    url = parse_export_url(text)
    assert (url.kind, url.host, url.port, url.path) == (kind, host, port, "")


@pytest.mark.parametrize(("text", "kind", "path"), [
    ("file:flows.ipfix", "file", "flows.ipfix"), ("file:///var/log/a%20b", "file", "/var/log/a b"),
    ("jsonl:-", "jsonl", "-"), ("csv:/tmp/x.csv", "csv", "/tmp/x.csv"),
    ("parquet:x.parquet?rotate-time=1m", "parquet", "x.parquet"),
])
def test_a_file_is_a_path(text: str, kind: str, path: str) -> None:
    url = parse_export_url(text)
    assert (url.kind, url.path, url.host, url.port) == (kind, path, "", 0)


def test_options_are_read_with_their_units() -> None:
    url = parse_export_url("ipfix+tls://c?profile=nfdump&domain=7&reconnect=1.5m&ca=/a&cert=/b&key=/c&servername=d")
    assert (url.profile.name, url.domain, url.reconnect_s, url.servername) == ("nfdump", 7, 90.0, "d")
    assert (url.ca, url.cert, url.key) == (Path("/a"), Path("/b"), Path("/c"))
    url = parse_export_url("ipfix://c?refresh=10&refresh-packets=20")
    assert (url.refresh_s, url.refresh_packets) == (10.0, 20)
    assert parse_export_url("file:x?rotate-size=4k").rotate_octets == 4_000
    url = parse_export_url("file:x?rotate-size=2Mi&rotate-time=1h&compress=gzip")
    assert (url.rotate_octets, url.rotate_s, url.compress) == (2 * 1024 * 1024, 3600.0, "gzip")
    assert not parse_export_url("ipfix://c?duplicates=drop").duplicates and parse_export_url("csv:-").duplicates


def test_what_is_not_said_has_the_standards_defaults() -> None:
    url = parse_export_url("ipfix+tls://collector")
    assert (url.profile.name, url.domain, url.reconnect_s, url.servername) == ("default", 1, 60.0, "collector")
    assert (url.ca, url.cert, url.key) == (None, None, None)
    paths = ("a.gz", "a.zst", "a", "a.gz?compress=none")
    assert [parse_export_url(f"jsonl:{path}").compress for path in paths] == ["gzip", "zstd", "", ""]


@pytest.mark.parametrize(("text", "says"), [
    ("ipfx://c", "did you mean ipfix"), ("collector:4739", "known: ipfix"), ("", "known: ipfix"),
    ("ipfix+tcp://c?profil=x", "did you mean profile"), ("ipfix://c?profile=nfdmp", "did you mean nfdump"),
    ("ipfix://c:0", "1 to 65535"), ("ipfix://c:65536", "1 to 65535"), ("ipfix://c:http", "1 to 65535"),
    ("ipfix://2001:db8::1", "brackets"), ("ipfix://[2001:db8::g]", "brackets"), ("ipfix://", "collector"),
    ("ipfix://user@c", "option=value"), ("file:a%00b", "must not have any"), ("jsonl:a\nb", "must not have any"),
    ("ipfix+tls://c?ca=%00", "must not have any"), ("ipfix+tls://c?cert=/a%1Bb", "must not have any"),
    ("ipfix://a..b", "labels of"),
    ("ipfix+tcp://" + "a" * 64 + ".com", "labels of"), ("ipfix+tls://c?servername=.x", "labels of"),
    ("ipfix://c/path", "option=value"),
    ("ipfix+tcp://c?ca=/x", "known: profile, domain, duplicates, reconnect"),
    ("ipfix+tcp://c?reconnect=0", "from 10ms"),
    ("ipfix+tcp://c?reconnect=soon", "90s"), ("ipfix+tcp://c?reconnect=", "reconnect=VALUE"),
    ("ipfix+tls://c?key=/x", "cert="), ("ipfix://c?domain=0", "1 to 4294967295"),
    ("ipfix://c?domain=1&domain=2", "once"), ("file:", "file:flows"), ("file:-", "jsonl:-"),
    ("file:x?rotate-size=1k", "at least 4k"), ("file:x?rotate-size=3999", "at least 4k"),
    ("file:x?compress=lzma", "compress=gzip"),
    ("jsonl:-?rotate-time=1h", "use a file"),
    ("jsonl:-?compress=zstd", "use a file"), ("csv:x?duplicates=no", "duplicates=drop"),
    ("jsonl+tcp://", "jsonl+tcp://collector:5170"), ("jsonl+udp://c/path", "jsonl+udp://collector:5170?option=value"),
    ("ipfix+tls://", "ipfix+tls://collector:4740"),
])
def test_a_url_that_means_nothing_is_a_usage_error_with_a_way_out(text: str, says: str) -> None:
    with pytest.raises(FlowtopError) as caught:
        parse_export_url(text)
    assert caught.value.exit_code == EXIT_USAGE
    assert says in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
