"""How a message stands in a frame's header: a frozen dataclass as a CBOR map.

Place: between `frames` and the messages. Promise: a message that `decode` returns has exactly the
declared types, ranges and lengths; anything else is ProtocolError. Invariant: equal messages give
equal bytes: maps are canonical, and a field that has its default is left out.

A reader ignores keys that it does not know and gives defaults to those that are missing: a field
may be added within a version if leaving it out means what was meant before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from chronik_server.errors import ProtocolError
from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.shape import Shape, ShapeError

T = TypeVar("T")
_MISSING: Final = dataclasses.MISSING
REMEMBERED: Final = 4096
REMEMBERED_BYTES_MAX: Final = 512
ITEMS_MAX: Final = 1 << 14
"""What a header may make of its bytes: more than any request needs, and the event loop is held up
for no longer than it takes to read so many.
"""
LISTED_ITEMS_MAX: Final = 1 << 22
"""Of an answer that lists topics, partitions or hits: more than its header's bytes hold of them."""


class Optioned(Generic[T]):
    """A value as a map in which fields that have their default are left out."""

    def __init__(self, build: Callable[..., T], fields: Mapping[str, Shape[Any]]) -> None:
        self.build = build
        self.fields: Final = dict(fields)
        declared = dataclasses.fields(build)  # type: ignore[arg-type]
        names = [field.name for field in declared]
        assert names == list(self.fields), f"{build}: {names} are not {list(self.fields)}"
        self._defaults = {field.name: field.default for field in declared}

    def pack(self, value: T) -> Any:
        """The map of a value; ShapeError when a field does not fit."""
        packed = {}
        for name, shape in self.fields.items():
            part = getattr(value, name)
            if part != self._defaults[name]:
                try:
                    packed[name] = shape.pack(part)
                except ShapeError as error:
                    raise ShapeError(f"{type(value).__name__}.{name}: {error}") from None
        return packed

    def unpack(self, item: Any, what: str) -> T:
        """The value of a map; ShapeError when a field is missing or does not fit."""
        if type(item) is not dict:
            raise ShapeError(f"{what} is not a map")
        parts = {}
        for name, shape in self.fields.items():
            if name in item:
                parts[name] = shape.unpack(item[name], f"{what}.{name}")
            elif self._defaults[name] is _MISSING:
                raise ShapeError(f"{what}.{name} is missing")
        return self.build(**parts)


class Codec(Generic[T]):
    """One message on the wire. Stateless, thread-safe."""

    def __init__(
        self, build: type[T], fields: Mapping[str, Shape[Any]], *, items_max: int = ITEMS_MAX
    ) -> None:
        self.message: Final = build
        self.shape: Final = Optioned(build, fields)
        self.name: Final = build.__name__
        self._items_max = items_max

    def remembering(self) -> Codec[T]:
        """The same codec for a message that is sent again and again, unchanged: both ways are
        looked up (0.2 us) instead of worked out (10 us). Bounded; long headers are not kept.
        """
        plain_encode, plain_decode = self.encode, self.decode
        encode = lru_cache(REMEMBERED)(plain_encode)
        decode = lru_cache(REMEMBERED)(plain_decode)

        def bounded_decode(header: bytes) -> T:
            return (decode if len(header) <= REMEMBERED_BYTES_MAX else plain_decode)(header)

        self.encode = encode  # type: ignore[method-assign]
        self.decode = bounded_decode  # type: ignore[method-assign]
        return self

    def encode(self, message: T) -> bytes:
        """The header bytes; ValueError when a field is out of its range."""
        return cbor.encode(self.shape.pack(message))

    def decode(self, header: bytes) -> T:
        """The message; ProtocolError when the bytes are not one."""
        try:
            item = cbor.decode(header, what=self.name, items_max=self._items_max)
            return self.shape.unpack(item, self.name)
        except (CorruptionError, ShapeError) as error:
            raise ProtocolError(f"{self.name}: {error}") from error
