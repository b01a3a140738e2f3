"""What the probes of the closed doors share: programs on hosts, secrets to look for, strangers."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from standfast import certificates

from tests.live import Live

PROBES = Path(__file__).resolve().parents[1] / "probes"
# Of a range for documentation (RFC 5737): in no cluster, and in nobody's client_ranges.
OUTSIDE = "198.51.100.66"

Ask = Callable[..., Any]
Everywhere = Callable[[Callable[[str], Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def ask(live: Live) -> Ask:
    """Runs a program of `probes` on a host: ask(host, probe, arguments of its `answer`)."""

    def run(name: str, probe: str, /, *, deadline: float = 60, **arguments: Any) -> Any:
        source = (PROBES / f"{probe}.py").read_text(encoding="utf-8")
        source += "\nprint(json.dumps(answer(**arguments)))"
        return live.python(name, source, deadline=deadline, arguments=arguments)

    return run


@pytest.fixture(scope="session")
def everywhere(live: Live) -> Everywhere:
    """Calls a function with each host's name, a few at a time; host -> what it returned."""

    def run(function: Callable[[str], Any]) -> dict[str, Any]:
        names = list(live.topology["hosts"])
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(names, pool.map(function, names), strict=True))

    return run


def _values(name: str, specification: Mapping[str, Any], value: Any) -> Iterator[tuple[str, str]]:
    """The values that an argument specification marks as secret, however deep."""
    if specification.get("no_log") and isinstance(value, str):
        yield name, value
    for key, inner in (specification.get("options") or {}).items():
        for number, entry in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(entry, Mapping) and key in entry:
                yield from _values(f"{name}[{number}].{key}", inner, entry[key])


@pytest.fixture(scope="session")
def passwords(live: Live) -> dict[str, str]:
    """Every secret that the inventory sets: its place -> its value."""
    roles = live.inventory.catalogue.roles.values()
    return {
        place: value
        for settings in live.inventory.settings.values()
        for options in roles
        for option in options.keys() & settings.keys()
        for place, value in _values(option, options[option], settings[option])
    }


@pytest.fixture(scope="session")
def users(live: Live) -> dict[str, str]:
    """The users that come with a password, set or by default: variable -> name."""
    options = {name: one for role in live.inventory.catalogue.roles.values() for name, one in role.items()}
    return {
        variable: next(
            (settings[variable] for settings in live.inventory.settings.values() if variable in settings),
            options[variable].get("default"),
        )
        for variable in ("haproxy_stats_user", "postgresql_restapi_username")
    }


@pytest.fixture(scope="session")
def needles(live: Live, passwords: dict[str, str], users: dict[str, str]) -> dict[str, str]:
    """What to look for: the secrets, as HTTP sends them too, and the middle of the authority's key.

    Of an odd password the generated part is enough, which looks the same however the rest is quoted.
    """
    found = {place: max(re.findall("[A-Za-z0-9]+", value), key=len) for place, value in passwords.items()}
    for user, place in (
        ("haproxy_stats_user", "haproxy_stats_password"),
        ("postgresql_restapi_username", "postgresql_restapi_password"),
    ):
        sent = f"{users[user]}:{passwords[place]}".encode()
        found[f"{place}, as HTTP sends it"] = base64.b64encode(sent).decode()
    if (key := live.path / "secrets/ca/ca.key").exists():
        found["the authority's key"] = key.read_text(encoding="ascii").splitlines()[1]
    return found


@pytest.fixture(scope="session")
def survey(ask: Ask, everywhere: Everywhere) -> dict[str, dict[str, Any]]:
    """Host -> what the program `survey` sees there."""
    return everywhere(lambda name: ask(name, "survey"))


