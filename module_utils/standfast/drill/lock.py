"""One drill at a time, whichever machine it is begun on."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .hosts import HostError, Hosts
from .refusal import RefusedError

UNIT = "standfast-drill-lock.service"
# No drill of the catalogue takes longer, and none keeps others away for longer.
LONGEST_S = 1200


@dataclass(frozen=True)
class Lock:
    """A unit on the client, which only one drill can start, and which ends by itself."""

    hosts: Hosts
    client: str
    say: Callable[[str], None]

    @contextmanager
    def held(self, fault: str) -> Iterator[None]:
        """Hold it meanwhile; RefusedError says who holds it."""
        who = f"{fault}, begun by {getpass.getuser()} on {platform.node()}"
        try:
            self.hosts.run(
                self.client,
                ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--description={who}",
                 f"--property=RuntimeMaxSec={LONGEST_S}", "sleep", "infinity"],
            )  # fmt: skip
        except HostError:
            self.refuse()
            raise
        try:
            yield
        finally:
            try:
                self.hosts.end(self.client, UNIT)
            except HostError as error:
                # What the drill found, and what it could not heal, is worth more than the lock, which ends by itself.
                self.say(f"  the lock stays for {LONGEST_S // 60} minutes at most: {error}")

    def refuse(self) -> None:
        """RefusedError if another drill holds it."""
        asked = ["systemctl", "show", "--property=ActiveState,Description,ActiveEnterTimestamp", UNIT]
        seen = dict(line.split("=", 1) for line in self.hosts.run(self.client, asked).splitlines())
        if seen["ActiveState"] == "active":
            raise RefusedError(
                f"another drill: seen {seen['Description']} ({seen['ActiveEnterTimestamp']}); expected none; "
                f"mend: wait for its end, or if it is dead: systemctl stop {UNIT} on {self.client}"
            )
