"""The last lines of one log, numbered, so that any number of readers share one bounded buffer, each at its own place.

A reader that falls behind the oldest line that is kept is told how many lines it lost; nobody waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True)
class Batch:
    """What a reader gets next."""

    frames: Sequence[str]
    #: Where to read on.
    next: int
    #: Lines that were dropped before the first of these frames.
    lost: int


class Ring:
    """Frames, oldest dropped first once there are more than `max_frames` of them or `max_chars` characters in them."""

    def __init__(self, max_frames: int = 2000, max_chars: int = 2**21) -> None:
        self._max_frames, self._max_chars = max_frames, max_chars
        self._frames: deque[tuple[str, bool]] = deque()
        self._chars = 0
        #: Number of the oldest frame that is kept.
        self.start = 0

    @property
    def end(self) -> int:
        """The number that the next frame will have."""
        return self.start + len(self._frames)

    def append(self, frame: str, *, is_line: bool) -> None:
        """A frame, which is a line of the log or else the relay's own words."""
        self._frames.append((frame, is_line))
        self._chars += len(frame)
        while len(self._frames) > self._max_frames or (self._chars > self._max_chars and len(self._frames) > 1):
            self._chars -= len(self._frames.popleft()[0])
            self.start += 1

    def read(self, place: int, limit: int) -> Batch:
        """At most `limit` frames from `place` on."""
        first = max(place, self.start)
        offset = first - self.start
        frames = [frame for frame, _ in islice(self._frames, offset, offset + limit)]
        return Batch(frames, first + len(frames), first - place)

    def spare(self, place: int) -> int:
        """About how many more frames can come before the one at `place` is dropped."""
        kept = len(self._frames)
        room = self._max_frames - kept
        if kept:
            room = min(room, (self._max_chars - self._chars) * kept // max(1, self._chars))
        return room + place - self.start

    def place_of_last(self, lines: int | None) -> int:
        """Where to start reading to get the last so many lines of the log; None: all that are kept."""
        if lines is None:
            return self.start
        place = self.end
        for _, is_line in reversed(self._frames):
            if lines <= 0:
                break
            place -= 1
            lines -= is_line
        return place
