"""Reading what users wrote, key by key: what is wrong is noted, and the reading goes on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError, show

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
HOST_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
LABEL = re.compile(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?")


class Errors(list[InputError]):
    """Everything that is wrong so far."""

    def wrong(self, variable: str, seen: object, expected: str, mend: str) -> None:
        """`seen` is a sentence when it is a string, and shown as data otherwise."""
        self.append(InputError(variable, seen if isinstance(seen, str) else show(seen), expected, mend))


MISSING = object()


@dataclass(frozen=True)
class Reader:
    """One mapping of the user's, read key by key; what is wrong is noted, and a default returned."""

    data: Mapping[str, Any]
    path: str
    errors: Errors

    def at(self, key: str) -> str:
        """The path of `key`, as a user would write it."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> Any:
        """The value, or MISSING; null counts as missing."""
        value = self.data.get(key, MISSING)
        return MISSING if value is None else value

    def wrong(self, key: str, seen: Any, expected: str, mend: str) -> None:
        """Note that the value of `key` is wrong."""
        self.errors.wrong(self.at(key), "nothing" if seen is MISSING else show(seen), expected, mend)

    def integer(self, key: str, default: int, least: int, most: int, mend: str) -> int:
        """A whole number, also when it is written as text."""
        value = self.get(key)
        if value is MISSING:
            return default
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.wrong(key, value, f"a whole number from {least} to {most}", mend)
            return default
        return value

    def port(self, key: str, default: int) -> int:
        """A TCP port."""
        return self.integer(key, default, 1, 65535, f"set {self.at(key)} to a free TCP port")

    def boolean(self, key: str, default: bool) -> bool:
        """True or false, not a word for it."""
        value = self.get(key)
        if value is MISSING:
            return default
        if not isinstance(value, bool):
            self.wrong(
                key, value, "true or false", f"write {self.at(key)}: true or {self.at(key)}: false, without quotes"
            )
            return default
        return value

    def one_of(self, key: str, default: str, values: Sequence[str], mend: str) -> str:
        """One of `values`."""
        value = self.get(key)
        if value is MISSING:
            return default
        if value not in values:
            self.wrong(key, value, f"one of {', '.join(values)}", mend)
            return default
        return str(value)

    def text(self, key: str, pattern: re.Pattern[str], expected: str, mend: str) -> str | None:
        """A text that matches `pattern` as a whole; required."""
        value = self.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.wrong(key, value, expected, mend)
            return None
        return str(value)

    def sequence(self, key: str, mend: str) -> list[Any]:
        """A list; empty when it is missing."""
        value = self.get(key)
        if value is MISSING:
            return []
        if not isinstance(value, list | tuple):
            self.wrong(key, value, "a list", mend)
            return []
        return list(value)

    def mappings(self, key: str, mend: str) -> Iterator[Reader]:
        """A reader for each element of a list of mappings."""
        for position, item in enumerate(self.sequence(key, mend)):
            path = f"{self.at(key)}[{position}]"
            if isinstance(item, Mapping):
                yield Reader(item, path, self.errors)
            else:
                self.errors.wrong(path, show(item), "a mapping", mend)

    def known(self, keys: Iterable[str]) -> None:
        """Refuse keys that nobody reads."""
        names = sorted(keys)
        for key in self.data:
            if key not in names:
                self.wrong(
                    str(key),
                    self.data[key],
                    f"one of {', '.join(names)}",
                    f"remove {self.at(str(key))}, or correct its spelling",
                )


def address_of(value: Any, version: int | None = None) -> Address | None:
    """An address that a host can have, or None."""
    if not isinstance(value, str):
        return None
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
        return None
    unusable = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
    if unusable or address == ipaddress.ip_address("255.255.255.255") or (version and address.version != version):
        return None
    return address
