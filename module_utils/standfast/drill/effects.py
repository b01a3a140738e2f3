"""How to break something inside a host, and how to mend it: pairs of shell scripts.

They run as root with `sh -eu`. An injection ends with the proof that it took hold, or where that shows only with time the
effect has a proof of its own; one that fails makes the drill void. Variables that they find: INTERFACE (the cluster's),
ADDRESS (the host's own) and ADDRESS6 (empty where it has none), PEERS (addresses of the other database and etcd hosts,
separated by commas), REPOSITORY (the backup host's address), ETCD_PORT and ETCD_PEER_PORT, POSTGRESQL_PORT, RESTAPI_PORT
(of Patroni), DATA_DIRECTORY (PostgreSQL's), CLUSTER (its name, and the stanza's), RUN (a folder for notes).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What a host must have for an effect: `test` succeeds if it does, `what` says it to people."""

    test: str
    what: str


# Asks this host's PostgreSQL; the query follows.
QUERY = "runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align --command"

CGROUP_FREEZER = Need("test -w /sys/fs/cgroup/init.scope/cgroup.freeze", "the freezer of control groups, version 2")
OVERLAY = Need("grep -qw overlay /proc/filesystems", "overlay file system")
# Where the first repository is.
REPOSITORY = "repository=$(sed -n 's/^repo1-path=//p' /etc/pgbackrest.conf)\n"
DIRECTORY = Need(f'{REPOSITORY}test -d "$repository/backup"', "repository in a directory of this host")
PASSPHRASE = Need("grep -q '^repo1-cipher-pass=' /etc/pgbackrest.conf", "passphrase of the repository")
NFTABLES = Need("command -v nft >/dev/null && nft list tables >/dev/null", "nftables")


@dataclass(frozen=True)
class Effect:
    """`heal` may run more than once, also when `inject` failed halfway; empty where nothing is to be mended.

    proof: right before the healing, that the fault is still there and did what it is for. silences: nothing on the host
    runs meanwhile, which its own probes prove. severs: nothing that comes over the cluster's interface reaches the host.
    """

    inject: str
    heal: str = ""
    need: Need | None = None
    proof: str = ""
    silences: bool = False
    severs: bool = False


def end(unit: str, *, wait: bool = True) -> str:
    """A command that stops a transient unit, which may have ended by itself and be gone; wait: until it has ended."""
    return f"systemctl stop {'' if wait else '--no-block '}{unit} || ! systemctl is-active {unit}\n"


# Every control group but the freezer's own stops, PID 1 too. The kernel lives on: connections are accepted
# and hang, as with a stopped hypervisor's guest they would not; that is the harder case.
FREEZER = """
import pathlib, time
own = pathlib.Path("/proc/self/cgroup").read_text().strip().split("::")[1].split("/")[1]
groups = [path for path in pathlib.Path("/sys/fs/cgroup").glob("*/cgroup.freeze") if path.parent.name != own]
try:
    for path in groups:
        path.write_text("1")
    time.sleep({seconds})
finally:
    for path in groups:
        path.write_text("0")
"""


def freeze(seconds: float) -> Effect:
    """Stop the whole host for so long; it heals by itself, since nothing on it could be told to."""
    unit = "standfast-drill-freeze"
    return Effect(
        f"systemd-run --quiet --collect --unit={unit} --slice=standfastdrill.slice "
        f"python3 -c '{FREEZER.format(seconds=seconds)}'\n",
        need=CGROUP_FREEZER,
        silences=True,
    )


# Stops control groups for a part of each period, until one is gone, it is over, or somebody ends it. Opened once, they are these
# groups: a unit that is started again has another one under the same name.
THIEF = """
import contextlib, errno, os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
until, share, period_s = time.monotonic() + float(sys.argv[1]), float(sys.argv[2]), 0.1
own = pathlib.Path("/proc/self/cgroup").read_text().strip().split("::")[1].split("/")[1]
found = pathlib.Path("/sys/fs/cgroup").glob(sys.argv[3].lstrip("/") + "/cgroup.freeze")
groups = [os.open(path, os.O_WRONLY) for path in found if path.parent.name != own]
def every(value):
    for group in groups:
        os.pwrite(group, value, 0)
try:
    while time.monotonic() < until:
        every(b"1")
        time.sleep(period_s * (1 - share))
        every(b"0")
        time.sleep(period_s * share)
except OSError as error:
    # The last process has ended, and its group with it.
    sys.exit(error.errno != errno.ENODEV)
finally:
    for group in groups:
        with contextlib.suppress(OSError):
            os.pwrite(group, b"0", 0)
"""


