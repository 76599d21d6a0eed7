"""Shapes: one declaration per field that packs a value for CBOR and checks it on the way back.

Place: in `format`, below every structure with a CBOR body. Promise: a value that `unpack`
returns has exactly the declared types, ranges and lengths; both directions raise ShapeError (a
ValueError) that names the field, and nothing else but an embedded value's FutureVersionError.
Invariant: `unpack(pack(value)) == value`, and `pack` refuses what `unpack` would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer

T = TypeVar("T")


class ShapeError(ValueError):
    """A value that does not fit its declared shape; codecs turn it into CorruptionError."""


class Shape(Protocol[T]):
    """How one type of value stands in CBOR."""

    def pack(self, value: T) -> Any: ...

    def unpack(self, item: Any, what: str) -> T: ...


class Integer:
    """An integer in [low, high]; a bool is not one."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def pack(self, value: int) -> Any:
        return self.unpack(value, "it")

    def unpack(self, item: Any, what: str) -> int:
        if type(item) is not int or not self.low <= item <= self.high:
            raise ShapeError(f"{what} is not an integer in [{self.low}, {self.high}]: {item!r:.80}")
        return item


class Boolean:
    """True or false."""

    def pack(self, value: bool) -> Any:
        return self.unpack(value, "it")

    def unpack(self, item: Any, what: str) -> bool:
        if type(item) is not bool:
            raise ShapeError(f"{what} is neither true nor false: {item!r:.80}")
        return item


class Text:
    """Text of at most `limit` UTF-8 bytes, one of `choices` if they are given."""

    def __init__(self, limit: int = 1024, *, choices: tuple[str, ...] = ()) -> None:
        self.limit, self.choices = limit, choices

    def pack(self, value: str) -> Any:
        return self.unpack(value, "it")

    def unpack(self, item: Any, what: str) -> str:
        if type(item) is not str:
            raise ShapeError(f"{what} is not text: {item!r:.80}")
        try:
            size = len(item) if item.isascii() else len(item.encode())
        except UnicodeEncodeError as error:
            raise ShapeError(f"{what} is not text that UTF-8 can hold") from error
        if size > self.limit:
            raise ShapeError(f"{what} has {size} bytes, more than {self.limit}")
        if self.choices and item not in self.choices:
            raise ShapeError(f"{what} is none of {self.choices}: {item!r:.80}")
        return item


class Hex:
    """Lower-case hex text of `digits` digits, stored as half as many bytes."""

    def __init__(self, digits: int) -> None:
        self.digits = digits

    def pack(self, value: str) -> Any:
        try:
            raw = bytes.fromhex(value)
        except (ValueError, TypeError) as error:
            raise ShapeError(f"not {self.digits} hex digits: {value!r:.80}") from error
        if raw.hex() != value or len(value) != self.digits:
            raise ShapeError(f"not {self.digits} lower-case hex digits: {value!r:.80}")
        return raw

    def unpack(self, item: Any, what: str) -> str:
        if type(item) is not bytes or len(item) != self.digits // 2:
            raise ShapeError(f"{what} is not {self.digits // 2} bytes: {item!r:.80}")
        return item.hex()


class Optional(Generic[T]):
    """Null, or a value of another shape."""

    def __init__(self, shape: Shape[T]) -> None:
        self.shape = shape

    def pack(self, value: T | None) -> Any:
        return None if value is None else self.shape.pack(value)

    def unpack(self, item: Any, what: str) -> T | None:
        return None if item is None else self.shape.unpack(item, what)


class TupleOf(Generic[T]):
    """A tuple of at most `limit` values of one shape."""

    def __init__(self, shape: Shape[T], limit: int) -> None:
        self.shape, self.limit = shape, limit

    def pack(self, value: tuple[T, ...]) -> Any:
        if type(value) is not tuple or len(value) > self.limit:
            raise ShapeError(f"not a tuple of at most {self.limit} items: {value!r:.80}")
        pack = self.shape.pack
        return [pack(item) for item in value]

    def unpack(self, item: Any, what: str) -> tuple[T, ...]:
        if type(item) is not list or len(item) > self.limit:
            raise ShapeError(f"{what} is not a list of at most {self.limit} items")
        unpack = self.shape.unpack
        return tuple([unpack(part, what) for part in item])


