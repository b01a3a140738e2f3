"""What docs/backups.md promises, done by its own commands: each restore has exactly what was acknowledged before its target."""

from __future__ import annotations

import re

import pytest

from tests.live import Live
from tests.restores import EMERGENCY, KEEP, MOMENT, ONLY_LOOK, READ, WRITE, commands, info, notes, play, sql


@pytest.mark.parametrize("kind", ["full", "incr"])
def test_a_backup_is_made_on_demand(live: Live, kind: str) -> None:
    before = {backup["label"] for backup in info(live)["backup"]}
    play(live, f"ansible-playbook playbooks/backup.yml -e type={kind}")
    [made] = [backup for backup in info(live)["backup"] if backup["label"] not in before]
    assert made["type"] == kind
    assert not made["error"]


def test_an_unknown_type_is_refused_before_a_backup_is_begun(live: Live) -> None:
    before = info(live)["backup"]
    said = play(live, "ansible-playbook playbooks/backup.yml -e type=weekly", expected=2)
    assert re.search(r"type: seen .*weekly.*; expected .*full.*; mend: ", said), said
    assert info(live)["backup"] == before


def test_a_restore_drill_passes(live: Live) -> None:
    said = play(live, "fab backup.drill")
    assert "pass" in said.lower(), said


def test_only_looking_touches_no_cluster(live: Live) -> None:
    sql(live, KEEP, WRITE.format("looked at"), MOMENT)
    [backup] = live.names("backup")
    # The latest is what is archived: this hands over the segment, and waits until it has arrived.
    live.run(backup, f"runuser -u postgres -- pgbackrest --stanza={live.topology['cluster_name']} check")
    wall = live.well().facts["database"]
    look, remove = commands(ONLY_LOOK, "\n### ")
    host = re.search(r"restore_to=(\w+)", look)
    assert host
    try:
        said = play(live, look)
        [ask] = {line.strip(' "-,') for line in said.splitlines() if "runuser -u postgres -- psql -h" in line}
        database = live.setting(host[1], "drills_database")
        command = re.sub(r" postgres$", "", ask)
        seen = live.run(host[1], f"{command} --dbname '{database}' --tuples-only --command '{READ}'")
    finally:
        play(live, remove)
    assert "looked at" in seen
    assert live.run(host[1], "find /var/lib/standfast-beside -mindepth 1") == ""
    assert live.well().facts["database"]["timeline"] == wall["timeline"]


def test_the_cluster_is_restored_to_a_moment(live: Live) -> None:
    [[moment]] = sql(live, KEEP, "TRUNCATE restore_test", WRITE.format("before"), MOMENT)
    sql(live, WRITE.format("after"), MOMENT)
    timeline = live.well().facts["database"]["timeline"]
    for line in commands(EMERGENCY, ONLY_LOOK):
        play(live, line, moment)
    assert notes(live) == ["before"]
    assert live.well().facts["database"]["timeline"] > timeline


def test_a_moment_outside_the_window_is_refused_before_anything_stops(live: Live) -> None:
    timeline = live.well().facts["database"]["timeline"]
    _, restore, *_ = commands(EMERGENCY, ONLY_LOOK)
    said = play(live, restore, "2001-01-01T00:00:00Z", expected=2)
    assert re.search(r"target_time: seen .*2001-01-01.*; expected .*; mend: ", said), said
    assert live.well().facts["database"]["timeline"] == timeline