THIEF_UNIT = "standfast-drill-thief.service"
# It is ended when its time has come; by itself so much later.
THIEF_SLACK_S = 30


def slow_down(groups: str, share: float, seconds: float) -> str:
    """Commands that leave control groups (a pattern) a share of their time, for so long, while the script goes on."""
    return (
        f"systemd-run --quiet --collect --unit={THIEF_UNIT} --slice=standfastdrill.slice "
        f"python3 -c '{THIEF}' {seconds:g} {share:g} \"{groups}\"\n"
    )


def starve(share: float, seconds: float) -> Effect:
    """The host runs for a share of the time, as on a hypervisor that has sold its processors many times over."""
    return Effect(
        slow_down("*", share, seconds + THIEF_SLACK_S),
        end(THIEF_UNIT),
        CGROUP_FREEZER,
        f"systemctl --quiet is-active {THIEF_UNIT}\n",
    )


def backup_unit(kind: str) -> str:
    """The unit that makes backups of a type."""
    return f"standfast-backup@{kind}.service"


def begin_backup(kind: str) -> str:
    """Begin a backup, wait until it copies, and have it go on slowly, as that of a larger database; for the repository.

    It prints when the backup was seen to copy, by the host's monotonic clock.
    """
    return f"""
systemctl start --no-block {backup_unit(kind)}
for attempt in $(seq 3000); do
    group=$(systemctl show --property=ControlGroup --value {backup_unit(kind)})
    processes=$(cat "/sys/fs/cgroup/$group/cgroup.procs" 2>/dev/null || true)
    if test -n "$group" && grep -qs backup:local $(printf '/proc/%s/cmdline ' $processes) /dev/null; then
        python3 -c 'import time; print(time.monotonic())'
        {slow_down("$group", 0.2, 60).strip()}
        exit 0
    fi
    sleep 0.02
done
exit 1
"""


def kill(unit: str, whom: str = "all") -> Effect:
    """SIGKILL to all processes of a unit, or to its main one; systemd may start it again."""
    return Effect(
        f"""
before=$(systemctl show --property=MainPID --value {unit})
test "$before" -gt 0
systemctl kill --signal=KILL --kill-whom={whom} {unit}
for attempt in $(seq 100); do test -d "/proc/$before" || exit 0; sleep 0.01; done
exit 1
"""
    )


def stop(unit: str) -> Effect:
    """An orderly stop."""
    return Effect(
        f"systemctl stop {unit}\nif systemctl --quiet is-active {unit}; then exit 1; fi\n",
        f"systemctl start {unit}\n",
    )


def crash_and_stay_down(unit: str) -> Effect:
    """SIGKILL to all processes of a unit that systemd may not start again."""
    return Effect(
        f"""
systemctl mask --runtime --quiet {unit}
systemctl kill --signal=KILL --kill-whom=all {unit}
for attempt in $(seq 100); do systemctl --quiet is-active {unit} || exit 0; sleep 0.05; done
exit 1
""",
        f"""
systemctl unmask --runtime --quiet {unit}
# Unloaded already, it has no failure to forget.
systemctl reset-failed {unit} 2>/dev/null || true
systemctl start {unit}
""",
    )


# The signal is not obeyed before the process runs again; one that is no longer there goes on with nothing.
AWAIT_STOPPED = """
all_stopped() { test -z "$(grep -L '^State:.[TZ]' $(printf '/proc/%s/status ' "$@") 2>/dev/null)"; }
await_stopped() {
    for attempt in $(seq 100); do if all_stopped "$@"; then return 0; fi; sleep 0.01; done
    return 1
}
"""


def suspend(unit: str) -> Effect:
    """SIGSTOP to all processes of a unit, the children first, so that none reports the other."""
    return Effect(
        f"""{AWAIT_STOPPED}
main=$(systemctl show --property=MainPID --value {unit})
processes="$(cat "/proc/$main/task/$main/children") $main"
kill -STOP $processes
await_stopped $processes
""",
        f"systemctl kill --signal=CONT --kill-whom=all {unit}\n",
    )


