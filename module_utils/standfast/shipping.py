"""Which part of this package a program on a host needs, and how the host starts it.

A program is a module of the package with a `main()`. Hosts run it with Debian's Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent
# Where hosts keep the part of it that their programs need.
LIBRARY = Path("/usr/local/lib/standfast")

# Isolated: nobody's environment or folder decides what it imports.
LAUNCHER = """\
#!/usr/bin/python3 -I
# {header}
import sys

sys.path.insert(0, "{library}")
from standfast.{program} import main

sys.exit(main())
"""

# What a program may import besides Python's own modules and this package: Debian's packages have them.
DEBIAN = frozenset({"cryptography", "psycopg", "psycopg2", "yaml"})


def files(
    program: str, dest: str, header: str, library: Path = LIBRARY, package: Path = PACKAGE
) -> Iterator[tuple[str, str, str]]:
    """Path, mode and text of all that a host gets for one program, whose launcher is `dest`.

    Raises FileNotFoundError if the package lacks it.
    """
    for name, text in needed(program, package).items():
        yield str(library / "standfast" / name), "0644", text
    yield dest, "0755", LAUNCHER.format(header=header, library=library, program=program)


def needed(program: str, package: Path = PACKAGE) -> Mapping[str, str]:
    """The files, by their paths below the package's folder, that a program imports, and itself; in the paths' order.

    Raises FileNotFoundError for what the package has not.
    """
    found: dict[str, str] = {}
    waiting = [tuple(program.split("."))]
    while waiting:
        module = waiting.pop()
        # Python runs the __init__ of every package on the way to a module.
        for length in range(len(module) + 1):
            path = _file(module[:length], package)
            name = str(path.relative_to(package))
            if name not in found:
                found[name] = path.read_text(encoding="utf-8")
                inside = module[:length] if path.name == "__init__.py" else module[: length - 1]
                waiting += _siblings(ast.parse(found[name]), inside, package)
    return dict(sorted(found.items()))


def foreign(text: str) -> set[str]:
    """The names of what a module imports from outside this package, wherever it stands in its text."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _file(module: tuple[str, ...], package: Path) -> Path:
    folder = package.joinpath(*module)
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _siblings(tree: ast.Module, inside: tuple[str, ...], package: Path) -> Iterator[tuple[str, ...]]:
    """What relative imports name; `inside` is the package that they start from."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        start = inside[: len(inside) - node.level + 1] + tuple(node.module.split(".") if node.module else ())
        yield start
        # `from .x import y`: y is a module of its own, or a name in x.
        yield from ((*start, alias.name) for alias in node.names if _file((*start, alias.name), package).exists())
