"""Recovery profiles, and the worst outage that each of them allows per fault.

All times are seconds unless a name ends in `_ms`. A bound is what a client sees from the
fault until its next attempt succeeds, on hosts that are not starved of CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import InputError, show

# Patroni's own lower limits (patroni/validator.py and config.rst, since 3.2.0).
MINIMUM_TTL = 20
MINIMUM_LOOP_WAIT = 1
MINIMUM_RETRY_TIMEOUT = 3

# VRRPv3 counts advertisements in centiseconds, in a field of 12 bits (RFC 5798, 5.2.7).
ADVERT_STEP_MS = 10
MAXIMUM_ADVERT_MS = 40950
# keepalived's own limit.
MAXIMUM_MISSED_ADVERTS = 100

# The classes of faults beside what clients use; after those of the second a backup is made.
BYSTANDER, BACKUP = "bystander", "backup"
BESIDE = (BYSTANDER, BACKUP)

# A lost SYN is sent again after one second (RFC 6298, 2.1): a client that tried at the wrong
# moment is that much later than the service.
CLIENT_RETRY = 1.0
# From a timer's expiry to the packet on the wire, on a busy host with two cores. The lab's
# slowest VRRP takeover was 0.03 s over the formula.
SCHEDULING = 0.2
# A new etcd leader is elected within two election timeouts of 1 s, extends every lease by its
# ttl plus one election timeout, and looks for expired leases every 0.5 s
# (etcd, server/lease/lessor.go: Promote, revokeExpiredLeases).
ETCD_ELECTION = 2.0
ETCD_LEASE_EXTENSION = 1.5
# Patroni asks each member for its position before it promotes and gives a silent one 2 s
# (patroni/ha.py: fetch_node_status).
MEMBER_STATUS_TIMEOUT = 2.0
# Writing the lock and the quorum's state, `pg_ctl promote`, and the first answer as a primary.
# Received WAL is assumed to be replayed; a replica with a backlog adds its replay time.
PROMOTION = 2.0
# A replica's WAL receiver ends and begins anew: a new primary_conninfo, TLS, SCRAM and the first
# acknowledgement; wal_retrieve_retry_interval (0.5 s) lies between attempts (measured: 0.7 s).
REPLICATION_START = 2.0
# The longest time between two tries of a WAL receiver to reach its primary: with net.ipv4.tcp_syn_retries 2 a SYN is sent
# after 0, 1 and 3 s and given up after 7 s (RFC 6298), and wal_retrieve_retry_interval lies before the next try.
REPLICATION_RETRY = 4.5
# A planned stop of the primary: two checkpoints and the transfer of the last WAL. Patroni
# writes a checkpoint before it stops PostgreSQL so that the one inside the outage is short.
SHUTDOWN = 5.0
# A backup closes a segment of WAL as it begins and as it ends (PostgreSQL, xlog.c: do_pg_backup_start, do_pg_backup_stop).
# Commits wait for the replicas to have what was left of it, 16 MiB at most: over 1 Gbit/s, and onto a disk with 100 MB/s
# (measured in the lab: 0.13 to 0.33 s).
SEGMENT_CLOSE = 16 * 2**20 * 8 / 1e9 + 16 * 2**20 / 100e6
# systemd's RestartSec of 0.1 s, Python's start, the first round over etcd (measured: 3.8 s).
PATRONI_START = 4.0


@dataclass(frozen=True)
class Patroni:
    """Seconds, as in Patroni's dynamic configuration."""

    ttl: int
    loop_wait: int
    retry_timeout: int
    primary_start_timeout: int


@dataclass(frozen=True)
class Haproxy:
    """Health checks: intervals in milliseconds, `rise` and `fall` in checks."""

    inter_ms: int
    fastinter_ms: int
    downinter_ms: int
    rise: int
    fall: int
    check_timeout_ms: int


@dataclass(frozen=True)
class Keepalived:
    """VRRP and the check of the local HAProxy: milliseconds, advertisements, checks, and seconds between GARPs."""

    advert_int_ms: int
    missed_adverts: int
    check_interval_ms: int
    check_timeout_ms: int
    check_fall: int
    check_rise: int
    garp_refresh_s: int


@dataclass(frozen=True)
class Profile:
    """One knob for three tools, because they only make sense together."""

    name: str
    patroni: Patroni
    haproxy: Haproxy
    keepalived: Keepalived


