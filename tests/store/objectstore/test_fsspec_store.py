import secrets

import fsspec
import pytest

from chronik_store.errors import AccessDeniedError, ConfigError, UnavailableError
from chronik_store.objectstore.fsspec_store import FsspecObjectStore, open_fsspec
from chronik_store.testing.object_store_kit import ObjectStoreTests


class TestFsspecObjectStore(ObjectStoreTests):
    racers = 1  # fsspec's memory file system checks, then writes; real services are probed

    @pytest.fixture
    def store(self):
        root = f"/{secrets.token_hex(4)}/deep"
        return FsspecObjectStore(fsspec.filesystem("memory"), root, url=f"fsspec-memory:/{root}")

    def test_of_rivals_with_equal_bytes_one_creates_and_all_succeed(self, store, folder):
        """Not promised without an atomic create."""


class Raising:
    def __init__(self, error):
        self._error = error

    def pipe_file(self, *args, **kwargs):
        raise self._error

    cat_file = info = pipe_file


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (PermissionError("no"), AccessDeniedError),
        (OSError("reset"), UnavailableError),
        (KeyError("whatever a client raises"), UnavailableError),
    ],
)
def test_foreign_errors_do_not_escape(raised, expected):
    store = FsspecObjectStore(Raising(raised), "b", url="x://b")
    with pytest.raises(expected) as caught:
        store.put_if_absent("k", b"")
    assert caught.value.durability == "unknown"
    with pytest.raises(expected) as caught:
        store.get("k")
    assert caught.value.durability is None


def test_a_missing_package_is_named():
    with pytest.raises(ConfigError, match="gs://"):
        open_fsspec("gs", "bucket", "")
