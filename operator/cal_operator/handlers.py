"""kopf: the watch of the four kinds. Low-level event handlers feed the store and wake the queue; nothing else imports kopf.

kopf runs in a thread with an event loop of its own: at its end it cancels every task of its loop that it did not find there, and a launch
and its record must not be split by that (rule 3).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import kopf

from cal_crds.meta import GROUP, KINDS, VERSION, Kind
from cal_operator.settings import Settings

log = logging.getLogger(__name__)

#: Called in the main loop with (kind, event type, object). The type is None for what was there at the start.
Feed = Callable[[Kind, str | None, dict[str, Any]], None]


#: Events handed over in one turn of the main loop.
_AT_ONCE: Final = 64


class Watcher:
    """The kopf operator in its thread."""

    def __init__(self, settings: Settings, feed: Feed) -> None:
        self._feed, self._settings = feed, settings
        self._loop = asyncio.get_running_loop()
        self._stop, self._ready = threading.Event(), threading.Event()
        self._ended = asyncio.Event()
        #: Events on their way to the main loop, which is woken once for all of them.
        self._seen: deque[tuple[Kind, str | None, dict[str, Any]]] = deque()
        self._woken = False
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def ended(self) -> None:
        """Returns when kopf has ended: a watch error other than 410 ends it, and this process must be started anew."""
        await self._ended.wait()

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 10.0)

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except Exception:  # The boundary of the thread: whatever ended kopf is logged, and ends the process in order.
            log.exception("kopf ended")
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._ended.set)

    async def _operate(self) -> None:
        if self._settings.kubeconfig:
            os.environ["KUBECONFIG"] = self._settings.kubeconfig  # kopf's login reads it from nowhere else
        await kopf.operator(
            registry=self._registry(),
            settings=_kopf_settings(),
            standalone=True,
            clusterwide=True,
            stop_flag=self._stop,
            ready_flag=self._ready,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        for kind in KINDS:
            kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=kind.plural)(self._handler(kind))
        return registry

    def _handler(self, kind: Kind) -> Callable[..., Any]:
        async def on_event(event: dict[str, Any], **_: Any) -> None:
            # Returning a value would make kopf write it into the status.
            self._seen.append((kind, event["type"], event["object"]))
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._hand_over)

        return on_event

    def _hand_over(self) -> None:
        """In the main loop: take what has been seen, a bounded number at a time, so that a long list holds up nothing else."""
        self._woken = False  # first: whatever is seen from now on wakes this loop again
        try:
            for _ in range(min(len(self._seen), _AT_ONCE)):
                self._feed(*self._seen.popleft())
        finally:
            if self._seen and not self._woken:
                self._woken = True
                self._loop.call_soon(self._hand_over)


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf copies every object deeply to compare it with its last handled version; nobody here asks for the difference."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> Any:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return None


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    # Object by object: a whole collection in one reply would be parsed at once, which costs memory for ever.
    settings.watching.initial_streaming = True
    settings.watching.connect_timeout = 10
    settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 3, 5)
    # A worker is one of the limited number for as long as it idles after its object's last event: with 1 s, 64 new objects a second.
    settings.queueing.idle_timeout = 0.1
    settings.queueing.worker_limit = 64
    settings.queueing.exit_timeout = 0.5
    return settings
