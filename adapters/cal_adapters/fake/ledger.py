"""The books of the demo market: one SQLite file that the operator, the relay and tests open at once.

Each call is one short transaction. `synchronous=OFF` is right here: a killed process loses nothing (the page cache stays), and
this market needn't outlive the machine. States follow from times, so nothing has to run for an instance to come up.
Tests script the market through the same file, also from another process: `fail_next`, `pass_time`, `end`, `say` and so on.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from cal_adapters.contract import Mark

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS instance (
    id INTEGER PRIMARY KEY AUTOINCREMENT, mark TEXT, installation TEXT, offer TEXT NOT NULL, price TEXT NOT NULL,
    bought REAL NOT NULL, running REAL NOT NULL, ready REAL NOT NULL, port TEXT,
    stops REAL, ends REAL, end_state TEXT, exit_code INTEGER, strange TEXT);
CREATE INDEX IF NOT EXISTS by_mark ON instance (mark);
CREATE INDEX IF NOT EXISTS by_installation ON instance (installation);
CREATE INDEX IF NOT EXISTS by_offer ON instance (offer);
CREATE TABLE IF NOT EXISTS line (id INTEGER PRIMARY KEY, instance INTEGER NOT NULL, time REAL NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_instance ON line (instance);
CREATE TABLE IF NOT EXISTS script (id INTEGER PRIMARY KEY, verb TEXT NOT NULL, fault TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS knob (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
#: How long the books remember an instance after its end, in seconds.
_MEMORY: Final = 86400.0
_COLUMNS: Final = "id, mark, offer, price, bought, running, ready, port, stops, ends, end_state, exit_code, strange"


@dataclass(frozen=True)
class Entry:
    """An instance in the books. Times are seconds since the epoch, by the market's clock."""

    id: int
    mark: str | None
    offer: str
    price: str
    bought: float
    running: float
    ready: float
    #: Scheme and port of the workload's first port, like `http:8000`.
    port: str | None
    #: When a stop will have been carried out.
    stops: float | None
    #: When it ends by itself.
    ends: float | None
    end_state: str | None
    exit_code: int | None
    strange: str | None

    def over(self) -> float | None:
        """When it no longer bills, if that is known."""
        known = [moment for moment in (self.stops, self.ends) if moment is not None]
        return min(known) if known else None

    def live(self, now: float) -> bool:
        over = self.over()
        return over is None or over > now


@dataclass(frozen=True)
class Purchase:
    """What is written down when somebody buys. Times as in `Entry`; `stock` None: any number can be had."""

    mark: Mark
    offer: str
    price: Decimal
    stock: int | None
    bought: float
    running: float
    ready: float
    port: str | None
    ends: float | None = None
    exit_code: int | None = None


class SoldOut(Exception):
    """The stock of the offer is used up."""


