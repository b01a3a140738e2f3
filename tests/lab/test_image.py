"""The image is rebuilt when its definition changes, and only then."""

from dataclasses import replace

import pytest

from lab.image import Definition, definition, parse_packages

PLAIN = Definition(
    suite="trixie",
    base=("systemd",),
    packages=("haproxy", "patroni"),
    customize="#!/bin/sh\n",
    files={"etc/a": "1\n", "etc/b": "2\n"},
)


def test_packages_are_named_once_whatever_the_comments() -> None:
    assert parse_packages("# stack\npatroni  # over etcd\n\nhaproxy\npatroni\n") == PLAIN.packages


@pytest.mark.parametrize(
    "changed",
    [
        replace(PLAIN, suite="forky"),
        replace(PLAIN, base=("dbus", "systemd")),
        replace(PLAIN, packages=("haproxy",)),
        replace(PLAIN, base=("haproxy", "systemd"), packages=("patroni",)),
        replace(PLAIN, customize="#!/bin/sh\nset -eu\n"),
        replace(PLAIN, files={"etc/a": "1\n", "etc/b": "3\n"}),
        replace(PLAIN, files={"etc/a": "1\n", "etc/c": "2\n"}),
    ],
    ids=["suite", "base", "packages", "moved", "customize", "file", "file-name"],
)
def test_every_part_of_the_definition_changes_the_image(changed: Definition) -> None:
    assert changed.tag != PLAIN.tag


def test_same_definition_is_the_same_image() -> None:
    assert replace(PLAIN, files={"etc/b": "2\n", "etc/a": "1\n"}).tag == PLAIN.tag
    assert definition().tag == definition().tag


def test_base_image_has_no_service_of_the_stack() -> None:
    assert not set(definition().base) & set(definition().packages)
