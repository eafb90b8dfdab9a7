"""What answers hide, on its way back: clients read a configuration, change one thing and send all of it.

A value that is what an answer showed leaves what stands there as it is. A mask where nothing stands is refused: it would be stored
as the secret itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from cal_api import echo
from cal_api.draft import Draft
from cal_api.errors import BadRequest
from cal_api.redact import HIDDEN, hidden_arguments, is_secret
from cal_crds.workload import EnvVar, Workload

#: Field of the workload -> its name in a configuration.
_COMMANDS = {"args": "cmd", "command": "entrypoint"}
#: Stands in no argument: the API's door lets no NUL in.
_MARK = "\x00"


def unmask(draft: Draft, before: Workload | None) -> None:
    """Put what stands there in the place of what was shown of it; BadRequest for any other mask. `before` is None for a new one."""
    known = {var.name: var for var in before.env} if before else {}
    for name in draft.env:
        _variable(draft, name, known.get(name))
    for field, shown_as in _COMMANDS.items():
        given = draft.workload.get(field)
        stands = getattr(before, field) if before else []
        if given and given == hidden_arguments(stands):
            draft.workload[field] = list(stands)
        elif given and _masked(given):
            raise _refused(shown_as)


def _variable(draft: Draft, name: str, stands: EnvVar | None) -> None:
    given = draft.secrets.get(name) or draft.env[name].get("value") or ""
    if HIDDEN not in given:
        return
    if stands and given == echo.environment([stands])[name]:
        draft.env[name] = stands.dump()
        draft.secrets.pop(name, None)
    elif f"://{HIDDEN}@" in given or (given == HIDDEN and is_secret(name)):
        raise _refused(f"env.{name}")


def _masked(arguments: Sequence[str]) -> bool:
    """Whether a secret's place in them holds a mask."""
    marked = zip(arguments, hidden_arguments(arguments, _MARK), strict=True)
    return any(_MARK in found and found.replace(_MARK, HIDDEN) == given for given, found in marked)


def _refused(where: str) -> BadRequest:
    return BadRequest(f"configuration.{where}: {HIDDEN} only stands for a secret in answers; give the secret itself")
