"""What the types of the roles' variables cannot say: ranges, characters that a tool cannot take, and references.

Pure. Runs on the control machine only, for what one host's inventory sets and a role would otherwise refuse, or a
daemon would not start with, after other hosts have been changed.
"""

from __future__ import annotations

import ipaddress
import re
import stringprep
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import patroni
from .certificates import CertificateError, read_authority, read_certificates
from .errors import InputError, show
from .systemd import Calendar

Values = Mapping[str, Any]

YEAR_S = 366 * 86400
# Milliseconds of a signed 32-bit integer, in which HAProxy keeps its timeouts.
HAPROXY_MAXIMUM_MS = 2**31 - 1
# Every number that an inventory may set for a role, with the least and the most that makes sense to its tool.
# Ports are the topology's. A test compares the names with the roles'.
RANGES: Mapping[str, tuple[int, int]] = {
    "certificates_apt_cache_valid_time": (0, YEAR_S),
    "certificates_validity_days": (1, 3650),
    "certificates_renewal_days": (1, 3649),
    "certificates_reload_timeout_s": (1, 3600),
    "common_apt_cache_valid_time": (0, YEAR_S),
    # It runs without privileges.
    "demo_port": (1024, 65535),
    "etcd_apt_cache_valid_time": (0, YEAR_S),
    "etcd_heartbeat_interval_ms": (1, 10_000),
    # etcd refuses more (server/embed/config.go, maxElectionMs).
    "etcd_election_timeout_ms": (5, 50_000),
    "etcd_quota_backend_bytes": (16 * 2**20, 8 * 2**30),
    "etcd_snapshot_count": (100, 1_000_000),
    "etcd_health_deadline_s": (1, 86400),
    "firewall_apt_cache_valid_time": (0, YEAR_S),
    "firewall_log_per_minute": (0, 100_000),
    "haproxy_apt_cache_valid_time": (0, YEAR_S),
    "haproxy_hsts_max_age_s": (0, 10 * YEAR_S),
    "haproxy_maximum_connections": (1, 1_000_000),
    "haproxy_hard_stop_after_s": (1, HAPROXY_MAXIMUM_MS // 1000),
    "haproxy_connect_timeout_ms": (1, HAPROXY_MAXIMUM_MS),
    "haproxy_tcp_user_timeout_ms": (1, HAPROXY_MAXIMUM_MS),
    # The kernel's limits, tcp(7).
    "haproxy_keepalive_idle_s": (1, 32767),
    "haproxy_keepalive_interval_s": (1, 32767),
    "haproxy_keepalive_count": (1, 127),
    "haproxy_postgresql_replica_max_lag_bytes": (0, 2**63 - 1),
    "haproxy_postgresql_idle_timeout_s": (1, HAPROXY_MAXIMUM_MS // 1000),
    "keepalived_apt_cache_valid_time": (0, YEAR_S),
    # pgBackRest's own limits (src/build/config/config.yaml).
    "pgbackrest_retention_full": (1, 9_999_999),
    "pgbackrest_retention_diff": (0, 9_999_999),
    "pgbackrest_window_days": (0, 9_999_999),
    "pgbackrest_second_retention_full": (1, 9_999_999),
    "pgbackrest_second_retention_diff": (0, 9_999_999),
    "pgbackrest_second_window_days": (0, 9_999_999),
    "pgbackrest_second_s3_port": (1, 65535),
    "pgbackrest_second_sftp_port": (1, 65535),
    "pgbackrest_check_backup_grace_s": (0, YEAR_S),
    "pgbackrest_check_archive_warning_s": (1, YEAR_S),
    "pgbackrest_check_archive_critical_s": (1, YEAR_S),
    "pgbackrest_check_witness_warning_s": (1, YEAR_S),
    "pgbackrest_check_witness_critical_s": (1, YEAR_S),
    "pgbackrest_check_free_warning_percent": (0, 100),
    "pgbackrest_check_free_critical_percent": (0, 100),
    "pgbackrest_check_days_left_warning": (0, 3650),
    "pgbackrest_restore_drill_randomized_delay_s": (0, 7 * 86400),
    "pgbackrest_restore_drill_deadline_s": (60, 7 * 86400),
    # systemd.resource-control(5)
    "pgbackrest_restore_drill_io_weight": (1, 10_000),
    "pgbackrest_restore_drill_thorough_mb": (0, 2**31),
    "pgbackrest_compress_level": (-7, 22),
    "pgbackrest_process_max": (1, 999),
    "pgbackrest_io_timeout_s": (1, 3600),
    "pgbackrest_apt_cache_valid_time": (0, YEAR_S),
    "postgresql_apt_cache_valid_time": (0, YEAR_S),
    "postgresql_maximum_lag_on_failover": (0, 2**63 - 1),
    "postgresql_memory_mb": (0, 2**31),
    "postgresql_member_deadline_s": (1, 7 * 86400),
}
# pgBackRest's limits by kind of compression (src/common/compress).
COMPRESSION_LEVELS: Mapping[str, tuple[int, int]] = {
    "gz": (-1, 9),
    "bz2": (1, 9),
    "lz4": (-5, 12),
    "zst": (-7, 22),
}


@dataclass(frozen=True)
class Form:
    """How a text has to look, in a pattern and in words."""

    pattern: re.Pattern[str]
    expected: str
    mend: str

    def errors(self, path: str, value: object) -> Iterator[InputError]:
        """Nothing, or what is wrong with `value`."""
        if not self.pattern.fullmatch(str(value)):
            yield InputError(path, show(value), self.expected, self.mend)


# Paths, groups, users and packages end up in units, shells and configuration files of every syntax.
PATH = Form(
    re.compile(r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/-]*[A-Za-z0-9._-]"),
    "an absolute path of letters, digits, dots, hyphens, underscores and slashes",
    "choose such a path on the host",
)
TEXTFILE = Form(
    re.compile(rf"(?:{PATH.pattern.pattern}\.prom)?"),
    "an absolute path that ends in .prom, as a node exporter wants it, or nothing",
    "choose such a path, or leave it empty for none",
)
ACCOUNT = Form(
    re.compile(r"[a-z_][a-z0-9_-]{0,30}"),
    "up to 31 lower-case letters, digits, underscores and hyphens, no digit first",
    "choose a name that `adduser --system` takes",
)
PACKAGE = Form(
    re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?([=/][A-Za-z0-9.+:~_-]+)?"),
    "the name of a Debian package",
    "see `apt-cache search` on the host",
)
UNIT = Form(
    re.compile(r"[A-Za-z0-9:_.@\\-]+\.(service|socket|target|timer|path)"),
    "the name of a systemd unit with its suffix",
    "write it as in `systemctl list-units`, for instance nginx.service",
)
CALENDAR = Form(
    re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9*][A-Za-z0-9*:,./~ +_-]*"),
    "a calendar event of systemd",
    "try it with `systemd-analyze calendar`",
)
DAY_AND_HOUR = Form(
    re.compile(r"(?=.{1,200}\Z)([A-Za-z,.]+ )?[0-9*,./~-]+ [0-9*,./]+"),
    "the day and the hour of a calendar event of systemd, such as Sun *-*-* 03",
    "leave the minute out, it is each member's own",
)
# A name that a certificate or DNS has, or an address of either family.
SERVER = Form(
    re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-fA-F:]+"),
    "a host name or an address, without a scheme or a port",
    "write it as s3.example.com; its port is a variable of its own",
)
BUCKET = Form(
    re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "3 to 63 lower-case letters, digits, dots and hyphens",
    "write the bucket's name as the store lists it",
)
WORD = Form(re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*"), "a word of letters, digits, hyphens and dots", "correct it")
FINGERPRINT = Form(
    re.compile(r"[0-9a-f]{64}"),
    "64 lower-case hexadecimal digits, the SHA-256 of the host key",
    "on that host: awk '{print $2}' /etc/ssh/ssh_host_ed25519_key.pub | base64 -d | sha256sum",
)
DURATION = Form(re.compile(r"[0-9]+(ns|us|ms|s|m|h)?"), "a number with a unit, such as 30m or 1h", "write it as 1h")
SIZE = Form(
    re.compile(r"|[1-9][0-9]*\s?([KMGTP]i?B|B|[kmgtp]b?)?"), "a size such as 200GiB, or nothing", "write it as 200GiB"
)
FLAG = Form(
    re.compile(r"[a-z][a-z0-9-]*"),
    "the name of a flag of etcd, without the dashes before it",
    "see `etcd --help`",
)
PARAMETER = Form(
    re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_$]*)?"),
    "the name of a PostgreSQL parameter",
    "see the view pg_settings",
)
ENCODING = Form(re.compile(r"[A-Za-z0-9_-]+"), "the name of an encoding, such as UTF8", "remove it for UTF8")
ATTRIBUTES = Form(
    re.compile(r"|(?i:(NO)?(SUPERUSER|CREATEROLE|CREATEDB|INHERIT|LOGIN|REPLICATION|BYPASSRLS)(,\s*(?!,|$)|$))*"),
    "attributes of a role, with commas between them, such as NOLOGIN,CREATEDB",
    "see CREATE ROLE in PostgreSQL's manual",
)
FORMS: Mapping[str, Form] = {
    "etcd_auto_compaction_retention": DURATION,
    "etcd_defragmentation_schedule": DAY_AND_HOUR,
    "pgbackrest_archive_push_queue_max": SIZE,
    "pgbackrest_verify_on_calendar": CALENDAR,
    "pgbackrest_check_on_calendar": CALENDAR,
    "pgbackrest_check_textfile": TEXTFILE,
    "pgbackrest_second_s3_endpoint": SERVER,
    "pgbackrest_second_s3_bucket": BUCKET,
    "pgbackrest_second_s3_region": WORD,
    "pgbackrest_second_sftp_host": SERVER,
    "pgbackrest_second_sftp_user": ACCOUNT,
    "pgbackrest_second_sftp_fingerprint": FINGERPRINT,
    "keepalived_check_user": ACCOUNT,
}
FORMS_OF_ELEMENTS: Mapping[str, Form] = {"common_packages": PACKAGE, "certificates_extra_reload_units": UNIT}
# On the control machine, where its user may have any home.
LOCAL_PATHS = ("certificates_ca_directory",)

