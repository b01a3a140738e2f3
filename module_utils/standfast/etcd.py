"""etcd: what its members say, what a member needs next, and the steps that bring it there.

Answers are read from etcd's JSON gateway (`POST /v3/...`, 64-bit numbers as strings) and from
`etcdctl --write-out json` (numbers as they are). Ids are unsigned 64-bit integers everywhere
here, and hexadecimal, as etcd writes them itself, in messages.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

# etcdctl writes the enumeration of etcd's rpc.proto as numbers.
ALARMS = {1: "NOSPACE", 2: "CORRUPT"}

Seen = TypeVar("Seen")

REQUEST_TIMEOUT_S = 3.0
POLL_INTERVAL_S = 0.2

# The settings that only a first start reads; see `Local.start_first`.
FIRST_START_SETTINGS = frozenset({"ETCD_INITIAL_CLUSTER", "ETCD_INITIAL_CLUSTER_STATE", "ETCD_INITIAL_CLUSTER_TOKEN"})


class EtcdError(Exception):
    """The member cannot be brought where it belongs; the text says why, and what mends it."""


class UnansweredError(Exception):
    """A member did not answer, or answered with an error; the text is the reason."""


# What etcd says


@dataclass(frozen=True)
class Member:
    """One entry of the cluster's membership. `name` is empty until the member has started once."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool

    @property
    def started(self) -> bool:
        """Whether it has ever run; etcd learns its name then."""
        return bool(self.name)


@dataclass(frozen=True)
class Status:
    """A member's view of itself and its leader (0 if it knows none). Sizes are bytes."""

    member_id: int
    cluster_id: int
    leader_id: int
    version: str
    raft_term: int
    raft_index: int
    raft_applied_index: int
    db_size: int
    db_size_in_use: int
    learner: bool
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Alarm:
    """`kind` is NOSPACE or CORRUPT."""

    member_id: int
    kind: str


def parse_members(answer: Mapping[str, Any]) -> tuple[Member, ...]:
    """`member list`, or any other answer that carries `members`."""
    return tuple(
        Member(
            id=int(entry["ID"]),
            name=str(entry.get("name", "")),
            peer_urls=tuple(entry.get("peerURLs") or ()),
            client_urls=tuple(entry.get("clientURLs") or ()),
            learner=bool(entry.get("isLearner", False)),
        )
        for entry in answer.get("members") or ()
    )


def parse_status(answer: Mapping[str, Any]) -> Status:
    """`/v3/maintenance/status`, or the `Status` of one entry of `etcdctl endpoint status`."""
    header = answer["header"]
    return Status(
        member_id=int(header["member_id"]),
        cluster_id=int(header["cluster_id"]),
        leader_id=int(answer.get("leader", 0)),
        version=str(answer.get("version", "")),
        raft_term=int(answer.get("raftTerm", 0)),
        raft_index=int(answer.get("raftIndex", 0)),
        raft_applied_index=int(answer.get("raftAppliedIndex", 0)),
        db_size=int(answer.get("dbSize", 0)),
        db_size_in_use=int(answer.get("dbSizeInUse", 0)),
        learner=bool(answer.get("isLearner", False)),
        errors=tuple(answer.get("errors") or ()),
    )


def parse_endpoint_status(answers: Iterable[Mapping[str, Any]]) -> dict[str, Status]:
    """`etcdctl endpoint status --cluster -w json`: status by endpoint, those that answered."""
    return {str(answer["Endpoint"]): parse_status(answer["Status"]) for answer in answers}


def parse_alarms(answer: Mapping[str, Any]) -> tuple[Alarm, ...]:
    """`alarm list`."""
    return tuple(
        Alarm(member_id=int(entry["memberID"]), kind=ALARMS.get(entry["alarm"], str(entry["alarm"])))
        for entry in answer.get("alarms") or ()
    )


# What is configured, and what all members say together


@dataclass(frozen=True)
class Configured:
    """A member as the inventory wants it."""

    name: str
    client_url: str
    peer_url: str


@dataclass(frozen=True)
class Answer:
    """What one configured member said. `healthy`: it has read through its leader, or follows as a learner."""

    name: str
    status: Status | None = None
    healthy: bool = False
    reason: str = ""


