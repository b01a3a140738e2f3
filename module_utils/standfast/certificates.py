"""The cluster's X.509 certificates: what to certify, when to do it again, and how.

Pure: bytes and a point in time in, bytes or a reason out. All of it needs the `cryptography`
library, which a host that was never provisioned does not have yet; `available` tells.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from .errors import InputError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:  # pragma: no cover - only on hosts before their first provisioning
    available = False
else:
    available = True

# A certificate is valid from a little before its making: clocks of hosts differ by seconds,
# and a freshly started virtual machine's by minutes.
BACKDATED = timedelta(hours=1)

# The authority outlives several generations of hardware; replacing it is a procedure.
AUTHORITY_VALIDITY = timedelta(days=3650)


class CertificateError(Exception):
    """A certificate or key that cannot be used; the message says what was seen and what mends it."""


@dataclass(frozen=True)
class Names:
    """Whom a host certificate is for. `dns` and `addresses` become subject alternative names."""

    common_name: str
    dns: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """How long certificates live, and how long before their end a run renews them."""

    validity: timedelta
    renewal: timedelta


@dataclass(frozen=True)
class Authority:
    """Who signs. `certificates` starts with the signing one; the rest completes its chain.

    `key` is None while the key is kept offline: everything but issuing still works.
    """

    certificates: tuple[x509.Certificate, ...]
    key: CertificateIssuerPrivateKeyTypes | None

    @property
    def issuer(self) -> x509.Certificate:
        """The certificate whose key signs."""
        return self.certificates[0]

    @property
    def pem(self) -> str:
        """All of its certificates, in their order."""
        return "".join(certificate_pem(certificate) for certificate in self.certificates)


def certificate_pem(certificate: x509.Certificate) -> str:
    """One certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def read_certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM text, in its order.

    :raises CertificateError: if there is none, or one cannot be read.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode("utf-8")))
    except ValueError as error:
        raise CertificateError(f"not a certificate in PEM format ({error})") from error


def new_key_pem() -> str:
    """A new ECDSA P-256 private key, PKCS #8. Every daemon of the cluster reads this kind."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def read_key(pem: str) -> CertificateIssuerPrivateKeyTypes:
    """:raises CertificateError: if the text is no private key, or is protected by a passphrase."""
    try:
        key = serialization.load_pem_private_key(pem.encode("utf-8"), password=None)
    except TypeError as error:
        raise CertificateError("a private key protected by a passphrase") from error
    except ValueError as error:
        # The library's message could quote the key.
        raise CertificateError("not a private key in PEM format") from error
    return key  # type: ignore[return-value]


def _public_bytes(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def signing_request(key_pem: str, common_name: str) -> str:
    """A PKCS #10 request. Its names bind nobody: the authority writes what the topology says."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(common_name))
        .sign(read_key(key_pem), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode("ascii")
    )


