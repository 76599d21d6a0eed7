"""The golden frames, and their annotated dumps in docs/rpc.md:

python -m tests.server.protocol.annotate --golden     write what is missing, never what is there
python -m tests.server.protocol.annotate --update     write the dumps into the page
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Any

import cbor2

from chronik_server.protocol.verbs import Verb
from tests.server.protocol.samples import SAMPLES, encode

GOLDEN = Path(__file__).parent / "golden"
PAGE = Path(__file__).parents[3] / "docs" / "rpc.md"
BLOCK = re.compile(r"^```hexdump (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEAD = "frame_bytes:I version:B kind:B verb:H request_id:I header_bytes:I checksum:I"
KINDS = {1: "request", 2: "response", 3: "error", 4: "one way"}
ROW = 16


def dump(data: bytes) -> str:
    """Lines of `place  bytes  meaning`."""
    lines: list[str] = []
    position = 0

    def take(size: int, text: str) -> bytes:
        nonlocal position
        taken = data[position : position + size]
        for start in range(0, max(size, 1), ROW):
            row = taken[start : start + ROW]
            note = text if start == 0 else ""
            lines.append(f"{position + start:04x}  {row.hex(' '):<{3 * ROW}} {note}".rstrip())
        position += size
        return taken

    fields = {}
    for part in HEAD.split():
        name, code = part.split(":")
        size = struct.calcsize("<" + code)
        (value,) = struct.unpack_from("<" + code, data, position)
        fields[name] = value
        shown = f"{name} = {value}"
        if name == "verb" and value:
            shown += f"  ({Verb(value).name})"
        if name == "kind":
            shown += f"  ({KINDS[value]})"
        if name == "checksum":
            shown = "checksum"
        take(size, shown)
    header = data[position : position + fields["header_bytes"]]
    item: dict[str, Any] = cbor2.loads(header)
    keys = list(item)
    place = 1
    take(1, f"header: a map of {len(keys)}")
    for key in keys:
        size = len(cbor2.dumps({key: item[key]}, canonical=True)) - 1
        take(size, f"{key}: {_shown(item[key])}")
        place += size
    assert place == len(header)
    if position < len(data):
        take(len(data) - position, f"payload: {len(data) - position} bytes")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(part)}" for key, part in value.items()) + "}"
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    return repr(value) if isinstance(value, str) else str(value)


def page_with_dumps(text: str) -> str:
    """The page with every dump as it must be."""

    def block(match: re.Match[str]) -> str:
        data = (GOLDEN / f"{match[1]}.bin").read_bytes()
        return f"```hexdump {match[1]}\n{dump(data)}```"

    return BLOCK.sub(block, text)


def main() -> None:
    if "--golden" in sys.argv:
        for sample in SAMPLES:
            path = GOLDEN / f"{sample.name}.bin"
            if not path.exists():
                path.write_bytes(encode(sample))
    if "--update" in sys.argv:
        PAGE.write_text(page_with_dumps(PAGE.read_text()))


if __name__ == "__main__":
    main()
