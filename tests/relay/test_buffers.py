"""The ring that clients share, and how a log that is read again is laid over what is known."""

from __future__ import annotations

import random

import pytest

from cal_relay.overlap import HISTORY, Known
from cal_relay.ring import Ring


def _ring(frames: int, **bounds: int) -> Ring:
    ring = Ring(**bounds)
    for number in range(frames):
        ring.append(str(number), is_line=number % 3 != 2)
    return ring


def test_a_reader_gets_each_frame_once_in_order() -> None:
    ring, place = _ring(300), 0
    seen: list[str] = []
    while place < ring.end:
        batch = ring.read(place, limit=7)
        seen += batch.frames
        place = batch.next
    assert seen == [str(number) for number in range(300)]


def test_a_reader_that_fell_behind_is_told_how_many_it_lost() -> None:
    batch = _ring(100, max_frames=10).read(5, limit=3)
    assert (list(batch.frames), batch.lost, batch.next) == (["90", "91", "92"], 85, 93)


def test_characters_are_bounded_too_but_the_last_frame_stays() -> None:
    ring = Ring(max_frames=1000, max_chars=100)
    for number in range(50):
        ring.append(f"{number:010}", is_line=True)
    assert ring.end - ring.start == 10
    ring.append("x" * 1000, is_line=True)
    assert ring.read(0, 10).frames == ["x" * 1000]


@pytest.mark.parametrize(("lines", "place"), [(None, 0), (0, 9), (1, 7), (2, 6), (3, 4), (6, 0), (100, 0)])
def test_the_last_lines_without_the_words_in_between(lines: int | None, place: int) -> None:
    # Lines are 0 1 . 3 4 . 6 7 . with the relay's own words at the dots.
    assert _ring(9).place_of_last(lines) == place


def _known(lines: list[str], *, first: int | None = None) -> Known:
    """Known from a first reading (its last HISTORY lines) and then line by line."""
    known = Known()
    first = len(lines) if first is None else first
    for line in known.new(lines[:first][-HISTORY:]) or []:
        known.add(line)
    for line in lines[first:]:
        known.add(line)
    return known


READINGS = {
    "nothing known": ([], ["a", "b"], ["a", "b"]),
    "nothing new": (["a", "b"], ["a", "b"], []),
    "some new": (["a", "b"], ["a", "b", "c", "d"], ["c", "d"]),
    "lines that repeat": (["tick", "tick"], ["tick", "tick", "tick"], ["tick"]),
    "empty lines": (["", "a", ""], ["", "a", "", "", ""], ["", ""]),
    "another log": (["a", "b"], ["c", "d"], None),
    "a log that began anew": (["start", "work", "crash"], ["start", "other"], None),
}


@pytest.mark.parametrize("name", READINGS)
def test_what_is_new_in_a_whole_log(name: str) -> None:
    before, read, new = READINGS[name]
    assert _known(before).new(read) == new


def test_what_is_new_in_the_end_of_a_long_log() -> None:
    log = [f"line {number}" for number in range(3 * HISTORY)]
    known = _known(log[: HISTORY + 500], first=HISTORY)
    assert known.new(log[1000 : HISTORY + 1000]) == log[HISTORY + 500 : HISTORY + 1000]
    assert known.new(log[2 * HISTORY :]) is None, "the two don't meet: lines are missing"


def test_any_cut_of_any_log_is_continued_without_a_double_or_a_gap() -> None:
    chance = random.Random(7)
    for _ in range(300):
        words = ["tick", "tock", "", "x"][: chance.randint(1, 4)]
        log = [chance.choice(words) for _ in range(chance.randint(1, 60))]
        seen = chance.randint(1, len(log))
        assert _known(log[:seen], first=chance.randint(0, seen)).new(log) == log[seen:]


def test_a_burst_longer_than_what_is_remembered_is_continued() -> None:
    chance = random.Random(8)
    log = [f"{chance.random()}" for _ in range(2500)]
    for seen in (999, 1000, 1001, 1600, 2400):
        for total in (seen, seen + 1, seen + 100):
            read = log[max(0, total - HISTORY) : total]
            assert _known(log[:seen], first=min(seen, 900)).new(read) == log[seen:total]


def test_an_older_reading_is_covered() -> None:
    known = _known(["a", "b", "c", "d"])
    assert known.covers(["a", "b"]) and known.covers(["b", "c"]) and known.covers([])
    assert not known.covers(["d", "e"])
    assert not Known().covers(["a"])


@pytest.mark.parametrize(
    ("frames", "place", "spare"), [(0, 0, 100), (40, 0, 60), (100, 0, 0), (150, 50, 0), (150, 70, 20)]
)
def test_how_much_can_come_before_a_frame_is_dropped(frames: int, place: int, spare: int) -> None:
    assert _ring(frames, max_frames=100).spare(place) == spare


def test_room_is_bounded_by_characters_too() -> None:
    ring = Ring(max_frames=1000, max_chars=1000)
    for _ in range(8):
        ring.append("x" * 100, is_line=True)
    assert ring.spare(0) == 2
