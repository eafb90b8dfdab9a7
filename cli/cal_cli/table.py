"""Tables for a terminal, in the manner of kubectl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

_GAP = "   "


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as their widest cell. None and "" show as "-"."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    lines = [list(header), *cells]
    return "\n".join(_GAP.join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def printable_lines(text: str) -> str:
    """What others named or said may hold anything; a terminal gets lines of printable characters."""
    return "\n".join(_printable(line) for line in text.splitlines())


def age(moment: str | None) -> str:
    """How long ago an RFC 3339 time was: 42s, 17m, 5h, 3d."""
    if not moment:
        return "-"
    then = datetime.fromisoformat(moment)
    return duration((datetime.now(UTC) - then).total_seconds())


def duration(seconds: float) -> str:
    """One or two digits and a unit."""
    whole = max(int(seconds), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return ",".join(str(item) for item in value) or "-"
    return _printable(" | ".join(line.strip() for line in str(value).splitlines()))


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line)