def kill_postmaster() -> Effect:
    """SIGKILL to PostgreSQL's first process; Patroni lives."""
    return Effect(
        """
postmaster=$(head -n 1 "$DATA_DIRECTORY/postmaster.pid")
kill -KILL "$postmaster"
for attempt in $(seq 100); do test -d "/proc/$postmaster" || exit 0; sleep 0.01; done
exit 1
"""
    )


def kill_backend() -> Effect:
    """SIGKILL to one of the server processes that serve the drill's own clients: PostgreSQL restarts all of them."""
    # The one of the client that keeps its session: the others are gone before they can be killed.
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'standfast-drill' ORDER BY backend_start LIMIT 1"
    return Effect(f'backend=$({QUERY} "{ours}")\ntest "$backend" -gt 0\nkill -KILL "$backend"\n')


def hang(unit: str) -> Effect:
    """SIGSTOP to the main process of a unit alone: what it has started goes on."""
    return Effect(
        f"""{AWAIT_STOPPED}
main=$(systemctl show --property=MainPID --value {unit})
kill -STOP "$main"
await_stopped "$main"
""",
        f"systemctl kill --signal=CONT --kill-whom=main {unit}\n",
    )


# To PostgreSQL's first process before the others, so that it starts no more of them; one of those may end meanwhile.
SIGNAL = """
postmaster=$(head -n 1 "$DATA_DIRECTORY/postmaster.pid")
children="/proc/$postmaster/task/$postmaster/children"
kill -{0} "$postmaster"
for process in $(cat "$children"); do kill -{0} "$process" 2>/dev/null || test ! -d "/proc/$process"; done
"""


def hang_postgres() -> Effect:
    """SIGSTOP to PostgreSQL's processes; Patroni lives."""
    stopped = 'await_stopped "$postmaster" $(cat "$children")\n'
    # Patroni may have killed them, and started others or none.
    gone = 'test -d "/proc/$(head -n 1 "$DATA_DIRECTORY/postmaster.pid" || echo gone)" || exit 0\n'
    return Effect(AWAIT_STOPPED + SIGNAL.format("STOP") + stopped, gone + SIGNAL.format("CONT"))


def stall_replay() -> Effect:
    """SIGSTOP to the process of a replica that replays; what is received is still written.

    What pg_wal_replay_pause() pauses Patroni resumes within one loop.
    """
    found = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"
    waits = "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'"
    return Effect(
        f"""{AWAIT_STOPPED}
startup=$({QUERY} "{found}")
echo "$startup" >"$RUN/startup"
# While it waits for WAL it holds nothing that others wait for.
for attempt in $(seq 100); do
    kill -STOP "$startup"
    if await_stopped "$startup" && test "$(timeout 2 {QUERY} "{waits}")" = RecoveryWalStream; then break; fi
    kill -CONT "$startup"
    sleep 0.01
done
await_stopped "$startup"
for attempt in $(seq 100); do
    test "$({QUERY} "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")" != t || exit 0
    sleep 0.05
done
exit 1
""",
        """
test -e "$RUN/startup" || exit 0
startup=$(cat "$RUN/startup")
kill -CONT "$startup" || test ! -d "/proc/$startup"
""",
    )


def promote() -> Effect:
    """PostgreSQL's own promotion of a replica, of which Patroni is not told."""
    return Effect(
        f"""
newest() {{ ls "$DATA_DIRECTORY/pg_wal" | grep "[.]history$" | tail -n 1; }}
before=$(newest)
{QUERY} "SELECT pg_promote(wait => false)" >/dev/null
# Patroni may take it back at once: what stays for longer is the history of its timeline.
for attempt in $(seq 500); do
    test "$(newest)" = "$before" || exit 0
    sleep 0.01
done
exit 1
"""
    )


def keep_wal() -> Effect:
    """A replication slot without a consumer: WAL piles up behind it."""
    create = "SELECT pg_create_physical_replication_slot('standfast_drill', true)"
    # Patroni may have dropped it.
    drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'standfast_drill'"
    return Effect(f'{QUERY} "{create}" >/dev/null\n', f'{QUERY} "{drop}" >/dev/null\n')