# Names of databases and roles, in any script. What SQL, connection strings, shells or pg_hba.conf (where even a quoted
# name that begins with a slash is a pattern) treat specially is left out.
NAME = re.compile(r"[^\W\d]([\w .@+-]*[\w.@+-])?")
# What PostgreSQL keeps of a name.
NAME_BYTES = 63
# Patroni's own roles, and names that SQL does not take.
RESERVED_USERS = ("postgres", "replicator", "rewind", "standfast_witness", "public", "none")
RESERVED_DATABASES = ("template0", "template1", "standfast_witness")
MINIMUM_PASSPHRASE_LENGTH = 20


def check(values: Values, options: Mapping[str, Values]) -> Iterator[InputError]:
    """What is wrong with one host's variables, whose types are right; options: variable -> its specification."""
    written = {name: _as_declared(spec, values[name]) for name, spec in options.items() if values.get(name) is not None}
    for name, value in written.items():
        yield from _check_form(name, options[name], value)
        if name in SPECIAL:
            yield from SPECIAL[name](name, value)
    full = {name: spec.get("default") for name, spec in options.items()} | written
    for pair in PAIRS:
        yield from pair(full, written)


def _as_declared(spec: Values, value: Any) -> Any:
    """`value` with what is declared as text as text, at any depth: YAML reads some words as numbers or dates."""
    options = spec.get("options")
    if isinstance(value, Mapping):
        return {key: _as_declared((options or {}).get(key, {}), item) for key, item in value.items()}
    if isinstance(value, list):
        inner = {"type": spec.get("elements", "raw"), "options": options}
        return [_as_declared(inner, item) for item in value]
    return str(value) if spec.get("type") == "str" and value is not None else value


