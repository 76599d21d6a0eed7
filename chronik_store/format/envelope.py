"""The envelope: the head that all structures but batch, entry and frame share.

     0               4               8                               16
     +---------------+---------------+-------------------------------+
     |     magic     |    version    |           checksum            |
     +---------------+---------------+-------------------------------+
     |          body_bytes           |  body: body_bytes bytes ...
     +-------------------------------+

Place: in `format`, above `checksum` and `cbor`. Promise: magic, then version, then length, then
checksum are looked at in this order, so a newer version is refused by name even when nothing
behind it can be read. Invariant: the checksum covers body_bytes and the body; the eight bytes
before it are compared with constants. The first 8 bytes of *every* Chronik structure, batch,
entry and frame included, are magic and version.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple, TypeVar

from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format import cbor
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.shape import Shape, ShapeError

T = TypeVar("T")

ENVELOPE_BYTES: Final = 24
BODY_BYTES_MAX: Final = 1 << 30
"""A structure larger than this is not one of ours: nothing in an envelope comes near it."""

_HEAD: Final = struct.Struct("<4sIQ")
_LENGTH: Final = struct.Struct("<Q")
_MAGIC_VERSION: Final = struct.Struct("<4sI")


class Kind(NamedTuple):
    """What an envelope says it holds: four bytes, the newest version known, a name for people."""

    magic: bytes
    version: int
    what: str


def refuse(kind: Kind, data: Buffer, position: int = 0, *, path: str = "") -> None:
    """Raise unless `data` holds the magic and version of `kind` at `position`.

    FutureVersionError for a version above `kind.version`, CorruptionError for all else.
    """
    where = f"{kind.what} at byte {position}" if position else kind.what
    if len(data) < position + _MAGIC_VERSION.size:
        raise CorruptionError(f"{where}: ends before its version", path=path)
    magic, version = _MAGIC_VERSION.unpack_from(data, position)
    if magic != kind.magic:
        raise CorruptionError(f"{where}: starts with {magic.hex()}, not its magic", path=path)
    if version > kind.version:
        raise FutureVersionError(
            f"{where}: written as version {version}, this Chronik reads up to {kind.version}: "
            "upgrade; nothing was changed",
            path=path,
            found=version,
            supported=kind.version,
        )
    if version != kind.version:
        raise CorruptionError(f"{where}: version {version} never existed", path=path)


def seal(kind: Kind, body: bytes) -> bytes:
    """The body in its envelope. ValueError when it is over BODY_BYTES_MAX."""
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"{kind.what}: {len(body)} bytes, more than {BODY_BYTES_MAX}")
    covered = _LENGTH.pack(len(body)) + body
    return _HEAD.pack(kind.magic, kind.version, checksum(covered)) + covered


def envelope_bytes(kind: Kind, data: Buffer, *, path: str = "") -> int:
    """The length of the envelope that starts `data`, head and body; the body is not verified."""
    refuse(kind, data, path=path)
    if len(data) < ENVELOPE_BYTES:
        raise CorruptionError(f"{kind.what}: {len(data)} bytes, not even its head", path=path)
    (body_bytes,) = _LENGTH.unpack_from(data, _HEAD.size)
    if body_bytes > min(BODY_BYTES_MAX, len(data) - ENVELOPE_BYTES):
        raise CorruptionError(
            f"{kind.what}: says {body_bytes} bytes of body, {len(data) - ENVELOPE_BYTES} are there",
            path=path,
        )
    return ENVELOPE_BYTES + int(body_bytes)


def unseal(kind: Kind, data: Buffer, *, path: str = "") -> tuple[memoryview, int]:
    """The verified body of the envelope that starts `data`, and where the envelope ends."""
    end = envelope_bytes(kind, data, path=path)
    view = memoryview(data)
    (expected,) = _LENGTH.unpack_from(view, _MAGIC_VERSION.size)
    if checksum(view[_HEAD.size : end]) != expected:
        raise CorruptionError(f"{kind.what}: its checksum does not match its bytes", path=path)
    return view[ENVELOPE_BYTES:end], end


def seal_value(kind: Kind, shape: Shape[T], value: T) -> bytes:
    """A value as canonical CBOR in an envelope. ValueError when it does not fit its shape."""
    return seal(kind, cbor.encode(shape.pack(value)))


def unseal_value(
    kind: Kind, shape: Shape[T], data: Buffer, *, path: str = "", whole: bool = True
) -> tuple[T, int]:
    """The value in the envelope that starts `data`, and where the envelope ends.

    `whole`: bytes behind the envelope are corruption.
    """
    body, end = unseal(kind, data, path=path)
    if whole and end != len(data):
        raise CorruptionError(f"{kind.what}: {len(data) - end} bytes follow it", path=path)
    return unpack(shape, cbor.decode(body, what=kind.what, path=path), kind.what, path=path), end


def unpack(shape: Shape[T], item: Any, what: str, *, path: str = "") -> T:
    """`shape.unpack` with its refusal as CorruptionError."""
    try:
        return shape.unpack(item, what)
    except ShapeError as error:
        raise CorruptionError(f"{what}: {error}", path=path) from error
