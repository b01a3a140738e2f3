"""sysctl_settings: names of parameters, and when two values are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from standfast import files, sysctl


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_nonlocal_bind", "/proc/sys/net/ipv4/ip_nonlocal_bind"),
        ("net/ipv4/conf/eth0.1/forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_parameter_has_a_file(name: str, path: str) -> None:
    assert sysctl.path_of(name) == Path(path)


def test_values_compare_by_words() -> None:
    assert sysctl.same("4096\t131072\t6291456", "4096 131072 6291456")
    assert not sysctl.same("0", "1")


def test_file_lists_the_settings_below_its_header() -> None:
    assert sysctl.render("# why\n", {"a.b": "1", "c.d": "2 3"}) == "# why\na.b = 1\nc.d = 2 3\n"


def test_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "50-standfast.conf"
    path.write_text("old")
    files.write(path, "new\n", mode=0o644)
    assert files.read(path) == "new\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    files.remove(path)
    files.remove(path)
    assert files.read(path) == ""


def test_file_keeps_its_content_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "50-standfast.conf"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write(path, "\ud800", mode=0o644)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