def _check_form(name: str, spec: Values, value: Any) -> Iterator[InputError]:
    """Numbers by their range; texts by what their names say they are."""
    if name in RANGES:
        least, most = RANGES[name]
        if not least <= int(value) <= most:
            yield InputError(name, show(value), f"a whole number from {least} to {most}", f"correct {name}")
    elif name in FORMS:
        yield from FORMS[name].errors(name, value)
    elif name in FORMS_OF_ELEMENTS:
        for position, element in enumerate(value):
            yield from FORMS_OF_ELEMENTS[name].errors(f"{name}[{position}]", element)
    elif spec.get("type") == "path" and name not in LOCAL_PATHS:
        yield from PATH.errors(name, value)
    elif name.endswith("_group"):
        yield from ACCOUNT.errors(name, value)


# -- secrets ---------------------------------------------------------------------------------------


def _printable(value: str) -> bool:
    """Without control characters, line ends of any script among them."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)


def _line(path: str, value: str) -> Iterator[InputError]:
    """A secret that stands on a line of a configuration file."""
    if not _printable(value):
        yield InputError(
            path, "a control character or a line end in a secret", "printable characters", "choose another one"
        )


def _database_password(path: str, value: str) -> Iterator[InputError]:
    """A password that every client prepares in the same way (SCRAM: RFC 5802, SASLprep: RFC 4013)."""
    if not _printable(value):
        yield from _line(path, value)
        return
    prepared = unicodedata.normalize(
        "NFKC",
        "".join(
            " " if stringprep.in_table_c12(character) else character
            for character in value
            if not stringprep.in_table_b1(character)
        ),
    )
    prohibited = (
        stringprep.in_table_a1,
        stringprep.in_table_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if not prepared or any(test(character) for character in prepared for test in prohibited):
        yield InputError(
            path,
            "a character that SCRAM does not know, such as an emoji",
            "characters of Unicode 3.2 (RFC 4013), which every client sends in the same way",
            "choose another password",
        )
        return
    right_to_left = [stringprep.in_table_d1(character) for character in prepared]
    mixed = any(right_to_left) and (
        any(map(stringprep.in_table_d2, prepared)) or not (right_to_left[0] and right_to_left[-1])
    )
    if mixed:
        yield InputError(
            path,
            "characters of both directions of writing",
            "one direction, and in right-to-left ones no digit at either end (RFC 4013)",
            "choose another password",
        )


def _member_password(path: str, value: str) -> Iterator[InputError]:
    """A password that Patroni gives to a role when it makes a cluster (bootstrap.py, create_or_update_role).

    psycopg2 encodes it in Latin-1 there, which Patroni reads as UTF-8, and it stands between two dollar signs and two.
    """
    if not (value.isascii() and value.isprintable()) or "$$" in value:
        yield InputError(
            path,
            "other characters, or two dollar signs in a row",
            "printable ASCII characters without $$, Patroni cannot make a cluster with others",
            "choose another password",
        )


def _rest_password(path: str, value: str) -> Iterator[InputError]:
    yield from (error for error in patroni.credential_errors("patroni", value) if error.variable == path)


def _rest_user(path: str, value: str) -> Iterator[InputError]:
    yield from (error for error in patroni.credential_errors(value, "x") if error.variable == path)


def _statistics_user(path: str, value: str) -> Iterator[InputError]:
    if not value or not _printable(value) or ":" in value:
        yield InputError(path, show(value), "printable characters without a colon", "choose another name")


def _passphrase(path: str, value: str) -> Iterator[InputError]:
    """A value of pgBackRest's configuration file, which loses the spaces at both ends."""
    if not _printable(value):
        yield from _line(path, value)
    elif value != value.strip():
        yield InputError(
            path, "a space at an end of a secret", "none at either end", "remove it, or choose another one"
        )
    elif len(value) < MINIMUM_PASSPHRASE_LENGTH:
        yield InputError(
            path,
            f"a secret of {len(value)} characters",
            f"at least {MINIMUM_PASSPHRASE_LENGTH} characters",
            "choose a longer one before the repository exists, for instance with `openssl rand -base64 36`",
        )


