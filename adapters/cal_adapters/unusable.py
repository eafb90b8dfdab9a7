"""What `create` gives for settings that can't be carried out: an adapter whose every verb says why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from cal_adapters.contract import Account, Instance, LaunchRequest, Mark, Observation, Stop, Traits
from cal_adapters.errors import Refused
from cal_crds.node import Offer


class Unusable:
    """Knows nothing and buys nothing; `reason` is for the person who can mend the settings."""

    def __init__(self, traits: Traits, reason: str) -> None:
        self.traits, self._reason = traits, reason

    async def check(self) -> Account:
        self._refuse()

    async def offers(self) -> Sequence[Offer]:
        self._refuse()

    async def find(self, mark: Mark) -> Sequence[Instance]:
        self._refuse()

    async def launch(self, request: LaunchRequest) -> Instance:
        self._refuse()

    async def observe(self, handle: str) -> Observation:
        self._refuse()

    async def stop(self, handle: str) -> Stop:
        self._refuse()

    async def list_marked(self) -> Sequence[Instance]:
        self._refuse()

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        self._refuse()

    async def close(self) -> None:
        """Holds nothing open."""

    def _refuse(self) -> NoReturn:
        raise Refused(self._reason)
