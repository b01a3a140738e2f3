"""The inventory is where the hosts come from."""

from ipaddress import IPv4Network

import pytest

from lab.inventory import Host, load, parse
from lab.process import REPOSITORY, LabError

SHARED = {"lab_name": "lab", "lab_subnet": "192.0.2.0/24"}
DB1 = {**SHARED, "node_address": "192.0.2.21", "ansible_host": "lab-db1"}


def test_parse_gives_hosts_in_the_inventorys_order() -> None:
    lab = parse({"db2": {**DB1, "node_address": "192.0.2.22", "ansible_host": "lab-db2"}, "db1": DB1})
    assert lab.subnet == IPv4Network("192.0.2.0/24")
    assert lab.hosts == (Host("db2", "lab-db2", "192.0.2.22"), Host("db1", "lab-db1", "192.0.2.21"))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({}, "no host", id="empty"),
        pytest.param({"db1": DB1, "db2": {**DB1, "lab_name": "b"}}, "differ between hosts", id="two-labs"),
        pytest.param({"db1": {**DB1, "lab_name": "my/lab"}}, "'my/lab'.*letters and digits", id="name"),
        pytest.param({"db1": {**DB1, "lab_name": "averylonglabname"}}, "1 to 12", id="long-name"),
        pytest.param({"db1": {**DB1, "lab_subnet": "192.0.2.7/24"}}, "host bits", id="subnet"),
        pytest.param({"db1": {**DB1, "node_address": "198.51.100.1"}}, "db1 has 198.51.100.1", id="outside"),
    ],
)
def test_parse_refuses_what_makes_no_lab(variables: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(LabError, match=message):
        parse(variables)


def test_select_keeps_the_named_hosts_and_refuses_unknown_ones() -> None:
    lab = parse({"db1": DB1, "db2": {**DB1, "node_address": "192.0.2.22", "ansible_host": "lab-db2"}})
    assert lab.select([]) == lab.select(["db1", "db2", "db1"]) == lab.hosts
    assert [host.name for host in lab.select(["db2", "db1"])] == ["db2", "db1"]
    with pytest.raises(LabError, match="no host db9 in lab lab; it has db1, db2"):
        lab.select(["db9"])


def test_the_two_inventories_are_the_same_hosts_in_labs_that_share_nothing() -> None:
    first, second = load(REPOSITORY / "inventories" / "lab"), load(REPOSITORY / "inventories" / "molecule")
    assert [host.name for host in first.hosts] == [host.name for host in second.hosts]
    assert not {host.container for host in first.hosts} & {host.container for host in second.hosts}
    assert not first.subnet.overlaps(second.subnet)
    assert (first.network, first.state) != (second.network, second.state)


def test_load_refuses_an_inventory_of_other_hosts() -> None:
    with pytest.raises(LabError, match=r"is no lab: .* has no lab_name"):
        load(REPOSITORY / "inventories" / "production.example")
    with pytest.raises(LabError, match="there is no inventory"):
        load(REPOSITORY / "inventories" / "nowhere")
