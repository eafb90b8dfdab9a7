"""What this process remembers of a node between two passes. Nothing here survives a restart, and nothing needs to: a process that
remembers nothing treats every node as one whose launch may be under way (rule 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from cal_adapters.contract import Observation


@dataclass(slots=True)
class NodeMemory:
    """Times ending in `_at` are monotonic seconds; the others are wall time."""

    #: This leader made the node in this term, so nobody else can have launched it.
    born_here: bool = False
    #: The generation of the pool whose limits left room for it, and what they left at most (US dollars per hour; None: no more than the node says).
    admitted: int | None = None
    cap: Decimal | None = None
    #: When a launch was last attempted in this term, and whether it may have bought something.
    attempted: datetime | None = None
    outcome_unknown: bool = False
    #: When the latest look-up that found nothing was begun.
    looked_up: datetime | None = None
    #: Not before then is the next purchase tried, and why the last one wasn't made.
    retry_at: float = 0.0
    failures: int = 0
    trouble: tuple[str, str] | None = None
    observation: Observation | None = None
    observed_at: float = float("-inf")
    observe_errors: int = 0
    observe_error: str = ""
    absent: bool = False
    #: Why a purchase in steps came to nothing; it is undone.
    unsold: str | None = None
    answers: bool | None = None
    probed_at: float = float("-inf")
    probe_message: str = ""
    archived: bool = False
    stop_asked: datetime | None = None
    stop_failures: int = 0


@dataclass
class Memories:
    """One memory per node uid."""

    _nodes: dict[str, NodeMemory] = field(default_factory=dict)
    #: Tokens of nodes that this leader is creating: the watch may bring one before the reply tells its uid.
    _expected: set[str] = field(default_factory=set)

    def of(self, uid: str) -> NodeMemory:
        return self._nodes.setdefault(uid, NodeMemory())

    def expect(self, token: str) -> None:
        """A node with this token is about to be created, by nobody but this leader."""
        self._expected.add(token)

    def meet(self, uid: str, token: str) -> NodeMemory:
        """The memory of a node that is there; it knows by its token whether this leader made it."""
        memory = self.of(uid)
        if token in self._expected:
            self._expected.discard(token)
            memory.born_here = True
        return memory

    def forget(self, uid: str) -> None:
        self._nodes.pop(uid, None)
