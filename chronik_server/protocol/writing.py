"""Handing buffers to a transport.

Place: in `protocol`, under whoever owns a socket. Promise: many small buffers leave in one write,
and large ones are not copied to be put behind each other; a transport that is full has said so to
its protocol when this returns.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, Protocol

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


class Writer(Protocol):
    """A transport."""

    def write(self, data: Buffer, /) -> None: ...
    def writelines(self, list_of_data: Sequence[Buffer], /) -> None: ...


def write_all(transport: Writer, buffers: Sequence[Buffer]) -> int:
    """Write them in order; returns how many bytes they are."""
    size = sum(map(len, buffers))
    if len(buffers) == 1:
        transport.write(buffers[0])
    elif size <= JOINED_BYTES_MAX:
        transport.write(b"".join(buffers))
    elif _MAY_NOT_PAUSE:
        transport.writelines(buffers[:-1])
        transport.write(buffers[-1])  # looks at how much waits
    else:
        transport.writelines(buffers)
    return size
