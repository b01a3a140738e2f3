"""Which of some addresses this host carries, as its kernel says, many times a second.

    python3 addresses.py PARAMETERS.json

`PARAMETERS.json` has: addresses, period_s (seconds). It goes on until SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

LOCAL_4 = Path("/proc/net/fib_trie")
LOCAL_6 = Path("/proc/net/if_inet6")


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": round(at, 6), **values}) + "\n").encode())


def local_4(trie: str) -> set[str]:
    """The addresses that the routing trie marks as this host's own."""
    found, last = set(), ""
    for line in trie.splitlines():
        words = line.split()
        if words and words[0] == "|--":
            last = words[1]
        elif line.rstrip().endswith("/32 host LOCAL"):
            found.add(last)
    return found


def local_6(table: str) -> set[str]:
    """The addresses of the kernel's table, which writes them without colons."""
    return {str(ip_address(int(line.split()[0], 16).to_bytes(16, "big"))) for line in table.splitlines() if line}


def main() -> None:
    """Do what the parameters say."""
    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    wanted = {str(ip_address(address)) for address in parameters["addresses"]}
    while not ended:
        at = time.monotonic()
        held = local_4(LOCAL_4.read_text()) | (local_6(LOCAL_6.read_text()) if LOCAL_6.exists() else set())
        emit("addresses", at, held=sorted(wanted & held))
        time.sleep(float(parameters["period_s"]))
    emit("end", time.monotonic(), program="addresses")


if __name__ == "__main__":
    main()
