"""Questions and orders to Patroni's REST API, over verified TLS with a client certificate."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .patroni import Answer, Cluster, likely_cause, read_cluster, report, telling_lines

LOG_LINES = 25
POLL_SECONDS = 0.5

# Options that the modules share; plugins/doc_fragments/patroni.py documents them.
MEMBERS: dict[str, dict[str, Any]] = {
    "members": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {"name": {"type": "str", "required": True}, "address": {"type": "str", "required": True}},
    },
    "port": {"type": "int", "default": 8008},
    "ca_file": {"type": "path", "default": "/etc/standfast/pki/ca.crt"},
    "certificate_file": {"type": "path", "default": "/etc/standfast/pki/host.crt"},
    "key_file": {"type": "path", "default": "/etc/standfast/pki/host.key"},
}
CREDENTIALS: dict[str, dict[str, Any]] = {
    "username": {"type": "str", "default": "patroni"},
    "password": {"type": "str", "required": True, "no_log": True},
}

Run = Callable[[Sequence[str]], tuple[int, str, str]]


class PatroniError(Exception):
    """Patroni said no, or nothing, with all that helps to see why."""


class UnreachedError(OSError):
    """There was no connection: what was asked has not been sent."""


@dataclass(frozen=True)
class Access:
    """How to reach the members: addresses by name, and what proves who asks. Times in seconds."""

    members: Mapping[str, str]
    port: int
    ca_file: str
    certificate_file: str
    key_file: str
    username: str = ""
    password: str = ""
    timeout: float = 3.0

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Access:
        """From a module's parameters."""
        return cls(
            members={member["name"]: member["address"] for member in params["members"]},
            port=params["port"],
            ca_file=params["ca_file"],
            certificate_file=params["certificate_file"],
            key_file=params["key_file"],
            username=params.get("username") or "",
            password=params.get("password") or "",
        )


class Api:
    """Patroni's REST API on all members."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def request(
        self, member: str, method: str, path: str, body: object = None, timeout: float | None = None
    ) -> tuple[int, str]:
        """Status code and text of one request. Raises OSError when the member does not answer."""
        access = self.access
        context = ssl.create_default_context(cafile=access.ca_file)
        context.load_cert_chain(access.certificate_file, access.key_file)
        headers = {"Content-Type": "application/json"}
        if method != "GET":
            credentials = f"{access.username}:{access.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(credentials).decode()
        connection = http.client.HTTPSConnection(
            access.members[member], access.port, timeout=timeout or access.timeout, context=context
        )
        try:
            try:
                connection.connect()
            except OSError as error:
                raise UnreachedError(str(error)) from error
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP answer: {error!r}") from error
        finally:
            connection.close()

    def ask(self, member: str) -> Answer:
        """One member's own state and its view of the cluster."""
        try:
            status = _json_object(self.request(member, "GET", "/patroni"))
        except (OSError, ValueError) as error:
            return Answer(member, error=str(error))
        try:
            code, text = self.request(member, "GET", "/cluster")
            if code != http.client.OK:
                return Answer(member, status, error=f"GET /cluster: {code} {text.strip()}")
            return Answer(member, status, _json_object((code, text)))
        except (OSError, ValueError) as error:
            return Answer(member, status, error=f"GET /cluster: {error}")

    def cluster(self) -> Cluster:
        """What all members say, asked at the same time."""
        return read_cluster(self._everywhere(self.ask))

    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """GET /patroni of the members that answer. Unlike /cluster, it makes no member ask the DCS."""

        def status(member: str) -> tuple[str, Mapping[str, Any] | None]:
            try:
                return member, _json_object(self.request(member, "GET", "/patroni"))
            except (OSError, ValueError):
                return member, None

        return {member: found for member, found in self._everywhere(status) if found is not None}

    def config(self) -> Mapping[str, Any] | None:
        """The dynamic configuration from the first member that has it; None when nobody answers."""
        for member in self.access.members:
            try:
                code, text = self.request(member, "GET", "/config")
                if code == http.client.OK:
                    return _json_object((code, text))
            except (OSError, ValueError):
                continue
        return None

    def order(self, members: Iterable[str], method: str, path: str, body: object, timeout: float) -> str:
        """Send an order to the first of `members` that can be reached; its text when it obeys.

        Only an order that no member can have taken goes to the next one.
        """
        refused = []
        for member in members:
            try:
                code, text = self.request(member, method, path, body, timeout)
            except UnreachedError as error:
                refused.append(f"{member}: {error}")
                continue
            except OSError as error:
                raise PatroniError(
                    f"{member} did not answer to {method} {path} within {timeout:g} s: {error}"
                ) from error
            if code in (http.client.OK, http.client.ACCEPTED):
                return text
            raise PatroniError(f"{member} refuses {method} {path}: {code} {text.strip()}")
        raise PatroniError(f"no member takes {method} {path}: {'; '.join(refused)}")

    def _everywhere(self, question: Callable[[str], Any]) -> list[Any]:
        with ThreadPoolExecutor(max_workers=max(len(self.access.members), 1)) as pool:
            return list(pool.map(question, self.access.members))


def _json_object(answer: tuple[int, str]) -> Mapping[str, Any]:
    value = json.loads(answer[1])
    if not isinstance(value, dict):  # it is the answer that is wrong, not a type of ours
        raise ValueError(f"not an object: {answer[0]} {answer[1][:100]!r}")  # noqa: TRY004
    return value


def wait_for(
    observe: Callable[[], Cluster],
    problem: Callable[[Cluster], str | None],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[Cluster, str | None]:
    """Observe until there is no problem or `seconds` are over: the last view, and what is still wrong with it."""
    deadline = clock() + seconds
    while True:
        cluster = observe()
        wrong = problem(cluster)
        if wrong is None or clock() >= deadline:
            return cluster, wrong
        pause(min(POLL_SECONDS, max(deadline - clock(), 0)))


def wait_until_noticed(
    api: Api,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Wait until every member has gone through two of its rounds, so that it acts on what was written before.

    A member that reads the DCS moves `dcs_last_seen` on. Returns the members that did not.
    """
    rounds = {member: (int(status.get("dcs_last_seen") or 0), 0) for member, status in api.statuses().items()}
    deadline = clock() + seconds
    while late := sorted(member for member, (_, count) in rounds.items() if count < 2):
        if clock() >= deadline:
            return late
        pause(POLL_SECONDS)
        for member, status in api.statuses().items():
            seen = int(status.get("dcs_last_seen") or 0)
            last, count = rounds.get(member, (seen, 2))
            if seen > last:
                rounds[member] = (seen, count + 1)
    return []


def explain(problem: str, cluster: Cluster, run: Run) -> str:
    """The failure with the cluster's state, the likely cause and the end of this host's log."""
    command = ["journalctl", "--unit", "patroni", "--lines", "2000", "--output", "cat", "--no-pager"]
    _, log, _ = run(command)
    parts = [problem, report(cluster)]
    if cause := likely_cause(log):
        parts.append(f"likely cause: {cause}")
    parts += ["the end of Patroni's log on this host:", *(telling_lines(log, LOG_LINES) or ["(empty)"])]
    return "\n".join(parts)
