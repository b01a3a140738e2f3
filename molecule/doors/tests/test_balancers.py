"""HAProxy and keepalived: what they run as, whom they obey, whom they believe."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.live import Live, wait_for

# One command on HAProxy's runtime sockets, as the user that the check of keepalived is.
AS_CHECK = """
import grp, os, pwd, socket
os.setgroups([])
os.setgid(grp.getgrnam(arguments["group"]).gr_gid)
os.setuid(pwd.getpwnam(arguments["user"]).pw_uid)
said = {}
for path, command in arguments["commands"]:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            said[path] = type(error).__name__
            continue
        connection.sendall(command.encode() + b"\\n")
        connection.shutdown(socket.SHUT_WR)
        said[path] = b"".join(iter(lambda: connection.recv(4096), b"")).decode().strip()
print(json.dumps(said))
"""

# An HTTPS server that says 200 to everything, with a certificate of the test's own; HAProxy is told to check it in
# the place of a real one, until it has said what it thinks of it.
IMPOSTOR = """
import http.server, os, shutil, socket, ssl, tempfile, threading, time
folder = tempfile.mkdtemp(prefix="doors-")
path = os.path.join(folder, "pem")
descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
os.write(descriptor, arguments["identity"].encode())
os.close(descriptor)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(path)
shutil.rmtree(folder)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass

server = Server((arguments["address"], 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()

def command(text):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/haproxy/admin.sock")
        connection.sendall(text.encode() + b"\\n")
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

def status(server_name):
    names, *rows = [line.split(",") for line in command("show stat").splitlines() if line]
    return next(dict(zip(names, row)) for row in rows if row[:2] == server_name.split("/"))

def settled(*states):
    end = time.monotonic() + 15
    while time.monotonic() < end:
        seen = status(arguments["server"])
        if seen["status"] in states:
            return seen
        time.sleep(0.1)
    return seen

before = status(arguments["server"])
address, port = before["addr"].rsplit(":", 1)
try:
    command(f"set server {arguments['server']} addr {arguments['address']} port {server.server_port}")
    during = settled("DOWN")
finally:
    command(f"set server {arguments['server']} addr {address} port {port}")
after = settled("UP")
print(json.dumps([{key: seen[key] for key in ("status", "check_status", "last_chk", "addr")} for seen in (before, during, after)]))
"""


# The user of keepalived's check, which lives for some milliseconds every time.
CHECK_USER = """
import os, pwd, time
from pathlib import Path
daemon = Path("/run/keepalived/vrrp.pid").read_text().strip()
user, end = None, time.monotonic() + 20
while user is None and time.monotonic() < end:
    for child in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
        try:
            if Path(f"/proc/{child}/comm").read_text().startswith("socat"):
                user = pwd.getpwuid(os.stat(f"/proc/{child}").st_uid).pw_name
        except OSError:
            pass
    time.sleep(0.001)
print(json.dumps(user))
"""


def script_user(live: Live, name: str) -> list[str]:
    """User and group of keepalived's checks on one host."""
    words = live.run(name, "cat /etc/keepalived/keepalived.conf").split()
    at = words.index("script_user")
    return words[at + 1 : at + 3]


def balancers(live: Live) -> list[str]:
    return live.names("balancer")


def test_haproxy_runs_as_its_own_user_in_a_chroot(live: Live, survey: dict[str, dict[str, Any]]) -> None:
    for name in balancers(live):
        running = [one for one in survey[name]["processes"] if one["unit"] == "haproxy.service"]
        workers = [one for one in running if one["user"] == "haproxy"]
        assert workers, (name, running)
        assert {one["root"] for one in workers} == {"/var/lib/haproxy"}, (name, workers)
        # The master, which serves nobody, is the only other process.
        assert len([one for one in running if one["user"] != "haproxy"]) <= 1, (name, running)


def test_haproxy_sockets_obey_only_who_they_are_for(live: Live) -> None:
    for name in balancers(live):
        found = live.run(name, "find /run/haproxy -type s -printf '%f %m %U:%G %u:%g\\n'").splitlines()
        modes = {line.split()[0]: (int(line.split()[1], 8), line.split()[3]) for line in found}
        assert set(modes) == {"admin.sock", "health.sock", "master.sock"}, (name, found)
        assert all(mode & 0o7117 == 0 for mode, _ in modes.values()), (name, found)
        assert modes["admin.sock"][1] == "root:haproxy" and modes["master.sock"] == (0o600, "root:root"), (name, found)


def test_sockets_stay_whose_they_are_when_the_package_is_updated(live: Live) -> None:
    """Its maintainer script makes the folder anew and reloads; a check that is refused would take the address away."""
    balancer = live.names("balancer")[-1]
    asked = "stat --format '%U %G %a %n' /run/haproxy /run/haproxy/admin.sock /run/haproxy/health.sock"
    before = live.run(balancer, asked)
    live.run(balancer, "DEBIAN_FRONTEND=noninteractive dpkg-reconfigure haproxy")
    # The script's reload comes before the folder is right again, so once more.
    live.run(balancer, "systemctl reload haproxy")
    assert live.run(balancer, asked) == before
    wait_for(live.well, 30, "a service that is well")


def test_keepalived_outlives_a_reload_with_its_priority(live: Live) -> None:
    """A standby's; one that ends with each new configuration takes the address with it."""
    balancer = live.names("balancer")[-1]
    asked = (
        "process=$(cat /run/keepalived/vrrp.pid); chrt --pid $process; "
        "grep 'Max realtime timeout' /proc/$process/limits; systemctl show --property=NRestarts keepalived"
    )
    before = live.run(balancer, asked)
    assert "SCHED_RR" in before
    live.run(balancer, "systemctl reload keepalived")
    wait_for(live.well, 30, "a service that is well")
    assert live.run(balancer, asked) == before


def test_health_socket_changes_nothing(live: Live) -> None:
    """The check's user may ask; the socket's level lets it disable nothing."""
    for name in balancers(live):
        user, group = script_user(live, name)
        commands = [
            # Needs the next higher level, and changes nothing.
            ("/run/haproxy/health.sock", "show sess"),
            ("/run/haproxy/admin.sock", "show info"),
            ("/run/haproxy/master.sock", "show proc"),
        ]
        said = live.python(name, AS_CHECK, arguments={"user": user, "group": group, "commands": commands})
        assert said["/run/haproxy/health.sock"] == "Permission denied", (name, said)
        assert said["/run/haproxy/admin.sock"] == "PermissionError", (name, said)
        assert said["/run/haproxy/master.sock"] == "PermissionError", (name, said)


def test_statistics_ask_for_a_password(live: Live, ask: Any, passwords: dict[str, str], users: dict[str, str]) -> None:
    client, name = live.names("client")[0], balancers(live)[0]
    user = users["haproxy_stats_user"]
    port = next(port["port"] for port in live.topology["ports"][name] if port["service"] == "statistics")
    planned = []
    for credentials, expected in (
        (None, 401),
        (f"{user}:wrong-password", 401),
        ("admin:admin", 401),
        (f"{user}:{user}", 401),
        (f"{user}:{passwords['haproxy_stats_password']}", 200),
    ):
        header = (
            "" if credentials is None else f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"
        )
        for path in ("/", "/metrics", "/;csv"):
            text = f"GET {path} HTTP/1.0\r\nHost: doors\r\n{header}\r\n"
            planned += [
                {
                    "address": live.topology["hosts"][one]["address"],
                    "port": port,
                    "tls": True,
                    "request": text.encode().hex(),
                    "expected": expected,
                }
                for one in balancers(live)
            ]
    for attempt, seen in zip(planned, ask(client, "connect", attempts=planned), strict=True):
        assert int(seen.get("said", "- 0").split()[1]) == attempt["expected"], (bytes.fromhex(attempt["request"]), seen)


def test_statistics_are_not_on_virtual_addresses(live: Live, ask: Any) -> None:
    port = next(port["port"] for port in live.topology["ports"][balancers(live)[0]] if port["service"] == "statistics")
    planned = [{"address": virtual["address"], "port": port} for virtual in live.topology["virtual_addresses"]]
    seen = ask(live.names("client")[0], "connect", attempts=planned)
    assert {one["outcome"] for one in seen} == {"refused"}, seen


@pytest.mark.parametrize("who", ["foreign", "colleague"])
def test_haproxy_refuses_a_server_with_a_wrong_certificate(
    live: Live, who: str, request: pytest.FixtureRequest
) -> None:
    """On the balancer that holds no virtual address; a server of another authority, and one of another name."""
    virtual = {vip["address"] for vip in live.topology["virtual_addresses"]}
    name = next(
        one
        for one in balancers(live)
        if not virtual
        & {info["local"] for link in json.loads(live.run(one, "ip -json address")) for info in link["addr_info"]}
    )
    service = next(service for service in live.topology["services"] if service["server_tls"])
    before, during, after = live.python(
        name,
        IMPOSTOR,
        deadline=60,
        arguments={
            "identity": request.getfixturevalue(who).pem,
            "address": live.topology["hosts"][name]["address"],
            "server": f"{service['name']}/{service['servers'][0]['name']}",
        },
    )
    assert before["status"] == "UP" and after["status"] == "UP" and before["addr"] == after["addr"], (before, after)
    assert during["status"] == "DOWN", during
    assert during["check_status"] == "L6RSP", during


def test_haproxy_verifies_every_server(live: Live) -> None:
    for name in balancers(live):
        lines = live.run(name, "cat /etc/haproxy/haproxy.cfg").splitlines()
        assert any(line.split() == ["ssl-server-verify", "required"] for line in lines), name
        assert not any("verify none" in line for line in lines), name


def test_keepalived_check_runs_without_rights(live: Live) -> None:
    for name in balancers(live):
        assert "enable_script_security" in live.run(name, "cat /etc/keepalived/keepalived.conf").split(), name
        user, _ = script_user(live, name)
        assert live.python(name, CHECK_USER) == user != "root", name


def test_vrrp_is_unicast_among_the_balancers(live: Live) -> None:
    for name in balancers(live):
        configuration = live.run(name, "cat /etc/keepalived/keepalived.conf")
        words = configuration.split()
        peers = {live.topology["hosts"][other]["address"] for other in balancers(live) if other != name}
        listed = {
            line.split()[0]
            for line in configuration.partition("unicast_peer {")[2].partition("}")[0].splitlines()
            if line.split()
        }
        assert listed == peers, (name, listed)
        assert "vrrp_check_unicast_src" in words, name
        # VRRPv3 has no secret; one of version 2 would be sent in the clear, and would have to be the cluster's own.
        assert words[words.index("vrrp_version") + 1] == "3" and "auth_pass" not in words, name