def _private_key(path: str, value: str) -> Iterator[InputError]:
    lines = value.strip().splitlines()
    if len(lines) < 3 or "PRIVATE KEY-----" not in lines[0] or "PRIVATE KEY-----" not in lines[-1]:
        yield InputError(
            path,
            f"a text of {len(lines)} lines",
            "an SSH key as PEM text, from -----BEGIN to PRIVATE KEY-----",
            "make one with `ssh-keygen -m PEM -t rsa -b 4096 -N ''`, and paste the whole file",
        )


# -- certificates ----------------------------------------------------------------------------------


def _authority(_full: Values, values: Values) -> Iterator[InputError]:
    """An authority of the user's own: a certificate that may sign, and a key that belongs to it."""
    certificate, key = values.get("certificates_ca_certificate"), values.get("certificates_ca_private_key")
    if key and not certificate:
        yield InputError(
            "certificates_ca_certificate",
            "nothing, and a certificates_ca_private_key",
            "the certificate that belongs to the key, as PEM text",
            "set it, or remove the key for an authority that the first run makes",
        )
        return
    if not certificate:
        return
    try:
        read_authority(certificate, None)
    except CertificateError as error:
        yield InputError(
            "certificates_ca_certificate",
            str(error),
            "the certificate of an authority, as PEM text",
            "paste the whole file, from -----BEGIN CERTIFICATE----- on",
        )
        return
    try:
        read_authority(certificate, key)
    except CertificateError as error:
        yield InputError(
            "certificates_ca_private_key",
            str(error),
            "the key of certificates_ca_certificate, as PEM text without a passphrase",
            "paste the whole file of the right key",
        )


