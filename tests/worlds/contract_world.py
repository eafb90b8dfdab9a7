"""What an adapter brings to the contract suite (tests/adapters/test_contract.py): a *world*, its provider with state, clock and faults.

How to bring one: a module `tests/worlds/contract_<adapter name>.py` with

    @asynccontextmanager
    async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]: ...

The suite calls it once per test and makes the adapter itself: `cal_adapters.registry.load(name)(world.context())`. Session-wide things
(a server, a cluster) come by `fixtures.getfixturevalue("...")`. A world that can't do something says so in `lacks`, with the reason;
the tests that need it are skipped and show that reason (list it in tests/skips.txt). The suite imports nothing but this protocol: adding an adapter
means one such module and not one line in the suite. `tests` is on the path: `from worlds.contract_world import World`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from cal_adapters.contract import Context, LaunchRequest, Mark
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InsufficientFunds,
    NoCapacity,
    NotSent,
    OutcomeUnknown,
    PriceAboveCap,
    RateLimited,
    Refused,
)

#: The installation that the suite launches for, and another that shares the provider's account.
INSTALLATION: Final = "0a1b2c3d4e"
FOREIGN: Final = "ffffffffff"
#: The value of the secret variable CAL_TEST_SECRET that every request of a world must carry in `env` (secret=True).
SECRET: Final = "hunter2-very-secret"


class Power(StrEnum):
    """What a world may lack. The first sentence is what it means to have it."""

    #: `launch` repeated with one mark, one after the other, yields the first instance.
    REPEATED_LAUNCH = "RepeatedLaunch"
    #: `launch` called several times at once with one mark yields one instance.
    CONCURRENT_LAUNCH = "ConcurrentLaunch"
    #: Prices above zero exist, and `reprice` works.
    PRICES = "Prices"
    #: `revoke_credentials` works (the provider has credentials).
    CREDENTIALS = "Credentials"
    #: `end` works: an instance can end by itself with an exit code.
    EXIT_CODES = "ExitCodes"
    #: `lose` works: the machine under an instance can go away.
    LOSS = "Loss"
    #: `strange_state` works: the provider can answer with a word that nobody knows.
    STRANGE_STATES = "StrangeStates"
    #: `say` works and logs can be read.
    LOGS = "Logs"
    #: Logs can still be read after the instance has ended.
    LOGS_AFTER_END = "LogsAfterEnd"


class Verb(StrEnum):
    """The contract's calls, for `fail_next`."""

    CHECK = "check"
    OFFERS = "offers"
    FIND = "find"
    LAUNCH = "launch"
    OBSERVE = "observe"
    STOP = "stop"
    LIST_MARKED = "list_marked"
    LOGS = "logs"


class Fault(StrEnum):
    """What goes wrong, as the provider does it. `RAISES` says what the adapter must make of it."""

    NO_CAPACITY = "NoCapacity"
    REFUSED = "Refused"
    PRICE_ABOVE_CAP = "PriceAboveCap"
    CREDENTIALS_REFUSED = "CredentialsRefused"
    INSUFFICIENT_FUNDS = "InsufficientFunds"
    RATE_LIMITED = "RateLimited"
    #: Connection refused.
    NOT_SENT = "NotSent"
    #: An internal error of the provider (5xx); no effect.
    SERVER_ERROR = "ServerError"
    #: An answer that can't be read (not JSON, wrong shape); no effect.
    GARBAGE = "Garbage"
    #: The effect happens; then the connection is cut before the answer.
    ANSWER_LOST = "AnswerLost"


RAISES: Final[Mapping[Fault, type[AdapterError]]] = {
    Fault.NO_CAPACITY: NoCapacity,
    Fault.REFUSED: Refused,
    Fault.PRICE_ABOVE_CAP: PriceAboveCap,
    Fault.CREDENTIALS_REFUSED: CredentialsRefused,
    Fault.INSUFFICIENT_FUNDS: InsufficientFunds,
    Fault.RATE_LIMITED: RateLimited,
    Fault.NOT_SENT: NotSent,
    Fault.SERVER_ERROR: OutcomeUnknown,
    Fault.GARBAGE: OutcomeUnknown,
    Fault.ANSWER_LOST: OutcomeUnknown,
}


class World(Protocol):
    """A provider to test against, fresh and empty for each test. A mark is the suite's only name for an instance."""

    #: The adapter's name in the registry.
    name: str
    #: Powers that it doesn't have, each with the reason, for people.
    lacks: Mapping[Power, str]
    #: Faults that it can bring about, by verb. Leave out what the provider can't do; `LAUNCH` should have most of them.
    faults: Mapping[Verb, Collection[Fault]]
    #: How many instances make its lists longer than one page (at least 2).
    crowd: int

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        """What the adapter is made from. `credentials=False`: as where none is configured."""
        ...

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        """A request that this provider accepts, for a workload that runs until it is stopped; fields replaced by `changes`.

        Its offer comes from this world's market, its env holds CAL_TEST_SECRET=SECRET, its cap (where there are prices) is twice the price.
        """
        ...

    def unknown_handle(self) -> str:
        """A well-formed handle of an instance that never existed."""
        ...

    async def billing(self) -> Collection[Mark | None]:
        """Every instance that bills or may bill by itself, of any installation, as the world itself knows it: once per instance,
        None for one without a mark. Never asked through the adapter."""
        ...

    async def advance(self, seconds: float) -> None:
        """Lets the provider's time pass: by its own clock, or (a real one) by yielding for a moment."""
        ...

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        """The verb's next call meets the fault at the wire; for verbs of several requests, at the one that matters."""
        ...

    async def add_foreign(self) -> None:
        """Puts two instances beside ours: one with a mark of FOREIGN, and one without a mark if the provider can hold such a thing."""
        ...

    async def revoke_credentials(self) -> None:
        """From now on the provider refuses the credentials. (CREDENTIALS)"""
        ...

    async def reprice(self, offer_id: str, factor: int) -> None:
        """The real price of the offer is now `factor` times what `offers` told. (PRICES)"""
        ...

    async def end(self, mark: Mark, exit_code: int) -> None:
        """The workload of a running instance ends by itself. (EXIT_CODES)"""
        ...

    async def lose(self, mark: Mark) -> None:
        """The machine under the instance goes away. (LOSS)"""
        ...

    async def strange_state(self, mark: Mark) -> None:
        """From now on the provider reports the instance with a state that nobody knows. (STRANGE_STATES)"""
        ...

    async def say(self, mark: Mark, line: str) -> None:
        """The workload of a running instance prints a line. (LOGS)"""
        ...