@dataclass(frozen=True)
class Bound:
    """The longest outage of one class of faults, in seconds, and why."""

    fault: str
    seconds: float
    formula: str
    source: str


# VRRP: a peer takes over after six advertisements in a row that did not come, in about the time of the standard's three.
#   Where each host loses 5 % of its packets three are missed by chance every two minutes (seen: six moves of the address in
#   15 minutes), six once in 18 hours. More would be better still, but keepalived's holder gives up after a pause
#   of its own of three intervals, however many its peers wait for (timer_expired_backup): seen at 0.14 s with 50 ms. So it
#   runs with real-time priority.
# fast: the smallest values that Patroni accepts, VRRP twenty times a second. Measured in the lab:
#   crash of the postmaster 1.7 s, loss of a balancer 0.4 s, loss of the primary's host 22 s.
#   No false transition of VRRP at load 8 on two cores down to 20 ms.
# standard: Patroni's default ttl, with half its loop_wait and retry_timeout; rides out a pause
#   of 10 s in etcd or in the network (loop_wait + retry_timeout).
# wide: for stretched or noisy networks: VRRP's classic three seconds, rides out 30 s, and gives a
#   crashed primary a minute to restart in place before another one takes over.
PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "fast",
            Patroni(ttl=20, loop_wait=1, retry_timeout=3, primary_start_timeout=0),
            Haproxy(1000, 250, 250, rise=1, fall=2, check_timeout_ms=1000),
            Keepalived(50, 6, 200, 180, check_fall=3, check_rise=5, garp_refresh_s=30),
        ),
        Profile(
            "standard",
            Patroni(ttl=30, loop_wait=5, retry_timeout=5, primary_start_timeout=0),
            Haproxy(2000, 500, 500, rise=2, fall=2, check_timeout_ms=2000),
            Keepalived(100, 6, 500, 400, check_fall=3, check_rise=4, garp_refresh_s=60),
        ),
        Profile(
            "wide",
            Patroni(ttl=60, loop_wait=10, retry_timeout=20, primary_start_timeout=60),
            Haproxy(3000, 1000, 1000, rise=2, fall=3, check_timeout_ms=3000),
            Keepalived(500, 6, 1000, 900, check_fall=3, check_rise=3, garp_refresh_s=60),
        ),
    )
}


def choose(name: object, overrides: object) -> tuple[Profile, list[InputError]]:
    """The profile called `name` with `overrides` ({tool: {setting: number}}) laid over it.

    With errors the profile is still complete, so that a caller can go on and find more.
    """
    errors: list[InputError] = []
    profile = PROFILES["standard"]
    if isinstance(name, str) and name in PROFILES:
        profile = PROFILES[name]
    else:
        errors.append(
            InputError(
                "recovery_profile",
                show(name),
                f"one of {', '.join(PROFILES)}",
                "choose fast for one quiet network, standard if in doubt, wide for a noisy one",
            )
        )
    if not isinstance(overrides, Mapping):
        errors.append(
            InputError(
                "recovery_overrides",
                show(overrides),
                "a mapping such as {patroni: {loop_wait: 2}}",
                "remove it, or write it as a mapping",
            )
        )
        return profile, errors
    for tool, settings in overrides.items():
        path = f"recovery_overrides.{tool}"
        current = getattr(profile, tool, None) if tool in TOOLS else None
        if current is None or not isinstance(settings, Mapping):
            errors.append(
                InputError(
                    path,
                    show(settings),
                    f"a mapping below one of {', '.join(TOOLS)}",
                    f"remove {path}, or correct its spelling",
                )
            )
            continue
        known = [field.name for field in fields(current)]
        accepted: dict[str, int] = {}
        for setting, value in settings.items():
            if setting not in known:
                errors.append(
                    InputError(
                        f"{path}.{setting}",
                        show(value),
                        f"one of {', '.join(known)}",
                        f"remove {path}.{setting}, or correct its spelling",
                    )
                )
            elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
                errors.append(
                    InputError(
                        f"{path}.{setting}",
                        show(value),
                        "a whole number, not negative",
                        f"write {path}.{setting} as a plain number; its name says the unit",
                    )
                )
            else:
                accepted[setting] = value
        replaced: Any = {tool: replace(current, **accepted)}
        if accepted:
            # Drills of the one and of the other are not of one kind.
            replaced["name"] = f"{profile.name.partition(',')[0]}, overridden"
        profile = replace(profile, **replaced)
    errors.extend(check(profile))
    return profile, errors