def _trusted(path: str, value: Sequence[str]) -> Iterator[InputError]:
    for position, text in enumerate(value):
        try:
            read_certificates(text)
        except CertificateError as error:
            yield InputError(
                f"{path}[{position}]",
                str(error),
                "a certificate as PEM text",
                "paste the whole file, from -----BEGIN CERTIFICATE----- on",
            )


def _renewal(full: Values, values: Values) -> Iterator[InputError]:
    if "certificates_renewal_days" not in full:
        return
    renewal, validity = int(full["certificates_renewal_days"]), int(full["certificates_validity_days"])
    if renewal >= validity > 0:
        name = "certificates_renewal_days" if "certificates_renewal_days" in values else "certificates_validity_days"
        yield InputError(
            name,
            f"certificates_renewal_days {renewal} with certificates_validity_days {validity}",
            "less than certificates_validity_days, or every run would renew every certificate",
            "lower certificates_renewal_days, or raise certificates_validity_days",
        )


# -- etcd ------------------------------------------------------------------------------------------


def _election(full: Values, values: Values) -> Iterator[InputError]:
    if "etcd_election_timeout_ms" not in full:
        return
    election, heartbeat = int(full["etcd_election_timeout_ms"]), int(full["etcd_heartbeat_interval_ms"])
    if heartbeat > 0 and election < 5 * heartbeat:
        name = "etcd_election_timeout_ms" if "etcd_election_timeout_ms" in values else "etcd_heartbeat_interval_ms"
        yield InputError(
            name,
            f"etcd_election_timeout_ms {election} with etcd_heartbeat_interval_ms {heartbeat}",
            "an election timeout of at least five heartbeats",
            "raise etcd_election_timeout_ms, or lower etcd_heartbeat_interval_ms",
        )


def _flags(path: str, value: Values) -> Iterator[InputError]:
    for name, setting in value.items():
        if not FLAG.pattern.fullmatch(str(name)):
            yield from FLAG.errors(f"{path}.{show(str(name))[1:-1]}", str(name))
        elif not isinstance(setting, str | int | float) or not _printable(str(setting)):
            yield InputError(
                f"{path}.{name}", show(setting), "one value on one line", "write a list as one text with commas"
            )


# -- backups ---------------------------------------------------------------------------------------


def _schedules(path: str, value: Sequence[Values]) -> Iterator[InputError]:
    kinds = [schedule["type"] for schedule in value]
    for position, schedule in enumerate(value):
        place = f"{path}[{position}]"
        if schedule["type"] in kinds[:position]:
            yield InputError(
                f"{place}.type",
                f"{schedule['type']} a second time",
                "each type at most once",
                "put all times of a type into one on_calendar",
            )
        yield from CALENDAR.errors(f"{place}.on_calendar", schedule["on_calendar"])
        delay = schedule.get("randomized_delay_s")
        if delay is not None and not 0 <= int(delay) <= 86400:
            yield InputError(
                f"{place}.randomized_delay_s", show(delay), "0 to 86400 seconds", "900 spreads over 15 minutes"
            )
    if "full" not in kinds:
        yield InputError(
            path,
            f"the types {', '.join(kinds)}" if kinds else "no schedule",
            "at least one of type full: without new ones nothing expires, and the repository fills its disk",
            "add {type: full, on_calendar: Sun *-*-* 01:00:00}, or remove the variable for the usual times",
        )


def _retention(full: Values, values: Values) -> Iterator[InputError]:
    yield from _retention_of("pgbackrest", full, values)


