"""A model that asks its callers for a key, to be run as a process."""

from __future__ import annotations

#: Guards all but /health, as the engine does whose variable it reads.
MODEL = """
import http.server, os

class Model(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("Authorization") == f"Bearer {os.environ.get('VLLM_API_KEY')}"
        self.send_response(200 if known or self.path == "/health" else 401)
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Model).serve_forever()
"""
