"""Deletes of the S3 store, by what a store may answer. Nothing here reaches a network."""

from __future__ import annotations

import pytest

from chronik_store.clock import SystemClock
from chronik_store.errors import AccessDeniedError, UnavailableError
from chronik_store.objectstore.base import ObjectStoreRefusedError
from chronik_store.objectstore.fsspec_s3 import S3ObjectStore
from chronik_store.threads import SystemThreads
from tests.store.objectstore.test_fsspec_s3_errors import answer
from tests.store.objectstore.test_fsspec_s3_listing import OPTIONS


class Client:
    """Refuses single deletes with `error`; of several, answers with these failures."""

    def __init__(self, *, error=None, failures=()):
        self.error = error
        self.failures = [{"Key": "p/a", "Code": each, "Message": "why"} for each in failures]

    async def delete_object(self, **_asked):
        raise self.error

    async def delete_objects(self, **_asked):
        return {"Errors": self.failures}


@pytest.fixture
def delete(monkeypatch):
    """Delete these keys of a store with this client."""
    store = S3ObjectStore("bucket", "p", OPTIONS, threads=SystemThreads(), clock=SystemClock())

    def of(client, *keys):
        async def connected():
            return client

        monkeypatch.setattr(store._requests, "_client", connected)
        store.delete(keys)

    yield of
    store.close()


def test_what_is_absent_is_deleted(delete):
    delete(Client(error=answer(404, "NoSuchKey")), "a")
    delete(Client(failures=["NoSuchKey"]), "a", "b")


def test_a_bucket_that_is_absent_is_an_error(delete):
    with pytest.raises(ObjectStoreRefusedError, match="does not exist"):
        delete(Client(error=answer(404, "NoSuchBucket")), "a")


def test_rights_that_lack_are_named_and_not_asked_for_again(delete):
    with pytest.raises(AccessDeniedError, match=r"2 of 2 .*s3:DeleteObject") as caught:
        delete(Client(failures=["AccessDenied", "AccessDenied"]), "a", "b")
    assert (caught.value.retriable, caught.value.durability) == (False, "unknown")


def test_what_may_pass_is_tried_again(delete):
    with pytest.raises(UnavailableError, match=r"2 of 2 .*SlowDown") as caught:
        delete(Client(failures=["SlowDown", "AccessDenied"]), "a", "b")
    assert (caught.value.retriable, caught.value.durability) == (True, "unknown")
