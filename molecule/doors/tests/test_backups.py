"""pgBackRest: whom its server obeys, whom its client trusts, and what lies in the repository."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live import Live

# pgBackRest's own client, as postgres, with certificates of the test's own.
CLIENT = """
import os, pwd, shutil, subprocess, tempfile
folder = tempfile.mkdtemp(prefix="doors-")
user = pwd.getpwnam("postgres")
try:
    options = []
    for option, content in arguments["files"].items():
        path = os.path.join(folder, option)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, content.encode())
        os.close(descriptor)
        os.chown(path, user.pw_uid, user.pw_gid)
        options.append(f"--repo1-host-{option}={path}")
    os.chown(folder, user.pw_uid, user.pw_gid)
    done = subprocess.run(
        ["runuser", "-u", "postgres", "--", "pgbackrest", f"--stanza={arguments['stanza']}", *options,
         "--io-timeout=5", "--log-level-file=off", "--log-level-console=off", "--log-level-stderr=info",
         *arguments["command"]],
        capture_output=True, text=True, timeout=30,
    )
finally:
    shutil.rmtree(folder)
print(json.dumps({"code": done.returncode, "said": (done.stderr or done.stdout)[-1500:]}))
"""


def client(live: Live, files: dict[str, str], *command: str) -> dict[str, Any]:
    """pgBackRest on a database host, asking the repository host."""
    found: dict[str, Any] = live.python(
        live.names("database")[0],
        CLIENT,
        arguments={"stanza": live.topology["cluster_name"], "files": files, "command": list(command)},
    )
    return found


def parts(identity: Any) -> dict[str, str]:
    certificate, begin, key = identity.pem.partition("-----BEGIN PRIVATE KEY-----")
    assert begin, "no PKCS 8 key"
    return {"cert-file": certificate, "key-file": begin + key}


def test_server_obeys_a_database_host(live: Live) -> None:
    """What is refused below works for who may: it is no broken way."""
    seen = client(live, {}, "repo-ls", "backup")
    assert seen["code"] == 0, seen["said"]


def test_server_refuses_a_foreign_certificate(live: Live, foreign: Any) -> None:
    seen = client(live, parts(foreign), "repo-ls", "backup")
    assert seen["code"] != 0 and "unknown ca" in seen["said"], seen


def test_server_refuses_a_colleague(live: Live, colleague: Any) -> None:
    seen = client(live, parts(colleague), "repo-ls", "backup")
    assert seen["code"] != 0 and "access denied" in seen["said"], seen


def test_client_refuses_a_foreign_server(live: Live, foreign: Any) -> None:
    seen = client(live, {"ca-file": foreign.authority}, "repo-ls", "backup")
    assert seen["code"] != 0 and "unable to verify certificate" in seen["said"], seen


def test_repository_is_encrypted(live: Live) -> None:
    """OpenSSL's salted format starts so; in a bundle the files, and in a `.pgbi` the blocks, follow each other without that head."""
    backup = live.names("backup")[0]
    [stanza] = json.loads(live.run(backup, "runuser -u postgres -- pgbackrest info --output=json"))
    assert stanza["cipher"] == "aes-256-cbc"
    heads = live.python(
        backup,
        """
from pathlib import Path
print(json.dumps({str(path): path.open("rb").read(8).hex()
    for path in Path("/var/lib/pgbackrest").rglob("*") if path.is_file() and path.stat().st_size}))
""",
    )
    salted = [path for path, head in heads.items() if bytes.fromhex(head) == b"Salted__"]
    assert any("/archive/" in path for path in salted) and any("manifest" in path for path in salted), salted
    others = {path: head for path, head in heads.items() if path not in salted}
    assert all("/bundle/" in path or path.endswith(".pgbi") for path in others), others
    # gzip, LZ4, Zstandard, bzip2: what an unencrypted one would start with.
    packed = [path for path, head in others.items() if head.startswith(("1f8b", "04224d18", "28b52ffd", "425a68"))]
    assert not packed, packed


def test_repository_is_closed_to_others(live: Live) -> None:
    assert live.run(live.names("backup")[0], "find /var/lib/pgbackrest ! -type l -perm /o+rwx").split() == []


@pytest.mark.parametrize(
    ("unit", "bound"),
    [
        ("standfast-backup@full", 1.3),
        ("standfast-backup-verify", 1.3),
        ("standfast-backup-check", 1.3),
        ("standfast-backup-failed@full", 1.3),
        # It runs a server on data that anybody may have made.
        ("standfast-restore-drill", 1.4),
    ],
)
def test_unit_that_ends_is_little_exposed(live: Live, unit: str, bound: float) -> None:
    """As they are no daemons, the table of test_hosts.py has not got them."""
    shown = live.run(live.names("backup")[0], f"systemd-analyze security --no-pager {unit}.service")
    [exposure] = [float(line.split()[-3]) for line in shown.splitlines() if "Overall exposure level" in line]
    assert exposure <= bound
