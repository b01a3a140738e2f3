"""Damage a repository in many places, and see who finds it: `standfast-backup-verify`, and a restore.

    .venv/bin/python -m tests.benchmarks.corruptions --inventory inventories/lab --rounds 20 --seed 1

The lab needs a second repository, which stays sound. Each round damages one file of the first (a bit flipped, the second
half cut off, the file deleted), verifies, restores what is damaged from either repository into a scratch folder, and puts
the file back, whatever happens. Places and kinds go around in an order that the seed shuffles. Prints the table of
docs/benchmarks.md; a damage that nobody found, or that came back out of a restore, makes the exit code 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live import Live

FIRST, SECOND = 1, 2
KINDS = ("bit flipped", "cut in half", "deleted")
# Where it is damaged, and the files that lie there, below the repository.
PLACES = {
    "bundle of a backup": "backup/{stanza}/{label}/bundle/*",
    "file of a backup": "backup/{stanza}/{label}/pg_data/**/*",
    "manifest": "backup/{stanza}/{label}/backup.manifest",
    "copy of the manifest": "backup/{stanza}/{label}/backup.manifest.copy",
    "backup.info": "backup/{stanza}/backup.info",
    "copy of backup.info": "backup/{stanza}/backup.info.copy",
    "archive.info": "archive/{stanza}/archive.info",
    "copy of archive.info": "archive/{stanza}/archive.info.copy",
    "WAL segment": "archive/{stanza}/*/????????????????/????????????????????????-*",
    "history of a timeline": "archive/{stanza}/*/????????.history",
}
# The files of a backup or the WAL: a restore that needs one must refuse, or the damage would go into a database.
NEEDED = ("bundle of a backup", "file of a backup")
SCRATCH = "/var/lib/pgbackrest-corruptions"

# On the repository host, as root. The safe copy lies beside the repository until the round is over.
LIST = """
from pathlib import Path
root = Path(path)
print(json.dumps({place: sorted(str(found) for found in root.glob(pattern) if found.is_file() and found.stat().st_size)
                  for place, pattern in patterns.items()}))
"""
DAMAGE = """
import os, shutil
from pathlib import Path
Path(scratch).mkdir(mode=0o700, exist_ok=True)
shutil.copy2(path, f"{scratch}/kept")
owner = os.stat(path)
os.chown(f"{scratch}/kept", owner.st_uid, owner.st_gid)
content = bytearray(Path(path).read_bytes())
if kind == "deleted":
    os.unlink(path)
