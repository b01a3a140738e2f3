"""An HTTP client: a new TLS connection and one GET each period, whether or not the last was answered.

    python3 web.py PARAMETERS.json

`PARAMETERS.json` has: host, port, tls, path, status (of a good answer), ca_file, period_s, timeout_s (seconds). It goes on
until SIGTERM.
Requests do not wait for one another, so an outage is measured to one period however long a request hangs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# So many requests may hang at once; above, the host itself would become the fault.
MOST_AT_ONCE = 2000


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": round(at, 6), **values}) + "\n").encode())


async def ask(parameters: Mapping[str, Any], context: ssl.SSLContext | None) -> tuple[int, str]:
    """Status and body of one GET on a connection of its own."""
    host = str(parameters["host"])
    reader, writer = await asyncio.open_connection(host, int(parameters["port"]), ssl=context)
    try:
        name = f"[{host}]" if ":" in host else host
        writer.write(f"GET {parameters['path']} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        answer = (await reader.read()).decode(errors="replace")
    finally:
        writer.transport.abort()
    head, _, body = answer.partition("\r\n\r\n")
    words = head.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError("the connection ended without an answer")
    return int(words[1]), body


async def attempt(parameters: Mapping[str, Any], context: ssl.SSLContext | None) -> tuple[str, int, str]:
    """Outcome, status and reason of one GET; the status is 0 without an answer, which the reason explains."""
    status, reason = 0, ""
    try:
        async with asyncio.timeout(float(parameters["timeout_s"])):
            status, _ = await ask(parameters, context)
    except TimeoutError:
        reason = "no answer in time"
    except (OSError, asyncio.IncompleteReadError) as error:
        reason = f"{type(error).__name__}: {error}"
    return "ok" if status == parameters["status"] else "fail", status, reason


async def request(parameters: Mapping[str, Any], context: ssl.SSLContext | None) -> None:
    """One GET, and its line."""
    at = time.monotonic()
    outcome, status, reason = await attempt(parameters, context)
    emit("request", at, end=round(time.monotonic(), 6), outcome=outcome, status=status, reason=reason)


def trust(parameters: Mapping[str, Any]) -> ssl.SSLContext | None:
    """What a server's certificate is verified by; None without TLS."""
    return ssl.create_default_context(cafile=parameters["ca_file"]) if parameters["tls"] else None


async def ask_for_ever(parameters: Mapping[str, Any]) -> None:
    """One request a period until SIGTERM, then the answers to those under way."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    context = trust(parameters)
    under_way: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while not ended.is_set():
        if len(under_way) < MOST_AT_ONCE:
            task = asyncio.create_task(request(parameters, context))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        due = max(due + float(parameters["period_s"]), time.monotonic())
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*under_way)


def main() -> None:
    """Do what the parameters say."""
    asyncio.run(ask_for_ever(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    emit("end", time.monotonic(), program="web")


if __name__ == "__main__":
    main()
