"""Certificates: what a node or client shows, and whom it believes.

Place: under `config` and `client`. Promise: TLS 1.2 or newer; a client checks the server's name
against its certificate; a server with a client CA refuses whoever shows no certificate of it.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from chronik_server.errors import CertificateError
from chronik_store.errors import ConfigError

_NAMES = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and ..._IP_ADDRESS_MISMATCH; `ssl` has no names for them."""
_NOT_YET_VALID, _EXPIRED = 9, 10


def not_believed(where: str, error: ssl.SSLCertVerificationError) -> CertificateError:
    """What to do about a certificate that `where` showed and this side does not believe."""
    if error.verify_code in _NAMES:
        advice = "connect by a name that is in it, or have it name this one"
    elif error.verify_code == _EXPIRED:
        advice = "it has run out: replace it there"
    elif error.verify_code == _NOT_YET_VALID:
        advice = "it is not valid yet: look at the clocks"
    else:
        advice = "have CHRONIK_TLS_CA name the CA that signed it (unset: the system's are believed)"
    reason = error.verify_message.rstrip(".")
    return CertificateError(f"the certificate of {where} is not believed: {reason}; {advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Paths of PEM files. certificate and key: what this side shows. ca: whom it believes (a
    client: its servers, the system's store if unset; a server: its clients, who must then show a
    certificate). check_hostname: off only where names cannot be in certificates.
    """

    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    check_hostname: bool = True

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError(
                "CHRONIK_TLS_CERT and CHRONIK_TLS_KEY belong together: set both, or neither"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> TlsOptions | None:
        """CHRONIK_TLS_CERT, CHRONIK_TLS_KEY, CHRONIK_TLS_CA; None when none is set."""
        names = ("CHRONIK_TLS_CERT", "CHRONIK_TLS_KEY", "CHRONIK_TLS_CA")
        found = [environ.get(name) or None for name in names]
        if not any(found):
            return None
        return cls(certificate=found[0], key=found[1], ca=found[2])

    def server_context(self) -> ssl.SSLContext:
        """For a listener. ConfigError when a file cannot be read or no certificate is given."""
        if self.certificate is None:
            raise ConfigError("a TLS listener needs CHRONIK_TLS_CERT and CHRONIK_TLS_KEY")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._load(context)

    def client_context(self) -> ssl.SSLContext:
        """For a client, or a node that calls another. ConfigError as above."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.check_hostname
        if self.ca is None:
            context.load_default_certs()
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(filter(None, (self.certificate, self.key, self.ca)))
            raise ConfigError(f"TLS: cannot use {files}: {error}") from error
        return context
