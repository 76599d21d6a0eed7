"""What is written leaves in order, and a transport that is full has had the chance to say so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chronik_server.protocol import writing
from chronik_server.protocol.writing import JOINED_BYTES_MAX, TLS_BYTES, write_all


class Transport:
    """Looks at how much waits where asyncio's do: with `unsure`, not behind `writelines`."""

    def __init__(self, *, unsure: bool = False, tls: bool = False) -> None:
        self.unsure = unsure
        self.tls = tls
        self.longest = 0
        self.written = b""
        self.looked_at = 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self.tls and name == "sslcontext") or default

    def write(self, data: bytes) -> None:
        self.written += data
        self.longest = max(self.longest, len(data))
        self.looked_at = len(self.written)

    def writelines(self, list_of_data: Sequence[bytes]) -> None:
        self.written += b"".join(list_of_data)
        if not self.unsure:
            self.looked_at = len(self.written)


@pytest.mark.parametrize("unsure", [False, True])
@pytest.mark.parametrize("sizes", [[3], [1, 2, 3], [JOINED_BYTES_MAX, 1], [1, 1 << 20, 5]])
def test_how_much_waits_is_looked_at_when_all_is_written(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], unsure: bool
) -> None:
    monkeypatch.setattr(writing, "_MAY_NOT_PAUSE", unsure)
    buffers = [bytes([number]) * size for number, size in enumerate(sizes)]
    transport = Transport(unsure=unsure)

    assert write_all(transport, buffers) == sum(sizes)
    assert transport.written == b"".join(buffers)
    assert transport.looked_at == sum(sizes)


@pytest.mark.parametrize(
    "sizes", [[3, 1], [1 << 20], [1, TLS_BYTES, 0, 5], [TLS_BYTES, TLS_BYTES], [7] * 20_000]
)
def test_tls_is_given_little_at_a_time(sizes: list[int]) -> None:
    """What it is given at once is counted by nobody."""
    buffers = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    transport = Transport(tls=True)

    assert write_all(transport, buffers) == sum(sizes)
    assert transport.written == b"".join(buffers)
    assert transport.longest <= TLS_BYTES
