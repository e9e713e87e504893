"""Runs a capture file through the pipeline with packets being written; and counts blocks without flowtop's reader."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.filters.filter import compile_filter
from flowtop.output.batch import PageQueue
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.recording.recorder import Recorder, RecordingLimits
from flowtop.recording.recording import RecordingStatistics

EVERYTHING = RecordingLimits(snap=262_144, per_flow=0, most_octets=0)


def write_packets(source: Path, target: Path, text: str = "", limits: RecordingLimits = EVERYTHING,
                  tick_s: float | None = None, *, decap: bool = False) -> RecordingStatistics:
    """What `flowtop -r source -w target text` writes."""
    recorder = Recorder(limits)
    recorder.begin(str(target), [compile_filter(text)] if text else [], new=False)
    capture = FileCapture(FileConfig(str(source), tick_s, decap=decap))
    recorder.connect(capture)
    pipeline = Pipeline(PipelineConfig(own_time=True), capture, watcher=recorder)
    pages = PageQueue()
    pipeline.start(pages)
    for _ in pages:
        pass
    pipeline.stop()
    figures = recorder.end()
    assert figures is not None
    return figures


def blocks(octets: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each block of a pcapng file (little-endian); all of it must be blocks."""
    found: list[tuple[int, bytes]] = []
    while octets:
        kind, length = struct.unpack_from("<II", octets)
        assert 12 <= length <= len(octets)
        assert length % 4 == 0
        assert struct.unpack_from("<I", octets, length - 4) == (length,)
        found.append((kind, octets[8:length - 4]))
        octets = octets[length:]
    return found


def packets(octets: bytes) -> list[tuple[Any, ...]]:
    """(interface, time in ns, true length, frame) of each Enhanced Packet Block."""
    found = []
    for kind, body in blocks(octets):
        if kind == 6:
            interface, high, low, captured, wire = struct.unpack_from("<IIIII", body)
            found.append((interface, high << 32 | low, wire, body[20:20 + captured]))
    return found