TOOLS = ("patroni", "haproxy", "keepalived")


def check(profile: Profile) -> Iterator[InputError]:
    """The rules between the numbers, which no tool checks for the others."""
    yield from _check_patroni(profile.patroni)
    yield from _check_haproxy(profile.haproxy, profile.patroni.ttl)
    yield from _check_keepalived(profile.keepalived)


def _wrong(path: str, seen: object, expected: str, mend: str) -> InputError:
    return InputError(f"recovery_overrides.{path}", str(seen), expected, mend)


def _check_patroni(patroni: Patroni) -> Iterator[InputError]:
    instead = (
        "leave ttl alone: it only bounds the loss of the primary's whole host; for a faster recovery "
        "from a crash turn patroni.primary_start_timeout (0), patroni.loop_wait, haproxy.downinter_ms "
        "and keepalived.check_interval_ms"
    )
    if patroni.ttl < MINIMUM_TTL:
        yield _wrong("patroni.ttl", patroni.ttl, f"at least {MINIMUM_TTL} s", instead)
    if patroni.loop_wait < MINIMUM_LOOP_WAIT:
        yield _wrong("patroni.loop_wait", patroni.loop_wait, f"at least {MINIMUM_LOOP_WAIT} s", "set it to 1 or more")
    if patroni.retry_timeout < MINIMUM_RETRY_TIMEOUT:
        yield _wrong(
            "patroni.retry_timeout",
            patroni.retry_timeout,
            f"at least {MINIMUM_RETRY_TIMEOUT} s",
            "set it to 3 or more: below, one slow answer of etcd demotes the primary",
        )
    needed = patroni.loop_wait + 2 * patroni.retry_timeout
    if patroni.ttl < needed and patroni.ttl >= MINIMUM_TTL:
        yield _wrong(
            "patroni",
            f"ttl {patroni.ttl} < loop_wait {patroni.loop_wait} + 2 * retry_timeout {patroni.retry_timeout} = {needed}",
            "ttl >= loop_wait + 2 * retry_timeout",
            f"raise ttl to {needed}, or lower loop_wait or retry_timeout; {instead}",
        )


def _check_haproxy(haproxy: Haproxy, ttl: int) -> Iterator[InputError]:
    for name in ("inter_ms", "fastinter_ms", "downinter_ms", "check_timeout_ms"):
        if getattr(haproxy, name) < 10:
            yield _wrong(f"haproxy.{name}", getattr(haproxy, name), "at least 10 ms", "250 ms is already fast")
    for name in ("fastinter_ms", "downinter_ms", "check_timeout_ms"):
        if getattr(haproxy, name) > haproxy.inter_ms:
            yield _wrong(
                f"haproxy.{name}",
                getattr(haproxy, name),
                f"at most haproxy.inter_ms, {haproxy.inter_ms}",
                "lower it: a doubtful server is asked more often than a sound one, and an answer comes before the next question",
            )
    for name in ("rise", "fall"):
        if not 1 <= getattr(haproxy, name) <= 10:
            yield _wrong(f"haproxy.{name}", getattr(haproxy, name), "1 to 10 checks", "2 rides out one lost packet")
    if haproxy_down(haproxy) >= ttl > 0:
        yield _wrong(
            "haproxy",
            f"a dead server is noticed after {haproxy_down(haproxy):g} s",
            f"sooner than Patroni's ttl of {ttl} s",
            "lower haproxy.inter_ms, haproxy.check_timeout_ms or haproxy.fall: the old primary leaves before a new one comes",
        )


