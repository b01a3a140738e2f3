"""Connections that should, or should not, come about: what each one met."""

import shutil
import socket
import ssl
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SECONDS = 2.0
SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def startup(user: str, database: str) -> bytes:
    """PostgreSQL's StartupMessage, protocol 3.0."""
    body = bytes.fromhex("00030000") + f"user\0{user}\0database\0{database}\0\0".encode()
    return (len(body) + 4).to_bytes(4, "big") + body


def connect(attempt: dict[str, Any]) -> socket.socket:
    source = (attempt["source"], 0) if attempt.get("source") else None
    return socket.create_connection((attempt["address"], attempt["port"]), timeout=SECONDS, source_address=source)


def plain(connection: socket.socket, attempt: dict[str, Any]) -> dict[str, Any]:
    """What a service says to somebody who does not encrypt."""
    connection.sendall(bytes.fromhex(attempt["plain"]))
    try:
        said = connection.recv(4096)
    except TimeoutError:
        return {"outcome": "silent"}
    except ConnectionError as error:
        return {"outcome": "closed", "said": str(error)}
    return {"outcome": "answered" if said else "closed", "said": said.decode("latin-1")}


def context(attempt: dict[str, Any], files: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if "ca" in attempt:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=attempt["ca"])
    with warnings.catch_warnings(action="ignore"):  # that the old versions are old
        made.minimum_version = ssl.TLSVersion[attempt.get("minimum", "TLSv1_2")]
        made.maximum_version = ssl.TLSVersion[attempt.get("maximum", "TLSv1_3")]
    if "ciphers" in attempt:
        made.set_ciphers(attempt["ciphers"])
    if "identity" in attempt:
        pem = files / "identity.pem"
        pem.write_text(attempt["identity"], encoding="ascii")
        made.load_cert_chain(pem)
    elif attempt.get("own_identity"):
        made.load_cert_chain("/etc/standfast/pki/host.crt", "/etc/standfast/pki/host.key")
    return made


def secured(connection: socket.socket, attempt: dict[str, Any]) -> dict[str, Any]:
    """A handshake, and a request after it: with TLS 1.3 a client's certificate is refused only then."""
    files = Path(tempfile.mkdtemp(prefix="doors-"))
    try:
        made = context(attempt, files)
    finally:
        shutil.rmtree(files)
    if attempt.get("starttls"):
        connection.sendall(SSL_REQUEST)
        if connection.recv(1) != b"S":
            return {"outcome": "no TLS"}
    with made.wrap_socket(connection, server_hostname=attempt["address"]) as channel:
        seen = {"outcome": "spoken", "version": channel.version(), "cipher": (channel.cipher() or ("",))[0]}
        if "request" in attempt:
            channel.sendall(bytes.fromhex(attempt["request"]))
            seen["said"] = channel.recv(4096).decode("latin-1")
            if not seen["said"]:
                seen["outcome"] = "closed"
    return seen


def tried(attempt: dict[str, Any]) -> dict[str, Any]:
    """One attempt: outcome filtered, refused, open; with `plain` or `tls`, what followed.

    "rejected" is the server's alert, "mistrusted" our own refusal of its certificate.
    """
    try:
        connection = connect(attempt)
    except TimeoutError:
        return {"outcome": "filtered"}
    except OSError as error:
        return {"outcome": "refused", "said": str(error)}
    with connection:
        try:
            if "plain" in attempt:
                return plain(connection, attempt)
            if attempt.get("tls"):
                return secured(connection, attempt)
        except ssl.SSLCertVerificationError as error:
            return {"outcome": "mistrusted", "said": error.verify_message}
        except ssl.SSLEOFError as error:
            return {"outcome": "closed", "said": str(error)}
        except ssl.SSLError as error:
            return {"outcome": "rejected" if "ALERT" in str(error.reason) else "failed here", "said": str(error.reason)}
        except TimeoutError:
            return {"outcome": "silent"}
        except ConnectionError as error:
            return {"outcome": "closed", "said": str(error)}
    return {"outcome": "open"}


def answer(attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(tried, attempts))
