"""Each adapter has a page that tells what everybody asks first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cal_adapters.registry import ADAPTERS

PAGES = Path(__file__).resolve().parents[2] / "docs" / "adapters"


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_the_page_says_the_same_seven_things(name: str) -> None:
    rows = dict(re.findall(r"^\| ([A-Z][a-z ]+) \| (.+) \|$", (PAGES / f"{name}.md").read_text(), re.MULTILINE))
    wanted = ["Key", "Pool", "Deploy", "Logs", "Costs", "Limits", "Proven gone"]
    assert [title for title in wanted if not rows.get(title)] == []


def test_there_is_no_page_of_something_else() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(ADAPTERS)
