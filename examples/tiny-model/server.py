"""An OpenAI-compatible server for the small language model of model.py, trained on sea.txt at its start. Any python3 runs it."""

import json
import os
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

from model import END, MARKS, Model, spell, tokens

NAME = os.environ.get("MODEL_NAME", "tiny-sea")
MODEL = Model(Path(__file__).with_name("sea.txt").read_text())
ROUTES = {"/v1/completions": "text_completion", "/v1/chat/completions": "chat.completion"}


def take(body, name, default, kinds, what, fine=lambda value: True):
    value = default if body.get(name) is None else body[name]
    if not isinstance(value, kinds) or isinstance(value, bool) or not fine(value):
        raise ValueError(f"{name} must be {what}")
    return value


def begin(body, chat):
    """What the model goes on from, and the text of it that belongs to the answer: a chat's begins with the last words it knows."""
    if not chat:
        return tokens(take(body, "prompt", None, str, "a text")), ""
    said = take(body, "messages", None, list, "a list of messages", lambda m: m and isinstance(m[-1], dict))[-1]
    words = tokens(take(said, "content", None, str, "a text"))
    context = MODEL.known([word for word in words if word not in MARKS and (word,) in MODEL.counts]) or (END,)
    return context, "".join(map(spell, context, (None, *context))).strip()


def generate(body, chat):
    """(text, tokens as Model.write gives them, why it ends)."""
    take(body, "model", NAME, str, f"{NAME!r}, the only model here", lambda name: name == NAME)
    limit = take(body, "max_tokens", 100, int, "a whole number from 1 to 1000", lambda n: 0 < n <= 1000)
    heat = take(body, "temperature", 1, (int, float), "a number from 0 to 2", lambda t: 0 <= t <= 2)
    stop = take(body, "stop", [], (str, list), "a text or a list of texts", lambda s: all(type(t) is str for t in s))
    seed = take(body, "seed", time.time_ns(), int, "a whole number")
    (context, text), rows, stops = begin(body, chat), [], [stop] if type(stop) is str else stop
    for row in islice(MODEL.write(context, heat, seed), limit):
        rows.append(row)
        text += row[0]
        if cut := [text.index(s) for s in stops if s and s in text]:
            return text[: min(cut)], rows, "stop"
    return text, rows, "length" if len(rows) == limit else "stop"


def logged(rows, chat):
    if chat:
        return {"content": [{"token": token, "logprob": p} for token, p, _ in rows]}
    top = [dict(list(odds.items())[:20]) for *_, odds in rows]
    return {"tokens": [row[0] for row in rows], "token_logprobs": [row[1] for row in rows], "top_logprobs": top}


def choices(text, reason, chat, key="message", logs=None):
    said = {key: {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, **said, "finish_reason": reason, "logprobs": logs}]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        listed = {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "tiny-model"}]}
        found = {"/health": {"status": "ok"}, "/v1/models": listed}.get(self.path)
        self.reply(*((200, found) if found else (404, {"error": {"message": f"there is no GET {self.path}"}})))

    def do_POST(self):
        if self.path not in ROUTES:
            return self.reply(404, {"error": {"message": f"there is no POST {self.path}"}})
        try:
            raw = self.rfile.read(max(0, min(int(self.headers["Content-Length"] or 0), 2**20)))
            body = take({"the body": json.loads(raw)}, "the body", None, dict, "an object")
            text, rows, reason = generate(body, chat := "chat" in self.path)
        except (ValueError, RecursionError) as fault:
            return self.reply(400, {"error": {"message": str(fault), "type": "invalid_request_error"}})
        head = {"id": f"cmpl-{time.time_ns()}", "object": ROUTES[self.path], "created": int(time.time()), "model": NAME}
        if body.get("stream"):
            parts = [choices(piece, None, chat, "delta") for piece in re.findall(r"\s*\S+", text)]
            events = [json.dumps(head | part) for part in [*parts, choices("", reason, chat, "delta")]]
            return self.reply(200, "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]), "text/event-stream")
        logs = logged(rows, chat) if body.get("logprobs") else None
        return self.reply(200, head | choices(text, reason, chat, logs=logs))

    def reply(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    def log_request(self, code="-", size="-"):
        if getattr(self, "path", "") != "/health":  # the prober asks all the time
            super().log_request(code)


if __name__ == "__main__":
    print(f"{NAME}: {len(MODEL.counts)} contexts", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
