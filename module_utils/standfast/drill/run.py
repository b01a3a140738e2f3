"""One drill: probes on, fault in, healed, fully redundant again, everything read and written down."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..connections import Observers
from ..health import Health, judge
from ..inventory import Inventory
from . import targets
from .checker import DRAIN_S, MARGIN_S, STEADY_S, alarmed, pause
from .effects import CGROUP_FREEZER, Effect, Need
from .faults import Fault
from .history import now
from .hosts import Clock, HostError, Hosts
from .lock import LONGEST_S, Lock
from .plays import play
from .probes import Periods, Probes, arrange, first_client
from .refusal import ImpossibleError, InterruptedDrillError, RefusedError
from .repository import Repository

# Without service for longer than this after the bound, the drill stops waiting for clients and says so.
PATIENCE_S = 30.0
# Clients are served again when all have been for so long.
SERVED_S = 2.0
# Patroni rebuilds a member by pg_rewind or from the backup; on a small database that is a minute at most.
REDUNDANT_WITHIN_S = 240.0
# The undo fires by itself so long after it was due: the control machine may have died.
UNDO_SLACK_S = 60
# Where a fault is to be seen in the archive: a segment of the usual size in five seconds, twelve of them in a minute.
WAL_BYTES_S = 16 * 2**20 // 5
OBSERVE_EVERY_S = 2.0
LOOK_EVERY_S = 0.5

NOT_ALLOWED = "drills_allowed: seen false; expected true; mend: set it where breaking things is harmless"
UNDO = "standfast-drill-undo"
RUN_FOLDER = Probes.FOLDER

# Prints when it began and ended, by the host's own clock.
TIMED = (
    "import subprocess, sys, time\n"
    "script = sys.stdin.read()\n"
    "before = time.monotonic()\n"
    "done = subprocess.run(['sh', '-eu'], input=script, text=True, stdout=sys.stderr)\n"
    "print(before, time.monotonic())\n"
    "sys.exit(done.returncode)\n"
)


Report = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """What a drill sees at one moment. `last_s`: seconds since a write was acknowledged; empty names: not known."""

    phase: str
    writes_per_s: float
    last_s: float
    leader: str
    holder: str


@dataclass
class Drill:
    """One fault against one inventory. `say` gets a line for each phase, `watch` what is seen, twice a second.

    seed: from which the order of a suite was drawn, for its report.
    """

    inventory: Path
    fault: Fault
    known: Inventory
    topology: Mapping[str, Any]
    say: Report
    target: str = ""
    seed: int | None = None
    watch: Callable[[Progress], None] | None = None
    periods: Periods = field(default_factory=Periods)
    timeout_s: float = 1.0

    def run(self) -> list[dict[str, Any]]:
        """The history; RefusedError if the service is not fit for a drill, InterruptedDrillError if it broke off.

        ImpossibleError if the service is fit, and only this fault cannot be injected.
        """
        with heeding(), self._course() as course:
            return course.run()

    def plan(self) -> list[str]:
        """What `run` would do now, line by line; RefusedError if it would. Nothing is written on any host."""
        with self._course() as course:
            return course.plan()

    def obstacle(self, hosts: Hosts) -> str:
        """Why the fault cannot be injected here, or nothing; asks the hosts that it could go to."""
        try:
            course = _Course(self, hosts, Observers(hosts.routes, self.topology))
            course.permitted()
            course.fit(course.candidates())
        except (HostError, RefusedError) as error:
            return str(error)
        return ""

    @contextmanager
    def _course(self) -> Iterator[_Course]:
        with Hosts(self.inventory) as hosts, Observers(hosts.routes, self.topology) as observers:
            yield _Course(self, hosts, observers)


@dataclass
class _Course:
    drill: Drill
    hosts: Hosts
    observers: Observers
    events: list[dict[str, Any]] = field(default_factory=list)
    clocks: dict[str, Clock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.topology = self.drill.topology
        self.fault = self.drill.fault
        self.identity = uuid.uuid4().hex[:12]
        self.client = first_client(self.topology)
        self.lock = Lock(self.hosts, self.client, self.drill.say)
        self.databases = [database["name"] for database in self.topology["databases"]]
        self.balancers = [balancer["name"] for balancer in self.topology["balancers"]]
        self.repository = Repository(
            self.hosts,
            self.topology["backup"]["name"],
            self.topology["cluster_name"],
            lambda host, query: self._ask(host, "postgres", query),
        )

    def permitted(self) -> None:
        """RefusedError unless the inventory allows drills."""
        if not self.topology["drills_allowed"]:
            raise RefusedError(NOT_ALLOWED)

    def plan(self) -> list[str]:
        """The steps, and what is run on the targets; also where drills are not allowed, which it says."""
        fault, effect = self.fault, self.fault.effect
        self.lock.refuse()
        self._aim(self._steady())
        self.variables = {host: self._variables(host) for host in self.targets}
        steps = [
            *([] if self.topology["drills_allowed"] else [f"would be refused: {NOT_ALLOWED}"]),
            f"{fault.name}: {fault.summary}",
            f"targets: {', '.join(self.targets)}; held for {self.fault.hold_s:g} s",
            f"outage: at most {self.bound_s:g} s{' after the healing' if self.fault.outlasts else ''} ({self.fault.bound})",
        ]
        if effect is None:
            told = f" -e '{fault.variables}'" if fault.variables else ""
            return [*steps, f"on this machine: ansible-playbook playbooks/{fault.playbook}{told}"]
        for host in self.targets:
            steps += [f"inject on {host}:", *_indented(self._script(host, effect.inject))]
            if effect.heal:
                steps += [f"heal on {host}, by a timer of its own too:", *_indented(self._script(host, effect.heal))]
        return steps

    def run(self) -> list[dict[str, Any]]:
        """The history."""
        self.permitted()
        with self.lock.held(self.fault.name):
            self.drill.say(f"{self.fault.name}: {self.fault.summary}")
            before = self._steady()
            self._aim(before)
            self._clocks()
            self.nothing_left()
            self._ledger("prepare")
            probes = self._probes()
            self.events.append(self._header(probes, before))
            self._record(before, "before")
            self.cards, self.holder = self._cards(), str(self.events[-1]["holder"] or "")
            self._look_at_archive(before, PATIENCE_S)
            try:
                with self._probing(probes):
                    self._drill(probes)
                self._finals()
            except (Exception, KeyboardInterrupt) as error:
                asked = isinstance(error, KeyboardInterrupt)
                why = "; ".join([str(error) or "by hand", *getattr(error, "__notes__", [])])
                self.events.append({"event": "broken-off", "at": self._now(), "why": why})
                raise InterruptedDrillError(why, self.events, asked=asked) from error
            return self.events

    @contextmanager
    def _probing(self, probes: Probes) -> Iterator[None]:
        """Whatever happens, no probe is left behind, and what they saw is kept."""
        try:
            probes.start()
            yield
        finally:
            seen, lost = probes.finish()
            self.events += [self._on_client(event) for event in seen]
            for reason in lost:
                self.drill.say(f"  not known what was seen there: {reason}")

    # -- before ------------------------------------------------------------------------------------

    def _steady(self) -> Health:
        health = self._observe()
        if not health.well:
            raise RefusedError(
                f"the service is not well: {'; '.join(map(str, health.findings))}; mend: see `fab status`"
            )
        return health

    def candidates(self) -> list[str]:
        """The hosts that the fault could go to."""
        wanted = targets.FUNCTIONS[self.fault.targets]
        return [name for name, host in self.topology["hosts"].items() if not wanted.isdisjoint(host["functions"])]

    def fit(self, hosts: Sequence[str]) -> None:
        """ImpossibleError if one of the hosts lacks what the fault's effect needs, or the repository what a slow backup does.

        Also if the fault would cut off the drill itself, which could not heal then, and leave that to a timer.
        """
        wanted = [(name, self.fault.effect.need) for name in hosts if self.fault.effect]
        wanted += [(self.repository.host, CGROUP_FREEZER)] if self.fault.during else []
        for need in dict.fromkeys(need for _, need in wanted if need):
            lacking = [name for name, what in wanted if what == need and not self._has(name, need)]
            if lacking:
                raise ImpossibleError(
                    f"{', '.join(lacking)}: seen no {need.what}; expected it; mend: {self.fault.name} cannot do without"
                )
        for name in hosts if self.fault.effect and self.fault.effect.severs else ():
            interface, entrance = self.topology["hosts"][name]["interface"], self.hosts.entrance(name)
            asked = ["ip", "-oneline", "address", "show", "dev", interface, "to", entrance]
            if entrance and self.hosts.run(name, asked).strip():
                raise ImpossibleError(
                    f"{name}: seen its SSH connection at {entrance} on {interface}, which {self.fault.name} cuts off; expected "
                    f"it elsewhere; mend: reach the host by another interface than node_interface (ansible_host)"
                )

    def _has(self, host: str, need: Need) -> bool:
        return self.hosts.shell(host, f"if {need.test}; then echo yes; fi").strip() == "yes"

    def _aim(self, health: Health) -> None:
        facts = {**health.facts, "balancers": self.balancers, "repository": self.repository.host}
        self.fault, self.targets = targets.aim(self.fault, self.drill.target, facts, self.topology["hosts"])
        self.bound_s = self._predicted(self.fault.bound)
        self.fit(self.targets)

    def _predicted(self, name: str) -> float:
        """The bound of one class of faults, in seconds."""
        return next(float(bound["seconds"]) for bound in self.topology["bounds"] if bound["fault"] == name)

    def _cards(self) -> Mapping[str, str]:
        """The balancers' MAC addresses, by which the client hears who holds the virtual address."""
        found = {}
        for name in self.balancers if self.drill.watch else ():
            interface = self.topology["hosts"][name]["interface"]
            found[self.hosts.run(name, ["cat", f"/sys/class/net/{interface}/address"]).strip()] = name
        return found

    def _observe(self) -> Health:
        return judge(self.topology, self.observers.ask())

    def _clocks(self) -> None:
        members = [member["name"] for member in self.topology["etcd"]["members"]]
        for name in dict.fromkeys([self.client, *self.databases, *self.balancers, *members, self.repository.host]):
            self.clocks[name] = self.hosts.clock(name)

    def nothing_left(self) -> None:
        """RefusedError if the fault of a drill whose control machine died is still to be healed somewhere.

        `fab status` does not see all of them, and this drill's undo would take that one's place.
        """
        for host in self.clocks:
            if self._armed_on(host):
                raise RefusedError(
                    f"{host}: seen the undo of another drill, which waits for its time; expected none; "
                    f"mend: wait for a minute or two, or heal now: systemctl start {UNDO}.service there"
                )

    def _armed_on(self, host: str) -> bool:
        """Whether an undo waits on a host."""
        return self.hosts.run(host, ["systemctl", "is-active", f"{UNDO}.timer"], check=False).strip() == "active"

    def _on_client(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event of any host, at the client's time."""
        here, there = self.clocks[self.client], self.clocks[str(event["host"])]
        shift = here.offset - there.offset
        moved = {name: round(event[name] + shift, 6) for name in ("at", "end") if name in event}
        wrong = 0.0 if event["host"] == self.client else here.uncertainty + there.uncertainty
        return {**event, **moved, "uncertainty": round(wrong, 6)}

    def _now(self) -> float:
        """The client's time."""
        return time.monotonic() + self.clocks[self.client].offset

    def _phase(self, name: str, at: float | None = None) -> None:
        self.events.append({"event": "phase", "at": self._now() if at is None else at, "name": name})

    def _setting(self, host: str, variable: str) -> Any:
        return setting(self.drill.known, host, variable)

    def _probes(self) -> Probes:
        wal_bytes_s = WAL_BYTES_S if self.fault.backup else 0
        probes = arrange(self.topology, self._asking(), self.drill.periods, wal_bytes_s)
        return Probes(self.hosts, self.identity, probes, LONGEST_S)

    def _asking(self) -> dict[str, Any]:
        return {
            "connection": ledger_connection(self.topology, partial(self._setting, self.client)),
            "drill": self.identity,
            "timeout_s": self.drill.timeout_s,
        }

    def _ledger(self, action: str) -> list[dict[str, Any]]:
        """Prepare or read the ledger, through the same way as its writers."""
        folder = f"{RUN_FOLDER}/{self.identity}-{action}"
        source = (Probes.SOURCES / "ledger.py").read_text(encoding="utf-8")
        self.hosts.put(self.client, f"{folder}/ledger.py", source)
        try:
            parameters = {"action": action, **self._asking(), "timeout_s": 15}
            self.hosts.put(self.client, f"{folder}/ledger.json", json.dumps(parameters))
            said = self.hosts.run(self.client, ["python3", f"{folder}/ledger.py", f"{folder}/ledger.json"])
        finally:
            self.hosts.run(self.client, ["rm", "-rf", folder])
        return [{"host": self.client, **json.loads(line)} for line in said.splitlines()]

    def _header(self, probes: Probes, before: Health) -> dict[str, Any]:
        period = self.drill.periods
        patroni = self.topology["profile"]["patroni"]
        return {
            "event": "drill",
            "drill": self.identity,
            "begun": now(),
            "target": self.drill.target,
            **({} if self.drill.seed is None else {"seed": self.drill.seed}),
            "cluster": self.topology["cluster_name"],
            "profile": self.topology["profile"]["name"],
            # As Patroni says: the inventory does not know what a playbook was told by -e.
            "durability": before.facts["database"]["durability"],
            "fault": self.fault.name,
            "family": self.fault.family,
            "targets": self.targets,
            "bound": self.fault.bound,
            "bound_s": self.bound_s,
            "hold_s": self.fault.hold_s,
            "outlasts": self.fault.outlasts,
            "fades_s": self._predicted(self.fault.fades) if self.fault.fades else 0.0,
            "cuts_off": self.fault.cuts_off,
            "silences": self.fault.effect is not None and self.fault.effect.silences,
            "lossless": self.fault.lossless,
            "hits": self.fault.hits,
            "refused": bool(self.fault.variables),
            "rogue": self.fault.rogue,
            "alarm": self.fault.alarm,
            "archive": self.fault.archive,
            "during": self.fault.during,
            "backup": self.fault.backup,
            # What Patroni may take to see, on a host that goes on, that another one leads.
            "demotion_s": patroni["loop_wait"] + patroni["retry_timeout"],
            "leader": self.fault.leader,
            "vip": self.fault.vip,
            "virtual_addresses": [address["address"] for address in self.topology["virtual_addresses"]],
            "write_period_s": period.write,
            "request_period_s": period.request,
            "role_period_s": period.role,
            "address_period_s": period.address,
            "archiver_period_s": period.archiver,
            "timeout_s": self.drill.timeout_s,
            "probes": [[probe.host, probe.program] for probe in probes.probes],
        }

    def _record(self, health: Health, when: str) -> None:
        facts = health.facts
        leader = facts["database"]["leader"]
        addresses = {peer["name"]: peer["address"] for peer in self.topology["databases"]}
        self.events.append(
            {
                "event": "service",
                "at": self._now(),
                "when": when,
                "leader": leader,
                "leader_address": addresses.get(leader),
                "timeline": facts["database"]["timeline"],
                "holder": next(iter(facts["virtual_addresses"][0]["holders"]), None),
                "findings": [str(finding) for finding in health.findings],
            }
        )

    # -- the fault ---------------------------------------------------------------------------------

    def _drill(self, probes: Probes) -> None:
        if not self.await_service(probes, since=self._now(), within=PATIENCE_S, steady=STEADY_S + 1):
            raise InterruptedDrillError(f"clients were not served steadily within {PATIENCE_S:g} s")
        self.drill.say(f"  steady; {self.fault.name} on {', '.join(self.targets)}")
        with self.armed():
            began = self._begin_backup()
            injected = self._inject()
            self._end_of_backup(began)
            self._hold(injected, probes)
            self._heal()
        served = self.await_service(probes, since=self._now(), within=self.bound_s + PATIENCE_S, steady=SERVED_S)
        self.drill.say("  healed; clients are served" if served else "  healed; clients are NOT served")
        if self.fault.backup:
            self._back_up()
        health = self._await_redundancy()
        # To close a segment makes commits wait until the replicas have all of it: that is this drill's doing.
        probes.end("ledger", "web")
        self._look_at_archive(health, DRAIN_S)

    def _variables(self, host: str) -> dict[str, str]:
        peers = [peer["address"] for peer in self.topology["databases"]]
        peers += [member["address"] for member in self.topology["etcd"]["members"]]
        own = self.topology["hosts"][host]
        others = list(dict.fromkeys(address for address in peers if address != own["address"]))
        etcd, postgresql = self.topology["etcd"], self.topology["postgresql"]
        found = {
            "INTERFACE": own["interface"],
            "ADDRESS": own["address"],
            "ADDRESS6": own["address6"] or "",
            "PEERS": ", ".join(others),
            "REPOSITORY": self.topology["backup"]["address"],
            "CLUSTER": self.topology["cluster_name"],
            "ETCD_PORT": str(etcd["client_port"]),
            "ETCD_PEER_PORT": str(etcd["peer_port"]),
            "POSTGRESQL_PORT": str(postgresql["port"]),
            "RESTAPI_PORT": str(postgresql["restapi_port"]),
            "RUN": RUN_FOLDER,
        }
        if "database" in own["functions"]:
            asked = "runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align --command 'SHOW data_directory'"
            found["DATA_DIRECTORY"] = self.hosts.shell(host, asked).strip()
        return found

    def _script(self, host: str, text: str) -> str:
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.variables[host].items()) + text

    @contextmanager
    def armed(self) -> Iterator[None]:
        """On each target its undo waits in a timer of its own, whatever becomes of this machine."""
        self.variables = {host: self._variables(host) for host in self.targets}
        effect = self.fault.effect
        if effect is None or not effect.heal:
            yield
            return
        try:
            for host in self.targets:
                self._arm(host, effect)
            yield
        except BaseException as error:
            # Before anything is said: the terminal may be what is gone.
            if unhealed := self._undo(effect):
                error.add_note(f"NOT healed by hand, {UNDO}.timer on the host will: {unhealed}")
            else:
                self.drill.say("  broken off, and healed; `fab status` says when all is redundant again")
            raise
        for host in self.targets:
            self._disarm(host)

    def _arm(self, host: str, effect: Effect) -> None:
        """The undo waits on the host for a minute after it is due."""
        due = int(self.fault.hold_s) + UNDO_SLACK_S
        self.hosts.put(host, f"{RUN_FOLDER}/undo.sh", self._script(host, effect.heal))
        self.hosts.run(
            host,
            ["systemd-run", "--quiet", "--collect", f"--unit={UNDO}", f"--on-active={due}s",
             # By default systemd takes a minute's liberty.
             "--timer-property=AccuracySec=1s", "sh", "-eu", f"{RUN_FOLDER}/undo.sh"],
        )  # fmt: skip

    def _disarm(self, host: str) -> None:
        """The undo waits no longer; InterruptedDrillError if it did not, so that nobody knows how long the fault was there."""
        if not self._armed_on(host):
            raise InterruptedDrillError(f"{host}: the undo came by itself, before the drill healed")
        self.hosts.end(host, f"{UNDO}.timer")

    def _undo(self, effect: Effect) -> str:
        """Heal each target, and say where that failed and why."""
        failed = []
        for host in self.targets:
            try:
                self.hosts.shell(host, self._script(host, effect.heal))
                self.hosts.end(host, f"{UNDO}.timer")
            except HostError as error:
                failed.append(str(error))
        return "; ".join(failed)

    def _timed(self, host: str, script: str) -> tuple[float, float]:
        """When a script began and ended, at the client's time."""
        said = self.hosts.run(host, ["python3", "-c", TIMED], stdin=self._script(host, script), timeout=120)
        began, ended = map(float, said.split()[-2:])
        moved = self._on_client({"host": host, "at": began, "end": ended})
        return moved["at"], moved["end"]

    def _inject(self) -> float:
        effect = self.fault.effect
        if effect is None:
            began = self._now()
            self._phase("inject", began)
            self._play()
            self._phase("injected")
            return began
        with ThreadPoolExecutor(max_workers=len(self.targets)) as pool:
            times = list(pool.map(lambda host: self._timed(host, effect.inject), self.targets))
        began = min(began for began, _ in times)
        self._phase("inject", began)
        self._phase("injected", max(ended for _, ended in times))
        return began

    def _play(self) -> None:
        fault = self.fault
        done = play(self.drill.inventory, fault.playbook, fault.variables)
        if fault.variables:
            refused = done.refused and re.search(fault.refusal, done.said) is not None
            seen = {"name": fault.playbook, "refused": refused, "changed": done.changed}
            self.events.append({"event": "play", "at": self._now(), **seen})
        elif done.code != 0:
            raise InterruptedDrillError(f"playbook {fault.playbook} failed:\n{done.said[-3000:]}")

    def _hold(self, injected: float, probes: Probes) -> None:
        until, raised = injected + self.fault.hold_s, not self.fault.alarm
        while self._now() < until:
            self._look(probes, f"{self.fault.name}, {until - self._now():.0f} s to the healing")
            raised = raised or self._alarmed()
            time.sleep(min(LOOK_EVERY_S, max(0.0, until - self._now())))

    def _alarmed(self) -> bool:
        """Whether the service says what is wrong with it, asked as `fab status` asks."""
        began = self._now()
        findings = [str(finding) for finding in self._observe().findings]
        self.events.append({"event": "alarm", "at": began, "end": self._now(), "findings": findings})
        return alarmed(self.fault.alarm, findings)

    def _heal(self) -> None:
        effect = self.fault.effect
        if effect is not None and effect.proof:
            for host in self.targets:
                self._prove(host, effect.proof)
        if effect is not None and effect.heal:
            with ThreadPoolExecutor(max_workers=len(self.targets)) as pool:
                times = list(pool.map(lambda host: self._timed(host, effect.heal), self.targets))
            self._phase("healed", max(ended for _, ended in times))
        else:
            self._phase("healed")

    def _prove(self, host: str, proof: str) -> None:
        """InterruptedDrillError unless the fault is still there, and did something."""
        try:
            self.hosts.shell(host, self._script(host, proof))
        except HostError as error:
            raise InterruptedDrillError(f"{host}: the fault did not hold: {error}") from error

    # -- after -------------------------------------------------------------------------------------

    def await_service(self, probes: Probes, *, since: float, within: float, steady: float) -> bool:
        """Whether all clients were served without a failure for `steady` seconds, both counted from `since` on.

        What they were served before says nothing of what `since` began.
        """
        while self._now() < since + within:
            self._look(probes, "waits until clients are served")
            lines = {
                program: probes.tail(program, int(2 * steady / period))
                for program, period in (("ledger", self.drill.periods.write), ("web", self.drill.periods.request))
            }
            writes = {
                worker: [line for line in lines["ledger"] if line.get("worker") == worker]
                for worker in ("session", "reconnect")
            }
            requests = [line for line in lines["web"] if line["event"] == "request"]
            kinds = [(kind, self.drill.periods.write) for kind in writes.values()]
            kinds.append((requests, self.drill.periods.request))
            now = self._now()
            if now >= since + steady and all(served(kind, steady, now, pause(period)) for kind, period in kinds):
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def _look(self, probes: Probes, phase: str) -> None:
        """Show what the client's probes have just seen; the hosts that are broken are not asked."""
        if self.drill.watch is None:
            return
        now = self._now()
        writes = [line for line in probes.tail("ledger", int(4 / self.drill.periods.write)) if line["event"] == "write"]
        served = [line for line in writes if line["outcome"] == "ok"]
        last = max(served, key=lambda line: line["end"], default=None)
        names = {peer["address"]: peer["name"] for peer in self.topology["databases"]}
        listens = any(probe.program == "neighbours" for probe in probes.probes)
        heard = [line for line in (probes.tail("neighbours", 1) if listens else []) if "mac" in line]
        self.drill.watch(
            Progress(
                phase=phase,
                writes_per_s=sum(line["end"] > now - 1 for line in served),
                last_s=now - last["end"] if last else float("inf"),
                leader=names.get(last["node"], "") if last else "",
                holder=self.cards.get(heard[-1]["mac"], "") if heard else self.holder,
            )
        )

    def _begin_backup(self) -> dict[str, Any]:
        """The backup that runs when the fault comes, if there is to be one."""
        if not self.fault.during:
            return {}
        self.drill.say(f"  a {self.fault.during} backup copies")
        return self.repository.begin(self.fault.during)

    def _end_of_backup(self, began: Mapping[str, Any]) -> None:
        """Until when it ran, or that it still did when the fault was there."""
        if not began:
            return
        seen = self._on_client(began)
        ended = self.repository.ended(self.fault.during)
        end = self._now() if ended is None else self._on_client({"host": began["host"], "at": ended})["at"]
        self.events.append({**seen, "end": end})

    def _back_up(self) -> None:
        """The next backup, as its timer would start it; what comes of it is the checker's to judge."""
        began = self._now()
        done = self.repository.back_up(self.fault.backup)
        self.events.append({**done, "at": began, "end": self._now()})
        self.drill.say(f"  the next {done['type']} backup: {done['result']}")

    def _look_at_archive(self, health: Health, within_s: float) -> None:
        """What is in the archive; nothing is known of one whose cluster has no leader."""
        leader = health.facts["database"]["leader"]
        if not leader:
            return
        before = next((event for event in self.events if event["event"] == "archive"), None)
        looked = self.repository.look(leader, before["since"] if before else "", within_s)
        self.events.append({**looked, "at": self._now(), "when": "after" if before else "before"})

    def _await_redundancy(self) -> Health:
        began = time.monotonic()
        health = self._observe()
        while not health.well and time.monotonic() - began < REDUNDANT_WITHIN_S:
            time.sleep(OBSERVE_EVERY_S)
            health = self._observe()
        if health.well:
            self._phase("redundant")
        self._record(health, "after")
        self.drill.say("  fully redundant" if health.well else "  NOT redundant:")
        for finding in health.findings:
            self.drill.say(f"    {finding}; mend: {finding.mend}")
        return health

    def _finals(self) -> None:
        """The ledger as the primary has it, and as each member has it once it has replayed as much."""
        self.events += [self._on_client(event) for event in self._ledger("read") if event["event"] == "final"]
        # The identity is hexadecimal digits of our own.
        query = f"SELECT client, key FROM standfast_ledger WHERE drill = '{self.identity}'"  # noqa: S608
        leader = next(event["leader"] for event in self.events if event.get("when") == "after")
        position = self._ask(leader, "postgres", "SELECT pg_current_wal_lsn()") if leader else ""
        database = str(self._setting(self.client, "drills_database"))
        for name in self.databases:
            if name != leader and position:
                self._await_replay(name, position)
            rows = [line.split("|") for line in self._ask(name, database, query).splitlines()]
            self.events.append(
                {"event": "final", "at": self._now(), "host": name, "source": name,
                 "rows": [[client, int(key)] for client, key in rows]}
            )  # fmt: skip

    def _await_replay(self, host: str, position: str) -> None:
        began = time.monotonic()
        question = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        while self._ask(host, "postgres", question) != "t" and time.monotonic() - began < PATIENCE_S:
            time.sleep(LOOK_EVERY_S)

    def _ask(self, host: str, database: str, query: str) -> str:
        command = ["runuser", "-u", "postgres", "--", "psql", "--no-psqlrc", "--tuples-only", "--no-align"]
        return self.hosts.run(host, [*command, f"--dbname={database}", f"--command={query}"]).strip()


