"""Numbers as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes.

    >>> size(0), size(16 * 2**20), size(1500 * 2**30)
    ('0 B', '16.0 MiB', '1.5 TiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def age(seconds: float) -> str:
    """A span of time.

    >>> age(61), age(1800), age(86400), age(14 * 86400)
    ('61 s', '30 min', '24.0 h', '14.0 d')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"