def _subject(common_name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError as error:
        raise CertificateError(f"common name {common_name!r}: {error}") from error


def new_authority_pem(key_pem: str, common_name: str, now: datetime) -> str:
    """A self-signed authority that may sign host certificates, and no further authorities."""
    key = read_key(key_pem)
    subject = _subject(common_name)
    return certificate_pem(
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def read_authority(certificate: str, key: str | None) -> Authority:
    """The authority of a certificate (signing one first, then its chain) and its private key.

    :raises CertificateError: if one cannot be read, they do not belong together, or the
        certificate may not sign.
    """
    certificates = read_certificates(certificate)
    issuer = certificates[0]
    try:
        may_sign = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        raise CertificateError(
            f"the certificate of {describe_name(issuer.subject)} is not an authority's"
            " (basicConstraints lacks CA:TRUE); the signing certificate comes first"
        )
    private = read_key(key) if key else None
    if private and _public_bytes(private.public_key()) != _public_bytes(issuer.public_key()):
        raise CertificateError(
            f"the authority's private key does not belong to its certificate ({describe_name(issuer.subject)})"
        )
    return Authority(certificates, private)


def reason_to_issue(
    current: str,
    request: str,
    authority: Authority,
    names: Names,
    policy: Policy,
    now: datetime,
) -> str | None:
    """Why a host needs a new certificate; None while the current one serves.

    :param current: the content of the host's certificate file, "" without one.
    :param request: the signing request of the host's key.
    """
    try:
        chain = read_certificates(current)
    except CertificateError:
        return "there is no readable certificate yet"
    leaf = chain[0]
    if _public_bytes(leaf.public_key()) != _public_bytes(x509.load_pem_x509_csr(request.encode("ascii")).public_key()):
        return "it belongs to another private key"
    if not is_signed_by(leaf, authority.issuer):
        return f"it was not signed by {describe_name(authority.issuer.subject)}"
    if chain[1:] != _intermediates(authority):
        return "the authority's chain changed"
    wanted, seen = _alternative_names(names), _seen_names(leaf)
    if leaf.subject != _subject(names.common_name) or seen != wanted:
        missing, surplus = sorted(wanted - seen), sorted(seen - wanted)
        return f"its names changed (to add: {missing}, to remove: {surplus})"
    if leaf.not_valid_before_utc > now:
        return f"it is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    remaining = leaf.not_valid_after_utc - now
    if remaining < policy.renewal:
        return f"it ends on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if remaining > policy.validity:
        return f"it is valid for longer than {policy.validity.days} days"
    return None


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name and key made the certificate, whatever their dates."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - ValueError, TypeError or InvalidSignature all mean no
        return False
    return True


def _intermediates(authority: Authority) -> tuple[x509.Certificate, ...]:
    """What a peer that trusts only the root needs beside the host's certificate."""
    return tuple(ca for ca in authority.certificates if ca.issuer != ca.subject)


def _alternative_names(names: Names) -> frozenset[str]:
    return frozenset(
        [f"DNS:{name.lower()}" for name in names.dns]
        + [f"IP:{ipaddress.ip_address(address)}" for address in names.addresses]
    )


def _seen_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    names = extension.value
    return frozenset(
        [f"DNS:{name.lower()}" for name in names.get_values_for_type(x509.DNSName)]
        + [f"IP:{address}" for address in names.get_values_for_type(x509.IPAddress)]
    )


def issue(request: str, authority: Authority, names: Names, policy: Policy, now: datetime) -> str:
    """A host certificate for TLS servers and clients, in PEM, followed by its intermediates.

    Only the public key is taken from the request, after proof that the host holds the private one.

    :raises CertificateError: if the authority cannot sign now, or the request proves nothing.
    """
    issuer = authority.issuer
    if authority.key is None:
        raise CertificateError(
            f"the private key of {describe_name(issuer.subject)} is not here, and a certificate"
            f" for {names.common_name} has to be signed; mend: bring it back for this run"
        )
    if issuer.not_valid_after_utc - now <= policy.renewal:
        raise CertificateError(
            f"the authority {describe_name(issuer.subject)} ends on"
            f" {issuer.not_valid_after_utc:%Y-%m-%d}, so what it signs would be due for renewal"
            " at once; mend: replace the authority, as the README of role certificates says"
        )
    csr = x509.load_pem_x509_csr(request.encode("ascii"))
    if not csr.is_signature_valid:
        raise CertificateError("the host's signing request is not signed by the host's key")
    try:
        alternative_names = x509.SubjectAlternativeName(
            [x509.DNSName(name) for name in names.dns]
            + [x509.IPAddress(ipaddress.ip_address(address)) for address in names.addresses]
        )
    except ValueError as error:
        raise CertificateError(f"names of {names.common_name}: {error}") from error
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_subject(names.common_name))
        .issuer_name(issuer.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(min(now + policy.validity, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(alternative_names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
        .add_extension(_authority_key_identifier(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return "".join(certificate_pem(part) for part in (certificate, *_intermediates(authority)))


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def trust_bundle(authority: Authority, also_trusted: tuple[str, ...]) -> str:
    """The content of ca.crt: the authority, then every other certificate that is trusted, once."""
    certificates = list(authority.certificates)
    for pem in also_trusted:
        certificates += [ca for ca in read_certificates(pem) if ca not in certificates]
    return "".join(certificate_pem(certificate) for certificate in certificates)


def is_stranger(installed: str, bundle: str) -> bool:
    """Whether the first authority of an installed ca.crt is missing in the one to install.

    Then the host belongs to another authority: another cluster's, or one that was lost.
    """
    try:
        first = read_certificates(installed)[0]
    except CertificateError:
        return False
    return not bundle or first not in read_certificates(bundle)


@dataclass(frozen=True)
class Trust:
    """What the control machine would have a host trust: the content of ca.crt, "" without an authority, and where from."""

    origin: str
    bundle: str


def unknown_authorities(installed: Mapping[str, str], wanted: Mapping[str, Trust]) -> Iterator[InputError]:
    """Hosts that another control machine has certified: one without its secrets would make new passwords, too.

    :param installed: host -> the content of its ca.crt, "" without one.
    """
    strangers: dict[tuple[x509.Certificate, Trust], list[str]] = {}
    for host, pem in installed.items():
        trust = wanted[host]
        # What cannot be read at all is role certificates' to judge.
        if is_stranger(pem, trust.bundle):
            strangers.setdefault((read_certificates(pem)[0], trust), []).append(host)
    for (theirs, trust), hosts in strangers.items():
        ours = describe_authority(read_certificates(trust.bundle)[0]) if trust.bundle else "no authority"
        yield InputError(
            trust.origin,
            f"{ours}, while {', '.join(hosts)} {'trusts' if len(hosts) == 1 else 'trust'} {describe_authority(theirs)}",
            "the authority that has certified them",
            "put secrets/ from the inventory on the control machine that deployed them in the place of this one's, or set"
            " the variables of your vault; 'Replacing the authority' in the README of role certificates is the way to"
            " a new one",
        )


def describe_authority(certificate: x509.Certificate) -> str:
    """Its subject and what tells it from another of the same name."""
    return f"{describe_name(certificate.subject)}, serial {certificate.serial_number:x}"


def describe_name(name: x509.Name) -> str:
    """A subject or issuer for people, like CN=db1."""
    return name.rfc4514_string()


def describe(pem: str) -> str:
    """A PEM text for people, as used in diffs: one line for every property that matters."""
    if not pem:
        return ""
    try:
        certificates = read_certificates(pem)
    except CertificateError as error:
        return f"{error}\n"
    lines = []
    for certificate in certificates:
        lines += [
            f"subject: {describe_name(certificate.subject)}",
            f"  issuer: {describe_name(certificate.issuer)}",
            f"  names: {', '.join(sorted(_seen_names(certificate))) or 'none'}",
            f"  valid until: {certificate.not_valid_after_utc:%Y-%m-%d}",
        ]
    return "\n".join(lines) + "\n"
