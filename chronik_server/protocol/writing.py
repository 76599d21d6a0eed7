"""Handing buffers to a transport.

Place: in `protocol`, under whoever owns a socket. Promise: many small buffers leave in one write,
and large ones are not copied to be put behind each other, but for TLS, which copies everything; a
transport that is full has said so to its protocol when this returns, and tells what waits in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from chronik_store.format.checksum import Buffer

JOINED_BYTES_MAX: Final = 32 << 10
"""Up to here one copy is cheaper than a list of buffers for the kernel."""

_MAY_NOT_PAUSE: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (
    3,
    13,
    2,
)
"""Here `writelines` of asyncio's own transports never calls `pause_writing`, so that whoever takes
nothing fills the memory (CPython issue 127655).
"""


TLS_BYTES: Final = 64 << 10
"""A transport for TLS hands on at once whatever it is given, and neither counts that nor says that
it is full: only what comes behind, while the socket takes no more, waits in it.
"""


class Writer(Protocol):
    """A transport."""

    def get_extra_info(self, name: str, default: Any = None, /) -> Any: ...
    def write(self, data: Buffer, /) -> None: ...
    def writelines(self, list_of_data: Sequence[Buffer], /) -> None: ...


def write_all(transport: Writer, buffers: Sequence[Buffer]) -> int:
    """Write them in order; returns how many bytes they are."""
    size = sum(map(len, buffers))
    if size <= JOINED_BYTES_MAX:
        transport.write(buffers[0] if len(buffers) == 1 else b"".join(buffers))
    elif transport.get_extra_info("sslcontext") is not None:
        for piece in _pieces(buffers):
            transport.write(piece)
    elif len(buffers) == 1:
        transport.write(buffers[0])
    elif _MAY_NOT_PAUSE:
        transport.writelines(buffers[:-1])
        transport.write(buffers[-1])  # looks at how much waits
    else:
        transport.writelines(buffers)
    return size


def _pieces(buffers: Sequence[Buffer]) -> Iterator[bytes]:
    """The same bytes, TLS_BYTES at a time."""
    parts: list[memoryview] = []
    left = TLS_BYTES
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            parts.append(view[:left])
            view, left = view[left:], left - len(parts[-1])
            if not left:
                yield b"".join(parts)
                parts, left = [], TLS_BYTES
    if parts:
        yield b"".join(parts)