class Ledger:
    """The books, opened. `clock` gives seconds since the epoch; tests may bring their own, or use `pass_time`."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def now(self) -> float:
        """The market's time."""
        return self._clock() + float(self._knob("passed") or 0)

    # --- what customers do

    def buy(self, purchase: Purchase) -> Entry:
        """The instance of this mark: bought now, or earlier (also if it has ended: a mark buys once). Raises SoldOut."""
        with self._transaction():
            known = self.of_mark(purchase.mark)
            if known and not self._knob("forgetful"):
                return known[0]
            if purchase.stock is not None and self.sold(purchase.offer) >= purchase.stock:
                raise SoldOut(purchase.offer)
            values = (
                str(purchase.mark),
                purchase.mark.installation,
                purchase.offer,
                str(purchase.price),
                purchase.bought,
            )
            times = (purchase.running, purchase.ready, purchase.port, purchase.ends, purchase.exit_code)
            cursor = self._db.execute(
                "INSERT INTO instance (mark, installation, offer, price, bought, running, ready, port, ends, exit_code)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, *times),
            )
            bought = self.entry(cursor.lastrowid or 0)
            assert bought is not None
            return bought

    def entry(self, number: int) -> Entry | None:
        return self._first("id = ?", number)

    def of_mark(self, mark: Mark) -> list[Entry]:
        """All that bear the mark, oldest first; more than one only where the market was told to forget marks."""
        return self._all("mark = ?", str(mark))

    def of_installation(self, installation: str) -> list[Entry]:
        """All that it bought and that isn't over; forgets what was over long ago."""
        now = self.now()
        self._db.execute(
            "DELETE FROM instance WHERE min(ifnull(stops, 9e99), ifnull(ends, 9e99)) < ?", (now - _MEMORY,)
        )
        return [entry for entry in self._all("installation = ?", installation) if entry.live(now)]

    def sold(self, offer: str) -> int:
        """How many of the offer are in use."""
        now = self.now()
        return sum(entry.live(now) for entry in self._all("offer = ?", offer))

    def stop(self, number: int, at: float) -> Entry | None:
        """The instance will be gone at `at`, or as an earlier call said."""
        self._db.execute("UPDATE instance SET stops = ? WHERE id = ? AND stops IS NULL", (at, number))
        return self.entry(number)

    def lines(self, number: int) -> list[tuple[float, str]]:
        """What the workload has printed: (time, text), oldest first."""
        return self._db.execute("SELECT time, text FROM line WHERE instance = ? ORDER BY id", (number,)).fetchall()

    # --- what tests and demonstrations script

    def fail_next(self, verb: str, fault: str) -> None:
        """The next call of the verb meets the fault: the name of an error of the contract, or AnswerLost."""
        self._db.execute("INSERT INTO script (verb, fault) VALUES (?, ?)", (verb, fault))

    def take_fault(self, verb: str) -> str | None:
        """The next scripted fault of the verb, which is thereby used up."""
        if self._db.execute("SELECT 1 FROM script WHERE verb = ? LIMIT 1", (verb,)).fetchone() is None:
            return None
        with self._transaction():
            row = self._db.execute(
                "SELECT id, fault FROM script WHERE verb = ? ORDER BY id LIMIT 1", (verb,)
            ).fetchone()
            if row is None:
                return None
            self._db.execute("DELETE FROM script WHERE id = ?", (row[0],))
            return str(row[1])

    def pass_time(self, seconds: float) -> None:
        """Moves the market's clock on, for everybody who has the books open."""
        with self._transaction():
            self._turn("passed", str(float(self._knob("passed") or 0) + seconds))

    def reprice(self, offer: str, factor: str) -> None:
        """The real price becomes `factor` times what is offered."""
        self._turn(f"price/{offer}", factor)

    def price_factor(self, offer: str) -> Decimal:
        return Decimal(self._knob(f"price/{offer}") or 1)

    def revoke(self, revoked: bool = True) -> None:
        """Whether the market turns everybody away."""
        self._turn("revoked", "yes" if revoked else "")

    def revoked(self) -> bool:
        return bool(self._knob("revoked"))

    def forget_marks(self) -> None:
        """From now on a mark buys as often as it is used, as at providers without idempotency keys."""
        self._turn("forgetful", "yes")

    def dawdle(self, seconds: float) -> None:
        """From now on a launch takes so long before its effect, and again before its answer."""
        self._turn("dawdle", str(seconds))

    def delay(self) -> float:
        return float(self._knob("dawdle") or 0)

    def end(self, mark: Mark, state: str, exit_code: int | None = None) -> None:
        """The instance ends by itself, now; `state` is Succeeded, Failed, Terminated or Lost."""
        self._db.execute(
            "UPDATE instance SET ends = ?, end_state = ?, exit_code = ? WHERE mark = ?",
            (self.now(), state, exit_code, str(mark)),
        )

    def strange(self, mark: Mark, word: str) -> None:
        """The market describes the instance by a word that nobody knows."""
        self._db.execute("UPDATE instance SET strange = ? WHERE mark = ?", (word, str(mark)))

    def say(self, mark: Mark, text: str) -> None:
        """The workload prints a line."""
        self._db.execute(
            "INSERT INTO line (instance, time, text) SELECT id, ?, ? FROM instance WHERE mark = ?",
            (self.now(), text, str(mark)),
        )

    def add_foreign(self, mark: Mark | None, offer: str) -> None:
        """An instance that another installation bought, or somebody by hand."""
        now, text = self.now(), str(mark) if mark else None
        self._db.execute(
            "INSERT INTO instance (mark, installation, offer, price, bought, running, ready) VALUES (?, ?, ?, '1', ?, ?, ?)",
            (text, mark.installation if mark else None, offer, now, now, now),
        )

    def billing(self) -> Collection[Mark | None]:
        """The mark of every instance that bills, of whomever; None for one without."""
        now = self.now()
        return [Mark.read(entry.mark or "") for entry in self._all("1 = ?", 1) if entry.live(now)]

    def history(self) -> list[Entry]:
        """Every instance that was ever bought, also what is over (for a day)."""
        return self._all("1 = ?", 1)

    # --- the file

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _first(self, where: str, value: object) -> Entry | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM instance WHERE {where}", (value,)).fetchone()
        return Entry(*row) if row else None

    def _all(self, where: str, value: object) -> list[Entry]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM instance WHERE {where} ORDER BY id", (value,)).fetchall()
        return [Entry(*row) for row in rows]

    def _knob(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM knob WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def _turn(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO knob (name, value) VALUES (?, ?)", (name, value))
