"""Where secrets lie on a host: files, the journal, environments; and who can read them there."""

import grp
import json
import os
import pwd
import stat
import subprocess
from pathlib import Path
from typing import Any

# Where a program, or somebody's shell, could leave a secret.
SEARCHED = ["/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var"]
# What Debian's mirrors published.
LEFT_OUT = ["/var/cache/apt", "/var/lib/apt", "/var/lib/dpkg"]
NOBODY = 65534
KEY = Path("/etc/standfast/pki/host.key")
SHOWN = 400


def own_key() -> dict[str, str]:
    """The middle of the host's private key, which no other file may have."""
    return {"the host's key": KEY.read_text(encoding="ascii").splitlines()[1]} if KEY.exists() else {}


def grep(secrets: dict[str, str], command: list[str], **given: Any) -> bytes:
    """What `command`, which ends in a grep, prints; the patterns travel in memory, and in no argument."""
    descriptor = os.memfd_create("patterns")
    os.write(descriptor, "".join(f"{value}\n" for value in secrets.values()).encode())
    patterns = f"/proc/{os.getpid()}/fd/{descriptor}"
    done = subprocess.run(
        [*command, "--text", "--fixed-strings", f"--file={patterns}"], capture_output=True, check=False, **given
    )
    os.close(descriptor)
    return done.stdout


def hidden(text: str, secrets: dict[str, str]) -> str:
    for name, value in secrets.items():
        text = text.replace(value, f"<{name}>")
    return text[:SHOWN]


def secret_files(secrets: dict[str, str]) -> list[dict[str, Any]]:
    """Every file that holds a secret: which ones, its owner, group and mode."""
    pruned = [part for path in LEFT_OUT for part in ("-o", "-path", path)][1:]
    existing = [path for path in SEARCHED if Path(path).is_dir() and not Path(path).is_symlink()]
    listed = subprocess.run(
        ["find", *existing, "(", *pruned, ")", "-prune", "-o", "-type", "f", "-size", "+0", "-print0"],
        capture_output=True,
        check=False,
    ).stdout
    files = []
    for path in filter(
        None,
        grep(secrets, ["xargs", "-0", "grep", "--files-with-matches", "--null"], input=listed).decode().split("\0"),
    ):
        status = Path(path).stat()
        content = Path(path).read_bytes()
        files.append(
            {
                "path": path,
                "secrets": sorted(name for name, value in secrets.items() if value.encode() in content),
                "owner": pwd.getpwuid(status.st_uid).pw_name,
                "group": grp.getgrgid(status.st_gid).gr_name,
                "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            }
        )
    return files


def read_by_nobody(paths: list[str]) -> list[str]:
    """Those that a process without any right can read, tried in a child that is one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        opened = []
        for path in paths:
            try:
                with Path(path).open("rb") as file:
                    file.read(1)
                opened.append(path)
            except OSError:
                continue
        os.write(writer, json.dumps(opened).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return list(json.loads(text))


def journal_lines(secrets: dict[str, str]) -> list[str]:
    """The journal's fields, messages and command lines among them, that hold a secret, which is hidden."""
    with subprocess.Popen(["journalctl", "--output=export", "--no-pager"], stdout=subprocess.PIPE) as journal:
        found = grep(secrets, ["grep"], stdin=journal.stdout).decode(errors="replace")
    return [hidden(line, secrets) for line in found.splitlines()]


def answer(secrets: dict[str, str]) -> dict[str, Any]:
    secrets = secrets | own_key()
    files = secret_files(secrets)
    others = [path for path in Path("/proc").glob("[0-9]*/environ") if path.parent.name != str(os.getpid())]
    return {
        "files": files,
        "read_by_nobody": read_by_nobody([file["path"] for file in files]),
        "environments_read_by_nobody": read_by_nobody(list(map(str, others))),
        "journal": journal_lines(secrets),
        "authority_keys": subprocess.run(
            ["find", *[path for path in SEARCHED if Path(path).is_dir()], "-name", "ca.key"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split(),
    }
