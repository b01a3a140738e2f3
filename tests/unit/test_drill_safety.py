"""Whatever ends a drill, what it broke is healed, what it saw is kept, and what it could not mend is said."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from standfast.drill.faults import FAULTS
from standfast.drill.hosts import HostError, Hosts
from standfast.drill.lock import UNIT, Lock
from standfast.drill.refusal import ImpossibleError, InterruptedDrillError, RefusedError
from standfast.drill.run import UNDO, Drill, _Course, heeding

DATA = Path(__file__).parent / "data/status/lab/topology.json"
TOPOLOGY: dict[str, Any] = {**json.loads(DATA.read_text(encoding="utf-8")), "drills_allowed": True}
TIMER = f"{UNDO}.timer"

# It holds its fault until the terminal is closed, or for a minute if that is never told.
LEFT_ALONE = """
import sys, time
from standfast.drill.run import heeding
try:
    with heeding():
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt as error:
    print("healing", flush=True)
    print("healing", file=sys.stderr, flush=True)
    open(sys.argv[1], "w").write(str(error))
"""


def test_drill_whose_terminal_is_closed_has_time_to_heal(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", LEFT_ALONE, str(tmp_path / "healed")])
    while b"ready" not in os.read(terminal, 1000):
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "healed").read_text(encoding="utf-8") == "by SIGHUP"


def test_who_is_impatient_does_not_break_off_the_healing() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    healed = []

    def told_again_and_again() -> None:
        with heeding():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                for number in numbers:
                    os.kill(os.getpid(), number)
                healed.append(True)

    with pytest.raises(KeyboardInterrupt, match="by SIGTERM"):
        told_again_and_again()
    assert healed
    assert [signal.getsignal(number) for number in numbers] == before


def test_drill_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeding():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


class Stubborn(Hosts):
    """Hosts that do what they are told, but for those that are gone; `armed`: where an undo waits."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.gone: set[str] = set()
        self.armed: set[str] = set()
        self.connection = "10.231.0.1 5000 10.231.0.21 22"

    def run(self, name: str, command: Sequence[str], *, stdin: str = "", check: bool = True, **_: Any) -> str:
        if name in self.gone:
            raise HostError(f"{name}: no answer")
        text = " ".join([*command, stdin])
        self.done.append(f"{name}: {text}")
        if f"is-active {TIMER}" in text and check is False:
            return "active" if name in self.armed else "inactive"
        if f"systemctl stop {TIMER}" in text:
            self.armed.discard(name)
        elif "systemd-run" in text and UNDO in text:
            self.armed.add(name)
        elif "then echo yes" in text:
            return "yes"
        elif "SSH_CONNECTION" in text:
            return self.connection
        elif "address show" in text:
            return "2: eth0" if text.endswith(" 10.231.0.21 ") else ""
        return ""

    def said(self, what: str) -> list[str]:
        return [line for line in self.done if what in line]


def course(hosts: Stubborn, fault: str, say: Callable[[str], None] = print) -> _Course:
    nobody: Any = None
    made = _Course(Drill(Path("inventories/lab"), FAULTS[fault], nobody, TOPOLOGY, say), hosts, nobody)
    made.targets = ["db1", "db2"]
    return made


def gone(_: str) -> None:
    raise OSError("the terminal is gone")


@pytest.mark.parametrize("error", [KeyboardInterrupt("by SIGHUP"), RuntimeError("a defect")])
def test_healing_needs_nobody_who_listens(error: BaseException) -> None:
    hosts = Stubborn()
    with pytest.raises(OSError, match="terminal"), course(hosts, "packet-loss", gone).armed():
        raise error
    assert len(hosts.said("nft destroy table inet standfast_drill")) >= 2
    assert not hosts.armed


def test_what_is_not_healed_is_said_and_the_order_to_end_is_not_forgotten() -> None:
    hosts = Stubborn()

    def lose_a_host_and_end() -> None:
        with course(hosts, "packet-loss").armed():
            hosts.gone.add("db2")
            raise KeyboardInterrupt("by SIGTERM")

    with pytest.raises(KeyboardInterrupt) as left:
        lose_a_host_and_end()
    assert left.value.__notes__ == [f"NOT healed by hand, {TIMER} on the host will: db2: no answer"]
    assert "db1" not in hosts.armed


def test_host_that_cannot_be_armed_leaves_no_timer_on_another() -> None:
    hosts = Stubborn()
    hosts.gone.add("db2")
    broken = course(hosts, "packet-loss")
    broken.variables = {}
    with pytest.raises(HostError, match="db2: no answer"), broken.armed():
        pytest.fail("the fault is injected")
    assert not hosts.armed


