"""`python -m cal_cli.controlplane [NAME ...]`: finds or builds the programs of the control plane and prints where they are.

Without names: all that the tests need.
"""

from __future__ import annotations

import sys

from cal_cli.controlplane.binaries import BinariesNotFound, find
from cal_cli.controlplane.tools import FOR_TESTS, TOOLS
from cal_cli.errors import say


def main() -> None:
    """Exit code 2 for a name that is no program of ours, 1 when one can't be had."""
    names = sys.argv[1:] or list(FOR_TESTS)
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        say(f"unknown: {', '.join(unknown)}; known are {', '.join(TOOLS)}")
        sys.exit(2)
    try:
        found = find(names, say)
    except BinariesNotFound as error:
        sys.exit(str(error))
    for name, path in found.items():
        print(f"{name}\t{path}")


if __name__ == "__main__":
    main()
