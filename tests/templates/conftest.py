"""Options and the container that template tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.templates.checkers import Checkers, running
from tests.templates.rendering import TOPOLOGIES, derived


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew from the templates")


@pytest.fixture(scope="session")
def checkers() -> Iterator[Checkers]:
    """Debian's own programs."""
    with running() as container:
        topologies = [derived(path.name) for path in TOPOLOGIES.iterdir() if path.is_dir()]
        container.stage(
            interfaces=[virtual["interface"] for topology in topologies for virtual in topology["virtual_addresses"]],
            listeners=[
                (member["address"], topology["etcd"]["client_port"])
                for topology in topologies
                for member in topology["etcd"]["members"]
            ],
        )
        yield container