def _second_retention(full: Values, values: Values) -> Iterator[InputError]:
    if full.get("pgbackrest_second_repository") not in (None, "none"):
        yield from _retention_of("pgbackrest_second", full, values)


def _retention_of(prefix: str, full: Values, values: Values) -> Iterator[InputError]:
    """What is kept, against what is promised and what is made; how often full backups are made only a host can say."""
    names = [f"{prefix}_{name}" for name in ("retention_full_type", "retention_full", "retention_diff", "window_days")]
    # One whose type is wrong is not there.
    if not full.keys() >= set(names):
        return
    by, (kept, diffs, window) = full[names[0]], (int(full[name]) for name in names[1:])
    if by == "time" and window > kept:
        yield InputError(
            names[3] if names[3] in values else names[1],
            f"a window of {window} days, and full backups kept for {kept} days",
            "full backups that are kept for as long as the window",
            f"raise {names[1]}, or lower {names[3]}",
        )
    if by == "count" and window and kept < 2:
        yield InputError(
            names[1] if names[1] in values else names[3],
            f"{kept} full backup kept, and a window of {window} days",
            "at least 2: with one, each new full backup ends the window that the former began",
            f"raise {names[1]}, or count in days with {names[0]}: time",
        )
    schedules = full.get(f"{prefix}_schedules") or ()
    if diffs and not any(schedule["type"] == "diff" for schedule in schedules):
        yield InputError(
            names[2] if names[2] in values else f"{prefix}_schedules",
            f"{names[2]} {diffs}, and no schedule of type diff",
            "a schedule of what the retention counts",
            f"add one to {prefix}_schedules, or remove {names[2]}",
        )


# What a second repository of each kind needs, besides its path and its passphrase.
SECOND: Mapping[str, Sequence[str]] = {
    "directory": (),
    "s3": ("s3_endpoint", "s3_bucket", "s3_region", "s3_key", "s3_key_secret"),
    "sftp": ("sftp_host", "sftp_user", "sftp_private_key", "sftp_fingerprint"),
}


def _second_repository(full: Values, values: Values) -> Iterator[InputError]:
    if "pgbackrest_second_repository" not in full:
        return
    kind = str(full["pgbackrest_second_repository"])
    if kind == "none":
        for name in values:
            if name.startswith("pgbackrest_second_") and name != "pgbackrest_second_repository":
                yield InputError(
                    name,
                    "a value, and no second repository",
                    "nothing, or pgbackrest_second_repository: directory, s3 or sftp",
                    f"set pgbackrest_second_repository, or remove {name}",
                )
        return
    for name in (f"pgbackrest_second_{name}" for name in ("path", "cipher_passphrase", *SECOND.get(kind, ()))):
        if name in full and not full[name]:
            yield InputError(name, "nothing", f"a value, which the kind {kind} needs", f"set {name}")
    for other, names in SECOND.items():
        for name in (f"pgbackrest_second_{name}" for name in names):
            if other != kind and name in values:
                yield InputError(
                    name, f"a value, and the kind {kind}", f"nothing: only the kind {other} reads it", f"remove {name}"
                )
    first, second = full.get("pgbackrest_repository_path"), full.get("pgbackrest_second_path")
    if (
        kind == "directory"
        and first
        and second
        and (f"{second}/".startswith(f"{first}/") or f"{first}/".startswith(f"{second}/"))
    ):
        yield InputError(
            "pgbackrest_second_path",
            show(second),
            f"a directory apart from pgbackrest_repository_path, {first}",
            "choose one on another disk",
        )
    phrase = full.get("pgbackrest_second_cipher_passphrase")
    if phrase and phrase == full.get("pgbackrest_cipher_passphrase"):
        yield InputError(
            "pgbackrest_second_cipher_passphrase",
            "the passphrase of the first repository",
            "one of its own: who learns one must not read both",
            "choose another one, for instance with `openssl rand -base64 36`",
        )


