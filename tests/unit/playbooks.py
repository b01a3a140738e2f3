"""ansible-playbook itself, as a user of this project runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in the project's folder, with the project's settings and without colours; the caller judges how it ended."""
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **environment},
    )