def _check_keepalived(keepalived: Keepalived) -> Iterator[InputError]:
    if not ADVERT_STEP_MS <= keepalived.advert_int_ms <= MAXIMUM_ADVERT_MS or keepalived.advert_int_ms % ADVERT_STEP_MS:
        yield _wrong(
            "keepalived.advert_int_ms",
            keepalived.advert_int_ms,
            f"a multiple of {ADVERT_STEP_MS} from {ADVERT_STEP_MS} to {MAXIMUM_ADVERT_MS} ms (VRRPv3 counts centiseconds)",
            "70 takes over in about 0.4 s; below 20 needs real-time priority",
        )
    if not 1 <= keepalived.missed_adverts <= MAXIMUM_MISSED_ADVERTS:
        yield _wrong(
            "keepalived.missed_adverts",
            keepalived.missed_adverts,
            f"1 to {MAXIMUM_MISSED_ADVERTS} advertisements",
            "5 rides out a few lost packets; VRRP's own number is 3",
        )
    if keepalived.check_interval_ms < 50:
        yield _wrong(
            "keepalived.check_interval_ms",
            keepalived.check_interval_ms,
            "at least 50 ms",
            "raise it: each check starts a process",
        )
    if not 0 < keepalived.check_timeout_ms < keepalived.check_interval_ms:
        yield _wrong(
            "keepalived.check_timeout_ms",
            keepalived.check_timeout_ms,
            f"more than 0 and less than keepalived.check_interval_ms, {keepalived.check_interval_ms}",
            "lower it, or raise check_interval_ms: a check ends before the next begins, a hung HAProxy is a failed check",
        )
    for name in ("check_fall", "check_rise"):
        if not 1 <= getattr(keepalived, name) <= 20:
            yield _wrong(f"keepalived.{name}", getattr(keepalived, name), "1 to 20 checks", "3 is a good start")
    if keepalived.check_rise < keepalived.check_fall:
        yield _wrong(
            "keepalived.check_rise",
            keepalived.check_rise,
            f"at least keepalived.check_fall, {keepalived.check_fall}",
            "raise it: a balancer that comes and goes must stay away rather than come back quickly",
        )
    if keepalived.check_interval_ms * keepalived.check_fall > 10_000:
        yield _wrong(
            "keepalived",
            f"a dead HAProxy is noticed after {keepalived.check_interval_ms * keepalived.check_fall} ms",
            "check_interval_ms * check_fall of at most 10000 ms",
            "lower check_interval_ms or check_fall",
        )
    if not 1 <= keepalived.garp_refresh_s <= 3600:
        yield _wrong(
            "keepalived.garp_refresh_s",
            keepalived.garp_refresh_s,
            "1 to 3600 s",
            "60 repairs the neighbours' caches within a minute",
        )


def skew(advert_int_ms: int, priority: int) -> float:
    """Skew_Time (RFC 5798, 6.1): what a backup waits after the master has said goodbye."""
    return (256 - priority) * advert_int_ms / 256 / 1000


def master_down(advert_int_ms: int, missed_adverts: int, priority: int) -> float:
    """Master_Down_Interval: what a backup of this priority waits in silence.

    RFC 5798, 6.1 with 3 missed advertisements; keepalived.conf(5), down_timer_adverts, with another number.
    """
    return missed_adverts * advert_int_ms / 1000 + skew(advert_int_ms, priority)


def haproxy_down(haproxy: Haproxy) -> float:
    """From a server's silent death to DOWN: one normal interval, then the fast one, each check timing out."""
    timeout = haproxy.check_timeout_ms
    return (haproxy.inter_ms + timeout + (haproxy.fall - 1) * (haproxy.fastinter_ms + timeout)) / 1000


def haproxy_up(haproxy: Haproxy) -> float:
    """From a server's first good answer to UP, when it was DOWN."""
    return (haproxy.downinter_ms + haproxy.check_timeout_ms + (haproxy.rise - 1) * haproxy.fastinter_ms) / 1000


