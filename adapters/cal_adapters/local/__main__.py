"""`python -m cal_adapters.local stop-all STATE_DIR`: ends the local workloads of a stopped control plane.

They are interrupted, not stopped: the next operator that looks at them starts them again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cal_adapters.local.store import Store


def main() -> None:
    """Prints how many ran. Exit code 2 on bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m cal_adapters.local", description=__doc__)
    parser.add_argument("command", choices=["stop-all"])
    parser.add_argument("state_dir", type=Path, help="the operator's --adapter-state-dir")
    arguments = parser.parse_args()
    print(f"interrupted: {Store(arguments.state_dir.absolute()).interrupt_all()}", flush=True)


if __name__ == "__main__":
    main()
