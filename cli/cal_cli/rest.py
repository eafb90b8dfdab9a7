"""The REST api as calctl uses it: one client, errors as the api's own `detail`."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

import httpx

from cal_cli.errors import Failure
from cal_cli.statedir import StateDir
from cal_crds.loopback import leads_here

Body = dict[str, Any]
_TIMEOUT = httpx.Timeout(30, connect=5)
#: How often a request whose answer was lost is sent again, and after how many seconds the first time.
_LOST_ANSWERS, _PAUSE = 2, 0.5


class RestError(Failure):
    """The api refused; the message is its `detail`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NoAnswer(Failure):
    """Nobody answered, or the answer was lost: what was asked for may have been done."""


class Rest:
    """One api. Credentials come from `CAL_API_KEY`, for apis that ask for them."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        key = os.environ.get("CAL_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A proxy is for the world outside; it can't reach this machine.
        outside = not leads_here(self.base)
        self._client = httpx.Client(base_url=self.base, headers=headers, timeout=_TIMEOUT, trust_env=outside)

    def get(self, path: str, **query: str | int | None) -> Body:
        return self._request("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Body | None = None) -> Body:
        return self._request("POST", path, json=body if body is not None else {})

    def post_once(self, path: str, body: Body) -> Body:
        """A post that is tried again when its answer is lost, under a key by which the api tells the tries for one."""
        headers, pause = {"Idempotency-Key": str(uuid.uuid4())}, _PAUSE
        for _ in range(_LOST_ANSWERS):
            try:
                return self._request("POST", path, json=body, headers=headers)
            except NoAnswer:
                time.sleep(pause)
                pause *= 2
        return self._request("POST", path, json=body, headers=headers)

    def _request(self, method: str, path: str, **arguments: Any) -> Body:
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise NoAnswer(f"no answer from {self.base}: {error or type(error).__name__}") from error
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.is_error:
            detail = body.get("detail") if isinstance(body, dict) else None
            raise RestError(str(detail or f"{self.base}{path} answered {answer.status_code}"), answer.status_code)
        if not isinstance(body, dict):
            raise Failure(f"{self.base}{path} answered with something that is not an object")
        return body


def connect(url: str | None, state: StateDir) -> Rest:
    """The api that was named, else the one of the running `calctl up`."""
    if url:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise Failure(f"--api {url!r} is not a URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise Failure(f"--api {url!r} is not an http or https URL")
        return Rest(url)
    known = state.read()
    if known is None or not known.api_url or not state.running():
        raise Failure("no api: start one with `calctl up`, or name one with --api or CAL_API_URL")
    return Rest(known.api_url)


def why(body: Body) -> str:
    """The reason that a deployment's status gives a person."""
    waiting = body.get("waiting")
    message = waiting.get("message") if isinstance(waiting, dict) else None
    return str(message or body.get("error_message") or body.get("message") or "")