@dataclass(frozen=True)
class View:
    """The cluster as all configured members see it together; `members` is empty if none has a quorum."""

    answers: tuple[Answer, ...]
    members: tuple[Member, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    def of(self, name: str) -> Answer:
        """The answer of the member of that name."""
        return next(answer for answer in self.answers if answer.name == name)

    @property
    def cluster_ids(self) -> dict[int, list[str]]:
        """The names of the members that answered, by the id of their cluster."""
        found: dict[int, list[str]] = {}
        for answer in self.answers:
            if answer.status:
                found.setdefault(answer.status.cluster_id, []).append(answer.name)
        return found

    @property
    def has_quorum(self) -> bool:
        """Whether some member reads through a leader."""
        return bool(self.members)

    @property
    def voters(self) -> tuple[Member, ...]:
        """The members that count for the quorum."""
        return tuple(member for member in self.members if not member.learner)

    def healthy_voters(self, without: int | None = None) -> int:
        """How many voting members are healthy, one of them left out."""
        healthy = {answer.status.member_id for answer in self.answers if answer.healthy and answer.status}
        return sum(member.id in healthy and member.id != without for member in self.voters)

    def mine(self, wanted: Configured) -> Member | None:
        """The entry that stands for a configured member: the one with its peer URL or, failing that, its name."""
        by_url = (member for member in self.members if wanted.peer_url in member.peer_urls)
        by_name = (member for member in self.members if member.name == wanted.name)
        return next(by_url, None) or next(by_name, None)

    def unexpected(self, configured: Iterable[Configured]) -> tuple[Member, ...]:
        """Members of the cluster that are not configured."""
        expected = {member.id for wanted in configured if (member := self.mine(wanted))}
        return tuple(member for member in self.members if member.id not in expected)


def quorum(voters: int) -> int:
    """How many of so many voters have to agree."""
    return voters // 2 + 1


def refuse_two_clusters(view: View) -> None:
    """Members that answer from different clusters are not to be mixed by any automatism."""
    ids = view.cluster_ids
    if len(ids) > 1:
        seen = "; ".join(f"{', '.join(names)} of cluster {identity:x}" for identity, names in sorted(ids.items()))
        raise EtcdError(
            f"etcd_members: seen {seen}; expected one cluster; mend: stop etcd on the members that are wrong, move their "
            "data directory away, and run again"
        )


def refuse_lost_quorum(view: View, member: Member, *, stays: bool, what: str) -> None:
    """Refuse to take a healthy voter away (for a restart, if it `stays`) when the others are no quorum."""
    if member.learner:
        return
    voters = len(view.voters) if stays else len(view.voters) - 1
    left = view.healthy_voters(without=member.id)
    if left < quorum(voters):
        down = [
            f"{answer.name} ({answer.reason})"
            for answer in view.answers
            if not answer.healthy and answer.name != member.name
        ]
        raise EtcdError(
            f"{what} {member.name or format(member.id, 'x')} would leave {left} healthy of {voters} voting members, and "
            f"{quorum(voters)} are needed; not healthy: {', '.join(down) or 'members that are not in etcd_members'}; "
            "mend: bring them back first, then run again"
        )


def initial_cluster(members: Iterable[Member], configured: Iterable[Configured]) -> str:
    """`--initial-cluster` for a join: exactly the members the cluster has, by name and peer URL.

    etcd compares the URLs; one that has never started has no name yet and gets its configured one.
    """
    names = {wanted.peer_url: wanted.name for wanted in configured}
    return ",".join(
        f"{member.name or names.get(url, format(member.id, 'x'))}={url}"
        for member in members
        for url in member.peer_urls
    )


# What a member needs next


@dataclass(frozen=True)
class State:
    """What the member's own host shows.

    `has_data`: the member has a log, and with it an identity. `first_start`: `new` or `existing` while the
    first start has not succeeded, else empty. `running`: systemd has a process or is starting
    one. `current`: that process has the settings and the trusted authorities that a new one would get.
    """

    installed: bool
    enabled: bool
    running: bool
    current: bool
    has_data: bool
    first_start: str = ""


# What a plain call leaves to do: `health`: wait for it; `first_start`: no cluster is known, make
# one or join the one that comes up; `join`: join the one that is there; `restart`: apply settings.
NOTHING, HEALTH, FIRST_START, JOIN, RESTART = "none", "health", "first_start", "join", "restart"


def need(state: State, view: View, me: Configured) -> str:
    """What this member needs beyond being started."""
    if not state.installed:
        return NOTHING
    listed = view.mine(me)
    if not state.has_data or state.first_start or (listed is not None and listed.learner):
        never_formed = not view.has_quorum and state.first_start != "existing"
        return FIRST_START if never_formed else JOIN
    if state.running and not state.current:
        return RESTART
    return NOTHING if view.of(me.name).healthy else HEALTH


def warnings(view: View, configured: Sequence[Configured], me: Configured) -> list[str]:
    """What a person should know of a cluster whose quorum this healthy member is part of."""
    if not view.of(me.name).healthy:
        return []
    names = {member.id: member.name for member in view.members}
    found = [
        f"etcd has raised {alarm.kind} for {names.get(alarm.member_id, format(alarm.member_id, 'x'))}"
        + (
            ": writes are refused. Compact and defragment, or raise etcd_quota_backend_bytes; then `etcdctl alarm disarm`"
            if alarm.kind == "NOSPACE"
            else ": its data differs from its peers'. Move its data directory away and run again"
        )
        for alarm in view.alarms
    ]
    down = [f"{answer.name} ({answer.reason})" for answer in view.answers if not answer.healthy]
    if down:
        spare = view.healthy_voters() - quorum(len(view.voters))
        found.append(
            f"{', '.join(down)} is not healthy; {view.healthy_voters()} of {len(view.voters)} voting members are, "
            f"so the cluster can lose {max(spare, 0)} more"
        )
    found.extend(
        f"member {member.name or format(member.id, 'x')} ({', '.join(member.peer_urls)}) is in the cluster, but not in "
        "etcd_members; if it is gone for good remove it with etcd_member, state: absent"
        for member in view.unexpected(configured)
    )
    return found


# Settings, as systemd reads them


def parse_environment(text: str) -> dict[str, str]:
    """The assignments of a file of double-quoted or bare values (systemd.exec(5), EnvironmentFile=)."""
    found = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if not separator or name.startswith(("#", ";")):
            continue
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = re.sub(r'\\(["\\$`])', r"\1", value[1:-1])
        found[name] = value
    return found


TRUSTED_AUTHORITIES = ("ETCD_TRUSTED_CA_FILE", "ETCD_PEER_TRUSTED_CA_FILE")


def daemon_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that decides how etcd runs, once it has data."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("ETCD_", "STANDFAST_")) and name not in FIRST_START_SETTINGS
    }


