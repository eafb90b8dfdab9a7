"""The reading side of a local workload's log: its last lines, and each new one as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import BinaryIO, Final

from cal_adapters.local.home import Home

_POLL_SECONDS: Final = 0.2
_CHUNK: Final = 1 << 16
_GAP: Final = "(lines are missing here: they were written faster than they were read)"


def last_lines(home: Home, count: int) -> list[str]:
    """The last lines, oldest first, with an unfinished one at the end."""
    data, _ = _end(home, count)
    lines = [line for _, line in data]
    return [_text(line) for line in lines[-count:]] if count > 0 else []


async def follow(home: Home, tail: int, over: Callable[[], bool]) -> AsyncGenerator[str, None]:
    """The last `tail` lines, then each as it comes; ends when `over()` was true before all had been read."""
    history, place = await asyncio.to_thread(_end, home, max(0, tail))
    whole = [line for finished, line in history if finished]
    for line in whole[-tail:] if tail > 0 else []:
        yield _text(line)
    reader = _Reader(home, *place)
    try:
        while True:
            ended = await asyncio.to_thread(over)
            lines, moved = await asyncio.to_thread(reader.more)
            for text in lines:
                yield text
            if ended and not moved:
                for text in reader.rest():
                    yield text
                return
            if not moved:
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        reader.close()


def _end(home: Home, count: int) -> tuple[list[tuple[bool, bytes]], tuple[int, int]]:
    """At least the last `count` lines, if there are as many, each with whether it is finished; and the segment and offset at
    which the finished ones end."""
    numbers = home.segments()
    lines: list[tuple[bool, bytes]] = []
    place: tuple[int, int] | None = None
    for number in reversed(numbers):
        try:
            data = home.segment(number).read_bytes()
        except FileNotFoundError:
            break  # dropped just now
        whole, newline, rest = data.rpartition(b"\n")
        found = [(True, line) for line in whole.split(b"\n")] if newline else []
        lines = found + ([(False, rest)] if rest else []) + lines
        place = place or (number, len(data) - len(rest))
        if len(lines) > count:
            break
    return lines, place or (1, 0)


class _Reader:
    """Reads on from a place, over the segments."""

    def __init__(self, home: Home, number: int, offset: int) -> None:
        self._home, self._number, self._offset = home, number, offset
        self._file: BinaryIO | None = None
        self._partial = b""

    def more(self) -> tuple[list[str], bool]:
        """Finished lines that have come since (of a chunk at most), and whether the place has moved."""
        # Asked first: once a later one exists, this one is complete.
        later = [number for number in self._home.segments() if number > self._number]
        data = self._read()
        if not data and later:
            self.close()
            skipped = later[0] - self._number - 1
            self._number, self._offset = later[0], 0
            return [_GAP] if skipped else [], True
        whole, newline, rest = (self._partial + data).rpartition(b"\n")
        if not newline and len(rest) > _CHUNK:
            whole, newline, rest = rest, b"\n", b""  # somebody who never ends a line
        self._partial = rest
        return [_text(line) for line in whole.split(b"\n")] if newline else [], bool(data)

    def rest(self) -> list[str]:
        """The unfinished line at the very end."""
        return [_text(self._partial)] if self._partial else []

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> bytes:
        if self._file is None:
            try:
                self._file = self._home.segment(self._number).open("rb", buffering=0)
            except FileNotFoundError:
                return b""
            self._file.seek(self._offset)
        return self._file.read(_CHUNK) or b""


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")
