from __future__ import annotations

import ipaddress
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flowtop.text import units


@pytest.mark.parametrize(("octets_per_s", "bits", "text"), [
    (0, True, "0  b/s"),
    (82_100_000 / 8, True, "82.1 Mb/s"),
    (10_300_000, False, "10.3 MB/s"),
    (1_210_000_000 / 8, True, "1.21 Gb/s"),
    (999.4, False, "999  B/s"),
    (999.6, False, "1.00 kB/s"),  # rounding must not give 1000
    (9.996, False, "10.0  B/s"),
    (99.96e6, False, "100 MB/s"),
    (0.3, False, "0.30  B/s"),
])
def test_rates_have_three_significant_digits_and_si_prefixes(octets_per_s: float, bits: bool, text: str) -> None:
    assert units.rate(octets_per_s, bits) == text


@given(st.floats(0, 2**64), st.booleans())
def test_a_rate_fits_its_column_and_is_right_to_three_digits(octets_per_s: float, bits: bool) -> None:
    text = units.rate(octets_per_s, bits)
    assert len(text) <= 9
    digits, unit = text.split(" ", 1)
    power = " kMGTPEZY".index(unit[0])
    expected = octets_per_s * (8 if bits else 1)
    assert float(digits) * 1000**power == pytest.approx(expected, rel=0.0051, abs=0.0051)


@given(st.integers(0, 2**64 - 1))
def test_amounts_fit_their_columns(n: int) -> None:
    assert len(units.octets(n)) <= 7
    assert len(units.count(n)) <= 5
    assert len(units.packet_rate(n / 3)) <= 5


@pytest.mark.parametrize(("n", "octets", "count"), [
    (0, "0  B", "0"), (999, "999  B", "999"), (1000, "1.00 kB", "1.00k"), (1_210_000_000, "1.21 GB", "1.21G"),
    (884_400, "884 kB", "884k"), (999_999, "1.00 MB", "1.00M"), (2**64 - 1, "18.4 EB", "18.4E"),
])
def test_amounts(n: int, octets: str, count: str) -> None:
    assert units.octets(n) == octets
    assert units.count(n) == count


@pytest.mark.parametrize(("value", "rate", "octets", "count"), [
    (0, "0  B/s", "0  B", "0"), (5, "5  B/s", "5  B", "5"), (512, "512  B/s", "512  B", "512"),
    (999, "999  B/s", "999  B", "999"), (1000, "1.0 kB/s", "1.0 kB", "1.0k"),
    (999_949, "999.9 kB/s", "999.9 kB", "999.9k"), (999_950, "1.0 MB/s", "1.0 MB", "1.0M"),
    (82_100_000, "82.1 MB/s", "82.1 MB", "82.1M"), (1_210_000_000, "1.2 GB/s", "1.2 GB", "1.2G"),
])
def test_in_columns_there_is_one_decimal_behind_a_prefix(value: int, rate: str, octets: str, count: str) -> None:
    assert (units.rate_cell(value, False), units.octets_cell(value), units.count_cell(value)) == (rate, octets, count)


def test_small_rates_have_a_decimal_too() -> None:
    assert [units.rate_cell(value, False) for value in (0.3, 9.94, 9.96, 999.4, 999.6)] == [
        "0.3  B/s", "9.9  B/s", "10  B/s", "999  B/s", "1.0 kB/s"]


@given(st.floats(0, 2**64), st.booleans())
def test_numbers_of_a_column_end_at_their_unit(value: float, bits: bool) -> None:
    for cell, width, ending in ((units.rate_cell(value, bits), 10, r" [ kMGTPEZY][bB]/s"),
                                (units.octets_cell(int(value)), 8, r" [ kMGTPEZY]B"),
                                (units.count_cell(value), 6, r"[kMGTPEZY]?")):
        assert len(cell) <= width
        assert re.fullmatch(rf"\d+(\.\d)?{ending}", cell), cell


