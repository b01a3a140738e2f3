"""crun-unlimited, run as podman's conmon runs it, in front of a crun that only tells its arguments."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from lab.process import REPOSITORY

CONFIG = {"linux": {"resources": {"devices": [{"allow": False}]}, "cgroupsPath": "/x"}, "hostname": "db1"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "crun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "crun").chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def run(bundle: Path, *arguments: str) -> tuple[str, dict[str, object]]:
    done = subprocess.run(
        [REPOSITORY / "lab" / "crun-unlimited", *arguments],
        env={**os.environ, "PATH": f"{bundle}:{os.environ['PATH']}"},
        cwd=bundle,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), json.loads((bundle / "config.json").read_text())


@pytest.mark.parametrize("options", [["--bundle", "{}"], ["-b", "{}"], ["--bundle={}"], []], ids=str)
def test_create_asks_for_no_resource_rules_and_changes_nothing_else(bundle: Path, options: list[str]) -> None:
    given = ["create", *(option.format(bundle) for option in options), "db1"]
    said, config = run(bundle, *given)
    assert said == " ".join(given)
    assert config == {**CONFIG, "linux": {"resources": {}, "cgroupsPath": "/x"}}


def test_other_commands_pass_through(bundle: Path) -> None:
    said, config = run(bundle, "state", "db1")
    assert (said, config) == ("state db1", CONFIG)
