"""Certificates for tests, of CAs that nobody else believes."""

from __future__ import annotations

import subprocess
from pathlib import Path

EXTENSIONS = "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
"""And `keyUsage` of the CA: Python 3.13 believes no others by default (RFC 5280)."""


def certificates(
    directory: Path, days: int = 2, *, authority: Path | None = None
) -> dict[str, str]:
    """A CA, a server certificate for 127.0.0.1, and a client certificate; of the CA that another
    directory has, if it is named.
    """
    directory.mkdir(exist_ok=True)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    if authority is not None:
        for name in ("ca.pem", "ca.key"):
            (directory / name).write_bytes((authority / name).read_bytes())
    else:
        openssl(
            "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
            "-days", "2", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
    for name in ("server", "client"):
        (directory / f"{name}.ext").write_text(EXTENSIONS)
        openssl(
            "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-days", f"{days}", "-extfile", f"{name}.ext",
        )  # fmt: skip
    files = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return {name: str(directory / name) for name in files}
