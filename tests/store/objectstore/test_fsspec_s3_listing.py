"""Listings of the S3 store: unknown is not empty. Nothing here reaches a network."""

from __future__ import annotations

import itertools

import pytest

from chronik_store.clock import SystemClock
from chronik_store.config import S3Options
from chronik_store.errors import UnavailableError
from chronik_store.objectstore import fsspec_s3
from chronik_store.objectstore.fsspec_s3 import S3ObjectStore
from chronik_store.threads import SystemThreads

OPTIONS = S3Options(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")


class Client:
    """Answers listings, one after the other, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = iter(answers)
        self.asked = []

    async def list_objects_v2(self, **asked):
        self.asked.append(asked)
        return next(self.answers)


def page(*keys, token=None, truncated=False):
    answer = {"IsTruncated": truncated, "KeyCount": len(keys)}
    if keys:
        answer["Contents"] = [{"Key": f"p/{key}", "Size": 1} for key in keys]
    return answer | ({} if token is None else {"NextContinuationToken": token})


@pytest.fixture
def listed(monkeypatch):
    """What a store lists of a client's answers, and the client."""
    opened = []

    def of(*answers, **asked):
        store = S3ObjectStore("bucket", "p", OPTIONS, threads=SystemThreads(), clock=SystemClock())
        opened.append(store)
        client = Client(*answers)

        async def connected():
            return client

        monkeypatch.setattr(store._requests, "_client", connected)
        return client, lambda: [each.key for each in store.list("m/", **asked)]

    yield of
    for store in opened:
        store.close()


def test_a_page_without_keys_that_is_not_the_last_does_not_end_the_listing(listed):
    """As where a page's worth of deleted objects is passed over."""
    client, keys = listed(
        page(truncated=True, token="one"),
        page(truncated=True, token="two"),
        page("m/1", "m/2", truncated=True, token="three"),
        page(truncated=True, token="four"),
        page("m/3"),
    )
    assert ["m/1", "m/2", "m/3"] == keys()
    assert [None, "one", "two", None, "four"] == [
        each.get("ContinuationToken") for each in client.asked
    ]
    assert "p/m/2" == client.asked[3]["StartAfter"]


def test_a_listing_of_pages_with_keys_asks_by_the_last_of_them(listed):
    client, keys = listed(page("m/1", truncated=True, token="one"), page("m/2"), start_after="m/0")
    assert ["m/1", "m/2"] == keys()
    assert ["p/m/0", "p/m/1"] == [each["StartAfter"] for each in client.asked]
    assert not any("ContinuationToken" in each for each in client.asked)


def test_the_limit_ends_a_listing_whatever_is_behind_it(listed):
    _, keys = listed(page(truncated=True, token="one"), page("m/1", truncated=True), limit=1)
    assert ["m/1"] == keys()


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([page(truncated=True)], id="it does not say how to ask on"),
        pytest.param([page(truncated=True, token="")], id="an empty token"),
        pytest.param(itertools.repeat(page(truncated=True, token="one")), id="the same for ever"),
        pytest.param(
            (page(truncated=True, token=f"{number}") for number in itertools.count()),
            id="another one for ever",
        ),
        pytest.param(
            (page(truncated=True, token=each) for each in itertools.cycle(["one", "two"])),
            id="in a circle",
        ),
    ],
)
def test_what_cannot_be_listed_to_its_end_is_no_answer(listed, monkeypatch, answers):
    monkeypatch.setattr(fsspec_s3, "EMPTY_PAGES_MAX", 20, raising=False)
    client, keys = listed(*itertools.islice(answers, 100))
    with pytest.raises(UnavailableError, match="says that there is more") as caught:
        keys()
    assert caught.value.retriable
    assert caught.value.durability is None
    assert len(client.asked) <= 21


def test_an_answer_that_is_no_listing_is_not_an_empty_one(listed):
    """A body that broke off before its first byte, where nobody said how long it would be, or a
    page of some other server: the client makes of it a listing without any field.
    """
    _, keys = listed({"ResponseMetadata": {"HTTPStatusCode": 200}})
    with pytest.raises(UnavailableError, match="no listing") as caught:
        keys()
    assert caught.value.retriable
