"""How a drill says that it was not begun, or not ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class RefusedError(Exception):
    """The drill was not begun; nothing was touched."""


class ImpossibleError(RefusedError):
    """Nor can this fault be injected here, though the service is fit for drills: others may be."""


class InterruptedDrillError(Exception):
    """The drill did not end in order; what was broken was healed.

    events: the history so far. asked: somebody wanted it to end.
    """

    def __init__(self, message: str, events: Sequence[Mapping[str, Any]] = (), *, asked: bool = False) -> None:
        super().__init__(message)
        self.events, self.asked = events, asked
