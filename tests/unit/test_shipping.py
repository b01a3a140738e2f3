"""What is shipped to hosts for a program: enough to run it there, and nothing that Debian's Python lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from standfast import shipping


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in {
        "__init__.py": "",
        "tool.py": "import json\nfrom . import flat, sub\nfrom .names import NAME\nfrom .sub.deep import late\n",
        "flat.py": "def main():\n    from .lazy import x  # noqa\n    import psycopg2\n",
        "lazy.py": "x = 1\n",
        "names.py": "NAME = 1\n",
        "idle.py": "",
        "sub/__init__.py": "",
        "sub/deep.py": "from ..above import a\nfrom .beside import late\n",
        "sub/beside.py": "late = 1\n",
        "sub/idle.py": "",
        "above.py": "a = 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_needed_files_are_the_program_and_all_it_imports(package: Path) -> None:
    found = shipping.needed("tool", package)
    assert list(found) == [
        "__init__.py",
        "above.py",
        "flat.py",
        "lazy.py",
        "names.py",
        "sub/__init__.py",
        "sub/beside.py",
        "sub/deep.py",
        "tool.py",
    ]
    assert found["lazy.py"] == "x = 1\n"


def test_needed_files_of_a_module_in_a_folder_are_found(package: Path) -> None:
    assert list(shipping.needed("sub.deep", package)) == [
        "__init__.py",
        "above.py",
        "sub/__init__.py",
        "sub/beside.py",
        "sub/deep.py",
    ]


def test_program_that_the_package_lacks_is_an_error(package: Path) -> None:
    with pytest.raises(FileNotFoundError):
        shipping.needed("toll", package)


def test_foreign_imports_are_seen_wherever_they_stand(package: Path) -> None:
    assert shipping.foreign((package / "flat.py").read_text()) == {"psycopg2"}


def test_launcher_runs_what_was_shipped(tmp_path: Path, package: Path) -> None:
    """Isolated, from a folder that holds nothing else; the exit code is the program's."""
    (package / "one.py").write_text("from .two import CODE\n\ndef main():\n    return CODE\n")
    (package / "two.py").write_text("CODE = 3\n")
    launcher = tmp_path / "sbin/one"
    for path, mode, text in shipping.files("one", str(launcher), "Managed", tmp_path / "lib", package):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        Path(path).chmod(int(mode, 8))
    assert sorted(path.name for path in (tmp_path / "lib/standfast").iterdir()) == ["__init__.py", "one.py", "two.py"]
    done = subprocess.run([sys.executable, "-I", launcher], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert launcher.stat().st_mode & 0o777 == 0o755
