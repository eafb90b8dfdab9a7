"""SIGINT, SIGTERM and SIGHUP of the supervisor: they break into the start, and ask a running one to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Set while a signal may break into what the main thread does.
_armed = threading.Event()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """While starting, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread; later they set the event."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        del number, frame
        stop.set()
        if _armed.is_set():
            _armed.clear()  # a second one doesn't break into the stopping
            raise KeyboardInterrupt

    _armed.set()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup keeps its meaning
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        _armed.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def disarm() -> None:
    """From now on signals only set the event."""
    _armed.clear()
