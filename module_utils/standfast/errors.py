"""The one way to refuse input: what was seen, what was expected, and what mends it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class InputError:
    """One thing that is wrong with the inventory.

    `variable` is a path as a user would write it: `hosts.db1.node_address`,
    `virtual_addresses[0].address`.
    """

    variable: str
    seen: str
    expected: str
    mend: str

    def __str__(self) -> str:
        return f"{self.variable}: seen {self.seen}; expected {self.expected}; mend: {self.mend}"


class InvalidInput(Exception):  # noqa: N818 (it says what happened, like StopIteration)
    """All errors of one inventory, at once."""

    def __init__(self, errors: Iterable[InputError]) -> None:
        self.errors = tuple(dict.fromkeys(errors))
        super().__init__("\n".join(map(str, self.errors)))

    def report(self, subject: str, consequence: str) -> str:
        """All errors below a headline, one line each."""
        count = f"{len(self.errors)} error{'s' if len(self.errors) > 1 else ''}"
        return "\n".join([f"{subject} {count}; {consequence}.", *(f"- {error}" for error in self.errors)])


def show(value: object) -> str:
    """A value as it may be printed: on one line, escaped, and cut when it is long."""
    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError):
        text = ascii(value)
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"
    return text
