"""The fault catalogue, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import effects
from .effects import Effect

# What becomes of the leader and of the virtual address. WAITS: nobody else may lead before all is healed. SPLIT: each
# balancer may hold the address until then.
STAYS, MOVES, EITHER, WAITS, SPLIT = "stays", "moves", "either", "waits", "split"

HAPROXY, KEEPALIVED = "haproxy.service", "keepalived.service"
PATRONI, ETCD = "patroni.service", "etcd.service"


@dataclass(frozen=True)
class Fault:
    """One entry of the catalogue.

    targets: how they are chosen (see targets.choose). bound: the class of standfast.timing that limits the
    outage, from the injection on, or where `outlasts` is set from the healing on. effect: what is done on
    each target; instead of it `playbook`, an operator's action, started on the control machine. hold_s:
    seconds until it is healed, 0 where it heals by itself at once. fades: the class of standfast.timing within
    which a fault that outlasts has taken the service away; at once where it is empty. cuts_off: meanwhile
    nobody hears from the targets, whatever they hold. leader, vip: what becomes of them.
    lossless: no request may fail at all. hits: the one writer whom a fault that outlasts keeps away; everybody where it
    is empty. variables: what the playbook is told besides, and has to refuse before it changes anything. refusal: what it
    has to say then, a regular expression. rogue: the targets may go on, or begin, to take writes that nobody sends them,
    until Patroni there has looked. alarm: what `fab status` must say of the service while the fault is there, a regular
    expression over `subject: seen`; nobody asks it where this is empty.
    archive: WAITS where WAL cannot reach the repository meanwhile. during: the type of the backup that runs when the
    fault comes, none where it is empty. backup: the type of the one that must succeed right after it, without hands;
    such a drill writes WAL besides.
    """

    name: str
    family: str
    summary: str
    targets: str
    bound: str
    effect: Effect | None = None
    playbook: str = ""
    hold_s: float = 0.0
    outlasts: bool = False
    fades: str = ""
    cuts_off: bool = False
    lossless: bool = False
    hits: str = ""
    variables: str = ""
    refusal: str = ""
    rogue: bool = False
    alarm: str = ""
    archive: str = ""
    during: str = ""
    backup: str = ""
    leader: str = STAYS
    vip: str = STAYS

    def __post_init__(self) -> None:
        # Any other refusal of the playbook would prove nothing of this one.
        if bool(self.variables) != bool(self.refusal):
            raise ValueError(f"{self.name}: variables and refusal: seen one of them; expected both or none")

    @property
    def backups(self) -> str:
        """What must hold of WAL and backups, in a few words; that the archive has no gap holds for every fault."""
        waits = ["WAL waits, no gap"] if self.archive == WAITS else ["no gap"]
        return ", ".join([*waits, *([f"next {self.backup} succeeds"] if self.backup else [])])


def _catalogue(*faults: Fault) -> Mapping[str, Fault]:
    return {fault.name: fault for fault in faults}


FAULTS = _catalogue(
    Fault(
        name="balancer-freeze",
        family="host",
        summary="the holder of the virtual address stops for 5 s",
        targets="vip-holder",
        bound="balancer-host-loss",
        effect=effects.freeze(5),
        hold_s=5,
        cuts_off=True,
        vip=MOVES,
    ),
    Fault(
        name="balancer-cut",
        family="network",
        summary="every packet of the virtual address's holder is lost for 20 s, its link stays up",
        targets="vip-holder",
        bound="balancer-host-loss",
        effect=effects.cut_off(),
        # Until it has lost all its servers it is as good a holder as the other one.
        hold_s=20,
        cuts_off=True,
        vip=MOVES,
    ),
    Fault(
        name="balancer-link-down",
        family="network",
        summary="the interface of the virtual address's holder is down for 5 s",
        targets="vip-holder",
        bound="balancer-host-loss",
        effect=effects.link_down(),
        hold_s=5,
        cuts_off=True,
        vip=MOVES,
    ),
    Fault(
        name="haproxy-crash",
        family="process",
        summary="HAProxy is killed where the virtual address is; systemd starts it again",
        targets="vip-holder",
        bound="haproxy-crash",
        effect=effects.kill(HAPROXY),
        vip=EITHER,
    ),
    Fault(
        name="haproxy-stop",
        family="process",
        summary="HAProxy is stopped for 5 s where the virtual address is",
        targets="vip-holder",
        bound="haproxy-stop",
        effect=effects.stop(HAPROXY),
        hold_s=5,
        vip=MOVES,
    ),
    Fault(
        name="haproxy-hang",
        family="process",
        summary="HAProxy's processes are suspended for 5 s where the virtual address is",
        targets="vip-holder",
        bound="haproxy-hang",
        effect=effects.suspend(HAPROXY),
        hold_s=5,
        vip=MOVES,
    ),
    Fault(
        name="keepalived-crash",
        family="process",
        summary="all processes of keepalived are killed at once where the virtual address is",
        targets="vip-holder",
        bound="keepalived-crash",
        effect=effects.kill(KEEPALIVED),
        vip=EITHER,
    ),
    Fault(
        name="vip-handover",
        family="operations",
        summary="an operator hands the virtual address over",
        targets="vip-holder",
        bound="balancer-stop",
        playbook="vip_handover.yml",
        vip=MOVES,
    ),
    Fault(
        name="haproxy-reload",
        family="operations",
        summary="HAProxy is reloaded 20 times where the virtual address is",
        targets="vip-holder",
        bound="haproxy-reload",
        effect=effects.reload(HAPROXY, 20),
        lossless=True,
    ),
    Fault(
        name="postgres-crash",
        family="process",
        summary="the primary's first process is killed",
        targets="primary",
        bound="postgres-crash",
        effect=effects.kill_postmaster(),
        leader=EITHER,
    ),
    Fault(
        name="patroni-stop",
        family="process",
        summary="Patroni and PostgreSQL are stopped in order on the primary, for 15 s",
        targets="primary",
        bound="switchover",
        effect=effects.stop(PATRONI),
        hold_s=15,
        leader=MOVES,
    ),
    Fault(
        name="patroni-crash",
        family="process",
        summary="Patroni alone is killed on the primary; systemd starts it again before its lease ends",
        targets="primary",
        bound="patroni-crash",
        effect=effects.kill(PATRONI, "main"),
    ),
    Fault(
        name="patroni-hang",
        family="process",
        summary="Patroni alone is suspended on the primary for 45 s, longer than its lease: nobody demotes PostgreSQL there",
        targets="primary",
        bound="patroni-hang",
        effect=effects.hang(PATRONI),
        hold_s=45,
        rogue=True,
        leader=MOVES,
    ),
    Fault(
        name="out-of-band-promote",
        family="operations",
        summary="an operator promotes a replica behind Patroni's back: it becomes one again, and leaves no trace in the archive",
        targets="replica",
        bound="bystander",
        effect=effects.promote(),
        rogue=True,
    ),
    Fault(
        name="bad-config",
        family="operations",
        summary="an operator converges with a setting that PostgreSQL does not understand: refused before anything changes",
        targets="primary",
        bound="bystander",
        playbook="postgresql.yml",
        variables='{"postgresql_parameters": {"work_mem": "lots"}}',
        refusal=r"work_mem.*lots",
        lossless=True,
    ),
    Fault(
        name="restore-outside-window",
        family="operations",
        summary="an operator restores the cluster to a moment before its first backup: refused before anything stops",
        targets="primary",
        bound="bystander",
        playbook="restore.yml",
        variables='{"target_time": "2001-01-01T00:00:00Z"}',
        refusal=r"target_time: seen .*2001-01-01",
        lossless=True,
    ),
    Fault(
        name="connections-full",
        family="operations",
        summary="an application takes all of the primary's connection slots for 20 s: sessions go on, new ones are refused",
        targets="primary",
        bound="server-return",
        effect=effects.take_all_slots(),
        hold_s=20,
        outlasts=True,
        hits="reconnect",
    ),
    Fault(
        name="cpu-starvation",
        family="host",
        summary="the primary's host gets a tenth of its processors' time for 20 s",
        targets="primary",
        bound="server-return",
        effect=effects.starve(0.1, 20),
        hold_s=20,
    ),
    Fault(
        name="primary-freeze-short",
        family="host",
        summary="the primary's host stops for 8 s, less than its lease",
        targets="primary",
        bound="server-return",
        effect=effects.freeze(8),
        hold_s=8,
        cuts_off=True,
        outlasts=True,
    ),
    Fault(
        name="primary-freeze",
        family="host",
        summary="the primary's host stops for 45 s, longer than its lease",
        targets="primary",
        bound="primary-host-loss",
        effect=effects.freeze(45),
        hold_s=45,
        cuts_off=True,
        leader=MOVES,
    ),
    Fault(
        name="primary-isolate",
        family="network",
        summary="the primary's host is cut off from everybody for 45 s",
        targets="primary",
        bound="primary-isolated",
        effect=effects.cut_off(),
        hold_s=45,
        cuts_off=True,
        leader=MOVES,
    ),
    Fault(
        name="primary-cut-from-peers",
        family="network",
        summary="the primary loses etcd and its replicas for 45 s, while clients still reach it",
        targets="primary",
        bound="primary-isolated",
        effect=effects.cut_from_peers(),
        hold_s=45,
        leader=MOVES,
    ),
    Fault(
        name="primary-cut-from-cluster",
        family="network",
        summary="the primary loses etcd, its replicas and the repository for 45 s, while clients still reach it",
        targets="primary",
        bound="primary-isolated",
        effect=effects.cut_from("$PEERS, $REPOSITORY"),
        hold_s=45,
        leader=MOVES,
    ),
    Fault(
        name="primary-deaf",
        family="network",
        summary="nothing from etcd and the replicas reaches the primary for 45 s, they still hear it, and clients reach it",
        targets="primary",
        bound="primary-isolated",
        effect=effects.hear_nothing_of_peers(),
        hold_s=45,
        leader=MOVES,
    ),
    Fault(
        name="etcd-member",
        family="process",
        summary="one etcd member is killed; systemd starts it again",
        targets="etcd-leader",
        bound="etcd-member",
        effect=effects.kill(ETCD),
    ),
    Fault(
        name="etcd-quorum",
        family="process",
        summary="two etcd members are stopped for 60 s: failsafe mode keeps the primary",
        targets="etcd-majority",
        bound="etcd-quorum",
        effect=effects.stop(ETCD),
        hold_s=60,
        alarm=r"^failsafe: ",
    ),
    Fault(
        name="switchover",
        family="operations",
        summary="an operator makes a synchronous replica the primary",
        targets="primary",
        bound="switchover",
        playbook="switchover.yml",
        leader=MOVES,
    ),
    Fault(
        name="primary-and-replica",
        family="process",
        summary="the primary and all replicas but one are killed for 45 s: the survivor must not be promoted",
        targets="primary-and-synchronous",
        bound="election",
        effect=effects.crash_and_stay_down(PATRONI),
        hold_s=45,
        outlasts=True,
        leader=WAITS,
        alarm=r"^leader: ",
    ),
    Fault(
        name="backend-crash",
        family="process",
        summary="one of the primary's server processes is killed: PostgreSQL ends all sessions and recovers",
        targets="primary",
        bound="postgres-crash",
        effect=effects.kill_backend(),
        leader=EITHER,
    ),
    Fault(
        name="postgres-hang",
        family="process",
        summary="all of the primary's server processes are suspended for 45 s, Patroni lives",
        targets="primary",
        bound="primary-host-loss",
        effect=effects.hang_postgres(),
        hold_s=45,
        leader=MOVES,
    ),
    Fault(
        name="replica-crash",
        family="process",
        summary="Patroni and PostgreSQL of a replica are killed, and stay down for 15 s",
        targets="replica",
        bound="bystander",
        effect=effects.crash_and_stay_down(PATRONI),
        hold_s=15,
        alarm=r"patroni.service on ",
    ),
    Fault(
        name="replica-freeze",
        family="host",
        summary="a replica's host stops for 20 s",
        targets="replica",
        bound="bystander",
        effect=effects.freeze(20),
        hold_s=20,
        cuts_off=True,
    ),
    Fault(
        name="backup-balancer-freeze",
        family="host",
        summary="a balancer without the virtual address stops for 5 s",
        targets="vip-backup",
        bound="bystander",
        effect=effects.freeze(5),
        hold_s=5,
        cuts_off=True,
    ),
    Fault(
        name="cut-dcs",
        family="network",
        summary="the primary loses etcd for 40 s, its replicas reach it: failsafe mode keeps it",
        targets="primary",
        bound="primary-cut-from-etcd",
        effect=effects.cut_from_peers("{ $ETCD_PORT, $ETCD_PEER_PORT }"),
        hold_s=40,
        alarm=r"^failsafe: |^etcd on ",
    ),
    Fault(
        name="cut-replicas",
        family="network",
        summary="the replicas lose the primary's PostgreSQL for 60 s, everybody reaches etcd: commits wait",
        targets="primary",
        bound="replica-return",
        effect=effects.cut_from_peers("$POSTGRESQL_PORT"),
        # Longer than wal_receiver_timeout: the replicas begin anew.
        hold_s=60,
        outlasts=True,
        alarm=r"^synchronous replicas: none streams",
    ),
    Fault(
        name="cut-vrrp",
        family="network",
        summary="the balancers do not hear each other's advertisements for 10 s: both hold the virtual address",
        targets="balancers",
        bound="balancer-host-loss",
        effect=effects.cut_vrrp(),
        hold_s=10,
        vip=SPLIT,
        alarm=r": held by \w+, ",
    ),
    Fault(
        name="vrrp-deaf",
        family="network",
        summary="a balancer without the virtual address does not hear the holder for 10 s, which hears it: both may hold it",
        targets="vip-backup",
        bound="balancer-host-loss",
        effect=effects.hear_no_vrrp(),
        hold_s=10,
        vip=SPLIT,
    ),
    Fault(
        name="cut-check",
        family="network",
        summary="the balancers cannot ask Patroni who leads for 10 s: they route nowhere rather than wrong",
        targets="balancers",
        bound="server-return",
        effect=effects.cut_check("$RESTAPI_PORT"),
        hold_s=10,
        outlasts=True,
        fades="server-loss",
        alarm=r"HAProxy sends writes to nobody",
    ),
    Fault(
        name="packet-loss",
        family="network",
        summary="5 % of the primary's packets are lost for 20 s",
        targets="primary",
        bound="server-return",
        effect=effects.lose(5),
        hold_s=20,
    ),
    Fault(
        name="repository-gone",
        family="storage",
        summary="the primary cannot reach the backup repository for 30 s: WAL waits in its queue",
        targets="primary",
        bound="backup",
        effect=effects.cut_from("$REPOSITORY"),
        hold_s=30,
        archive=WAITS,
        backup="incr",
    ),
    Fault(
        name="repo-full",
        family="storage",
        summary="no space is left for the backup repository for 45 s: WAL waits in the primary's queue",
        targets="repository",
        bound="backup",
        effect=effects.fill_repository(),
        hold_s=45,
        archive=WAITS,
        backup="incr",
    ),
    Fault(
        name="archive-failing",
        family="storage",
        summary="pgBackRest refuses to archive on the primary for 75 s",
        targets="primary",
        bound="backup",
        effect=effects.stop_archiving(),
        hold_s=75,
        archive=WAITS,
        backup="incr",
        alarm=r"^archiving on ",
    ),
    Fault(
        name="repo-rot",
        family="storage",
        summary="a file of the newest backup is gone and a bit of an archived segment flips: the verification finds both",
        targets="repository",
        bound="backup",
        effect=effects.rot(),
        hold_s=60,
        backup="incr",
        # The file, the backup that lacks it, and the segment.
        alarm=r"verify.* failed: repository 1: .*, and [2-9]\d* more",
    ),
    Fault(
        name="wrong-passphrase",
        family="storage",
        summary="the repository host has another passphrase for 75 s than the repository: nothing is read or written with it",
        targets="repository",
        bound="backup",
        effect=effects.change_passphrase(),
        hold_s=75,
        archive=WAITS,
        backup="incr",
        alarm=r"^archiving on ",
    ),
    Fault(
        name="backup-killed",
        family="process",
        summary="a full backup is killed with all its processes while it copies",
        targets="repository",
        bound="backup",
        effect=effects.kill_backup("full"),
        during="full",
        backup="full",
    ),
    Fault(
        name="failover-in-backup",
        family="process",
        summary="Patroni and PostgreSQL of the primary are killed for 45 s while a full backup copies",
        targets="primary",
        bound="primary-host-loss",
        effect=effects.crash_and_stay_down(PATRONI),
        hold_s=45,
        during="full",
        backup="full",
        leader=MOVES,
    ),
    Fault(
        name="backup-in-rolling-restart",
        family="operations",
        summary="an operator restarts all databases, the primary last, while a full backup copies",
        targets="primary",
        bound="switchover",
        effect=effects.restart_databases(),
        during="full",
        backup="full",
        leader=EITHER,
    ),
    Fault(
        name="replica-lag",
        family="storage",
        summary="a replica receives WAL and does not replay it for 20 s: commits go on",
        targets="replica",
        bound="bystander",
        effect=effects.stall_replay(),
        hold_s=20,
    ),
    Fault(
        name="etcd-nospace",
        family="storage",
        summary="etcd takes no more writes for 30 s, as with a full database: the lease is kept, the primary stays",
        targets="etcd-leader",
        bound="etcd-quorum",
        effect=effects.refuse_space(),
        hold_s=30,
        alarm=r"^etcd on .*: alarm NOSPACE",
    ),
    Fault(
        name="idle-slot",
        family="storage",
        summary="a replication slot without a consumer keeps WAL for 20 s",
        targets="primary",
        bound="bystander",
        effect=effects.keep_wal(),
        hold_s=20,
    ),
)