class Fixed:
    """A plain tuple of a fixed number of values, each of its own shape, as a list."""

    def __init__(self, *shapes: Shape[Any]) -> None:
        self.shapes = shapes

    def pack(self, value: tuple[Any, ...]) -> Any:
        if type(value) is not tuple or len(value) != len(self.shapes):
            raise ShapeError(f"not a tuple of {len(self.shapes)}: {value!r:.80}")
        return [shape.pack(part) for shape, part in zip(self.shapes, value, strict=True)]

    def unpack(self, item: Any, what: str) -> tuple[Any, ...]:
        if type(item) is not list or len(item) != len(self.shapes):
            raise ShapeError(f"{what} is not a list of {len(self.shapes)}: {item!r:.80}")
        return tuple(
            [shape.unpack(part, what) for shape, part in zip(self.shapes, item, strict=True)]
        )


class Embedded(Generic[T]):
    """A value with a binary codec of its own, as a byte string."""

    def __init__(self, encode: Callable[[T], bytes], decode: Callable[[Buffer], T]) -> None:
        self._encode, self._decode = encode, decode

    def pack(self, value: T) -> Any:
        return self._encode(value)

    def unpack(self, item: Any, what: str) -> T:
        if type(item) is not bytes:
            raise ShapeError(f"{what} is not a byte string: {item!r:.80}")
        try:
            return self._decode(item)
        except CorruptionError as error:
            raise ShapeError(f"{what}: {error}") from error


class _Fields(Generic[T]):
    """A value with named fields. `check` says what is wrong between them, or ""."""

    def __init__(
        self,
        build: Callable[..., T],
        fields: Mapping[str, Shape[Any]],
        check: Callable[[T], str] = lambda _: "",
    ) -> None:
        self.build = build
        self.fields: Final = dict(fields)
        self._check = check

    def _checked(self, value: T, what: str) -> T:
        fault = self._check(value)
        if fault:
            raise ShapeError(f"{what}: {fault}")
        return value

    def _packed(self, value: T) -> dict[str, Any]:
        what = type(value).__name__
        packed = {}
        for name, shape in self.fields.items():
            try:
                packed[name] = shape.pack(getattr(value, name))
            except ShapeError as error:
                raise ShapeError(f"{what}.{name}: {error}") from None
        self._checked(value, what)  # only now: it may rely on each field's own shape
        return packed


class Row(_Fields[T]):
    """A value as a list of its fields in declared order: compact, for what repeats."""

    def pack(self, value: T) -> Any:
        return list(self._packed(value).values())

    def unpack(self, item: Any, what: str) -> T:
        if type(item) is not list or len(item) != len(self.fields):
            raise ShapeError(f"{what} is not a list of {len(self.fields)} fields")
        parts = [
            shape.unpack(part, f"{what}.{name}")
            for (name, shape), part in zip(self.fields.items(), item, strict=True)
        ]
        return self._checked(self.build(*parts), what)


class Table(_Fields[T]):
    """A value as a map from field names: readable, for what stands once."""

    def pack(self, value: T) -> Any:
        return self._packed(value)

    def unpack(self, item: Any, what: str) -> T:
        if type(item) is not dict or item.keys() != self.fields.keys():
            raise ShapeError(f"{what} is not a map of {', '.join(self.fields)}")
        parts = {
            name: shape.unpack(item[name], f"{what}.{name}") for name, shape in self.fields.items()
        }
        return self._checked(self.build(**parts), what)


UINT63: Final = Integer(0, (1 << 63) - 1)
"""Offsets, indexes, terms, counts: never negative, and safe as a signed 64-bit integer."""
INDEX: Final = Integer(1, (1 << 63) - 1)
INT64: Final = Integer(-(1 << 63), (1 << 63) - 1)
UINT64: Final = Integer(0, (1 << 64) - 1)
PARTITION: Final = Integer(0, (1 << 31) - 1)
BOOLEAN: Final = Boolean()
ID: Final = Hex(32)
"""topic_id, log_id, store_id: 128 random bits."""
HASH: Final = Hex(16)
"""A `content_hash`."""
TOPIC: Final = Text(200)
KEY: Final = Text(1024)
"""An object key: S3's own limit."""
NAME: Final = Text(255)
"""Node ids, owners, votes, cursor names."""
NOTE: Final = Text(1024)
"""A reason, free text."""