else:
    if kind == "bit flipped":
        content[int(at * len(content))] ^= 1 << bit
    else:
        del content[len(content) // 2:]
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(content)
print(json.dumps(None))
"""
HEAL = """
import os, shutil
shutil.copy2(f"{scratch}/kept", f"{path}.healed")
owner = os.stat(f"{scratch}/kept")
os.chown(f"{path}.healed", owner.st_uid, owner.st_gid)
os.replace(f"{path}.healed", path)
shutil.rmtree(scratch)
print(json.dumps(None))
"""
RESTORE = """
import pwd, shutil, subprocess
from pathlib import Path
user = pwd.getpwnam("postgres")
folder = Path(scratch, "restored")
shutil.rmtree(folder, ignore_errors=True)
Path(scratch).chmod(0o711)
for part in (folder, folder / "data", folder / "lock"):
    part.mkdir(mode=0o700)
    shutil.chown(part, user.pw_uid, user.pw_gid)
done = subprocess.run(
    ["runuser", "-u", "postgres", "--", "pgbackrest", f"--stanza={stanza}", f"--repo={repository}", f"--set={label}",
     "--reset-pg1-host", f"--pg1-path={folder}/data", f"--lock-path={folder}/lock", "--no-log-timestamp",
     "--log-level-file=off", "--log-level-console=off", "--log-level-stderr=warn", "--type=immediate", "restore"],
    capture_output=True, errors="replace")
shutil.rmtree(folder)
print(json.dumps([done.returncode, done.stderr]))
"""
VERIFY = """
import subprocess
from pathlib import Path
code = subprocess.run(["systemctl", "start", "standfast-backup-verify.service"], capture_output=True).returncode
print(json.dumps([code, json.loads(Path("/var/lib/standfast-backup/verify.json").read_text())]))
"""
LONG_S = 900


@dataclass(frozen=True)
class Round:
    """One damage and what came of it. `restored`: repository -> whether a restore of the set succeeded; empty without."""

    place: str
    kind: str
    path: str
    findings: tuple[str, ...]
    restored: dict[int, bool]
    said: str

    @property
    def passed(self) -> bool:
        """Whether it was found, did not come out of a restore, and the other repository was not hurt."""
        safe = not self.restored or (not self.restored[FIRST] and self.restored[SECOND])
        return bool(self.findings) and safe

    def row(self, number: int) -> str:
        """Its line of the table."""
        outcomes = {True: "restores", False: "refuses"}
        first, second = (outcomes[self.restored[key]] if self.restored else "" for key in (FIRST, SECOND))
        message = (self.findings[0] if self.findings else "nothing").replace("|", "/")
        message = "".join(character if character.isprintable() else "?" for character in message)
        return f"| {number} | {self.place} | {self.kind} | {'yes' if self.findings else 'NO'} | {message[:110]} | {first} | {second} |"


class Damager:
    """The repository of one lab."""

    def __init__(self, live: Live, seed: int) -> None:
        self._live = live
        self._random = random.Random(seed)
        self._host = live.topology["backup"]["name"]
        self._stanza = live.topology["cluster_name"]

    def _python(self, source: str, **parameters: Any) -> Any:
        return self._live.python(self._host, source, deadline=LONG_S, scratch=SCRATCH, **parameters)

    def rounds(self, count: int) -> Iterator[Round]:
        """Damage, look, heal."""
        (info,) = json.loads(self._live.run(self._host, "runuser -u postgres -- pgbackrest info --output=json"))
        labels = {
            repository: [one["label"] for one in info["backup"] if one["database"]["repo-key"] == repository]
            for repository in (FIRST, SECOND)
        }
        label = labels[FIRST][-1]
        files = self._python(
            LIST,
            path=self._live.inventory.settings[self._host].get("pgbackrest_repository_path", "/var/lib/pgbackrest"),
            patterns={place: pattern.format(stanza=self._stanza, label=label) for place, pattern in PLACES.items()},
        )
        # What is missing at the end only the primary knows; what lies before the oldest backup nobody needs.
        oldest = next(one for one in info["backup"] if one["label"] == labels[FIRST][0])["archive"]["start"]
        files["WAL segment"] = [path for path in files["WAL segment"] if Path(path).name[:24] >= oldest][:-2]
        files["history of a timeline"] = [
            path for path in files["history of a timeline"] if Path(path).name[:8] > oldest[:8]
        ]
        cases = [(place, kind) for place, kind in itertools.product(PLACES, KINDS) if files[place]]
        self._random.shuffle(cases)
        for place, kind in itertools.islice(itertools.cycle(cases), count):
            path = self._random.choice(files[place])
            yield self._round(place, kind, path, label, labels[SECOND][-1])

    def _round(self, place: str, kind: str, path: str, label: str, other: str) -> Round:
        at, bit = self._random.random(), self._random.randrange(8)
        self._python(DAMAGE, path=path, kind=kind, at=at, bit=bit)
        try:
            code, record = self._python(VERIFY)
            findings = [
                finding
                for one in record["repositories"]
                for finding in one["findings"]
                if one["repository"] in (0, FIRST)
            ]
            assert bool(code) == (record["outcome"] == "fail"), record
            hurt = [one for one in record["repositories"] if one["repository"] == SECOND and one["findings"]]
            assert not hurt, hurt
            restored, said = {}, ""
            if place in NEEDED:
                for repository, chosen in ((FIRST, label), (SECOND, other)):
                    failed, text = self._python(RESTORE, stanza=self._stanza, repository=repository, label=chosen)
                    restored[repository] = not failed
                    said = said or text
        finally:
            self._python(HEAL, path=path)
        return Round(place, kind, path, tuple(findings), restored, said)

    def sound(self) -> bool:
        """Whether a verification finds nothing."""
        code, record = self._python(VERIFY)
        print(json.dumps(record), file=sys.stderr)
        return not code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", type=Path, default=Path("inventories/lab"))
    parser.add_argument("--rounds", type=int, default=20, help="damages (default: 20)")
    parser.add_argument("--seed", type=int, default=None, help="of places, kinds and bits (default: a new one)")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    damager = Damager(Live(options.inventory), seed)
    assert damager.sound(), "void: the repositories are not sound before anything was damaged"
    print("| n | place | damage | found by verify | what it says first | restore of it | second repository |")
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for number, one in enumerate(damager.rounds(options.rounds), 1):
        print(one.row(number), flush=True)
        print(f"{number}: {one.path}\n  {one.findings}\n  {one.said.strip()}", file=sys.stderr)
        failed += not one.passed
    assert damager.sound(), "the repositories are not sound after everything was healed"
    print(f"{options.rounds - failed} of {options.rounds} found and kept out of a restore")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