# As a member raises it whose database has reached its quota.
ALARM = """
import json, ssl, sys, urllib.request
url = sys.argv[1]
context = ssl.create_default_context(cafile="/etc/standfast/pki/ca.crt")
context.load_cert_chain("/etc/standfast/pki/host.crt", "/etc/standfast/pki/host.key")
def ask(path, **body):
    with urllib.request.urlopen(url + path, json.dumps(body).encode(), timeout=10, context=context) as answer:
        return json.load(answer)
member = ask("/v3/maintenance/status")["header"]["member_id"]
ask("/v3/maintenance/alarm", action="ACTIVATE", memberID=member, alarm="NOSPACE")
sys.exit(not ask("/v3/maintenance/alarm", action="GET").get("alarms"))
"""


def refuse_space() -> Effect:
    """etcd's alarm NOSPACE: no member takes a write until it is disarmed."""
    return Effect(
        f"python3 -c '{ALARM}' \"https://$ADDRESS:$ETCD_PORT\"\n",
        "set -a\n. /etc/default/etcd\netcdctl alarm disarm\n",
    )


# Takes every slot that is not reserved for superusers, and each one that becomes free. It leaves one by one: a hundred server
# processes that end in one moment keep a small machine from everything else, the drill's clients too.
CROWD = '''
import psycopg2, signal, sys, time
FREE = """SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - current_setting('reserved_connections')::int - count(*)
    FROM pg_stat_activity WHERE backend_type = 'client backend'"""
def connect():
    one = psycopg2.connect(dbname="postgres", application_name="standfast-drill-crowd")
    one.autocommit = True
    return one
def leave(*_):
    # Not before the drill knows that it is healed.
    time.sleep(0.3)
    for one in others:
        one.close()
        time.sleep(0.005)
    sys.exit()
first, others = connect(), []
signal.signal(signal.SIGTERM, leave)
while True:
    with first.cursor() as cursor:
        cursor.execute(FREE)
        (free,) = cursor.fetchone()
    others += [connect() for _ in range(max(0, free))]
    time.sleep(0.02)
'''


def take_all_slots() -> Effect:
    """Idle sessions on every connection slot that is not reserved for superusers."""
    free = (
        "SELECT count(*) >= current_setting('max_connections')::int "
        "- current_setting('superuser_reserved_connections')::int - current_setting('reserved_connections')::int "
        "FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    return Effect(
        f"""
cat >"$RUN/crowd.py" <<'PROGRAM'
{CROWD}
PROGRAM
systemd-run --quiet --collect --unit=standfast-drill-crowd --uid=postgres python3 "$RUN/crowd.py"
for attempt in $(seq 200); do
    test "$({QUERY} "{free}")" != t || exit 0
    sleep 0.05
done
exit 1
""",
        end("standfast-drill-crowd.service", wait=False),
    )


def stop_archiving() -> Effect:
    """Whatever pgBackRest is asked for on this host, it refuses, as after an operator's `pgbackrest stop`."""
    pgbackrest = 'runuser -u postgres -- pgbackrest --stanza="$CLUSTER" --log-level-console=off'
    return Effect(
        f"{pgbackrest} stop\nif {pgbackrest} archive-push /nonexistent 2>/dev/null; then exit 1; fi\n",
        f"{pgbackrest} start\n",
    )


# The repository as it is, below a file system on which nothing is free: what is there can be read, what is new finds no
# space, and nothing that is there is touched. The server of pgBackRest sees it once its sandbox is made anew.
FULL = f"""
{REPOSITORY}full="$RUN/full"
"""


def fill_repository() -> Effect:
    """No space is left for the repository; the space of its real file system stays as it is."""
    return Effect(
        f"""{FULL}
mkdir -p "$full"
mount -t tmpfs -o size=64k,mode=0755 standfast-drill "$full"
mkdir "$full/upper" "$full/work"
chown --reference="$repository" "$full/upper"
chmod --reference="$repository" "$full/upper"
mount -t overlay -o "lowerdir=$repository,upperdir=$full/upper,workdir=$full/work" standfast-drill "$repository"
dd if=/dev/zero of="$full/filler" bs=4k 2>/dev/null || test -s "$full/filler"
systemctl restart pgbackrest.service
server=$(systemctl show --property=MainPID --value pgbackrest.service)
if nsenter --target "$server" --mount -- sh -c 'echo full >"$1"' - "$repository/standfast-drill" 2>/dev/null; then exit 1; fi
test "$(nsenter --target "$server" --mount -- df --output=avail "$repository" | tail -n 1)" -eq 0
""",
        f"""{FULL}
for place in "$repository" "$full"; do
    while test "$(findmnt --noheadings --first-only --output=SOURCE --mountpoint "$place")" = standfast-drill; do
        umount --lazy "$place"
    done
done
systemctl restart pgbackrest.service
""",
        OVERLAY,
    )


