"""What goes wrong at the stand-in, on purpose: a plan of faults by operation, and a seeded dice for the rest."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Operations that only read: the only ones that may be told stale.
READS: Final = frozenset(
    {
        "getCurrentUser",
        "getWallets",
        "getBalances",
        "listDeployments",
        "getDeployment",
        "listBids",
        "getDeploymentByOwnerDseq",
    }
)
KINDS: Final = frozenset({"status", "hang", "cut", "cut_after", "hang_after", "garbage", "stale", "unchained"})
#: The dice's faces: (kind, settings). 500 and 503 may come with or without the effect, as at the real one.
_FACES: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("status", {"status": 500}),
    ("status", {"status": 503}),
    ("status", {"status": 500, "after": True}),
    ("status", {"status": 429, "retry_after": 1}),
    ("cut", {}),
    ("cut_after", {}),
    ("garbage", {}),
    ("garbage", {"after": True}),
    ("stale", {"seconds": 20}),
    ("unchained", {}),
)
_SAID: Final = {
    400: ("BadRequestError", "bad_request"),
    401: ("UnauthorizedError", "unauthorized"),
    402: ("PaymentRequiredError", "payment_required"),
    403: ("ForbiddenError", "forbidden"),
    404: ("NotFoundError", "not_found"),
    429: ("TooManyRequestsError", "rate_limited"),
    500: ("InternalServerError", "internal_server_error"),
    503: ("ServiceUnavailableError", "service_unavailable"),
}


@dataclass
class Fault:
    """One thing that goes wrong: for the next `times` requests of `operation` ("*": of any)."""

    operation: str
    kind: str
    times: int = 1
    status: int = 500
    message: str = "Internal server error"
    retry_after: int | None = None
    #: Whether the request has its effect before the fault shows.
    after: bool = False
    #: How long it hangs, or how far behind a stale read is.
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {sorted(KINDS)}")
        if self.kind in ("cut_after", "hang_after"):
            self.kind, self.after = self.kind.removesuffix("_after"), True


def failure(status: int, message: str, **more: Any) -> dict[str, Any]:
    """The Console's error shape."""
    name, code = _SAID.get(status, ("HttpError", "unknown_error"))
    return {
        "error": name,
        "message": message,
        "code": code,
        "type": "server_error" if status >= 500 else "client_error",
        **more,
    }


@dataclass
class Plan:
    """The faults to come. The dice fall on each request with probability `rate`; one seed gives one sequence."""

    faults: list[Fault] = field(default_factory=list)
    rate: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    shown: dict[str, int] = field(default_factory=dict)

    def roll(self, rate: float, seed: int) -> None:
        self.rate, self.dice = rate, random.Random(seed)

    def next(self, operation: str) -> Fault | None:
        """The fault that this request meets, if any."""
        for fault in self.faults:
            if fault.operation in (operation, "*") and (fault.kind != "stale" or operation in READS):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return self._noted(fault)
        if self.rate and self.dice.random() < self.rate:
            kind, settings = self.dice.choice(_FACES)
            if kind in ("stale", "unchained") and operation not in READS:
                kind, settings = "cut_after", {}
            return self._noted(Fault(operation, kind, **settings))
        return None

    def _noted(self, fault: Fault) -> Fault:
        name = f"{fault.kind}{'_after' if fault.after else ''}"
        self.shown[name] = self.shown.get(name, 0) + 1
        return fault