def _started(pid: int) -> float:
    """When a process began, in seconds since 1970. Raises FileNotFoundError."""
    # proc_pid_stat(5): the name in parentheses may contain anything; field 22 counts ticks since the boot.
    ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")


# Talking to members


@dataclass(frozen=True)
class Client:
    """etcd's JSON gateway over TLS, one connection a request."""

    context: ssl.SSLContext
    timeout_s: float = REQUEST_TIMEOUT_S

    @classmethod
    def with_certificate(cls, ca_file: str, certificate_file: str, key_file: str) -> Client:
        """A client that trusts one authority and shows one certificate."""
        context = ssl.create_default_context(cafile=ca_file)
        context.load_cert_chain(certificate_file, key_file)
        return cls(context)

    def post(self, url: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request; UnansweredError with etcd's own words if it refuses."""
        status, answer = self._request(url, "POST", path, json.dumps(body or {}))
        if status != http.HTTPStatus.OK:
            raise UnansweredError(str(answer.get("message") or answer.get("error") or f"HTTP status {status}"))
        return answer

    def reads_through_leader(self, url: str) -> str:
        """Empty if the member can read through its leader, otherwise why not. Alarms do not count."""
        _, answer = self._request(url, "GET", "/health?exclude=NOSPACE&exclude=CORRUPT", None)
        return "" if answer.get("health") == "true" else str(answer.get("reason") or "not healthy")

    def _request(self, url: str, method: str, path: str, body: str | None) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(url)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=self.timeout_s, context=self.context
        )
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnansweredError(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}


