"""Runs a program that ends when its parent ends: `python -I -S tie.py PARENT_PID SIGNAL PROGRAM ARGUMENT...`.

A program of its own, because code between fork and exec (`preexec_fn`) can hang in a parent that has threads. The kernel keeps the
setting across exec. Where there is no prctl, the next start finds what is left by its recorded process ids.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel for the signal at the parent's end (kill -9 included), then becomes the program."""
    parent, number, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(1)
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
