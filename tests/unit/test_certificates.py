"""Issuing and renewing certificates, checked by an independent reader: OpenSSL through Python's ssl module."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from standfast import certificates, pki
from standfast.certificates import Authority, CertificateError, Names, Policy
from standfast.handshake import Identity, Served, first_certificate, handshake

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POLICY = Policy(validity=timedelta(days=90), renewal=timedelta(days=30))
DB1 = Names("db1", ("db1", "localhost"), ("10.231.0.21", "127.0.0.1", "::1"))


def authority(name: str = "lab CA", now: datetime = NOW) -> Authority:
    key = certificates.new_key_pem()
    return certificates.read_authority(certificates.new_authority_pem(key, name, now), key)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@pytest.fixture(scope="module")
def key() -> str:
    return certificates.new_key_pem()


@pytest.fixture(scope="module")
def request_pem(key: str) -> str:
    return certificates.signing_request(key, "db1")


@pytest.fixture(scope="module")
def issued(ca: Authority, request_pem: str) -> str:
    return certificates.issue(request_pem, ca, DB1, POLICY, NOW)


def test_fresh_certificate_serves(ca: Authority, request_pem: str, issued: str) -> None:
    assert certificates.reason_to_issue(issued, request_pem, ca, DB1, POLICY, NOW) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"current": ""}, "no readable certificate", id="none yet"),
        pytest.param({"current": "-----BEGIN CERTIFICATE-----\nhalf"}, "no readable certificate", id="damaged"),
        pytest.param(
            {"request": certificates.signing_request(certificates.new_key_pem(), "db1")},
            "another private key",
            id="new key",
        ),
        pytest.param({"authority": authority("other CA")}, "not signed by CN=other CA", id="other authority"),
        pytest.param({"authority": authority()}, "not signed by CN=lab CA", id="authority of the same name"),
        pytest.param(
            {"names": dataclasses.replace(DB1, dns=("db1", "vip"))},
            "to add: ['DNS:vip'], to remove: ['DNS:localhost']",
            id="names",
        ),
        pytest.param(
            {"names": dataclasses.replace(DB1, addresses=("10.231.0.21",))},
            "to remove: ['IP:127.0.0.1'",
            id="addresses",
        ),
        pytest.param({"names": dataclasses.replace(DB1, common_name="db2")}, "names changed", id="common name"),
        pytest.param({"now": NOW + timedelta(days=60, seconds=1)}, "it ends on 2027-02-21", id="due"),
        pytest.param({"now": NOW + timedelta(days=900)}, "it ends on", id="ended long ago"),
        pytest.param({"now": NOW - timedelta(days=1)}, "not valid before", id="clock was ahead"),
        pytest.param(
            {"policy": Policy(timedelta(days=60), timedelta(days=30))}, "longer than 60 days", id="shorter lives"
        ),
    ],
)
def test_certificate_is_replaced(
    ca: Authority, request_pem: str, issued: str, change: dict[str, object], reason: str
) -> None:
    arguments: dict[str, object] = {
        "current": issued,
        "request": request_pem,
        "authority": ca,
        "names": DB1,
        "policy": POLICY,
        "now": NOW,
    }
    assert reason in str(certificates.reason_to_issue(**(arguments | change)))  # type: ignore[arg-type]


def test_certificate_is_kept_until_renewal_is_due(ca: Authority, request_pem: str, issued: str) -> None:
    due = NOW + timedelta(days=60)
    assert certificates.reason_to_issue(issued, request_pem, ca, DB1, POLICY, due) is None


def test_names_compare_as_addresses_not_as_text(ca: Authority, request_pem: str, issued: str) -> None:
    spelled = dataclasses.replace(DB1, dns=("DB1", "localhost"), addresses=("127.0.0.1", "0:0::1", "10.231.0.21"))
    assert certificates.reason_to_issue(issued, request_pem, ca, spelled, POLICY, NOW) is None


def test_certificate_never_outlives_its_authority(request_pem: str) -> None:
    old = authority(now=NOW - certificates.AUTHORITY_VALIDITY + timedelta(days=45))
    (leaf,) = certificates.read_certificates(certificates.issue(request_pem, old, DB1, POLICY, NOW))
    assert leaf.not_valid_after_utc == old.issuer.not_valid_after_utc
    with pytest.raises(CertificateError, match="replace the authority"):
        certificates.issue(request_pem, old, DB1, POLICY, NOW + timedelta(days=16))


def test_authority_without_its_key_signs_nothing(ca: Authority, request_pem: str, issued: str) -> None:
    offline = Authority(ca.certificates, None)
    assert certificates.reason_to_issue(issued, request_pem, offline, DB1, POLICY, NOW) is None
    with pytest.raises(CertificateError, match="bring it back"):
        certificates.issue(request_pem, offline, DB1, POLICY, NOW)


@pytest.mark.parametrize(
    ("certificate", "private_key", "message"),
    [
        pytest.param("leaf", None, "CA:TRUE", id="not an authority"),
        pytest.param("ca", "other", "does not belong", id="other key"),
        pytest.param("ca", "rubbish", "not a private key", id="not a key"),
        pytest.param("rubbish", None, "not a certificate", id="not a certificate"),
    ],
)
def test_unusable_authority_is_refused(
    ca: Authority, issued: str, certificate: str, private_key: str | None, message: str
) -> None:
    texts = {"ca": ca.pem, "leaf": issued, "other": certificates.new_key_pem(), "rubbish": "rubbish"}
    with pytest.raises(CertificateError, match=message) as refusal:
        certificates.read_authority(texts[certificate], texts[private_key] if private_key else None)
    assert "PRIVATE KEY" not in str(refusal.value)


def test_too_long_common_name_is_refused(ca: Authority, request_pem: str) -> None:
    with pytest.raises(CertificateError, match="common name"):
        certificates.issue(request_pem, ca, dataclasses.replace(DB1, common_name="x" * 65), POLICY, NOW)


def test_trust_bundle_lists_each_authority_once(ca: Authority) -> None:
    other = authority("other CA")
    bundle = certificates.read_certificates(certificates.trust_bundle(ca, (other.pem, ca.pem, other.pem)))
    assert bundle == (ca.issuer, other.issuer)


def test_host_of_another_authority_is_a_stranger(ca: Authority) -> None:
    other = authority("other CA")
    assert certificates.is_stranger(other.pem, ca.pem)
    assert not certificates.is_stranger(other.pem, certificates.trust_bundle(ca, (other.pem,)))
    assert not certificates.is_stranger("", ca.pem)


@pytest.mark.parametrize(
    ("known", "also_trusted", "refused"),
    [
        pytest.param(None, (), True, id="no secrets here"),
        pytest.param("other", (), True, id="secrets made anew"),
        pytest.param("first", (), False, id="the one that deployed"),
        pytest.param("first", ("other",), False, id="replacing, first run"),
        pytest.param("other", ("first",), False, id="replacing, second run"),
    ],
)
def test_control_machine_must_know_the_hosts_authority(
    ca: Authority, known: str | None, also_trusted: tuple[str, ...], refused: bool
) -> None:
    pem = {"first": ca.pem, "other": authority().pem}
    bundle = certificates.trust_bundle(
        certificates.read_authority(pem[known], None), tuple(pem[name] for name in also_trusted)
    ) if known else ""  # fmt: skip
    trust = certificates.Trust("certificates_ca_directory (secrets/ca)", bundle)
    installed = {"db1": ca.pem, "db2": ca.pem, "replaced": "", "damaged": "rubbish"}
    errors = list(certificates.unknown_authorities(installed, dict.fromkeys(installed, trust)))
    assert len(errors) == refused
    for error in errors:
        assert error.variable == "certificates_ca_directory (secrets/ca)"
        assert error.seen.startswith("CN=lab CA, serial" if known else "no authority")
        assert f"while db1, db2 trust {certificates.describe_authority(ca.issuer)}" in error.seen
        assert "the variables of your vault" in error.mend


def test_no_host_trusts_anything_before_the_first_deploy() -> None:
    assert not list(certificates.unknown_authorities({"db1": ""}, {"db1": certificates.Trust("x", "")}))


def test_description_shows_names_and_no_key(issued: str) -> None:
    shown = certificates.describe(issued)
    assert "subject: CN=db1" in shown
    assert "IP:10.231.0.21" in shown
    assert "valid until: 2027-02-21" in shown
    assert "BEGIN" not in shown


def test_authority_is_made_once_and_kept_private(tmp_path: Path) -> None:
    directory = tmp_path / "secrets" / "ca"
    assert pki.stored_authority(directory) is None
    made = pki.make_authority(directory, "lab CA", NOW)
    again = pki.make_authority(directory, "another name", NOW + timedelta(days=1))
    assert again.pem == made.pem
    assert again.key is not None
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_interrupted_making_of_an_authority_is_completed_with_its_key(tmp_path: Path) -> None:
    made = pki.make_authority(tmp_path, "lab CA", NOW)
    (tmp_path / pki.AUTHORITY_CERTIFICATE).unlink()
    again = pki.make_authority(tmp_path, "lab CA", NOW)
    assert again.issuer.public_key() == made.issuer.public_key()


def test_new_host_key_takes_the_certificate_of_the_old_one_away(tmp_path: Path) -> None:
    (tmp_path / pki.HOST_CERTIFICATE).write_text("of a key that is gone")
    made = pki.make_host_key(tmp_path, -1)
    assert (tmp_path / pki.HOST_KEY).read_text() == made
    assert (tmp_path / pki.HOST_KEY).stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / pki.HOST_CERTIFICATE).exists()


class TlsServer:
    """Real mutual TLS on a port of this machine, for as many connections as come."""

    def __init__(self, identity: Identity) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity.certificate, identity.key)
        self._context.load_verify_locations(identity.authority)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(1)
            except OSError:
                plain.close()

    def __enter__(self) -> TlsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def installed(directory: Path, ca: Authority, names: Names = DB1, age: timedelta = timedelta(0)) -> Identity:
    directory.mkdir()
    key = certificates.new_key_pem()
    # Handshakes are judged by the machine's own clock.
    now = datetime.now(UTC) - age
    certificate = certificates.issue(certificates.signing_request(key, names.common_name), ca, names, POLICY, now)
    identity = Identity(directory / "ca.crt", directory / "host.crt", directory / "host.key")
    for path, content in zip(
        (identity.authority, identity.certificate, identity.key), (ca.pem, certificate, key), strict=True
    ):
        path.write_text(content)
    return identity


@pytest.fixture
def live_ca() -> Authority:
    return authority(now=datetime.now(UTC) - timedelta(days=200))


def test_handshake_sees_the_installed_certificate(tmp_path: Path, live_ca: Authority) -> None:
    host = installed(tmp_path / "host", live_ca)
    with TlsServer(host) as server:
        assert handshake("127.0.0.1", server.port, host, timeout=5).served is Served.CURRENT


@pytest.mark.parametrize(
    ("served", "detail"),
    [
        pytest.param({"age": timedelta(days=10)}, "", id="an older one"),
        pytest.param({"age": timedelta(days=100)}, "certificate has expired", id="an expired one"),
        pytest.param({"names": Names("db1", ("db1",), ("10.231.0.21",))}, "IP address mismatch", id="other names"),
    ],
)
def test_handshake_sees_a_stale_certificate(
    tmp_path: Path, live_ca: Authority, served: dict[str, object], detail: str
) -> None:
    host = installed(tmp_path / "host", live_ca)
    with TlsServer(installed(tmp_path / "served", live_ca, **served)) as server:  # type: ignore[arg-type]
        seen = handshake("127.0.0.1", server.port, host, timeout=5)
    assert seen.served is Served.STALE
    assert detail in seen.detail


def test_handshake_with_another_authority_is_stale(tmp_path: Path, live_ca: Authority) -> None:
    host = installed(tmp_path / "host", live_ca)
    stranger = authority("other CA", datetime.now(UTC))
    with TlsServer(installed(tmp_path / "served", stranger)) as server:
        assert handshake("127.0.0.1", server.port, host, timeout=5).served is Served.STALE


def test_handshake_with_a_closed_port_finds_nothing(tmp_path: Path, live_ca: Authority) -> None:
    host = installed(tmp_path / "host", live_ca)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert handshake("127.0.0.1", port, host, timeout=5).served is Served.NOTHING


def test_first_certificate_is_the_hosts_own(issued: str, ca: Authority) -> None:
    leaf = x509.load_der_x509_certificate(first_certificate(issued + ca.pem))
    assert leaf.subject.rfc4514_string() == "CN=db1"
    with pytest.raises(ValueError, match="no certificate"):
        first_certificate("")