# The sound files lie where a restart of the host leaves them.
ROT = f"""
{REPOSITORY}kept=/var/lib/standfast-drill-rot
"""
FLIP = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
with path.open("r+b") as file:
    file.seek(path.stat().st_size // 2)
    [byte] = file.read(1)
    file.seek(-1, 1)
    file.write(bytes([byte ^ 1]))
"""


def rot() -> Effect:
    """A file of the newest backup is not there, and a bit of an archived segment is another one; the verification begins.

    Where a segment is missing it would wait for a minute whether that is only on its way.
    """
    return Effect(
        f"""{ROT}
backup=$(find "$repository/backup/$CLUSTER" -path '*/bundle/*' -type f | sort | tail -n 1)
segment=$(find "$repository/archive/$CLUSTER" -type f -name '????????????????????????-*' | sort | tail -n 2 | head -n 1)
mkdir --mode=0700 "$kept"
for file in "$backup" "$segment"; do
    copy="$kept/$(basename "$file")"
    cp --preserve "$file" "$copy"
    echo "$file" >"$copy.path"
done
sync
rm "$backup"
python3 - "$segment" <<'END'{FLIP}END
if cmp --silent "$segment" "$kept/$(basename "$segment")"; then exit 1; fi
systemctl restart --no-block standfast-backup-verify.service
""",
        f"""{ROT}
if test ! -d "$kept"; then exit 0; fi
for path in "$kept"/*.path; do
    test -e "$path" || continue
    file=$(cat "$path")
    cp --preserve "${{path%.path}}" "$file.healed"
    mv "$file.healed" "$file"
done
rm -r "$kept"
systemctl restart --no-block standfast-backup-verify.service
""",
        DIRECTORY,
    )


def change_passphrase() -> Effect:
    """pgBackRest on the repository's host reads and writes with a passphrase that is not the repository's."""
    configuration, kept = "/etc/pgbackrest.conf", "/etc/pgbackrest.conf.standfast-drill"
    return Effect(
        f"""
cp --preserve {configuration} {kept}
sed -i 's/^repo1-cipher-pass=.*/repo1-cipher-pass=wrong/' {configuration}
systemctl restart pgbackrest.service
if runuser -u postgres -- pgbackrest --stanza="$CLUSTER" --log-level-console=off --log-level-stderr=off check; then exit 1; fi
""",
        f"""
if test -e {kept}; then mv {kept} {configuration}; fi
systemctl restart pgbackrest.service
""",
        PASSPHRASE,
    )


def kill_backup(kind: str) -> Effect:
    """SIGKILL to every process of a running backup."""
    unit = backup_unit(kind)
    return Effect(
        f"""
test "$(systemctl show --property=ActiveState --value {unit})" = activating
systemctl kill --signal=KILL --kill-whom=all {unit}
for attempt in $(seq 100); do
    if systemctl --quiet is-failed {unit}; then exit 0; fi
    sleep 0.05
done
exit 1
"""
    )


def restart_databases() -> Effect:
    """What an operator does for a setting that needs a restart: the replicas one by one, then the primary in place."""
    restart = 'patronictl -c /etc/patroni/config.yml restart "$CLUSTER" --force'
    return Effect(
        f"""
before=$(head -n 1 "$DATA_DIRECTORY/postmaster.pid")
{restart} --role=replica
{restart} --role=primary
test "$(head -n 1 "$DATA_DIRECTORY/postmaster.pid")" != "$before"
"""
    )


# Of all rules together; what a fault never dropped it did not keep from anybody.
DROPPED = "nft list table {0} standfast_drill | grep --quiet 'packets [1-9]'\n"


def cut_off() -> Effect:
    """Drop every packet of the interface, ARP too, in both directions; the link stays up."""
    return Effect(
        """
nft -f - <<RULES
table netdev standfast_drill {
    chain in {
        type filter hook ingress device "$INTERFACE" priority -500;
        counter drop
    }
    chain out {
        type filter hook egress device "$INTERFACE" priority -500;
        counter drop
    }
}
RULES
""",
        "nft destroy table netdev standfast_drill\n",
        NFTABLES,
        DROPPED.format("netdev"),
        severs=True,
    )


def drop(incoming: str, outgoing: str) -> Effect:
    """Drop the packets that match; `incoming` and `outgoing` are matches of nftables, one a line."""
    lines = ["".join(f"        {match} counter drop\n" for match in text.splitlines()) for text in (incoming, outgoing)]
    return Effect(
        f"""
nft -f - <<RULES
table inet standfast_drill {{
    chain in {{
        type filter hook input priority -500;
{lines[0]}    }}
    chain out {{
        type filter hook output priority -500;
{lines[1]}    }}
}}
RULES
""",
        "nft destroy table inet standfast_drill\n",
        NFTABLES,
        DROPPED.format("inet"),
    )


def cut_from_peers(ports: str = "") -> Effect:
    """Drop what goes to and comes from the other database and etcd hosts; balancers and clients are still served.

    With `ports`, a set of nftables, only what goes to or comes from these TCP ports.
    """
    sides = [f" tcp {side} {ports}" for side in ("sport", "dport")] if ports else [""]
    return drop(
        "\n".join(f"ip saddr {{ $PEERS }}{side}" for side in sides),
        "\n".join(f"ip daddr {{ $PEERS }}{side}" for side in sides),
    )


def cut_from(addresses: str) -> Effect:
    """Drop what goes to and comes from these addresses, separated by commas."""
    return drop(f"ip saddr {{ {addresses} }}", f"ip daddr {{ {addresses} }}")


def hear_nothing_of_peers() -> Effect:
    """Drop what comes from the other database and etcd hosts; what goes to them arrives."""
    return drop("ip saddr { $PEERS }", "")


def hear_no_vrrp() -> Effect:
    """Drop the advertisements of VRRP that come in; the host's own are heard."""
    return drop("meta l4proto vrrp", "")


def cut_vrrp() -> Effect:
    """Drop the advertisements of VRRP, both ways."""
    both = "meta l4proto vrrp"
    return drop(both, both)


def cut_check(port: str) -> Effect:
    """Drop what this host asks of a TCP port elsewhere, and the answers."""
    return drop(f"tcp sport {port}", f"tcp dport {port}")


def lose(percent: int) -> Effect:
    """Drop so many of a hundred packets of the interface, both ways, by chance."""
    chance = f"numgen random mod 100 < {percent}"
    return drop(f'iifname "$INTERFACE" {chance}', f'oifname "$INTERFACE" {chance}')


def link_down() -> Effect:
    """Take the interface down; the routes and the host's own IPv6 address, which this costs, come back with it.

    What a program has put there it puts there again: keepalived its virtual addresses, the kernel its own routes.
    """
    return Effect(
        """
for family in 4 6; do
    ip -$family route show dev "$INTERFACE" | sed '/ proto kernel/d; s/ linkdown//; s/ expires [^ ]*//' >"$RUN/routes$family"
done
ip -6 -oneline address show dev "$INTERFACE" to "${ADDRESS6:-::}" | awk '{ print $4 }' >"$RUN/address6"
ip link set "$INTERFACE" down
ip -json link show "$INTERFACE" | grep -q '"operstate":"DOWN"'
""",
        """
ip link set "$INTERFACE" up
if test ! -e "$RUN/address6"; then exit 0; fi
for address in $(cat "$RUN/address6"); do ip -6 address replace "$address" dev "$INTERFACE" nodad; done
for family in 4 6; do
    # Its words are as `ip` has printed them.
    while read -r route; do ip -$family route replace $route dev "$INTERFACE"; done <"$RUN/routes$family"
done
rm "$RUN/address6"
""",
        severs=True,
    )


def reload(unit: str, times: int) -> Effect:
    """Reload a unit again and again, each when the one before is done."""
    return Effect(f"for turn in $(seq {times}); do systemctl reload {unit}; done\n")