def calendars(full: Values) -> Iterator[Calendar]:
    """The calendar events of a repository host, for it to say whether its systemd understands them."""
    second = str(full.get("pgbackrest_second_repository")) != "none"
    for prefix in ("pgbackrest", "pgbackrest_second") if second else ("pgbackrest",):
        counted = full[f"{prefix}_retention_full_type"] == "count"
        for position, schedule in enumerate(full[f"{prefix}_schedules"]):
            promised = counted and schedule["type"] == "full"
            yield Calendar(
                f"{prefix}_schedules[{position}].on_calendar",
                str(schedule["on_calendar"]),
                int(full[f"{prefix}_retention_full"]) if promised else 0,
                int(full[f"{prefix}_window_days"]) if promised else 0,
            )
    for name in ("pgbackrest_verify_on_calendar", "pgbackrest_check_on_calendar"):
        yield Calendar(name, str(full[name]))


def _compression(full: Values, values: Values) -> Iterator[InputError]:
    kind, level = str(full.get("pgbackrest_compress_type")), full.get("pgbackrest_compress_level")
    if kind not in COMPRESSION_LEVELS or level is None or "pgbackrest_compress_level" not in values:
        return
    least, most = COMPRESSION_LEVELS[kind]
    widest, highest = RANGES["pgbackrest_compress_level"]
    if widest <= int(level) <= highest and not least <= int(level) <= most:
        yield InputError(
            "pgbackrest_compress_level", show(level), f"{least} to {most} for {kind}", "3 is a good level for zst"
        )


# -- PostgreSQL ------------------------------------------------------------------------------------


def _name_error(kind: str, name: str, reserved: Collection[str]) -> str | None:
    """What is expected of the name of a database or a role, if this one is not fit."""
    if not NAME.fullmatch(name):
        return "letters, digits, spaces and _ - . @ +, a letter or an underscore first, no space last"
    if len(name.encode()) > NAME_BYTES:
        return f"at most {NAME_BYTES} bytes"
    if name in reserved or (kind == "role" and name.startswith("pg_")):
        return "a name that neither PostgreSQL nor Patroni uses itself"
    return None


def _names(path: str, items: Sequence[Values], kind: str, reserved: Collection[str]) -> Iterator[InputError]:
    first: dict[str, int] = {}
    for position, item in enumerate(items):
        name = item["name"]
        if expected := _name_error(kind, name, reserved):
            yield InputError(f"{path}[{position}].name", show(name), expected, f"choose another name for the {kind}")
        elif first.setdefault(name, position) != position:
            yield InputError(
                f"{path}[{position}].name",
                f"{show(name)} a second time",
                f"a name of its own, {path}[{first[name]}] has this one",
                "remove one of the two",
            )


def _limit(path: str, item: Values) -> Iterator[InputError]:
    limit = item.get("conn_limit")
    if limit is not None and not re.fullmatch(r"-1|[0-9]{1,9}", str(limit)):
        yield InputError(
            f"{path}.conn_limit", show(limit), "a whole number, or -1 for no limit", "remove it for no limit"
        )


def _databases(path: str, value: Sequence[Values]) -> Iterator[InputError]:
    yield from _names(path, value, "database", RESERVED_DATABASES)
    for position, database in enumerate(value):
        yield from _limit(f"{path}[{position}]", database)
        if database.get("encoding") is not None:
            yield from ENCODING.errors(f"{path}[{position}].encoding", database["encoding"])


def _users(path: str, value: Sequence[Values]) -> Iterator[InputError]:
    yield from _names(path, value, "role", RESERVED_USERS)
    for position, user in enumerate(value):
        place = f"{path}[{position}]"
        yield from _limit(place, user)
        if user.get("password") is not None:
            yield from _database_password(f"{place}.password", user["password"])
        if user.get("role_attr_flags") is not None:
            yield from ATTRIBUTES.errors(f"{place}.role_attr_flags", user["role_attr_flags"])
        if user.get("expires") is not None and not _printable(user["expires"]):
            yield InputError(
                f"{place}.expires", show(user["expires"]), "a time on one line", "write it as 2030-01-31 12:00+00"
            )


def _data_directory(path: str, value: str) -> Iterator[InputError]:
    if not value.startswith("/var/lib/postgresql/"):
        yield InputError(
            path,
            show(value),
            "a directory below /var/lib/postgresql, which is all that the sandbox lets PostgreSQL write to",
            "mount a disk of its own at /var/lib/postgresql",
        )


