"""Profiles keep the tools' rules, and bounds hold what was measured in the lab."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from standfast import timing
from standfast.timing import PROFILES, Bound, Profile, bounds, check, choose

ROOT = Path(__file__).parents[2]


def by_fault(profile: Profile) -> dict[str, Bound]:
    """The bounds for two balancers."""
    return {bound.fault: bound for bound in bounds(profile, 149)}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_profiles_keep_every_rule(profile: Profile) -> None:
    assert list(check(profile)) == []


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_bound_says_why(profile: Profile) -> None:
    found = bounds(profile, 149)
    assert len({bound.fault for bound in found}) == len(found)
    assert all(bound.seconds >= 0 and bound.formula and bound.source for bound in found)


# Slowest run of each fault in the lab with these very timers, in seconds.
MEASURED = [
    ("postgres-crash", 1.736),
    ("patroni-crash", 3.803),
    ("switchover", 1.926),
    ("primary-host-loss", 22.386),
    ("primary-isolated", 24.782),
    ("balancer-host-loss", 0.372),
    ("balancer-stop", 0.083),
    ("primary-cut-from-etcd", 1.06),
]


@pytest.mark.parametrize(("fault", "seconds"), MEASURED, ids=[fault for fault, _ in MEASURED])
def test_fast_bounds_hold_what_was_measured(fault: str, seconds: float) -> None:
    assert seconds < by_fault(PROFILES["fast"])[fault].seconds


def test_vrrp_times_are_those_of_the_standard() -> None:
    # RFC 5798, 6.1 with an advertisement a second and priority 100.
    assert timing.skew(1000, 100) == pytest.approx(156 / 256)
    assert timing.master_down(1000, 3, 100) == pytest.approx(3 + 156 / 256)


def test_lost_packets_alone_move_no_address_for_most_of_a_day() -> None:
    """Each of two hosts loses 5 % of its packets; the mean time until so many in a row are lost, by chance alone."""
    lost = 1 - 0.95**2
    for profile in PROFILES.values():
        ours = profile.keepalived
        runs_per_s = (1 - lost) * lost**ours.missed_adverts / (ours.advert_int_ms / 1000)
        assert 1 / runs_per_s > 17 * 3600


def test_primary_host_loss_is_the_sum_of_its_parts() -> None:
    assert by_fault(PROFILES["standard"])["primary-host-loss"].seconds == pytest.approx(
        30 + 2.0 + 1.5 + 5 + 5 + 2.0 + 2.0 + (0.5 + 2.0 + 0.5) + 0.2 + 1.0
    )


def test_replicas_ask_again_as_often_as_the_bound_says() -> None:
    """The pause between SYNs doubles from 1 s on, the last of them before the next try (tcp(7))."""
    kernel = (ROOT / "playbooks/group_vars/all/common.yml").read_text(encoding="utf-8")
    server = (ROOT / "roles/postgresql/vars/main.yml").read_text(encoding="utf-8")
    [retries] = re.findall(r"'net\.ipv4\.tcp_syn_retries': (\d+)", kernel)
    [pause] = re.findall(r"wal_retrieve_retry_interval: (\d+)ms", server)
    assert 2 ** int(retries) + int(pause) / 1000 == timing.REPLICATION_RETRY


def test_haproxy_detection_is_the_sum_of_its_checks() -> None:
    assert timing.haproxy_down(PROFILES["fast"].haproxy) == pytest.approx(1 + 1 + 0.25 + 1)
    assert timing.haproxy_up(PROFILES["wide"].haproxy) == pytest.approx(1 + 3 + 1)


@pytest.mark.parametrize(
    ("tool", "setting", "fault"),
    [
        ("patroni", "ttl", "primary-host-loss"),
        ("patroni", "loop_wait", "postgres-crash"),
        ("patroni", "primary_start_timeout", "postgres-crash"),
        ("patroni", "loop_wait", "primary-cut-from-etcd"),
        ("haproxy", "downinter_ms", "switchover"),
        ("haproxy", "inter_ms", "server-loss"),
        ("keepalived", "advert_int_ms", "balancer-host-loss"),
        ("keepalived", "missed_adverts", "keepalived-crash"),
        ("keepalived", "check_interval_ms", "haproxy-crash"),
        ("keepalived", "check_timeout_ms", "haproxy-hang"),
    ],
)
def test_each_knob_moves_its_bound(tool: str, setting: str, fault: str) -> None:
    profile = PROFILES["fast"]
    part = getattr(profile, tool)
    slower = replace(profile, **{tool: replace(part, **{setting: getattr(part, setting) + 10})})
    assert by_fault(slower)[fault].seconds > by_fault(profile)[fault].seconds


def test_overrides_change_only_what_they_name() -> None:
    profile, errors = choose("standard", {"patroni": {"loop_wait": 3}})
    assert errors == []
    patroni = replace(PROFILES["standard"].patroni, loop_wait=3)
    # Its outages are not those of the profile.
    assert profile == replace(PROFILES["standard"], name="standard, overridden", patroni=patroni)
    assert choose("standard", {"patroni": {}, "haproxy": {}})[0] == PROFILES["standard"]


@pytest.mark.parametrize("value", [True, -1, 1.5, None, "3"], ids=repr)
def test_overrides_are_whole_numbers(value: object) -> None:
    profile, errors = choose("fast", {"patroni": {"loop_wait": value}})
    assert [error.variable for error in errors] == ["recovery_overrides.patroni.loop_wait"]
    assert profile == PROFILES["fast"]
