"""Tables for a terminal: what others said stays on its line and does nothing to the terminal."""

from __future__ import annotations

import pytest

from cal_cli.table import printable_lines, table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("exit code 1; its last lines:\n  File x\nOSError: no", "exit code 1; its last lines: | File x | OSError: no"),
        ("\x1b[31mred\x07", "?[31mred?"),
        (["a", "b"], "a,b"),
        ([], "-"),
        ("", "-"),
        (None, "-"),
        (0, "0"),
    ],
)
def test_a_cell_is_one_line_of_printable_characters(value: object, shown: str) -> None:
    assert table(["MESSAGE"], [[value]]).splitlines()[1:] == [shown]


def test_text_of_others_keeps_its_lines_and_nothing_else() -> None:
    assert printable_lines("a\n\x1b[2Jb\x07 ä") == "a\n?[2Jb? ä"
