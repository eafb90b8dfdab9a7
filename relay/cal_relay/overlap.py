"""Where a log that is read again goes on: providers number no lines, so what is known is laid over what came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

#: Lines of history: what a provider is asked for, what a client can ask for, and what an archive holds.
HISTORY = 1000


class Known:
    """The last lines of a log that were passed on; only their hashes, since lines may be long and logs many."""

    def __init__(self) -> None:
        self._hashes: deque[int] = deque(maxlen=HISTORY)
        #: Whether these lines begin with the first one that was ever logged.
        self._whole = True

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def add(self, line: str) -> None:
        """A line that follows the others."""
        self._whole = self._whole and len(self._hashes) < HISTORY
        self._hashes.append(hash(line))

    def new(self, read: Sequence[str]) -> Sequence[str] | None:
        """The lines of a reading of the log's end that come after the known ones; None if the two don't meet.

        A reading of fewer than HISTORY lines is the whole log.
        """
        whole = len(read) < HISTORY
        if not self._hashes:
            self._whole = whole
            return read
        end = _end_of(list(self._hashes), list(map(hash, read)), whole=self._whole and whole)
        return None if end is None else read[end:]

    def covers(self, read: Sequence[str]) -> bool:
        """Whether a reading that may be older ends within the known lines."""
        return bool(self._hashes) and _end_of(list(map(hash, read)), list(self._hashes), whole=False) is not None

    def broken(self) -> None:
        """What is added next doesn't follow directly."""
        self._whole = False


def _end_of(known: Sequence[int], read: Sequence[int], *, whole: bool) -> int | None:
    """How many lines of `read` are known, if both are pieces of one log and `read` ends later. `whole`: both begin with its first
    line, so that nothing has to be guessed.

    Else the two are laid so that fewest lines are new: of lines that repeat for longer than a reading, some may be taken for known
    ones, but none comes twice.
    """
    if not known or (whole and read[: len(known)] == known):
        return len(known)
    for end in range(len(read), 0, -1):
        common = min(end, len(known))
        if all(read[end - i] == known[-i] for i in range(1, common + 1)):
            return end
    return None