@pytest.fixture(scope="session", autouse=True)
def converged(live: Live, everywhere: Everywhere) -> None:
    """Refuse a lab without the service: there, every door would be closed."""

    def inactive(name: str) -> list[str]:
        units = sorted({port["unit"] for port in live.topology["ports"][name]})
        states = live.host(name).run(f"systemctl is-active {' '.join(units)}").stdout.split()
        return [f"{unit} on {name}" for unit, state in zip_longest(units, states) if state != "active"]

    try:
        missing = [unit for units in everywhere(inactive).values() for unit in units]
    except RuntimeError as error:
        missing = [str(error)]
    if missing:
        pytest.exit(
            f"These doors belong to a running service, and it is missing: {', '.join(missing)}. "
            "Build it first: `molecule converge -s assembly`.",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


# -- strangers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, in one PEM text, and the authority that signed it."""

    pem: str
    authority: str


def _identity(authority: certificates.Authority, names: certificates.Names) -> Identity:
    key = certificates.new_key_pem()
    policy = certificates.Policy(timedelta(days=1), timedelta(hours=1))
    request = certificates.signing_request(key, names.common_name)
    signed = certificates.issue(request, authority, names, policy, datetime.now(UTC))
    return Identity(signed + key, certificates.certificate_pem(authority.issuer))


@pytest.fixture(scope="session")
def foreign(live: Live) -> Identity:
    """An identity with the names of a database host, by another authority of the same name as ours."""
    name = live.names("database")[0]
    key = certificates.new_key_pem()
    authority = certificates.new_authority_pem(key, f"{live.topology['cluster_name']} CA", datetime.now(UTC))
    wanted = live.topology["hosts"][name]["certificate"]
    names = certificates.Names(wanted["common_name"], tuple(wanted["dns"]), tuple(wanted["ip"]))
    return _identity(certificates.read_authority(authority, key), names)


@pytest.fixture(scope="session")
def colleague(live: Live) -> Identity:
    """An identity by our own authority, with a name that nobody was told to trust."""
    folder = live.path / "secrets/ca"
    authority = certificates.read_authority(
        (folder / "ca.crt").read_text(encoding="ascii"), (folder / "ca.key").read_text(encoding="ascii")
    )
    return _identity(authority, certificates.Names("colleague", ("colleague",), ()))


@pytest.fixture(scope="session")
def neighbour(live: Live) -> Iterator[str]:
    """An address in the hosts' own network that belongs to none of them, on client1 meanwhile."""
    client = live.names("client")[0]
    interface = live.topology["hosts"][client]["interface"]
    own = live.topology["hosts"][client]["address"]
    taken = {host["address"] for host in live.topology["hosts"].values()}
    taken |= {virtual["address"] for virtual in live.topology["virtual_addresses"]}
    prefix = own.rpartition(".")[0]
    address = next(free for last in range(250, 1, -1) if (free := f"{prefix}.{last}") not in taken)
    live.run(client, f"ip address replace {address}/32 dev {interface}")
    yield address
    live.run(client, f"ip address delete {address}/32 dev {interface}")


@pytest.fixture(scope="session")
def outsider(live: Live) -> Iterator[str]:
    """An address outside client_ranges, on client1 meanwhile; the hosts know the way back to it."""
    client = live.names("client")[0]
    others = [name for name in live.topology["hosts"] if name != client]
    interfaces = {name: host["interface"] for name, host in live.topology["hosts"].items()}
    live.run(client, f"ip address replace {OUTSIDE}/32 dev {interfaces[client]}")
    for name in others:
        live.run(name, f"ip route replace {OUTSIDE}/32 dev {interfaces[name]}")
    yield OUTSIDE
    for name in others:
        live.run(name, f"ip route delete {OUTSIDE}/32 dev {interfaces[name]}")
    live.run(client, f"ip address delete {OUTSIDE}/32 dev {interfaces[client]}")


@pytest.fixture(scope="session")
def ansible(live: Live) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of Ansible's programs of this environment, in the repository's root, on the lab."""
    root = Path(__file__).resolve().parents[3]

    def run(program: str, *arguments: str, deadline: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).parent / program, "-i", live.path, *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )

    return run
