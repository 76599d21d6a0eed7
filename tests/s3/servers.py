"""S3 servers for tests: an emulator from PyPI and a real Ceph RGW, each started and ended here."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import botocore.session
from botocore.config import Config

from chronik_store.config import S3Options
from tests.ports import free_port

ACCESS_KEY, SECRET_KEY = "testaccess", "testsecretkey"
RGW_SCRIPT = Path(__file__).with_name("ceph_rgw.sh")


def wait_until_up(url, seconds, process=None):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return  # it answers, which is all that is asked
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"no answer from {url} after {seconds} s")


class Server:
    """A running S3 server."""

    host = "127.0.0.1"

    def __init__(self, port):
        self.port = port

    @property
    def endpoint(self):
        return f"http://{self.host}:{self.port}"

    def options(self, **changes):
        values = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "connect_timeout_seconds": 2.0,
            "read_timeout_seconds": 20.0,
        }
        return S3Options(**{**values, **changes})

    def create_bucket(self, name, access_key=ACCESS_KEY, secret_key=SECRET_KEY):
        client = botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket=name)
        client.close()
        return name


class Emulator(Server):
    """ministack on loopback, in memory. Its races prove nothing about a real server."""

    def __init__(self, folder):
        super().__init__(free_port())
        environment = {
            **os.environ,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "HOME": str(folder),
        }
        with Path(folder, "ministack.log").open("wb") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("ministack")],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until_up(self.endpoint, 30, self._process)

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


class CephRgw(Server):
    """One mon, one osd, one radosgw on loopback, their data below `folder`."""

    def __init__(self, folder):
        super().__init__(free_port())
        self.folder = Path(folder)
        self._script("start")

    @classmethod
    @contextlib.contextmanager
    def on_disk(cls):
        """One that runs meanwhile. Its osd writes past the page cache: nothing for a tmpfs."""
        with tempfile.TemporaryDirectory(
            prefix="ceph-", dir=os.environ["CHRONIK_TESTS_DISK"], ignore_cleanup_errors=True
        ) as folder:
            server = cls(folder)
            try:
                yield server
            finally:
                server.stop()

    @staticmethod
    def is_installed():
        return all(shutil.which(name) for name in ("ceph-mon", "ceph-osd", "radosgw"))

    def create_foreign_bucket(self, name):
        """A bucket that the test user has no rights on."""
        return self.create_bucket(name, "otheraccess", "othersecretkey")

    def kill_gateway(self):
        """What a crash of the server process looks like; the data stays with the osd."""
        os.kill(int((self.folder / "rgw.pid").read_text()), signal.SIGKILL)

    def start_gateway(self):
        self._script("start-rgw")

    def stop(self):
        self._script("stop")

    def _script(self, verb):
        subprocess.run(
            ["bash", RGW_SCRIPT, verb, self.folder, str(self.port)], check=True, timeout=120
        )