def ask(client: Client, member: Configured) -> Answer:
    """One member's own word."""
    try:
        status = parse_status(client.post(member.client_url, "/v3/maintenance/status"))
        if not status.leader_id:
            return Answer(member.name, status, reason="it knows no leader")
        # A learner reads nothing through its leader yet; that it follows one is all it can show.
        reason = "" if status.learner else client.reads_through_leader(member.client_url)
        return Answer(member.name, status, healthy=not reason, reason=reason)
    except UnansweredError as error:
        return Answer(member.name, reason=str(error))


def look(client: Client, configured: Sequence[Configured]) -> View:
    """Ask all configured members at once, and one that has a quorum for the membership and the alarms."""
    with ThreadPoolExecutor(max_workers=len(configured)) as pool:
        answers = tuple(pool.map(lambda member: ask(client, member), configured))
    for answer, member in zip(answers, configured, strict=True):
        if answer.healthy and answer.status and not answer.status.learner:
            try:
                members = parse_members(
                    client.post(member.client_url, "/v3/cluster/member/list", {"linearizable": True})
                )
                alarms = parse_alarms(client.post(member.client_url, "/v3/maintenance/alarm", {"action": "GET"}))
            except UnansweredError:
                continue
            return View(answers, members, alarms)
    return View(answers)


# The member's own host

Run = Callable[[Sequence[str]], tuple[int, str, str]]


@dataclass(frozen=True)
class Local:
    """etcd on this host: its unit, its settings, its data. `run` returns exit code, output and errors."""

    run: Run
    unit: str
    environment_file: Path
    data_directory: Path
    user: str = "etcd"

    @property
    def first_start_file(self) -> Path:
        """Made for a start without data; the unit removes it when that start has succeeded."""
        return self.data_directory.with_name(self.data_directory.name + ".first-start")

    def state(self) -> State:
        """What this host shows of the member."""
        shown = self._show()
        settings = self._read(self.environment_file)
        first_start = self._read(self.first_start_file)
        return State(
            installed=shown["LoadState"] == "loaded" and bool(settings),
            enabled=shown["UnitFileState"] == "enabled",
            running=shown["ActiveState"] in ("active", "activating", "reloading"),
            current=self._is_current(int(shown["MainPID"]), daemon_settings(settings)),
            has_data=any((self.data_directory / "member/wal").glob("*.wal")),
            first_start=first_start.get("ETCD_INITIAL_CLUSTER_STATE", ""),
        )

    def start(self) -> None:
        """Ask systemd to start the member, and to do so at boot; does not wait until it is ready."""
        shown = self._show()
        if shown["NeedDaemonReload"] == "yes":
            self._systemctl("daemon-reload")
        if shown["UnitFileState"] != "enabled":
            self._systemctl("enable", self.unit)
        self._systemctl("start", "--no-block", self.unit)

    def restart(self) -> None:
        """Ask systemd to start the member anew; does not wait until it is ready."""
        if self._show()["NeedDaemonReload"] == "yes":
            self._systemctl("daemon-reload")
        self._systemctl("restart", "--no-block", self.unit)

    def stop(self) -> None:
        """Stop the member, if it runs."""
        self._systemctl("stop", self.unit)

    def make_data_directory(self) -> None:
        """An empty directory that only etcd may read."""
        account = pwd.getpwnam(self.user)
        self.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_directory.chmod(0o700)
        os.chown(self.data_directory, account.pw_uid, account.pw_gid)

    def start_first(self, *, initial_cluster: str, cluster_state: str, token: str) -> None:
        """Start a member without data. Only with the file made here may it start (see the unit's drop-in)."""
        new = self.first_start_file.with_suffix(".new")
        new.write_text(
            f'ETCD_INITIAL_CLUSTER_STATE="{cluster_state}"\nETCD_INITIAL_CLUSTER="{initial_cluster}"\n'
            f'ETCD_INITIAL_CLUSTER_TOKEN="{token}"\n',
            encoding="utf-8",
        )
        new.replace(self.first_start_file)
        self.start()

    def explain(self) -> str:
        """The unit's state and the end of its journal, for a message."""
        shown = self._show()
        return f"{self.unit} is {shown['ActiveState']} ({shown['SubState']}, {shown['Result']}); its journal ends:\n{self._journal()}"

    def _is_current(self, pid: int, wanted: Mapping[str, str]) -> bool:
        if pid == 0:
            return True
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            replaced = str(Path(f"/proc/{pid}/exe").readlink()).endswith(" (deleted)")
            started = _started(pid)
        # It may end at any moment: what is left of it has no memory to read (ESRCH) and no program (ENOENT).
        except (FileNotFoundError, ProcessLookupError):
            return True
        running = dict(entry.split("=", 1) for entry in environment.split("\0") if "=" in entry)
        # It reads its certificate at each handshake, but whom it trusts at its start only.
        authorities = [Path(wanted[name]) for name in TRUSTED_AUTHORITIES if name in wanted]
        outdated = any(path.exists() and path.stat().st_ctime > started for path in authorities)
        return daemon_settings(running) == wanted and not replaced and not outdated

    def _show(self) -> dict[str, str]:
        properties = "LoadState,ActiveState,SubState,Result,UnitFileState,NeedDaemonReload,MainPID"
        output = self._systemctl("show", "--property", properties, self.unit)
        return dict(line.split("=", 1) for line in output.splitlines())

    def _systemctl(self, *arguments: str) -> str:
        code, output, errors = self.run(["systemctl", *arguments])
        if code != 0:
            raise EtcdError(
                f"`systemctl {' '.join(arguments)}` failed: {errors.strip() or output.strip()}\n{self._journal()}"
            )
        return output

    def _journal(self) -> str:
        _, journal, _ = self.run(["journalctl", "--unit", self.unit, "--lines", "12", "--no-pager", "--output", "cat"])
        return journal

    @staticmethod
    def _read(path: Path) -> dict[str, str]:
        try:
            return parse_environment(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}


