"""Certificates and keys on disk: the authority's on the control machine, a host's on the host.

Whatever interrupts a run, these hold: a file has its old content or its new one, never a part;
a key is never readable by others, not even for a moment; a certificate file exists only beside
the key that it was issued for.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from .certificates import Authority, new_authority_pem, new_key_pem, read_authority
from .files import read, remove, write

AUTHORITY_CERTIFICATE = "ca.crt"
AUTHORITY_KEY = "ca.key"
HOST_CERTIFICATE = "host.crt"
HOST_KEY = "host.key"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time: Ansible works on several hosts at once, and one authority signs."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def stored_authority(directory: Path) -> Authority | None:
    """The authority kept in a directory, None if there is none yet.

    A key without a certificate is a making that was interrupted; a certificate without a key is an
    authority kept offline.

    :raises CertificateError: if its files cannot be used.
    """
    certificate = read(directory / AUTHORITY_CERTIFICATE)
    if not certificate:
        return None
    return read_authority(certificate, read(directory / AUTHORITY_KEY))


def make_authority(directory: Path, common_name: str, now: datetime) -> Authority:
    """The authority kept in a directory, made if there is none.

    :raises CertificateError: if its files cannot be used.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory):
        if authority := stored_authority(directory):
            return authority
        key = read(directory / AUTHORITY_KEY)
        if not key:
            key = new_key_pem()
            write(directory / AUTHORITY_KEY, key, mode=0o600)
        certificate = new_authority_pem(key, common_name, now)
        write(directory / AUTHORITY_CERTIFICATE, certificate, mode=0o600)
        return read_authority(certificate, key)


def make_host_key(directory: Path, group: int) -> str:
    """A new private key for a host that has none; returns it.

    A certificate of an earlier key goes first: nobody may find it beside the new one.
    """
    remove(directory / HOST_CERTIFICATE)
    key = new_key_pem()
    write(directory / HOST_KEY, key, mode=0o640, group=group)
    return key
