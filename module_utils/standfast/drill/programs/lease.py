"""Who has the leader's key in etcd, told by one etcd member at the moment when it changes.

    python3 lease.py PARAMETERS.json

`PARAMETERS.json` has: address and port (of the member), key, ca_file, certificate, key_file. It goes on until
SIGTERM; while the member does not answer it says so, and asks again. The key is watched from the revision on
at which it was read, so that no change is missed between the two.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Nothing tells that a dead member is back: it is asked again after so long.
AGAIN_S = 0.2
ANSWER_WITHIN_S = 2.0


class Ended(BaseException):
    """Told to end, while it waits for the next change."""


def emit(event: str, **values: Any) -> None:
    """One line of the history."""
    at = round(time.monotonic(), 6)
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": at, **values}) + "\n").encode())


def encoded(text: str) -> str:
    """A key as etcd's JSON gateway wants it."""
    return base64.b64encode(text.encode()).decode()


def holder(pair: Mapping[str, str] | None) -> str:
    """The name that a key has as its value; empty if it is gone."""
    return base64.b64decode((pair or {}).get("value", "")).decode()


def changes(answer: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The holder and the revision of each change in one message of a watch."""
    for event in answer.get("result", {}).get("events", ()):
        pair = event["kv"]
        yield ("" if event.get("type") == "DELETE" else holder(pair)), int(pair["mod_revision"])


def post(parameters: Mapping[str, Any], path: str, body: Mapping[str, Any], timeout: float | None) -> Any:
    """The response of one request on a connection of its own."""
    context = ssl.create_default_context(cafile=parameters["ca_file"])
    context.load_cert_chain(parameters["certificate"], parameters["key_file"])
    connection = http.client.HTTPSConnection(
        parameters["address"], parameters["port"], timeout=ANSWER_WITHIN_S, context=context
    )
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise OSError(f"{path}: {response.status} {response.read().decode(errors='replace')}")
    if connection.sock is not None:
        connection.sock.settimeout(timeout)
    return response


def follow(parameters: Mapping[str, Any]) -> None:
    """Say who holds the key, and then each change, until the member is gone."""
    key = encoded(parameters["key"])
    # Without a quorum a member still tells what it knows.
    found = json.load(post(parameters, "/v3/kv/range", {"key": key, "serializable": True}, ANSWER_WITHIN_S))
    pairs, revision = found.get("kvs", []), int(found["header"]["revision"])
    emit("lease", holder=holder(pairs[0] if pairs else None), revision=revision)
    wanted = {"create_request": {"key": key, "start_revision": revision + 1}}
    for line in post(parameters, "/v3/watch", wanted, None):
        for name, at_revision in changes(json.loads(line)):
            emit("lease", holder=name, revision=at_revision)


def end(*_: object) -> None:
    """The handler of SIGTERM."""
    raise Ended


def main() -> None:
    """Do what the parameters say."""
    signal.signal(signal.SIGTERM, end)
    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        while True:
            try:
                follow(parameters)
            except (OSError, http.client.HTTPException, ValueError) as error:
                emit("lease", error=" ".join(str(error).split()))
            time.sleep(AGAIN_S)
    except Ended:
        emit("end", program="lease")


if __name__ == "__main__":
    main()