# The steps


@dataclass(frozen=True)
class Steps:
    """What can be done about one member. Each step ends with it healthy, or raises EtcdError."""

    local: Local
    client: Client
    me: Configured
    configured: Sequence[Configured]
    token: str
    deadline_s: float
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def look(self) -> View:
        """Ask all members; EtcdError if they are of two clusters."""
        view = look(self.client, self.configured)
        refuse_two_clusters(view)
        return view

    def bootstrap(self) -> None:
        """Start this member of a new cluster. Does not wait: the others may be started after it.

        On a slow host the others may form the quorum first. A member of the cluster that they make has
        published no client URL yet, because it has never run; one that has would come back without its past.
        """
        view = self.look()
        mine = view.mine(self.me)
        if view.has_quorum and (mine is None or mine.client_urls):
            raise EtcdError("etcd_members: seen a cluster that came up meanwhile; expected none; mend: run again")
        if self.local.state().has_data:
            self.local.start()
            return
        cluster = ",".join(f"{member.name}={member.peer_url}" for member in self.configured)
        self._start_first(cluster, "new")

    def join(self) -> None:
        """Become a voting member of the cluster that is there, under a new identity unless this one's data exist."""
        view = self._wait(self._quorum_of_others, "no cluster to join")
        state = self.local.state()
        listed = view.mine(self.me)
        if not state.has_data:
            if state.running:
                self.local.stop()
                view = self._wait(self._quorum_of_others, "no cluster to join")
                listed = view.mine(self.me)
            if listed is not None and listed.started:
                self._remove_stale(view, listed)
                listed = None
            members = view.members if listed else self._add(view)
            self._start_first(initial_cluster(members, self.configured), "existing")
        else:
            self.local.start()
        self._wait(self._is_voter, f"{self.me.name} did not become a voting member")
        self.health()

    def has_stale_identity(self, view: View) -> bool:
        """Whether the cluster has a member that this host has lost the data of."""
        listed = view.mine(self.me)
        return listed is not None and listed.started and not self.local.state().has_data

    def forget(self) -> None:
        """Give up an identity whose data is gone.

        All members that lost their data do this before the first of them joins: etcd adds no
        member while a voting one is missing.
        """
        self.local.stop()
        view = self._wait(self._quorum_of_others, "no cluster to leave")
        listed = view.mine(self.me)
        if listed is not None:
            self._remove_stale(view, listed)

    def restart(self) -> None:
        """Start the member anew, unless the others could not go on meanwhile."""
        view = self.look()
        listed = view.mine(self.me)
        if listed is not None and view.of(self.me.name).healthy:
            refuse_lost_quorum(view, listed, stays=True, what="a restart of")
        self.local.restart()
        self._wait(
            lambda: self.local.state() if self.local.state().current else None, f"{self.me.name} was not restarted"
        )
        self.health()

    def health(self) -> View:
        """Wait until the member reads through the cluster's leader."""

        def healthy() -> View | None:
            view = self.look()
            if view.has_quorum and view.mine(self.me) is None:
                raise EtcdError(
                    f"the data in {self.local.data_directory} is of a member that the cluster no longer has; "
                    f"mend: stop {self.local.unit}, move the directory away, and run again"
                )
            return view if view.of(self.me.name).healthy else None

        return self._wait(healthy, f"{self.me.name} is not healthy")

    def remove(self, name: str) -> bool:
        """Take a member out of the cluster; False if it has none of that name."""
        view = self._wait(self._quorum_of_others, "no cluster to remove a member from")
        member = next((member for member in view.members if member.name == name), None)
        if member is None:
            return False
        refuse_lost_quorum(view, member, stays=False, what="removing")
        self._change(view, "/v3/cluster/member/remove", {"ID": str(member.id)})
        return True

    def _quorum_of_others(self) -> View | None:
        view = self.look()
        return view if view.has_quorum else None

    def _is_voter(self) -> bool | None:
        view = self.look()
        listed = view.mine(self.me)
        if listed is None or not listed.learner:
            return listed is not None or None
        if listed.started:
            try:
                self._change(view, "/v3/cluster/member/promote", {"ID": str(listed.id)})
            except EtcdError:
                return None  # It still has to catch up with its leader; the deadline ends that.
        return None

    def _remove_stale(self, view: View, listed: Member) -> None:
        """Give up an identity whose data is gone."""
        elsewhere = [url for url in listed.client_urls if url != self.me.client_url]
        for url in elsewhere:
            if ask(self.client, Configured(listed.name, url, "")).status:
                raise EtcdError(
                    f"{listed.name} has no data on this host, but a member of that name answers at {url}; "
                    "mend: stop that one first if it is to be replaced, then run again"
                )
        refuse_lost_quorum(view, listed, stays=False, what="replacing")
        self._change(view, "/v3/cluster/member/remove", {"ID": str(listed.id)})

    def _add(self, view: View) -> tuple[Member, ...]:
        """The membership with this member, as a learner: it counts for no quorum until it has caught up."""
        return parse_members(
            self._change(view, "/v3/cluster/member/add", {"peerURLs": [self.me.peer_url], "isLearner": True})
        )

    def _change(self, view: View, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        urls = {member.name: member.client_url for member in self.configured}
        voters = {member.id for member in view.voters}
        answering = next(
            answer for answer in view.answers if answer.healthy and answer.status and answer.status.member_id in voters
        )
        verb = path.rsplit("/", 1)[-1]

        def accepted() -> dict[str, Any] | None:
            try:
                return self.client.post(urls[answering.name], path, body)
            except UnansweredError as error:
                # etcd changes its membership only while all voters have been connected for 5 s
                # (server.go: HealthInterval), which they are not right after a change.
                if "unhealthy cluster" in str(error):
                    return None
                raise EtcdError(f"{answering.name} refused to {verb} {self.me.name}: {error}") from error

        return self._wait(
            accepted, f"{answering.name} refuses to {verb} {self.me.name} while not all voting members are connected"
        )

    def _start_first(self, cluster: str, state: str) -> None:
        self.local.make_data_directory()
        self.local.start_first(initial_cluster=cluster, cluster_state=state, token=self.token)

    def _wait(self, seen: Callable[[], Seen | None], otherwise: str) -> Seen:
        end = self.monotonic() + self.deadline_s
        while True:
            found = seen()
            if found is not None:
                return found
            if self.monotonic() >= end:
                view = self.look()
                said = "; ".join(f"{answer.name}: {answer.reason or 'healthy'}" for answer in view.answers)
                raise EtcdError(f"{otherwise} after {self.deadline_s:g} s. Members say: {said}. {self.local.explain()}")
            self.sleep(POLL_INTERVAL_S)