def bounds(profile: Profile, lowest_priority: int) -> tuple[Bound, ...]:
    """The longest outage per fault. `lowest_priority` is the least VRRP priority of any balancer."""
    patroni, haproxy, keepalived = profile.patroni, profile.haproxy, profile.keepalived
    down = master_down(keepalived.advert_int_ms, keepalived.missed_adverts, lowest_priority)
    goodbye = skew(keepalived.advert_int_ms, lowest_priority)
    crash_check = keepalived.check_interval_ms * keepalived.check_fall / 1000
    hang_check = crash_check + keepalived.check_timeout_ms / 1000
    up = haproxy_up(haproxy)
    arrival = SCHEDULING + CLIENT_RETRY
    lease = patroni.ttl + ETCD_ELECTION + ETCD_LEASE_EXTENSION
    takeover = patroni.loop_wait + patroni.retry_timeout + MEMBER_STATUS_TIMEOUT + PROMOTION + up + arrival

    vrrp = "RFC 5798, 6.1; keepalived.conf(5), down_timer_adverts"
    script = "keepalived.conf(5), vrrp_script; RFC 5798, 6.1"
    check = "HAProxy manual 5.2: inter, fastinter, downinter, rise, fall"
    lost = "ttl + etcd election and lease extension + loop_wait + retry_timeout + member status + promotion + check up + client"
    lost_source = "Patroni ha.py; etcd lessor.go; " + check
    crash = "loop_wait + primary_start_timeout + member status + promotion + check up + client"
    table: tuple[tuple[str, float, str, str], ...] = (
        (
            "balancer-host-loss",
            down + arrival,
            "missed_adverts * advert + (256 - priority) / 256 * advert + client",
            vrrp,
        ),
        ("balancer-stop", goodbye + arrival, "(256 - priority) / 256 * advert + client", vrrp),
        (
            "keepalived-crash",
            down + arrival,
            "missed_adverts * advert + (256 - priority) / 256 * advert + client",
            vrrp,
        ),
        ("haproxy-crash", crash_check + goodbye + arrival, "check_interval * check_fall + skew + client", script),
        ("haproxy-stop", crash_check + goodbye + arrival, "check_interval * check_fall + skew + client", script),
        (
            "haproxy-hang",
            hang_check + goodbye + arrival,
            "check_interval * check_fall + check_timeout + skew + client",
            script,
        ),
        (
            "postgres-crash",
            patroni.loop_wait + patroni.primary_start_timeout + MEMBER_STATUS_TIMEOUT + PROMOTION + up + arrival,
            crash,
            "Patroni ha.py, primary_start_timeout; " + check,
        ),
        (
            "patroni-crash",
            PATRONI_START + up + arrival,
            "restart of Patroni + check up + client",
            "systemd RestartSec, measured start; " + check,
        ),
        ("patroni-hang", lease + takeover, lost, lost_source),
        ("primary-host-loss", lease + takeover, lost, lost_source),
        ("primary-isolated", lease + takeover, lost, lost_source),
        (
            "switchover",
            patroni.loop_wait + SHUTDOWN + MEMBER_STATUS_TIMEOUT + PROMOTION + up + arrival,
            "loop_wait + shutdown + member status + promotion + check up + client",
            "Patroni ha.py, manual failover; " + check,
        ),
        (
            "server-return",
            up + arrival,
            "check up + client, after the primary works again",
            check,
        ),
        (
            "replica-return",
            REPLICATION_RETRY + REPLICATION_START + arrival,
            "tcp_syn_retries + wal_retrieve_retry_interval + start of replication + client, after replicas reach the primary again",
            "tcp(7), tcp_syn_retries; PostgreSQL walreceiver.c",
        ),
        (
            "election",
            ETCD_ELECTION + takeover,
            "etcd election + loop_wait + retry_timeout + member status + promotion + check up + client",
            lost_source,
        ),
        (
            "replica-host-loss",
            haproxy_down(haproxy) + arrival,
            "inter + check_timeout + (fall - 1) * (fastinter + check_timeout) + client, reads only",
            check,
        ),
        (
            "server-loss",
            haproxy_down(haproxy) + arrival,
            "inter + check_timeout + (fall - 1) * (fastinter + check_timeout) + client, without retries",
            check,
        ),
        (
            "haproxy-reload",
            0.0,
            "none: the old worker hands its sockets to the new one",
            "HAProxy manual, expose-fd listeners",
        ),
        ("etcd-member", 0.0, "none: another member answers within retry_timeout", "Patroni config.rst, retry_timeout"),
        ("etcd-quorum", 0.0, "none: failsafe mode keeps the primary", "Patroni dcs_failsafe_mode.rst"),
        # When the primary comes back after ttl it writes its leader key before its member key. A replica that
        # looks in between knows who leads but not where, and lets go of the primary until its next look:
        # commits that wait for a replica wait that long.
        (
            "primary-cut-from-etcd",
            patroni.loop_wait + REPLICATION_START + arrival,
            "loop_wait + start of replication + client, once, when etcd is back after ttl",
            "Patroni ha.py: _run_cycle, touch_member; dcs/etcd3.py: leader without a member",
        ),
        (
            BACKUP,
            SEGMENT_CLOSE,
            "a segment of WAL to the replicas and onto their disks, twice in each backup",
            "PostgreSQL xlog.c: do_pg_backup_start, do_pg_backup_stop",
        ),
        (BYSTANDER, 0.0, "none: clients of the primary and of the virtual address do not need it", "topology"),
    )
    return tuple(Bound(fault, round(seconds, 2), formula, source) for fault, seconds, formula, source in table)
