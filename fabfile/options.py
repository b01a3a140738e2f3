"""Numbers that fab tasks are given, as text: invoke itself answers what is none with a traceback."""

import re

from standfast.errors import InputError, show

NUMBER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?", re.ASCII)
WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)


def number(option: str, text: str, limits: tuple[int, int], unit: str, errors: list[InputError]) -> float:
    """A number within its limits; 0 if it is none, which is noted."""
    return _within(
        option, text, float(text) if NUMBER.fullmatch(text.strip()) else None, limits, f"number of {unit}", errors
    )


def whole(option: str, text: str, limits: tuple[int, int], unit: str, errors: list[InputError]) -> int:
    """A whole number within its limits; 0 if it is none, which is noted."""
    found = int(text) if WHOLE.fullmatch(text.strip()) else None
    return int(_within(option, text, found, limits, f"whole number{unit and f' of {unit}'}", errors))


def _within(
    option: str, text: str, found: float | None, limits: tuple[int, int], what: str, errors: list[InputError]
) -> float:
    low, high = limits
    if found is None or not low <= found <= high:
        expected, mend = f"a {what} from {low} to {high}", f"write it without its unit: {option} {low}"
        errors.append(InputError(option, show(text), expected, mend))
        return 0
    return found
