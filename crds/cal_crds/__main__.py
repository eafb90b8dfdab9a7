"""`python -m cal_crds [crds|docs]`: writes the CRD files and docs/resources.md, or one of them.

With `--check` it writes nothing and compares instead: exit 1, with the names of stale files, on a difference.
`python -m cal_crds print | kubectl apply --server-side -f -` brings the CRDs to a cluster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cal_crds import crd, docs


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done or current, 1 stale (only with --check)."""
    parser = argparse.ArgumentParser(prog="python -m cal_crds", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("crds", "docs", "print"), help="only these (default: crds and docs)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say which files are stale")
    options = parser.parse_args(arguments)
    if options.what == "print":
        print("---\n".join(crd.files().values()), end="")
        return 0
    wanted = _wanted(options.what)
    return _check(wanted) if options.check else _write(wanted)


def _wanted(what: str | None) -> dict[Path, str]:
    files: dict[Path, str] = {}
    if what != "docs":
        files |= {crd.folder() / name: text for name, text in crd.files().items()}
    if what != "crds":
        files[crd.folder().parent / "docs" / "resources.md"] = docs.render()
    return files


def _write(wanted: dict[Path, str]) -> int:
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


def _check(wanted: dict[Path, str]) -> int:
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"stale: {path}; run python -m cal_crds", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
