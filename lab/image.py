"""The hosts' image: a plain Debian server, with the stack's packages downloaded."""

import fcntl
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.process import REPOSITORY, LabError, podman, privileged, run, step

FOLDER = REPOSITORY / ".lab"
SUITE = "trixie"
REPOSITORY_NAME = "localhost/standfast-host"
BASE = REPOSITORY / "lab" / "image" / "base.txt"
CUSTOMIZE = REPOSITORY / "lab" / "image" / "customize"
ROOT = REPOSITORY / "lab" / "image" / "root"
PACKAGES = REPOSITORY / "lab" / "packages.txt"
# Seconds; a slow mirror takes most of them.
BUILD_DEADLINE = 1800


def parse_packages(text: str) -> tuple[str, ...]:
    """Package names, sorted, of a list with one a line and comments."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(sorted({line for line in lines if line}))


@dataclass(frozen=True)
class Definition:
    """All that decides what is in the image. `files`: path in the image -> content."""

    suite: str
    base: tuple[str, ...]
    packages: tuple[str, ...]
    customize: str
    files: Mapping[str, str]

    @property
    def tag(self) -> str:
        """The image's name, different for every definition."""
        parts = [self.suite, self.base, self.packages, self.customize, dict(sorted(self.files.items()))]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"{REPOSITORY_NAME}:{digest[:16]}"


def definition() -> Definition:
    """The image as the files beside this one define it."""
    return Definition(
        suite=SUITE,
        base=parse_packages(BASE.read_text()),
        packages=parse_packages(PACKAGES.read_text()),
        customize=CUSTOMIZE.read_text(),
        files={str(path.relative_to(ROOT)): path.read_text() for path in ROOT.rglob("*") if path.is_file()},
    )


def images() -> dict[str, float]:
    """The lab's images in podman's store: name and seconds since 1970 when each was made."""
    listed = json.loads(podman("images", "--format", "json", REPOSITORY_NAME))
    return {name: float(image["Created"]) for image in listed for name in image.get("Names") or []}


def ensure(max_age_days: float | None = None) -> str:
    """Return the image's name; build it if it is not there, or older than `max_age_days`."""
    wanted = definition()
    FOLDER.mkdir(exist_ok=True)
    # Two labs that start at once share one build.
    with (FOLDER / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = images().get(wanted.tag)
        if made is None or (max_age_days is not None and time.time() - made > max_age_days * 86400):
            if made is not None and wanted.tag not in used():
                podman("rmi", wanted.tag)
            with step(f"build the hosts' image from Debian {wanted.suite}, once"):
                build(wanted)
            remove_unused(keep=wanted.tag)
    return wanted.tag


def build(wanted: Definition) -> None:
    """Make the image from Debian's packages and import it into podman."""
    archive = FOLDER / "image.tar"
    command: list[str | Path] = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        # Package lists and downloaded packages are what the image is for.
        "--skip=cleanup/apt",
        f"--include={','.join(wanted.base)}",
        f'--customize-hook={CUSTOMIZE} "$1" {" ".join(wanted.packages)}',
        wanted.suite,
        archive,
    ]
    try:
        run([*privileged(), *command], deadline=BUILD_DEADLINE, log=FOLDER / "image.log")
        podman("import", "--quiet", archive, wanted.tag, deadline=BUILD_DEADLINE)
    except LabError as error:
        raise LabError(
            f"the hosts' image was not built. It needs a Debian mirror and 2 GB of disk.\n{error}"
        ) from error
    finally:
        run([*privileged(), "rm", "-f", archive])


def used() -> set[str]:
    """Images of containers that exist, in any lab."""
    return {item["Image"] for item in json.loads(podman("ps", "--all", "--format=json"))}


def remove_unused(*, keep: str) -> None:
    """Remove older images that no host has."""
    for name in set(images()) - used() - {keep}:
        podman("rmi", name)


def remove_all() -> None:
    """Remove all images; LabError while a host has one."""
    if still := used() & set(images()):
        raise LabError(f"hosts still use {', '.join(sorted(still))}: take their labs down first")
    for name in images():
        podman("rmi", name)
    podman("--purge")
