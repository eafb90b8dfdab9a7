"""Progress for a person: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

_LINE_EVERY = 30.0
_WIDTH = 28


class Progress:
    """Counts to `total`. On a terminal one line is redrawn; elsewhere `say` gets a line at most every 30 s."""

    def __init__(self, title: str, total: int, say: Callable[[str], None], stream: TextIO | None = None) -> None:
        self._title, self._total, self._say = title, max(total, 1), say
        self._stream = stream or sys.stderr
        self._started = self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream.isatty():
            self._stream.write("\r\033[K")
            self._stream.flush()

    def show(self, done: int, detail: str) -> None:
        """`done` of the total are done; `detail` is what is being worked at."""
        done = min(done, self._total)
        now = time.monotonic()
        share = done / self._total
        elapsed = f"{int(now - self._started) // 60}:{int(now - self._started) % 60:02d}"
        if self._stream.isatty():
            bar = "#" * int(share * _WIDTH)
            line = f"{self._title} [{bar:<{_WIDTH}}] {done}/{self._total} {elapsed} {detail}"
            self._stream.write(f"\r\033[K{line[:110]}")
            self._stream.flush()
        elif now - self._spoke >= _LINE_EVERY:
            self._spoke = now
            self._say(f"{self._title}: {done} of {self._total} packages ({share:.0%}), {elapsed} so far, {detail}")