def test_fault_that_its_timer_healed_was_not_held() -> None:
    hosts = Stubborn()
    with (
        pytest.raises(InterruptedDrillError, match="db1: the undo came by itself"),
        course(hosts, "packet-loss").armed(),
    ):
        hosts.armed.clear()


def test_drill_does_not_begin_where_another_ones_fault_is_to_be_healed() -> None:
    hosts = Stubborn()
    begun = course(hosts, "packet-loss")
    begun.clocks = dict.fromkeys(["client1", "db3"])  # type: ignore[arg-type]
    begun.nothing_left()
    hosts.armed.add("db3")
    with pytest.raises(RefusedError, match=rf"db3: seen the undo .* systemctl start {UNDO}.service there"):
        begun.nothing_left()


@pytest.mark.parametrize("fault", ["primary-isolate", "balancer-link-down"])
def test_drill_does_not_cut_off_itself(fault: str) -> None:
    hosts = Stubborn()
    begun = course(hosts, fault)
    with pytest.raises(ImpossibleError, match=rf"db1: seen its SSH connection at 10.231.0.21 on eth0, which {fault}"):
        begun.fit(["db1"])
    for elsewhere in ("10.231.0.1 5000 192.168.7.1 22", "UNKNOWN 65535 UNKNOWN 65535", ""):
        hosts.connection = elsewhere
        begun.fit(["db1"])
    hosts.connection = "10.231.0.1 5000 10.231.0.21 22"
    course(hosts, "packet-loss").fit(["db1"])


def test_lock_that_cannot_be_taken_back_hides_nothing() -> None:
    hosts, said = Stubborn(), list[str]()

    def lose_the_client_and_break_off() -> None:
        with Lock(hosts, "client1", said.append).held("a fault"):
            hosts.gone.add("client1")
            raise InterruptedDrillError("NOT healed")

    with pytest.raises(InterruptedDrillError, match="NOT healed"):
        lose_the_client_and_break_off()
    assert said == ["  the lock stays for 20 minutes at most: client1: no answer"]


def test_lock_that_ended_by_itself_is_no_error() -> None:
    hosts = Stubborn()
    with Lock(hosts, "client1", print).held("a fault"):
        pass
    assert hosts.said(f"systemctl stop {UNIT} || ! systemctl is-active {UNIT}")


@pytest.mark.parametrize(
    ("error", "asked", "why"),
    [
        (KeyboardInterrupt("by SIGTERM"), True, "by SIGTERM; NOT healed by hand: db2"),
        (KeyboardInterrupt(), True, "by hand; NOT healed by hand: db2"),
        (HostError("db1: no answer"), False, "db1: no answer; NOT healed by hand: db2"),
    ],
)
def test_history_of_a_drill_that_broke_off_says_so(
    error: BaseException, asked: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error.add_note("NOT healed by hand: db2")

    def breaks(*_: Any) -> None:
        raise error

    @contextmanager
    def probing(*_: Any) -> Iterator[None]:
        yield

    broken = course(Stubborn(), "packet-loss")
    broken.events.append({"holder": ""})
    for name in ("_steady", "_aim", "_clocks", "nothing_left", "_ledger", "_probes", "_record", "_look_at_archive"):
        monkeypatch.setattr(_Course, name, lambda *_: None)
    monkeypatch.setattr(_Course, "_header", lambda *_: {"event": "drill", "holder": ""})
    monkeypatch.setattr(_Course, "_cards", lambda *_: {})
    monkeypatch.setattr(_Course, "_probing", probing)
    monkeypatch.setattr(_Course, "_drill", breaks)
    monkeypatch.setattr(_Course, "_now", lambda *_: 7.0)
    monkeypatch.setattr(Lock, "held", lambda *_: nullcontext())
    with pytest.raises(InterruptedDrillError) as left:
        broken.run()
    assert (left.value.asked, str(left.value)) == (asked, why)
    assert left.value.events[-1] == {"event": "broken-off", "at": 7.0, "why": why}


def test_clients_that_noticed_nothing_are_watched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]

    class Served:
        """The client's probes, of which every try is served, since long ago."""

        def tail(self, program: str, _: int) -> list[dict[str, Any]]:
            moments = [clock[0] - 5 + number * 0.02 for number in range(250)]
            return [
                {"event": "request", "worker": worker, "at": at, "end": at + 0.01, "outcome": "ok"}
                for at in moments
                for worker in (("session", "reconnect") if program == "ledger" else ("",))
            ]

    watched = course(Stubborn(), "vrrp-deaf")
    monkeypatch.setattr(_Course, "_now", lambda _: clock[0])
    # The drill waits by this clock: no time passes in the test.
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    probes: Any = Served()
    assert watched.await_service(probes, since=100.0, within=30.0, steady=2.0)
    assert 102.0 <= clock[0] < 103.0
