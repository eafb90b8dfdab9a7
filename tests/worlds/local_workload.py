"""A workload for tests of `local`: serves HTTP on PORT and does what files in CAL_TEST_CONTROL tell it, until it is stopped.

say-<n>: print the file's text. exit: end with the code in the file. spawn: start `sleep` in a session of its own.
"""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class _OK(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"pid {os.getpid()}\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Silent: tests count the lines."""


def _obey(control: Path) -> None:
    for order in sorted(control.glob("*"), key=lambda path: (path.name == "exit", path.name)):
        if order.name.startswith("."):
            continue
        text = order.read_text()
        order.unlink()
        if order.name.startswith("say-"):
            print(text, flush=True)
        elif order.name == "spawn":
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
        elif order.name == "exit":
            sys.exit(int(text))


def main() -> None:
    """Never returns."""
    if "PORT" in os.environ:
        server = _Server(("127.0.0.1", int(os.environ["PORT"])), _OK)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        _obey(Path(os.environ["CAL_TEST_CONTROL"]))
        time.sleep(0.02)


if __name__ == "__main__":
    main()
