"""The writing side of a local workload's log. Standard library only: a part of the shim.

A segment is never renamed: the next one exists only once it is complete, so a reader that goes by numbers misses nothing.
"""

from __future__ import annotations

from cal_adapters.local.home import SEGMENT_BYTES, SEGMENTS, Home


class LogWriter:
    """Appends to the last segment, begins a new one at a line's end, and drops old ones. A full disk loses lines, not the workload."""

    def __init__(self, home: Home, limit: int = SEGMENT_BYTES) -> None:
        self._home, self._limit = home, limit
        self._number = (home.segments() or [1])[-1]
        self._file = home.segment(self._number).open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        try:
            size = self._file.tell()
            # At a line's end if there is one; who never ends a line is cut anyway, or the segment would grow for ever.
            cut = data.find(b"\n") + 1 or (len(data) if size > 2 * self._limit else 0)
            if size + len(data) > self._limit and cut:
                self._file.write(data[:cut])
                self._next()
                data = data[cut:]
            self._file.write(data)
        except OSError:
            return

    def close(self) -> None:
        self._file.close()

    def _next(self) -> None:
        self._number += 1
        new = self._home.segment(self._number).open("ab", buffering=0)
        self._file.close()
        self._file = new
        for number in self._home.segments()[:-SEGMENTS]:
            self._home.segment(number).unlink()
