"""Annotated hex dumps of the golden files, for docs/file-format.md:

    python -m tests.format.annotate NAME        print one
    python -m tests.format.annotate --update    write all of them into the page, between its marks

A mark is a fenced block that starts with ```hexdump NAME. A test compares page and files.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from pathlib import Path

from tests.format.make_golden import GOLDEN

PAGE = Path(__file__).parent.parent.parent / "docs" / "file-format.md"
BLOCK = re.compile(r"^```hexdump (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BYTES_PER_LINE = 16
TEXT_COLUMN = 6 + 3 * BYTES_PER_LINE

ENVELOPE = "magic:4s version:I checksum:Q body_bytes:Q"
BATCH = (
    "magic:4s version:I checksum:Q flags:H codec:B reserved:B record_count:I base_timestamp_us:q "
    "max_timestamp_us:q producer_id:Q producer_epoch:I largest_record_bytes:I base_sequence:Q "
    "body_bytes:I raw_bytes:I key_data_bytes:I value_data_bytes:I headers_bytes:I reserved:I"
)
ENTRY = (
    "magic:4s version:I checksum:Q kind:I record_count:I term:Q index:Q base_offset:Q "
    "timestamp_us:q payload_bytes:I reserved:I"
)
COMMAND = "magic:4s version:I"
FRAME = (
    "magic:4s version:I checksum:Q kind:H flags:H log:I payload_bytes:I zero_sectors:H "
    "zero_tail:B parity:B seq:Q position:Q synced_seq:Q synced_file:Q synced_position:Q "
    "committed_index:Q"
)
HARD_STATE = "term:Q vote_bytes:H"
PRODUCER = (
    "producer_id:Q epoch:Q last_sequence:Q last_base_sequence:Q base_offset:Q end_offset:Q index:Q"
)
TRAILER = "magic:4s version:I checksum:Q footer_bytes:Q file_bytes:Q"
BATCH_COLUMNS = (
    "timestamps_us",
    "key_offsets",
    "key_data",
    "key_validity",
    "value_offsets",
    "value_data",
    "headers",
)


class Dump:
    """Lines of `offset  hex  meaning`, taken off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0
        self.lines: list[str] = []

    def take(self, size: int, text: str) -> bytes:
        """The next `size` bytes as lines with `text` beside the first; zeros are not repeated."""
        taken = self.data[self.position : self.position + size]
        for start in range(0, size, BYTES_PER_LINE):
            row = taken[start : start + BYTES_PER_LINE]
            if start and size - start > 2 * BYTES_PER_LINE and not any(taken[start:]):
                self.lines.append("*")
                break
            line = f"{self.position + start:04x}  {row.hex(' '):<{TEXT_COLUMN - 6}}"
            self.lines.append(f"{line}{'' if start else text}".rstrip())
        self.position += size
        return taken

    def fields(self, layout: str) -> dict[str, int]:
        """Fixed fields in order, `name:struct code`."""
        found = {}
        for part in layout.split():
            name, code = part.split(":")
            width = struct.calcsize(f"<{code}")
            raw = self.data[self.position : self.position + width]
            (value,) = struct.unpack(f"<{code}", raw)
            shown = f"{value:#018x}" if name == "checksum" else value
            shown = repr(bytes(value))[2:-1] if code == "4s" else shown
            found[name] = value
            self.take(width, f"{name} = {shown}")
        return found

    def cbor(self, label: str = "", depth: int = 0, key_bytes: int = 0) -> None:
        """One CBOR item, a line per scalar and per head of a container.

        `key_bytes`: that many bytes before the item are its key in a map, shown on its line.
        """
        label = "  " * depth + label
        start = self.position + key_bytes
        major, argument, head = self.head(start)
        if major == 6:
            label += f"tag {argument}, "
            major, argument, more = self.head(start + head)
            head += more
        if major in (4, 5):
            self.take(key_bytes + head, f"{label}{'map' if major == 5 else 'array'} of {argument}")
            for number in range(argument):
                if major == 4:
                    self.cbor(f"[{number}] ", depth + 1)
                else:
                    _, size, key_head = self.head(self.position)
                    key = self.data[self.position + key_head :][:size].decode()
                    self.cbor(f"{key}: ", depth + 1, key_head + size)
        else:
            size = argument if major in (2, 3) else 0
            body = self.data[start + head : start + head + size]
            self.take(key_bytes + head + size, label + scalar(major, argument, body))

    def head(self, position: int) -> tuple[int, int, int]:
        """(major type, argument, bytes) of the CBOR head at `position`."""
        first = self.data[position]
        if first & 31 < 24 or first >> 5 == 7:
            return first >> 5, first & 31, 1
        width = 1 << (first & 31) - 24
        return first >> 5, int.from_bytes(self.data[position + 1 :][:width], "big"), 1 + width

    def envelope(self) -> None:
        self.fields(ENVELOPE)
        self.cbor()

    def batch(self) -> None:
        header = self.fields(BATCH)
        if header["codec"]:
            self.take(header["body_bytes"], "zstd frame of the body")
            return
        self.take(1, "array of 7")
        for name in BATCH_COLUMNS:
            self.cbor(f"{name}: ")

    def entry(self) -> None:
        header = self.fields(ENTRY)
        if header["kind"] == 1:
            self.batch()
        else:
            self.fields(COMMAND)
            self.cbor()

    def producers(self) -> None:
        body = self.fields(ENVELOPE)["body_bytes"]
        for _ in range(body // struct.calcsize("<7Q")):
            self.fields(PRODUCER)


def scalar(major: int, argument: int, body: bytes) -> str:
    if major == 0:
        return str(argument)
    if major == 1:
        return str(-1 - argument)
    if major == 2:
        return f"{len(body)} bytes" + (f" {body!r}" if 0 < len(body) <= 8 else "")
    if major == 3:
        return f'"{body.decode()}"'
    return {20: "false", 21: "true", 22: "null"}[argument]


def annotate(name: str) -> str:
    """The dump of a golden file: every byte, in order."""
    dump = Dump((GOLDEN / f"{name}.bin").read_bytes())
    kind = name.partition("_")[0]
    if kind == "batch":
        dump.batch()
    elif kind == "entry":
        dump.entry()
    elif name == "frame_entry":
        dump.fields(FRAME)
        dump.entry()
    elif name == "frame_hard_state":
        dump.fields(FRAME)
        dump.take(dump.fields(HARD_STATE)["vote_bytes"], "vote")
    elif name == "producers":
        dump.producers()
    else:
        dump.envelope()
    if name == "segment_footer":
        dump.fields(TRAILER)
    dump.take(len(dump.data) - dump.position, "zeros")
    return "\n".join(dump.lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--update", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.name:
        sys.stdout.write(annotate(chosen.name))
    if chosen.update:
        PAGE.write_text(BLOCK.sub(filled, PAGE.read_text()))
    return 0


def filled(block: re.Match[str]) -> str:
    return f"```hexdump {block[1]}\n{annotate(block[1])}```"


if __name__ == "__main__":
    sys.exit(main())
