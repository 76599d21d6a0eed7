"""Settings of a store: one frozen value, checked once.

Place: above `errors`. Promise: an unusable value is a ConfigError that names the setting and what
is allowed; the environment is read in `LogConfig.from_env` only; argument over environment over
default. Invariant: secrets never appear in repr. Units stand last in each name.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chronik_store.errors import ConfigError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SEGMENT_BYTES_MAX = 512 * MIB
Backend = Literal["local", "s3", "gcs", "azure", "memory"]
_Bounds = tuple[tuple[str, float, float], ...]
_ENDPOINT = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^\s@?#]*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to reach an S3 endpoint. Unset credentials: botocore's own chain."""

    region: str | None = None
    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    path_style: bool = True
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    max_connections: int = 32

    def __post_init__(self) -> None:
        _check_types(self, "s3.")
        _check_bounds(self, _S3_BOUNDS, "s3.")
        if self.endpoint is not None and not _ENDPOINT.fullmatch(self.endpoint):
            # Without the value: whoever writes credentials into it does not want to read them.
            raise ConfigError(
                "the S3 endpoint is no URL of a server: write http://host:port or https://host"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """All settings of a `LogStore`. Every field has a default that suits one machine."""

    # write path
    wal_file_bytes: int = 64 * MIB
    batch_bytes_max: int = 64 * MIB
    record_bytes_max: int = 32 * MIB
    queue_bytes_max: int = 64 * MIB
    group_bytes_max: int = 8 * MIB
    tail_bytes_max: int = 64 * MIB
    compression: Literal["none", "zstd"] = "none"
    max_future_seconds: float = 3600.0
    producers_max: int = 10_000
    cursors_max: int = 10_000
    commit_threads: int = 8
    # sealing and tiering
    indexing_enabled: bool = True
    pipeline_enabled: bool = True
    pipeline_interval_seconds: float = 30.0
    segment_bytes: int = 256 * MIB
    segment_age_seconds: float = 1800.0
    local_segment_bytes: int = 0
    garbage_seconds: float = 3600.0
    retention_bytes: int | None = None
    retention_seconds: float | None = None
    allow_unsafe_bucket: bool = False
    on_fenced: Literal["append", "stop"] = "append"
    upload: Literal["leader", "all"] = "leader"
    # reading
    cache_memory_bytes: int = 64 * MIB
    cache_disk_bytes: int = 1 * GIB
    read_ahead_bytes: int = 8 * MIB
    search_deadline_seconds: float = 10.0
    search_cache_bytes: int = 1 * GIB
    search_answer_bytes: int = 512 * MIB
    tail_index_bytes: int = 64 * MIB
    # disk
    disk_reserve_bytes: int = 64 * MIB
    disk_throttle_bytes: int = 256 * MIB
    accept_suspect: bool = False
    s3: S3Options = field(default_factory=S3Options)
    object_store: str | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        _check_bounds(self, _BOUNDS)
        if self.record_bytes_max > self.batch_bytes_max:
            raise ConfigError(
                f"record_bytes_max ({self.record_bytes_max}) is over batch_bytes_max "
                f"({self.batch_bytes_max}); raise the latter"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; use one of {choices}")

    def __repr__(self) -> str:
        """What is not the default: it stands in the signatures of all that opens a log."""
        default = type(self)()
        names = [each.name for each in dataclasses.fields(self)]
        changed = [name for name in names if getattr(self, name) != getattr(default, name)]
        return f"LogConfig({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    def replace(self, **changes: Any) -> LogConfig:
        """A copy with some settings changed, checked again."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> LogConfig:
        """Settings from the environment; keyword arguments win. ConfigError names a bad value."""
        values: dict[str, Any] = {}
        environ = os.environ if environ is None else environ
        s3: dict[str, Any] = {}
        for name, (target, parse) in ENVIRONMENT.items():
            text = environ.get(name)
            if text is None or text == "":
                continue
            try:
                value = parse(text)
                if not target.startswith("s3."):
                    cls(**{target: value})  # alone: while its variable can be named
            except ValueError as error:
                raise ConfigError(f"{name}={text!r}: {error}") from None
            if target.startswith("s3."):
                s3[target[3:]] = value
            elif target:
                values[target] = value
        if s3:
            values["s3"] = S3Options(**s3)
        url = object_store_url(environ)
        if url is not None:
            values["object_store"] = url
        values.update(arguments)
        return cls(**values)


def _check_types(settings: S3Options | LogConfig, prefix: str = "") -> None:
    for each in dataclasses.fields(settings):
        value, allowed = getattr(settings, each.name), _TYPES.get(str(each.type))
        if allowed is not None and type(value) not in allowed:
            # Without the value: it may be a secret in the wrong place.
            raise ConfigError(
                f"{prefix}{each.name} must be {each.type}, not {type(value).__name__}"
            )


def _check_bounds(settings: S3Options | LogConfig, bounds: _Bounds, prefix: str = "") -> None:
    for name, low, high in bounds:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{prefix}{name} is {value!r}; it must be between {low} and {high}")


def check_config(config: object) -> None:
    """TypeError unless it is a LogConfig."""
    if not isinstance(config, LogConfig):
        raise TypeError(f"config must be a LogConfig, not {config!r:.100}")


def object_store_url(environ: Mapping[str, str]) -> str | None:
    """The object-store URL that OBJECT_STORE_BACKEND and its companions spell, or None."""
    backend = environ.get("OBJECT_STORE_BACKEND") or None
    if backend is None:
        return None
    prefix = environ.get("S3_PREFIX", "").strip("/")
    if backend == "local":
        path = environ.get("LOCAL_STORAGE_PATH") or None
        return None if path is None else "file://" + os.path.abspath(path)  # noqa: PTH100
    if backend == "memory":
        return "memory://chronik" + (f"/{prefix}" if prefix else "")
    schemes = {"s3": "s3", "gcs": "gs", "azure": "az"}
    if backend not in schemes:
        raise ConfigError(f"OBJECT_STORE_BACKEND={backend!r}: use local, s3, gcs, azure or memory")
    bucket = environ.get("S3_BUCKET") or None
    if bucket is None:
        raise ConfigError(f"OBJECT_STORE_BACKEND={backend!r} needs S3_BUCKET")
    return f"{schemes[backend]}://{bucket}" + (f"/{prefix}" if prefix else "")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("not a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("not a number of seconds") from None


def parse_flag(text: str) -> bool:
    """Truth as the environment says it, everywhere. ValueError says how."""
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("use true or false")


ENVIRONMENT: dict[str, tuple[str, Callable[[str], Any]]] = {
    "CHRONIK_WAL_INDEXING_ENABLED": ("indexing_enabled", parse_flag),
    "CHRONIK_WAL_INDEXING_INTERVAL": ("pipeline_interval_seconds", _seconds),
    "CHRONIK_SEGMENT_BYTES": ("segment_bytes", _integer),
    "CHRONIK_SEGMENT_AGE_SECONDS": ("segment_age_seconds", _seconds),
    "CHRONIK_CACHE_MEMORY_BYTES": ("cache_memory_bytes", _integer),
    "CHRONIK_CACHE_DISK_BYTES": ("cache_disk_bytes", _integer),
    "CHRONIK_SEARCH_CACHE_BYTES": ("search_cache_bytes", _integer),
    "CHRONIK_SEARCH_ANSWER_BYTES": ("search_answer_bytes", _integer),
    "CHRONIK_UPLOAD": ("upload", str),
    "CHRONIK_RETENTION_BYTES": ("retention_bytes", _integer),
    "CHRONIK_RETENTION_SECONDS": ("retention_seconds", _seconds),
    "S3_REGION": ("s3.region", str),
    "S3_ENDPOINT": ("s3.endpoint", str),
    "S3_ACCESS_KEY": ("s3.access_key", str),
    "S3_SECRET_KEY": ("s3.secret_key", str),
}
"""Variables with one field each. OBJECT_STORE_BACKEND, LOCAL_STORAGE_PATH, S3_BUCKET and
S3_PREFIX make up the URL; CHRONIK_DATA_DIR and the server's variables are read by the CLI."""

_INF = float("inf")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "bool": (bool,),
    "str | None": (str, type(None)),
    "S3Options": (S3Options,),
}
"""By annotation: a flag that is "false", or half a byte, is a mistake and no setting."""
_S3_BOUNDS: _Bounds = (
    ("connect_timeout_seconds", 0.001, 86_400),
    ("read_timeout_seconds", 0.001, 86_400),
    ("max_connections", 1, 10_000),
)
_BOUNDS: _Bounds = (
    ("wal_file_bytes", 4 * KIB, 4 * GIB),
    ("batch_bytes_max", 1 * KIB, 256 * MIB),
    ("record_bytes_max", 1, 256 * MIB),
    ("queue_bytes_max", 1 * KIB, 4 * GIB),
    ("group_bytes_max", 4 * KIB, 1 * GIB),
    ("tail_bytes_max", 0, 64 * GIB),
    ("max_future_seconds", 0, 1e9),  # in microseconds it must fit an index timestamp
    ("producers_max", 1, 200_000),  # five batches of each stand in every checkpoint
    ("cursors_max", 1, 10_000_000),
    ("commit_threads", 1, 64),
    ("pipeline_interval_seconds", 0.01, 86_400),
    ("segment_bytes", 1, SEGMENT_BYTES_MAX),
    ("segment_age_seconds", 0.001, _INF),
    ("local_segment_bytes", 0, _INF),
    ("garbage_seconds", 0, _INF),
    ("retention_bytes", 0, _INF),
    ("retention_seconds", 0, _INF),
    ("cache_memory_bytes", 0, _INF),
    ("cache_disk_bytes", 0, _INF),
    ("search_cache_bytes", 0, _INF),
    ("search_answer_bytes", 0, _INF),
    ("read_ahead_bytes", 0, 1 * GIB),
    ("search_deadline_seconds", 0, _INF),
    ("tail_index_bytes", 15_000_000, 4_000_000_000),  # what tantivy takes
    ("disk_reserve_bytes", 0, _INF),
    ("disk_throttle_bytes", 0, _INF),
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "compression": ("none", "zstd"),
    "on_fenced": ("append", "stop"),
    "upload": ("leader", "all"),
}
