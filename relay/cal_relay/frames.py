"""What goes over a WebSocket: the subscription that a client sends first, and the frames that it gets.

Frames out, each one JSON text message:

- `{"type": "log", "data": "<line>"}`: a line of the log.
- `{"type": "log", "data": "[relay] ...", "notice": true}`: the relay's own words within the log, like "12 lines are left out here".
  They are log frames, since clients know no others and often take an error for the end.
- `{"type": "error", "message": "..."}`: it won't go on; the connection is closed after it.
- `{"type": "end", "message": "..."}`: the log has ended and all of it was sent; the connection is closed after it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cal_crds.modelkeys import redact

#: The longest line that is passed on, in characters.
MAX_LINE = 16 * 1024
#: The largest frame that a client may send, in bytes.
MAX_FRAME = 16 * 1024

_Id = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]


class BadFrame(Exception):
    """The client sent something that isn't a subscription; the message says what is wrong."""


class Subscription(BaseModel):
    """The first frame. Anything further in it, addresses above all, is not looked at."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["subscribe_logs"]
    job_id: Annotated[_Id, Field(alias="jobId")]
    provider: _Id | None = None
    #: How many lines of history to send; unless told, all that there are (HISTORY at most, also if more are asked for).
    tail: Annotated[int | None, Field(ge=0, le=10**9)] = None


def read_subscription(frame: str | bytes) -> Subscription:
    """The subscription in a client's first frame, or BadFrame."""
    try:
        return Subscription.model_validate_json(frame)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadFrame(
            f"the first frame must be a subscription like"
            f' {{"type": "subscribe_logs", "jobId": "..."}}: {where + ": " if where else ""}{first["msg"]}'
        ) from error


def clip(line: str) -> str:
    """A line as it can be sent: valid Unicode, not endless, and without the API key that a model may have printed."""
    line = redact(line)
    if len(line) > MAX_LINE:
        line = f"{line[:MAX_LINE]}... ({len(line) - MAX_LINE} more characters)"
    return line if line.isascii() else line.encode("utf-8", "replace").decode()


def log(line: str) -> str:
    """A line of the log, clipped already."""
    return _frame(type="log", data=line)


def notice(text: str) -> str:
    """The relay's own words within the log."""
    return _frame(type="log", data=f"[relay] {text}", notice=True)


def error(message: str) -> str:
    """It won't go on."""
    return _frame(type="error", message=message)


def end(message: str) -> str:
    """All was sent."""
    return _frame(type="end", message=message)


def _frame(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
