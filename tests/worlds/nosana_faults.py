"""What can go wrong on the way between an adapter and a world: a plan of faults, consumed as requests come.

A fault is a JSON object: {"match": regular expression on "METHOD /path", "kind": one of KINDS, "times": how often (0: for ever),
"percent": of the requests that match (100), "status", "body", "seconds", "retry_after"}.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any, Final

#: Without an effect: `status` (`status` and `body` are the answer), `hang` (no answer for `seconds`), `cut` (the connection ends),
#: `garbage` (no JSON), `raw` (the text `body`, as it stands), `html` (a proxy's page with `status`), `rate` (429 with `retry_after`).
#: After the effect: `cut-after`, `hang-after`. `stale`: what is read is `seconds` old.
KINDS: Final = frozenset(
    {"status", "hang", "cut", "cut-after", "hang-after", "garbage", "raw", "html", "rate", "stale"}
)


@dataclass
class Fault:
    """One line of the plan."""

    match: str
    kind: str
    times: int = 1
    percent: float = 100.0
    status: int = 500
    body: Any = None
    seconds: float = 30.0
    retry_after: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are {sorted(KINDS)}")
        self._pattern = re.compile(self.match)

    def fits(self, request: str) -> bool:
        return self._pattern.search(request) is not None


class Plan:
    """The faults to come, and how many came."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._faults: list[Fault] = []
        self.shown = 0

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def take(self, request: str) -> Fault | None:
        """The first fault that fits a request ("METHOD /path"), used up by one."""
        for fault in self._faults:
            if fault.fits(request) and self._random.uniform(0, 100) <= fault.percent:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
                self.shown += 1
                return fault
        return None
