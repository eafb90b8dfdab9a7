"""The faults that the demo market can show: every error of the contract, by name, and AnswerLost."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, NoReturn

from cal_adapters import errors
from cal_adapters.errors import AdapterError
from cal_crds.provider import DemoFault

VERBS: Final = ("check", "find", "launch", "list", "logs", "observe", "offers", "stop")


#: By name; abstract ones too, since an adapter may raise them.
ERRORS: Final = MappingProxyType(
    {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, AdapterError) and kind is not AdapterError
    }
)
#: The effect happens and the caller is told nothing: OutcomeUnknown.
ANSWER_LOST: Final = "AnswerLost"


def unknown(faults: Sequence[DemoFault]) -> str | None:
    """What is wrong with the faults of the settings: a verb or an error that there isn't."""
    for fault in faults:
        if fault.verb not in VERBS:
            return f"spec.demo.faults: no verb {fault.verb!r}; there are {', '.join(VERBS)}"
        if fault.error not in ERRORS and fault.error != ANSWER_LOST:
            return f"spec.demo.faults: no error {fault.error!r}; there are {', '.join([*ERRORS, ANSWER_LOST])}"
    return None


def raise_for(fault: str, verb: str) -> NoReturn:
    """Raises the error of that name."""
    raise ERRORS[fault](f"demo market: {fault} on {verb}, as it was told to")
