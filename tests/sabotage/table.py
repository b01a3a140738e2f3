"""The saboteurs: what each breaks, and the test that must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Saboteur:
    """One way to break the project.

    file: relative to the repository. text: stands in it exactly once, and is replaced by `replacement`.
    killer: the one pytest test that must fail. playbook: for a saboteur of a running lab, the layer that brings
    it to the hosts and takes it away again. drill: a fault whose drill is the killer instead of a test.
    """

    name: str
    file: str
    text: str
    replacement: str
    killer: str = ""
    playbook: str = ""
    drill: str = ""


GUARDS = "tests/templates/test_guards.py"
TASKS = "tests/contract/test_tasks.py"
CHECKER = "tests/unit/test_drill_checker.py"
DOORS = "molecule/doors/tests"

KEEPALIVED = "roles/keepalived/templates/keepalived.conf.j2"
HAPROXY = "roles/haproxy/templates/haproxy.cfg.j2"
ETCD = "roles/etcd/templates/etcd.env.j2"
FIREWALL = "roles/firewall/templates/nftables.standfast.conf"
POSTGRESQL = "roles/postgresql/vars/main.yml"
PACKAGE = "module_utils/standfast"
RUN = f"{PACKAGE}/drill/run.py"
SAFETY = "tests/unit/test_drill_safety.py"

# Killed without a host, in a copy of the tree.
CHEAP = [
    Saboteur(
        "slower restart after each crash",
        "roles/postgresql/files/root/etc/systemd/system/patroni.service.d/50-standfast.conf",
        "RestartSec=100ms\n",
        "RestartSec=100ms\nRestartSteps=6\nRestartMaxDelaySec=10s\n",
        f"{GUARDS}::test_daemon_returns_from_its_tenth_crash_as_fast_as_from_its_first",
    ),
    Saboteur(
        "etcd that hangs for as long as it likes",
        "roles/etcd/templates/50-standfast.conf.j2",
        "TimeoutStopSec=15s\n",
        "",
        f"{GUARDS}::test_etcd_that_hangs_on_its_way_out_is_ended_with_its_last_words",
    ),
    # -- who holds the virtual address --
    Saboteur(
        "balancer that lost all servers takes the address back",
        KEEPALIVED,
        "    weight -100\n",
        "    weight -0\n",
        f"{GUARDS}::test_balancer_that_lost_all_servers_yields_to_one_that_did_not",
    ),
    Saboteur(
        "equal priorities",
        f"{PACKAGE}/topology.py",
        "{name: FIRST_PRIORITY - rank for rank, name in enumerate(order)}",
        "{name: FIRST_PRIORITY for rank, name in enumerate(order)}",
        f"{GUARDS}::test_no_two_balancers_have_one_priority",
    ),
    Saboteur(
        "preempting virtual address",
        KEEPALIVED,
        "    nopreempt\n",
        "",
        f"{GUARDS}::test_virtual_address_stays_where_it_is",
    ),
    Saboteur(
        "check that asks only for a process",
        KEEPALIVED,
        '"/usr/bin/socat -t 10 /dev/null UNIX-CONNECT:{{ keepalived_health_socket }}"',
        '"/usr/bin/pgrep haproxy"',
        f"{GUARDS}::test_check_has_haproxy_itself_answer",
    ),
    Saboteur(
        "failed check that only lowers a priority",
        KEEPALIVED,
        "    init_fail\n",
        "    weight -10\n",
        f"{GUARDS}::test_balancer_without_haproxy_never_holds_the_address",
    ),
    # -- where HAProxy sends sessions --
    Saboteur(
        "wrong check path",
        HAPROXY,
        "uri /primary ver",
        "uri /health ver",
        f"{GUARDS}::test_database_is_asked_for_the_role_that_is_needed[postgresql-primary-/primary]",
    ),
    Saboteur(
        "certificate that is not verified",
        HAPROXY,
        "check-ssl verify required ca-file {{ haproxy_ca_file }} on-marked-down",
        "check-ssl verify none on-marked-down",
        f"{GUARDS}::test_every_checked_server_proves_who_it_is",
    ),
    Saboteur(
        "sessions on two primaries",
        HAPROXY,
        "    tcp-request connection reject if { nbsrv(postgresql-primary) gt 1 }\n",
        "",
        f"{GUARDS}::test_no_session_is_opened_while_two_say_that_they_lead",
    ),
    Saboteur(
        "reload that trusts new servers",
        "roles/haproxy/files/root/usr/local/libexec/standfast-haproxy-reload",
        "if old and row[ADDRESS] in (old[ADDRESS], old[FQDN]) and row[PORT] == old[PORT]:",
        "if old:",
        "tests/unit/test_haproxy.py::test_reload_trusts_no_new_or_moved_server",
    ),
    # -- the database --
    Saboteur(
        "quorum commit off",
        POSTGRESQL,
        "  quorum:\n    synchronous_mode: quorum\n",
        '  quorum:\n    synchronous_mode: "off"\n',
        f"{GUARDS}::test_commit_waits_for_a_quorum",
    ),
    Saboteur(
        "failsafe off",
        POSTGRESQL,
        "failsafe_mode: true",
        "failsafe_mode: false",
        f"{GUARDS}::test_primary_outlives_the_consensus_store",
    ),
    Saboteur(
        "no local replication",
        f"{PACKAGE}/patroni.py",
        '        f"local replication {replication} peer map=standfast",\n',
        "",
        f"{GUARDS}::test_former_primary_returns_without_hands",
    ),
    Saboteur(
        "archive_command that throws WAL away",
        "playbooks/group_vars/all/postgresql.yml",
        "{{ 'pgbackrest --stanza=' ~ topology.cluster_name ~ ' archive-push %p' if topology.backup else '' }}",
        "/bin/true",
        f"{GUARDS}::test_wal_goes_to_the_repository_and_only_sound_wal_comes_back",
    ),
    Saboteur(
        "archive_command without its guard",
        POSTGRESQL,
        "postgresql_archive_command and '/usr/local/libexec/standfast-archive-wal %p ' ~ postgresql_archive_command",
        "postgresql_archive_command",
        f"{GUARDS}::test_wal_goes_to_the_repository_and_only_sound_wal_comes_back",
    ),
    Saboteur(
        "WAL of whoever was promoted goes into the archive",
        "roles/postgresql/files/root/usr/local/libexec/standfast-archive-wal",
        '$(basename "$waiting" .ready)"\n',
        '$(basename "$waiting" .ready)" || true\n',
        "tests/unit/test_archive_wal.py::test_nothing_is_archived_while_a_foreign_timeline_waits[00000002.history]",
    ),
    Saboteur(
        "any timeline that the leader has been on is taken for its own",
        f"{PACKAGE}/lineage.py",
        "timeline in numbers and list(older) == list(left[: numbers.index(timeline)])",
        "timeline in numbers",
        "tests/unit/test_archive_wal.py::test_timeline_that_forked_elsewhere_is_not_the_clusters[elsewhere]",
    ),
    Saboteur(
        "restore_command without its guard",
        POSTGRESQL,
        "'/usr/local/libexec/standfast-restore-wal %f ' ~ postgresql_restore_command",
        "postgresql_restore_command",
        f"{GUARDS}::test_wal_goes_to_the_repository_and_only_sound_wal_comes_back",
    ),
    Saboteur(
        "guard that lets the last segment of a timeline pass",
        "roles/postgresql/files/root/usr/local/libexec/standfast-restore-wal",
        '[ "$number" -ge "$end" ]',
        '[ "$number" -gt "$end" ]',
        "tests/unit/test_restore_wal.py::test_nothing_is_restored_from_beyond_the_end_of_a_timeline"
        "[00000004000000000000000D]",
    ),
    Saboteur(
        "replica that believes any primary",
        POSTGRESQL,
        "sslmode: verify-full",
        "sslmode: require",
        f"{GUARDS}::test_replica_verifies_its_primary[replication]",
    ),
    # -- etcd --
    Saboteur(
        "etcd without client certificates",
        ETCD,
        'ETCD_CLIENT_CERT_AUTH="true"',
        'ETCD_CLIENT_CERT_AUTH="false"',
        f"{GUARDS}::test_etcd_asks_for_a_certificate[CLIENT_CERT_AUTH]",
    ),
    Saboteur(
        "restart that costs etcd its quorum",
        f"{PACKAGE}/etcd.py",
        "return voters // 2 + 1",
        "return voters // 2",
        "tests/unit/test_etcd.py::test_restart_is_refused_when_another_member_is_down",
    ),
    Saboteur(
        "restarts in the reverse order",
        "roles/etcd/tasks/service.yml",
        "    - not __etcd_membership.leader\n",
        "    - __etcd_membership.leader\n",
        f"{TASKS}::test_leader_of_etcd_restarts_last_and_the_followers_one_at_a_time",
    ),
    # -- daemons and timers --
    Saboteur(
        "timer disabled",
        "roles/etcd/tasks/service.yml",
        "    name: etcd-defragmentation.timer\n    enabled: true\n",
        "    name: etcd-defragmentation.timer\n    enabled: false\n",
        f"{TASKS}::test_unit_that_is_started_starts_at_the_next_boot_too"
        "[roles/etcd/tasks/service.yml: service | Enable the defragmentation timer]",
    ),
    Saboteur(
        "backup missed while the host was off",
        f"{PACKAGE}/systemd.py",
        "RandomizedDelaySec={schedule.randomized_delay_s}\nPersistent=yes\n",
        "RandomizedDelaySec={schedule.randomized_delay_s}\nPersistent=no\n",
        "tests/unit/test_systemd_timers.py::test_timer_unit_makes_up_for_missed_times",
    ),
    Saboteur(
        "restart instead of reload",
        "roles/haproxy/tasks/service.yml",
        "    reload_on: [",
        "    reload_on: []\n    restart_on: [",
        f"{TASKS}::test_daemon_that_carries_sessions_is_reloaded_and_never_restarted[haproxy]",
    ),
    Saboteur(
        "unit enabled before systemd has read it",
        f"{PACKAGE}/reload.py",
        'found.append("enable")',
        'found.insert(0, "enable")',
        "tests/unit/test_systemd_daemon.py::test_unit_is_enabled_after_systemd_has_read_it",
    ),
    # -- doors and secrets --
    Saboteur(
        "firewall open",
        FIREWALL,
        "hook input priority filter; policy drop;",
        "hook input priority filter; policy accept;",
        f"{GUARDS}::test_firewall_drops_what_no_rule_admits",
    ),
    Saboteur(
        "etcd open to everybody",
        f"{PACKAGE}/topology.py",
        '(ports["etcd_client_port"],), hosts("etcd", "databases"))',
        '(ports["etcd_client_port"],), ANYWHERE)',
        "tests/unit/test_topology.py::test_firewall_admits_exactly_the_flows[balancer1-db1-2379-False]",
    ),
    Saboteur(
        "access rule that trusts everybody",
        f"{PACKAGE}/patroni.py",
        'NETWORK_METHODS = ("scram-sha-256",',
        'NETWORK_METHODS = ("trust", "scram-sha-256",',
        "tests/unit/test_patroni.py::test_access_rule_is_refused[hostssl all all 10.0.0.0/8 trust]",
    ),
    Saboteur(
        "encryption off",
        "roles/pgbackrest/templates/pgbackrest.conf.j2",
        "{{ repo }}-cipher-type=aes-256-cbc",
        "{{ repo }}-cipher-type=none",
        f"{GUARDS}::test_repository_is_encrypted",
    ),
    Saboteur(
        "unknown host keys accepted",
        f"{PACKAGE}/connections.py",
        "paramiko.RejectPolicy()",
        "paramiko.AutoAddPolicy()",
        "tests/unit/test_connections.py::test_unknown_host_keys_are_refused_whatever_the_configuration_says",
    ),
    Saboteur(
        "certificate of another authority kept",
        f"{PACKAGE}/certificates.py",
        "        certificate.verify_directly_issued_by(issuer)\n",
        "        pass\n",
        "tests/unit/test_certificates.py::test_certificate_is_replaced[authority of the same name]",
    ),
    Saboteur(
        "secret in a log",
        f"{PACKAGE}/patroni_api.py",
        '"password": {"type": "str", "required": True, "no_log": True}',
        '"password": {"type": "str", "required": True}',
        "tests/contract/test_modules.py::test_secrets_given_to_modules_stay_out_of_logs",
    ),
    Saboteur(
        "secret in a diff",
        "roles/haproxy/tasks/configure.yml",
        "        secret: true\n",
        "",
        f"{GUARDS}::test_files_with_secrets_are_closed_and_stay_out_of_diffs",
    ),
    Saboteur(
        "secret in a refusal",
        f"{PACKAGE}/files.py",
        'text = text.replace(word, "***")',
        'text = text.replace(word, f"{word}")',
        "tests/unit/test_host_files.py::test_validator_does_not_tell_a_secret",
    ),
    # -- modules --
    Saboteur(
        "files placed without validation",
        "library/place_files.py",
        'if file["validate"] and Path(file["dest"]) in staged:',
        'if file["validate"] == "" and Path(file["dest"]) in staged:',
        "tests/unit/test_host_files.py::test_one_refusal_stops_every_file",
    ),
    Saboteur(
        "module that never reports a change",
        "library/place_files.py",
        "module.exit_json(changed=bool(changes), changes=changes)",
        "module.exit_json(changed=False, changes=changes)",
        "tests/unit/test_host_files.py::test_file_is_placed_once_with_its_folders",
    ),
    # -- what is refused before any host is asked --
    Saboteur(
        "even number of etcd members",
        f"{PACKAGE}/topology.py",
        ' or len(groups["etcd"]) % 2 == 0',
        "",
        "tests/unit/test_bad_input.py::test_each_error_has_one_message[four-databases+0]",
    ),
    Saboteur(
        "rule of bad input removed",
        f"{PACKAGE}/topology.py",
        '("databases", "backups", "a backup that dies with its database is none"),',
        "",
        "tests/unit/test_bad_input.py::test_each_error_has_one_message[backup-on-database+0]",
    ),
    Saboteur(
        "wrong bound",
        f"{PACKAGE}/timing.py",
        "return missed_adverts * advert_int_ms / 1000",
        "return 2 * advert_int_ms / 1000 + 0 * missed_adverts",
        "tests/unit/test_timing.py::test_vrrp_times_are_those_of_the_standard",
    ),
    # -- the drills' checker --
    Saboteur(
        "lost writes ignored",
        f"{PACKAGE}/drill/checker.py",
        'writes["ok"] - present,',
        "set(),",
        f"{CHECKER}::test_harm_is_found[acknowledged-write-lost]",
    ),
    Saboteur(
        "two primaries ignored",
        f"{PACKAGE}/drill/checker.py",
        "return min(self.end, other.end) - max(self.start, other.start)",
        "return 0.0",
        f"{CHECKER}::test_harm_is_found[second-primary]",
    ),
    Saboteur(
        "second outage at the end ignored",
        f"{PACKAGE}/drill/checker.py",
        "elif gone > slack and not history.broken_off:",
        "elif gone > slack and gone >= gap and not history.broken_off:",
        f"{CHECKER}::test_harm_is_found[web-goes-away-again-at-the-end]",
    ),
    Saboteur(
        "history that proves nothing passed",
        f"{PACKAGE}/drill/checker.py",
        "FAIL if self.findings else VOID if self.voids else PASS",
        "FAIL if self.findings else PASS",
        f"{CHECKER}::test_history_that_proves_nothing_is_void[no-end-of-ledger]",
    ),
    Saboteur(
        "host that was not looked at ignored",
        f"{PACKAGE}/drill/checker.py",
        "if after - before - excused > history.silence_s(kind):",
        "if False:",
        f"{CHECKER}::test_host_that_nobody_looked_at_is_neither_well_nor_guilty[hole-in-the-role-samples]",
    ),
    Saboteur(
        "gap without a holder that nobody saw",
        f"{PACKAGE}/drill/checker.py",
        "uncovered([*_held(history, samples), *unseen], ",
        "uncovered(_held(history, samples), ",
        f"{CHECKER}::test_host_that_nobody_looked_at_is_neither_well_nor_guilty"
        "[heir-not-looked-at-when-it-took-the-address]",
    ),
    Saboteur(
        "restarted primary excused like a stopped one",
        f"{PACKAGE}/drill/checker.py",
        '(s["host"], s["mark"]) not in stopped',
        's["host"] not in followers',
        f"{CHECKER}::test_harm_is_found[killed-primary-starts-writable-at-once]",
    ),
    Saboteur(
        "cut-off file passed",
        f"{PACKAGE}/drill/checker.py",
        'if history.of("truncated"):',
        "if False:",
        f"{CHECKER}::test_line_that_is_cut_off_is_void_even_if_nothing_else_is_missing",
    ),
    # -- what a drill does when it goes wrong --
    Saboteur(
        "drill that is broken off and not healed",
        RUN,
        "if unhealed := self._undo(effect):",
        'if unhealed := "":',
        f"{SAFETY}::test_healing_needs_nobody_who_listens[error0]",
    ),
    Saboteur(
        "first says that it is broken off, and heals then",
        RUN,
        "            # Before anything is said: the terminal may be what is gone.\n",
        '            self.drill.say("  broken off")\n',
        f"{SAFETY}::test_healing_needs_nobody_who_listens[error1]",
    ),
    Saboteur(
        "host that was not healed is not named",
        RUN,
        "                failed.append(str(error))\n",
        "                del error\n",
        f"{SAFETY}::test_what_is_not_healed_is_said_and_the_order_to_end_is_not_forgotten",
    ),
    Saboteur(
        "fault that its timer healed passes for held",
        RUN,
        "        if not self._armed_on(host):\n            raise Interrupted",
        "        if False:\n            raise Interrupted",
        f"{SAFETY}::test_fault_that_its_timer_healed_was_not_held",
    ),
    Saboteur(
        "drill over another one's undo",
        RUN,
        "            if self._armed_on(host):\n                raise Refused",
        "            if False:\n                raise Refused",
        f"{SAFETY}::test_drill_does_not_begin_where_another_ones_fault_is_to_be_healed",
    ),
    Saboteur(
        "drill that cuts off itself",
        RUN,
        "if entrance and self.hosts.run(name, asked).strip():",
        "if not entrance and self.hosts.run(name, asked).strip():",
        f"{SAFETY}::test_drill_does_not_cut_off_itself[primary-isolate]",
    ),
    Saboteur(
        "lock that hides what was not healed",
        f"{PACKAGE}/drill/lock.py",
        '                self.say(f"  the lock stays for {LONGEST_S // 60} minutes at most: {error}")\n',
        "                raise\n",
        f"{SAFETY}::test_lock_that_cannot_be_taken_back_hides_nothing",
    ),
    Saboteur(
        "second Ctrl-C ends the healing",
        RUN,
        "            signal.signal(other, signal.SIG_IGN)\n",
        "            signal.signal(other, signal.SIG_DFL if other == signal.SIGUSR1 else end)\n",
        f"{SAFETY}::test_who_is_impatient_does_not_break_off_the_healing",
    ),
    Saboteur(
        "closed terminal ends the drill at once",
        RUN,
        "(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)\n        if",
        "(signal.SIGINT, signal.SIGTERM)\n        if",
        f"{SAFETY}::test_drill_whose_terminal_is_closed_has_time_to_heal",
    ),
    Saboteur(
        "history of a broken-off drill without a word of it",
        RUN,
        '                self.events.append({"event": "broken-off", "at": self._now(), "why": why})\n',
        "",
        f"{SAFETY}::test_history_of_a_drill_that_broke_off_says_so[error2-False-db1: no answer; NOT healed by hand: db2]",
    ),
    # -- WAL and stops --
    Saboteur(
        "stray WAL goes into the archive",
        "roles/postgresql/files/root/usr/local/libexec/standfast-archive-wal",
        '[ -z "$stray" ] || exit 0\n',
        "",
        "tests/unit/test_archive_wal.py::test_what_is_no_part_of_its_timeline_is_done_without_the_archive[000000020000000000000009]",
    ),
    Saboteur(
        "PostgreSQL stopped gently where its lease is lost",
        "roles/postgresql/files/root/usr/local/libexec/standfast-planned-stop",
        "-newermt '2 seconds ago'",
        "-newermt '2 hours ago'",
        "tests/unit/test_planned_stop.py::test_where_haste_is_needed_nothing_is_done",
    ),
    Saboteur(
        "another cluster's hosts taken over",
        f"{PACKAGE}/host_check.py",
        'if observation.cluster not in ("", topology["cluster_name"]):',
        'if observation.cluster not in ("", observation.cluster):',
        "tests/unit/test_host_check.py::test_databases_of_another_cluster_are_refused",
    ),
]

# Killed on a running lab: the layer's playbook breaks it, and afterwards mends it.
LAB = [
    Saboteur(
        "lab: firewall admits everybody to etcd",
        FIREWALL,
        "\t\tmeta pkttype { broadcast, multicast } drop\n",
        "\t\ttcp dport 2379 accept\n",
        f"{DOORS}/test_network.py::test_firewall_lets_only_listed_sources_in[client1]",
        playbook="firewall.yml",
    ),
    Saboteur(
        "lab: firewall without a default",
        FIREWALL,
        "hook input priority filter; policy drop;",
        "hook input priority filter; policy accept;",
        f"{DOORS}/test_network.py::test_firewall_refuses_what_no_rule_admits",
        playbook="firewall.yml",
    ),
    Saboteur(
        "lab: VRRP from everybody",
        FIREWALL,
        "\t\tmeta pkttype { broadcast, multicast } drop\n",
        "\t\tmeta l4proto 112 accept\n",
        f"{DOORS}/test_vrrp.py::test_forged_advertisement_moves_nothing",
        playbook="firewall.yml",
    ),
    Saboteur(
        "lab: HAProxy speaks old TLS",
        HAPROXY,
        "    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets prefer-client-ciphers\n"
        "    ssl-default-bind-curves X25519:prime256v1:secp384r1\n"
        "    ssl-default-bind-ciphers {{ __haproxy_ciphers | join(':') }}\n",
        "    ssl-default-bind-options ssl-min-ver TLSv1.0 no-tls-tickets prefer-client-ciphers\n"
        "    ssl-default-bind-curves X25519:prime256v1:secp384r1\n"
        "    ssl-default-bind-ciphers ALL:@SECLEVEL=0\n",
        f"{DOORS}/test_network.py::test_old_tls_is_refused[TLSv1]",
        playbook="haproxy.yml",
    ),
    Saboteur(
        "lab: statistics without a password",
        HAPROXY,
        "    http-request auth realm standfast unless { http_auth(operators) }\n",
        "",
        f"{DOORS}/test_balancers.py::test_statistics_ask_for_a_password",
        playbook="haproxy.yml",
    ),
    Saboteur(
        "lab: password readable by everybody",
        "roles/haproxy/tasks/configure.yml",
        '        mode: "0600"\n',
        '        mode: "0644"\n',
        f"{DOORS}/test_secrets.py::test_nobody_reads_a_secret",
        playbook="haproxy.yml",
    ),
    Saboteur(
        "lab: etcd asks for no certificate",
        ETCD,
        'ETCD_TRUSTED_CA_FILE={{ quoted(etcd_ca_file) }}\nETCD_CLIENT_CERT_AUTH="true"\n',
        'ETCD_CLIENT_CERT_AUTH="false"\n',
        f"{DOORS}/test_etcd.py::test_stranger_is_refused[nobody-client_port]",
        playbook="etcd.yml",
    ),
    # A rule that says `trust` never gets there: patroni_config refuses it.
    Saboteur(
        "lab: PostgreSQL admits its whole network",
        f"{PACKAGE}/patroni.py",
        "{_name(user['name'])} {source} scram-sha-256",
        "{_name(user['name'])} samenet scram-sha-256",
        f"{DOORS}/test_postgresql.py::test_access_rules_list_their_clients",
        playbook="postgresql.yml",
    ),
    Saboteur(
        "lab: check that a hung HAProxy passes",
        KEEPALIVED,
        '"/usr/bin/socat -t 10 /dev/null UNIX-CONNECT:{{ keepalived_health_socket }}"',
        '"/usr/bin/test -S {{ keepalived_health_socket }}"',
        playbook="keepalived.yml",
        drill="haproxy-hang",
    ),
    Saboteur(
        "lab: failsafe off",
        POSTGRESQL,
        "failsafe_mode: true",
        "failsafe_mode: false",
        playbook="postgresql.yml",
        drill="etcd-quorum",
    ),
]
