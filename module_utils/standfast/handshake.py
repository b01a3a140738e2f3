"""Which certificate a port serves, seen by a handshake as a peer would make it."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

# PostgreSQL (17 and newer) speaks TLS at once to a client that names its protocol; everything
# else of the cluster speaks HTTP or ignores the offer.
PROTOCOLS = ["postgresql", "http/1.1"]


class Served(Enum):
    """What a port serves, compared with the certificate on disk."""

    CURRENT = "the installed certificate"
    STALE = "another certificate"
    NOTHING = "no TLS"


@dataclass(frozen=True)
class Identity:
    """The PEM files that a host presents itself and verifies others with."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Seen:
    """One handshake: the port, what it served, and the failure in words, "" without one."""

    port: int
    served: Served
    detail: str = ""

    def __str__(self) -> str:
        return f"port {self.port}: {self.served.value}" + (f" ({self.detail})" if self.detail else "")


def first_certificate(pem: str) -> bytes:
    """The first certificate of a PEM text, in DER.

    :raises ValueError: if there is none.
    """
    end = "-----END CERTIFICATE-----"
    head, found, _ = pem.partition(end)
    if not found:
        raise ValueError("no certificate in PEM format")
    return ssl.PEM_cert_to_DER_cert(head[head.rindex("-----BEGIN") :] + found)


def handshake(address: str, port: int, identity: Identity, timeout: float) -> Seen:
    """Connect with mutual TLS, verify like any peer (chain, dates, address), and compare.

    :param timeout: seconds for each step.
    """
    expected = first_certificate(identity.certificate.read_text(encoding="ascii"))
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(PROTOCOLS)
    try:
        with (
            socket.create_connection((address, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=address) as secured,
        ):
            served = secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return Seen(port, Served.STALE, error.verify_message)
    except OSError as error:  # ssl.SSLError is one
        return Seen(port, Served.NOTHING, str(error))
    return Seen(port, Served.CURRENT if served == expected else Served.STALE)
