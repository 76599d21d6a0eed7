"""The bucket that a benchmark uses: a directory on the measured disk, or S3 if one is named.

Place: beside `harness`. Promise: each run has a prefix of its own, so nothing is found that it did
not put; the bare client is botocore, which knows nothing of the log. S3 is where `--s3 ENDPOINT`
says, with the keys in S3_ACCESS_KEY and S3_SECRET_KEY; without it S3 is not measured, and the
report says so. A single-node Ceph object gateway to measure against:

    tests/s3/ceph_rgw.sh start DIR 17480
    S3_ACCESS_KEY=testaccess S3_SECRET_KEY=testsecretkey python -m benchmarks.bench_cold \\
        --s3 http://127.0.0.1:17480
"""

from __future__ import annotations

import argparse
import os
import secrets
import time
from typing import Any

from chronik_store.config import S3Options

BUCKET = "chronik-bench"


def add_s3(parser: argparse.ArgumentParser) -> None:
    """The option that names a server."""
    parser.add_argument("--s3", metavar="ENDPOINT", help="http://host:port of an S3 server")


class S3Server:
    """An S3 server, a bucket on it (made if it is not there), a prefix of this run."""

    def __init__(self, endpoint: str) -> None:
        if not {"S3_ACCESS_KEY", "S3_SECRET_KEY"} <= os.environ.keys():
            raise SystemExit("--s3 wants the keys in S3_ACCESS_KEY and S3_SECRET_KEY")
        self.options = S3Options(
            endpoint=endpoint,
            region=os.environ.get("S3_REGION", "us-east-1"),
            access_key=os.environ["S3_ACCESS_KEY"],
            secret_key=os.environ["S3_SECRET_KEY"],
        )
        self.prefix = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        self.client = self._client()
        self._make_bucket()

    def url(self, name: str) -> str:
        """A place of its own for the store `name`."""
        return f"s3://{BUCKET}/{self.prefix}/{name}"

    def key(self, name: str, key: str) -> str:
        """The full key of an object of the store `name`."""
        return f"{self.prefix}/{name}/{key}"

    def range(self, full_key: str, start: int, length: int) -> bytes:
        """The yardstick: one signed GET of a range, on a connection that is kept."""
        wanted = f"bytes={start}-{start + length - 1}"
        answer = self.client.get_object(Bucket=BUCKET, Key=full_key, Range=wanted)
        data: bytes = answer["Body"].read()
        return data

    def _client(self) -> Any:
        import botocore.session
        from botocore.config import Config

        return botocore.session.Session().create_client(
            "s3",
            region_name=self.options.region,
            endpoint_url=self.options.endpoint,
            aws_access_key_id=self.options.access_key,
            aws_secret_access_key=self.options.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def _make_bucket(self) -> None:
        from botocore.exceptions import ClientError

        try:
            self.client.create_bucket(Bucket=BUCKET)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {
                "BucketAlreadyOwnedByYou",
                "BucketAlreadyExists",
            }:
                raise


def server_of(extra: argparse.Namespace) -> S3Server | None:
    """The server that the command line names."""
    return None if extra.s3 is None else S3Server(extra.s3)