@contextmanager
def heeding() -> Iterator[None]:
    """Whoever ends a drill, by Ctrl-C, from outside or by closing its terminal, has it healed first.

    The first signal counts, the others have to wait for that. One that this process was told to ignore it ignores.
    """
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]
    heeded = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    }

    def end(number: int, _: FrameType | None) -> NoReturn:
        for other in heeded:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGHUP:
            # To write to a terminal that is gone fails, and there is much left to do.
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
                for stream in terminals:
                    os.dup2(nowhere.fileno(), stream)
        raise KeyboardInterrupt(f"by {signal.Signals(number).name}")

    for number in heeded:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def _indented(script: str) -> list[str]:
    return [f"    {line}" for line in script.strip().splitlines()]


def setting(known: Inventory, host: str, variable: str) -> Any:
    """A variable as one host has it; RefusedError if it is not set."""
    value = known.settings[host].get(variable)
    if value is None:
        raise RefusedError(f"{variable}: seen nothing; expected a value; mend: set it, see docs/drills.md")
    return value


def ledger_connection(topology: Mapping[str, Any], setting: Callable[[str], Any]) -> dict[str, Any]:
    """The libpq parameters of the ledger's clients; `setting` gives a variable as the client's host has it."""
    endpoint = next(end for end in topology["endpoints"] if end["kind"] == "postgresql-primary")
    return {
        "host": endpoint["host"],
        "port": endpoint["port"],
        "dbname": setting("drills_database"),
        "user": setting("drills_user"),
        "password": setting("drills_password"),
        "sslmode": "verify-full",
        "sslrootcert": "/etc/standfast/pki/ca.crt",
        "gssencmode": "disable",
        "application_name": "standfast-drill",
    }


def served(lines: Sequence[Mapping[str, Any]], steady: float, now: float, gap: float) -> bool:
    """Whether the last lines reach back for so long, up to now, none of them failed, and no more than `gap` lay between two.

    All in seconds. The checker asks no less of the time before a fault.
    """
    recent = [line for line in lines if line["at"] >= now - steady - MARGIN_S]
    ends = sorted(float(line["end"]) for line in recent)
    return (
        bool(recent)
        and all(line["outcome"] == "ok" for line in recent)
        and recent[0]["at"] <= now - steady + MARGIN_S
        and ends[-1] >= now - 2 * MARGIN_S
        and all(after - before <= gap for before, after in pairwise(ends))
    )
