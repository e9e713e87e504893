"""The C structs of bpf/flow.h and packets.h, as a C compiler lays them out, are the numpy dtypes that read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flowtop.capture.ebpf.owners import PROCESS_DTYPE
from flowtop.capture.ebpf.packet_taps import LOSSES_DTYPE, RECORD_DTYPE
from flowtop.model import owners
from flowtop.model.kinds import (
    IGNORED_KINDS,
    TCP_CONTROL_BITS,
    TCP_OPENING_BIT,
    Direction,
    Kind,
    Layer,
    Protocol,
    TcpBits,
    Tunnel,
)
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FLOW_TOTALS_DTYPE

BPF = Path(__file__).parents[2] / "bpf"
STRUCTS = {"flow_key": FLOW_KEY_DTYPE, "flow_counters": FLOW_COUNTERS_DTYPE, "flow_totals": FLOW_TOTALS_DTYPE,
           "packet_record": RECORD_DTYPE, "packet_losses": LOSSES_DTYPE,
           "process": PROCESS_DTYPE}
ENUMS = {
    **{f"FLOW_KIND_{kind.name}": int(kind) for kind in Kind},
    **{f"FLOW_TUNNEL_{tunnel.name}": int(tunnel) for tunnel in Tunnel},
    **{f"FLOW_LAYER_{layer.name}": int(layer) for layer in Layer},
    **{f"FLOW_{direction.name}": int(direction) for direction in Direction},
    **{f"FLOW_IGNORED_{name.upper()}": number for number, name in enumerate(IGNORED_KINDS)},
    "FLOW_IGNORED_KINDS": len(IGNORED_KINDS),
    "FLOW_TCP_SEEN": FLOW_COUNTERS_DTYPE["tcp_bit_seen"].shape[0],
    "FLOW_TCP_OPENING": TCP_OPENING_BIT,
    "FLOW_TCP_BITS": TCP_CONTROL_BITS.bit_length(),
    "FLOW_OWNER_NONE": owners.NO_OWNER,
    "FLOW_OWNER_KERNEL": owners.KERNEL,
    "FLOW_OWNER_FORWARDED": owners.FORWARDED,
    "FLOW_OWNER_PROCESS": owners.PROCESS_BIT,
    "FLOW_OWNER_ANY_ADDRESS": owners.ANY_ADDRESS_BIT,
    "FLOW_OWNER_SENDER": owners.SENDER_BIT,
    "FLOW_OWNER_PID_BITS": owners.PID_BITS,
    "FLOW_OWNER_START_SHIFT": owners.START_SHIFT,
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Numbers printed by a C program: "struct.field.offset", "struct.field.size", "struct.size", enumerators."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler: apt-get install gcc")
    lines = []
    for struct, dtype in STRUCTS.items():
        lines.append(f'printf("{struct}.size %zu\\n", sizeof(struct {struct}));')
        for name in dtype.names or ():
            lines.append(f'printf("{struct}.{name}.offset %zu\\n", offsetof(struct {struct}, {name}));')
            lines.append(f'printf("{struct}.{name}.size %zu\\n", sizeof(((struct {struct} *)0)->{name}));')
    lines += [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in ENUMS]
    directory = tmp_path_factory.mktemp("abi")
    source, program = directory / "layout.c", directory / "layout"
    included = "".join(f"#include {name}\n" for name in ("<stddef.h>", "<stdio.h>", '"packets.h"', '"owner.h"'))
    source.write_text(f"{included}int main(void) {{\n"
                      + "\n".join(lines) + "\nreturn 0;\n}\n")
    subprocess.run([compiler, "-std=c11", "-Wall", "-Werror", f"-I{BPF}", str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in (line.split() for line in printed.splitlines())}


@pytest.mark.parametrize("struct", STRUCTS)
def test_every_field_has_the_same_offset_and_size(layout: dict[str, int], struct: str) -> None:
    dtype: np.dtype[np.void] = STRUCTS[struct]
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        assert (layout[f"{struct}.{name}.offset"], layout[f"{struct}.{name}.size"]) == (offset, field.itemsize), name
    assert layout[f"{struct}.size"] == dtype.itemsize


@pytest.mark.parametrize("struct", STRUCTS)
def test_c_has_no_field_the_dtype_lacks(layout: dict[str, int], struct: str) -> None:
    """The fields known to the dtype tile the C struct: no octet is left for another one."""
    end = 0
    for name in STRUCTS[struct].names or ():
        assert layout[f"{struct}.{name}.offset"] == end, name
        end += layout[f"{struct}.{name}.size"]
    assert end == layout[f"{struct}.size"]


def test_enumerators_have_the_same_values(layout: dict[str, int]) -> None:
    assert {name: layout[name] for name in ENUMS} == ENUMS


_C_NAMES = {"HOP_BY_HOP": "HOPOPT", "ROUTING": "IPV6_ROUTE", "FRAGMENT": "IPV6_FRAGMENT",
            "DESTINATION_OPTIONS": "IPV6_OPTIONS"}
"""What protocols.h calls otherwise."""


def test_protocol_numbers_and_tcp_bits_are_those_of_the_program() -> None:
    defined = {name: int(value, 0) for name, value in
               re.findall(r"#define (\w+) (0x[0-9a-f]+|\d+)\b", (BPF / "protocols.h").read_text())}
    protocols = {name.removeprefix("PROTOCOL_"): value for name, value in defined.items()
                 if name.startswith("PROTOCOL_")}
    assert len(protocols) > 10
    assert protocols == {name: Protocol[_C_NAMES.get(name, name)] for name in protocols}
    assert {bit: defined[f"TCP_{bit}"] for bit in ("FIN", "SYN", "RST", "ACK")} == {
        bit: TcpBits[bit] for bit in ("FIN", "SYN", "RST", "ACK")}
    assert defined["TCP_CONTROL_BITS"] == TCP_CONTROL_BITS
