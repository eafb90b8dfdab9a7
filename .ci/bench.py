"""Runs every benchmark of tests/bench, prints one table and writes build/bench.json.

A benchmark is a script whose last line of output is a JSON list of rows {name, value, unit, against, ratio, goal, met}. What doesn't name
these keys is a helper of the others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEYS = ("name", "value", "unit", "against", "ratio", "goal", "met")


def main() -> None:
    """Exit code 1 when a benchmark could not be run or gave a row without a goal; a goal that is missed is a result."""
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for script in benchmarks():
        print(f"== {script.relative_to(ROOT)}", flush=True)
        try:
            rows += run(script)
        except ValueError as error:
            broken.append(f"{script.relative_to(ROOT)}: {error}")
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    print(f"\nwritten: {target.relative_to(ROOT)}")
    for line in broken:
        print(f"broken: {line}")
    sys.exit(1 if broken or not rows else 0)


def benchmarks() -> list[Path]:
    """The scripts that give rows."""
    scripts = sorted((ROOT / "tests" / "bench").glob("*.py"))
    return [path for path in scripts if {"goal", "against"} <= set(re.findall(r"[a-z]+", path.read_text()))]


def run(script: Path) -> list[dict[str, Any]]:
    """The rows of one benchmark. Raises ValueError when it gave none that can be used."""
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        if last:
            print(last, flush=True)
        last = line.strip() or last
    if process.wait() != 0:
        raise ValueError(f"ended with code {process.returncode}: {last}")
    rows = json.loads(last)
    missing = [row for row in rows if not all(key in row for key in KEYS)]
    if missing or not rows:
        raise ValueError(f"rows need {KEYS}; got {missing or rows}")
    return list(rows)


def table(rows: list[dict[str, Any]]) -> str:
    """One line per row, columns aligned."""
    lines = [list(KEYS), *([str(row[key]) for key in KEYS] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(KEYS))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    main()