@given(st.floats(0, 2**64), st.booleans())
def test_the_magnitude_of_a_rate_is_that_of_its_unit(value: float, bits: bool) -> None:
    prefix = units.rate_cell(value, bits)[-4]
    expected = {" ": 1, "k": 2, "M": 3}.get(prefix, 4)
    assert units.magnitude(value, bits) == (expected if value else 0)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0:00"), (59.99, "0:59"), (151, "2:31"), (3599, "59:59"), (3723, "1:02:03"), (86_399, "23:59:59"),
    (2 * 86_400 + 3 * 3600 + 59, "2d03h"), (-0.5, "0:00"),
])
def test_durations_round_down(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@given(st.ip_addresses(), st.integers(0, 65535))
def test_endpoints_read_back_as_the_address_and_port(address: ipaddress.IPv4Address | ipaddress.IPv6Address,
                                                     port: int) -> None:
    text = units.endpoint(address.packed.ljust(16, b"\0"), address.version, port)
    host, _, shown_port = text.rpartition(":")
    assert int(shown_port) == port
    assert ipaddress.ip_address(host.strip("[]")) == address
    assert host.startswith("[") == (address.version == 6)


@pytest.mark.parametrize(("version", "type_code", "text"), [
    (4, 8 << 8, "echo-req"), (4, 3 << 8 | 3, "unreachable/3"), (4, 42 << 8, "type 42/0"),
    (6, 128 << 8, "echo-req"), (6, 135 << 8, "neighbor-sol"), (6, 8 << 8 | 1, "type 8/1"),
])
def test_icmp_types(version: int, type_code: int, text: str) -> None:
    assert units.icmp(version, type_code) == text


def test_names_of_protocols_code_points_flags_and_macs() -> None:
    assert [units.protocol(n) for n in (6, 17, 58, 50, 132, 253)] == ["tcp", "udp", "icmp6", "esp", "sctp", "253"]
    assert [units.dscp(tos) for tos in (0, 0xB8, 0xB9, 34 << 2, 3 << 2)] == ["", "ef", "ef", "af41", "3"]
    assert units.tcp_flags(0x012) == "S."  # RFC 9293: SYN is bit 1, ACK bit 4
    assert units.tcp_flags(0x1FF) == "FSRP.UEWe"
    assert units.mac(b"\x02\x00\x00\x00\x00\xff") == "02:00:00:00:00:ff"


@pytest.mark.parametrize(("text", "clean"), [
    ("eth0", "eth0"),
    ("a\x1b[31mred\x1b[0m", "ared"),
    ("a\x9b2Jb", "ab"),
    ("x\x1b]0;t\x07y", "x0;ty"),
    ("tab\tnew\nline\r\0\x7f", "tabnewline"),
    ("rtl\u202eabc\u2066", "rtlabc"),
    ("zero\u200bwidth", "zerowidth"),
    ("wide\u6f22", "wide?"),
    ("bücher", "bücher"),
    ("e\u0301", "e?"),
    ("\ud800", ""),
])
def test_untrusted_text_loses_what_could_act_on_a_terminal(text: str, clean: str) -> None:
    assert units.printable(text) == clean


def test_every_character_that_is_kept_is_one_cell() -> None:
    every = (chr(number) for number in range(sys.maxunicode + 1) if not 0xD800 <= number < 0xE000)
    assert [character for character in every
            if units.printable(character) == character and cell_len(character) != 1] == []


@given(st.text(), st.integers(1, 80))
def test_printable_text_is_bounded_and_of_single_cells(text: str, limit: int) -> None:
    clean = units.printable(text, limit)
    assert len(clean) <= limit
    assert not any(unicodedata.category(c)[0] in "CM" or unicodedata.east_asian_width(c) in "WF" for c in clean)


@given(st.text("abcdef:[]", max_size=60), st.integers(0, 60))
def test_elided_text_keeps_both_ends(text: str, width: int) -> None:
    short = units.elide(text, width)
    assert len(short) <= width
    if len(text) <= width:
        assert short == text
    elif width > 2:
        head, tail = short.split("…")
        assert text.startswith(head) and text.endswith(tail)


def test_an_elided_endpoint_still_shows_its_port() -> None:
    assert units.elide("[2001:db8:1111:2222:3333:4444:5555:6666]:65535", 21).endswith("]:65535")