def _parameters(path: str, value: Values) -> Iterator[InputError]:
    for name, setting in value.items():
        if not PARAMETER.pattern.fullmatch(str(name)):
            yield from PARAMETER.errors(f"{path}.{show(str(name))[1:-1]}", str(name))
        elif isinstance(setting, str) and not _printable(setting):
            yield InputError(f"{path}.{name}", show(setting), "one value on one line", f"correct {path}.{name}")
    for error in patroni.config_errors({"postgresql": {"parameters": value}}):
        name = error.variable.removeprefix("postgresql.parameters.")
        yield InputError(f"{path}.{name}", error.seen, error.expected, error.mend)


def _access_rules(path: str, value: Sequence[str]) -> Iterator[InputError]:
    sound = []
    for position, line in enumerate(value):
        if _printable(line.replace("\t", " ")):
            sound.append(line)
        else:
            sound.append("")
            yield InputError(f"{path}[{position}]", show(line), "one line of pg_hba.conf", "make an entry of each line")
    yield from patroni.access_errors(sound, path)


def _networks(path: str, value: Sequence[str]) -> Iterator[InputError]:
    for position, text in enumerate(value):
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            network = None
        if network is None or "/" not in text:
            yield InputError(
                f"{path}[{position}]",
                show(text),
                "a network in CIDR notation, host bits zero",
                f"write {path}[{position}] as 10.20.0.0/16 or 10.20.1.7/32",
            )


def _references(full: Values, values: Values) -> Iterator[InputError]:
    """Databases and roles that a declaration names are declared, which changes nothing where they exist."""
    if not {"postgresql_databases", "postgresql_users"} <= full.keys():
        return
    databases, users = (
        {item["name"] for item in full[variable] if item.get("state", "present") == "present"} | {"postgres"}
        for variable in ("postgresql_databases", "postgresql_users")
    )

    def unknown(path: str, name: str, kind: str) -> InputError:
        variable = "postgresql_users" if kind == "role" else "postgresql_databases"
        return InputError(
            path,
            show(name),
            f"a {kind} that {variable} declares as present: " + show(sorted(users if kind == "role" else databases)),
            f"correct it, or declare it in {variable}, which changes nothing where it exists",
        )

    for position, item in enumerate(values.get("postgresql_databases") or ()):
        owner = item.get("owner")
        if owner is not None and owner not in users and item.get("state", "present") == "present":
            yield unknown(f"postgresql_databases[{position}].owner", owner, "role")
    for position, item in enumerate(values.get("postgresql_users") or ()):
        for place, name in enumerate(item.get("databases") or ()):
            if name not in databases:
                yield unknown(f"postgresql_users[{position}].databases[{place}]", name, "database")
    for variable in ("postgresql_grants", "postgresql_extensions"):
        for position, item in enumerate(values.get(variable) or ()):
            if item["database"] not in databases:
                yield unknown(f"{variable}[{position}].database", item["database"], "database")


SPECIAL: Mapping[str, Callable[[str, Any], Iterator[InputError]]] = {
    "postgresql_superuser_password": _member_password,
    "postgresql_replication_password": _member_password,
    "postgresql_rewind_password": _member_password,
    "postgresql_restapi_password": _rest_password,
    "postgresql_restapi_username": _rest_user,
    "haproxy_stats_password": _line,
    "haproxy_stats_user": _statistics_user,
    "pgbackrest_cipher_passphrase": _passphrase,
    "pgbackrest_second_cipher_passphrase": _passphrase,
    "pgbackrest_second_s3_key": _line,
    "pgbackrest_second_s3_key_secret": _line,
    "pgbackrest_second_sftp_private_key": _private_key,
    "certificates_trusted_certificates": _trusted,
    "etcd_extra_flags": _flags,
    "pgbackrest_schedules": _schedules,
    "pgbackrest_second_schedules": _schedules,
    "postgresql_data_directory": _data_directory,
    "postgresql_databases": _databases,
    "postgresql_users": _users,
    "postgresql_parameters": _parameters,
    "postgresql_extra_access_rules": _access_rules,
    "postgresql_client_ranges": _networks,
}
# Rules between several variables: what counts, defaults included, and what the inventory sets.
PAIRS: Sequence[Callable[[Values, Values], Iterator[InputError]]] = (
    _authority,
    _renewal,
    _election,
    _compression,
    _retention,
    _second_retention,
    _second_repository,
    _references,
)
