"""etcd: nobody without a certificate of the cluster's authority, and no peer without a peer's name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live import Live

RANGE = b'POST /v3/kv/range HTTP/1.0\r\nContent-Length: 27\r\n\r\n{"key":"AA==","limit":"10"}'.hex()
MEMBERS = b"GET /members HTTP/1.0\r\n\r\n".hex()


def attempts(live: Live, port: str, **how: Any) -> list[dict[str, Any]]:
    first = {"client_port": RANGE, "peer_port": MEMBERS}[port]
    return [
        {"address": member["address"], "port": live.topology["etcd"][port], "tls": True, "request": first} | how
        for member in live.topology["etcd"]["members"]
    ]


@pytest.mark.parametrize("port", ["client_port", "peer_port"])
@pytest.mark.parametrize("who", ["nobody", "foreign"])
def test_stranger_is_refused(live: Live, ask: Any, foreign: Any, port: str, who: str) -> None:
    planned = attempts(live, port, **({"identity": foreign.pem} if who == "foreign" else {}))
    for attempt, seen in zip(planned, ask(live.names("database")[0], "connect", attempts=planned), strict=True):
        assert seen["outcome"] in ("rejected", "closed"), (attempt["address"], attempt["port"], seen)


def test_colleague_is_no_peer(live: Live, ask: Any, colleague: Any) -> None:
    planned = attempts(live, "peer_port", identity=colleague.pem)
    for attempt, seen in zip(planned, ask(live.names("database")[0], "connect", attempts=planned), strict=True):
        assert seen["outcome"] in ("rejected", "closed"), (attempt["address"], attempt["port"], seen)


@pytest.mark.parametrize("port", ["client_port", "peer_port"])
def test_member_is_answered(live: Live, ask: Any, port: str) -> None:
    """The way that is refused above is open for a member: it is no broken way."""
    for seen in ask(live.names("database")[0], "connect", attempts=attempts(live, port, own_identity=True)):
        assert seen["outcome"] == "spoken" and " 200 " in seen["said"].splitlines()[0], seen
