"""The tiny model of the examples: a real server process, and its probabilities against counts made here from the same text."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "examples" / "tiny-model"
#: The words of the text, marks and ends of paragraphs included, told apart in another way than the server does.
WORDS = [
    word
    for paragraph in (HERE / "sea.txt").read_text().lower().rstrip("\n").split("\n\n")
    for word in [*re.sub(r"([.,;:!?])", r" \1 ", paragraph).split(), "\n\n"]
][:-1]

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def port(eventually: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server, started as the example's deployment starts it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    env = {"PATH": os.environ["PATH"], "PORT": str(number), "CAL_EXAMPLES": str(HERE.parent), "PYTHON": sys.executable}
    command = ["sh", "-c", 'exec "$PYTHON" -W error "$CAL_EXAMPLES/tiny-model/server.py"']
    file = tmp_path_factory.mktemp("tiny") / "log"
    with file.open("wb") as stderr, subprocess.Popen(command, env=env, cwd="/", stderr=stderr) as process:
        try:
            eventually(lambda: _answers(number), timeout=20)
            yield number
        finally:
            process.terminate()
    log = file.read_text()
    assert "Traceback" not in log
    assert "/health" not in log, "the prober's requests would drown all others"
    assert "POST /v1/chat/completions" in log


def _answers(number: int) -> bool:
    try:
        return _request(number, "GET", "/health")[0] == 200
    except OSError:
        return False


def _request(number: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=10)
    try:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.headers.get_content_type(), reply.read().decode()
    finally:
        connection.close()


@pytest.fixture
def complete(port: int) -> Ask:
    """complete(prompt, ...): status and the one choice (or the whole body of an error)."""
    return lambda prompt, **more: _post(port, "/v1/completions", {"prompt": prompt, **more})


@pytest.fixture
def chat(port: int) -> Ask:
    """chat(question, ...): status and the one choice (or the whole body of an error)."""

    def ask(question: str, **more: Any) -> tuple[int, Any]:
        return _post(port, "/v1/chat/completions", {"messages": [{"role": "user", "content": question}], **more})

    return ask


def _post(port: int, path: str, body: Any) -> tuple[int, Any]:
    status, kind, text = _request(port, "POST", path, json.dumps(body).encode())
    assert kind == "application/json"
    whole = json.loads(text)
    return status, whole["choices"][0] if status == 200 else whole


def test_the_whole_server_is_below_a_hundred_lines() -> None:
    assert len((HERE / "server.py").read_text().splitlines()) < 100


def test_health_and_models(port: int) -> None:
    assert json.loads(_request(port, "GET", "/health")[2]) == {"status": "ok"}
    listed = json.loads(_request(port, "GET", "/v1/models")[2])
    assert [model["id"] for model in listed["data"]] == ["tiny-sea"]


def test_answers_change_with_prompt_and_seed_and_only_with_them(complete: Ask) -> None:
    def text(prompt: str, seed: int) -> str:
        status, choice = complete(prompt, seed=seed, max_tokens=30)
        assert status == 200
        return str(choice["text"])

    assert text("The tide", 1) == text("The tide", 1)
    assert len({text("The tide", seed) for seed in range(10)}) > 5
    assert len({text(prompt, 1) for prompt in ("The tide", "The sea", "A whale", "At night", "")}) == 5


def test_without_a_seed_answers_differ(complete: Ask) -> None:
    assert len({complete("The sea", max_tokens=30)[1]["text"] for _ in range(10)}) > 1


def _probabilities(*context: str) -> dict[str, float]:
    """P(word | context) as the model's docstring states it, by counting anew."""

    def following(*before: str) -> dict[str, float]:
        length = len(before)
        ends = range(length, len(WORDS))
        found = Counter(WORDS[i] for i in ends if tuple(WORDS[i - length : i]) == before)
        return {word: count / found.total() for word, count in found.items()}

    if len(context) < 2:
        return following(*context)
    long, short = following(*context), following(*context[1:])
    return {word: 0.9 * long.get(word, 0) + 0.1 * p for word, p in short.items()}


CONTEXTS = {
    "a pair that was seen": ("The sea", ("the", "sea")),
    "a pair over a full stop": ("in the water.", ("water", ".")),
    "a pair never seen, its last word known": ("green water", ("water",)),
    "one word": ("the", ("the",)),
    "unknown words": ("Quantum computers", ()),
    "nothing": ("", ()),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_probabilities_are_those_of_the_text(complete: Ask, name: str) -> None:
    prompt, context = CONTEXTS[name]
    if prompt == "":
        prompt = " "
    expected = _probabilities(*context)
    assert sum(expected.values()) == pytest.approx(1)
    _, choice = complete(prompt, logprobs=20, max_tokens=1, seed=5)
    top = {token.strip().lower() or token: p for token, p in choice["logprobs"]["top_logprobs"][0].items()}
    assert len(top) == min(20, len(expected))
    for word, p in top.items():
        assert math.exp(p) == pytest.approx(expected[word]), word
    assert sorted(expected.values(), reverse=True)[: len(top)] == pytest.approx(
        [math.exp(p) for p in choice["logprobs"]["top_logprobs"][0].values()]
    )


def test_the_probability_of_a_whole_answer_is_that_of_the_text(complete: Ask) -> None:
    _, choice = complete("At night the", logprobs=1, max_tokens=40, seed=3)
    before = ["night", "the"]
    for token, p in zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], strict=True):
        word = token.strip().lower()
        assert math.exp(p) == pytest.approx(_probabilities(*before)[word]), (before, word)
        before = [before[1], word]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_draws_follow_the_probabilities(complete: Ask) -> None:
    """500 first words after "the sea": each likely one within five standard deviations of what the text says."""
    expected, draws = _probabilities("the", "sea"), 500
    seen = Counter(complete("The sea", max_tokens=1, seed=seed)[1]["text"].strip() for seed in range(draws))
    for word, p in expected.items():
        if p > 0.05 and word != "\n\n":
            spread = math.sqrt(draws * p * (1 - p))
            assert abs(seen[word] - draws * p) < 5 * spread, (word, seen[word], draws * p)


def test_temperature_0_is_the_likeliest_word_and_a_high_one_is_more_various(complete: Ask) -> None:
    def words(**more: Any) -> set[str]:
        return {complete("the", max_tokens=1, seed=seed, **more)[1]["text"] for seed in range(60)}

    likeliest = max(_probabilities("the").items(), key=lambda item: item[1])[0]
    assert words(temperature=0) == {f" {likeliest}"}
    assert 1 <= len(words(temperature=0.3)) < len(words(temperature=1)) < len(words(temperature=2))
    assert words(temperature=1e-300) == {f" {likeliest}"}


def test_max_tokens_and_the_end_of_a_paragraph(complete: Ask) -> None:
    _, short = complete("The sea is", max_tokens=3, seed=1, logprobs=1)
    assert (short["finish_reason"], len(short["logprobs"]["tokens"])) == ("length", 3)
    _, whole = complete("The sea is", max_tokens=1000, seed=1)
    assert whole["finish_reason"] == "stop"
    assert whole["text"].endswith(".")


def test_stop_ends_before_the_stop_word(complete: Ask) -> None:
    _, whole = complete("The sea is", max_tokens=50, seed=1)
    for stop in (".", [".", ","], ["nowhere", "e"]):
        _, cut = complete("The sea is", max_tokens=50, seed=1, stop=stop)
        first = min(at for word in stop if (at := whole["text"].find(word)) >= 0)
        assert (cut["text"], cut["finish_reason"]) == (whole["text"][:first], "stop")


def test_a_chat_answers_about_what_was_asked(chat: Ask) -> None:
    status, choice = chat("What does the sea do at night?", seed=7, max_tokens=60)
    assert status == 200
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith("At night the ")
    assert choice["message"]["content"].endswith(".") or choice["finish_reason"] == "length"
    for question in ("hello there stranger", "????", "\U0001f600", "\u00fcber"):
        assert chat(question, seed=1)[1]["message"]["content"][0].isupper()
    _, logged = chat("the tide", seed=1, logprobs=True)
    assert all(row["logprob"] <= 0 for row in logged["logprobs"]["content"])


def test_streams_say_the_same_in_pieces(port: int, complete: Ask, chat: Ask) -> None:
    prompt: dict[str, Any] = {"prompt": "The tide", "seed": 4, "stream": True}
    texts = [choice["text"] for choice in _stream(port, "/v1/completions", prompt)]
    assert "".join(texts) == complete("The tide", seed=4)[1]["text"]
    assert len(texts) > 3
    question = {"messages": [{"role": "user", "content": "the tide"}], "seed": 4, "stream": True}
    choices = _stream(port, "/v1/chat/completions", question)
    assert "".join(c["delta"]["content"] for c in choices) == chat("the tide", seed=4)[1]["message"]["content"]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


def _stream(port: int, path: str, body: Any) -> list[Any]:
    status, kind, text = _request(port, "POST", path, json.dumps(body).encode())
    assert (status, kind) == (200, "text/event-stream")
    *events, done = text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]


BAD_REQUESTS = {
    "no-json": (b"{", "Expecting property name"),
    "empty": (b"", "Expecting value"),
    "list": (b"[]", "the body must be an object"),
    "null": (b"null", "the body must be an object"),
    "not-utf-8": (b"\xff", "can't decode"),
    "deep": (b"[" * 100000, "recursion"),
    "no-prompt": ({}, "prompt must be a text"),
    "prompt-list": ({"prompt": ["a"]}, "prompt must be a text"),
    "tokens-0": ({"prompt": "a", "max_tokens": 0}, "max_tokens must be a whole number from 1 to 1000"),
    "tokens-many": ({"prompt": "a", "max_tokens": 10**9}, "max_tokens must be"),
    "tokens-float": ({"prompt": "a", "max_tokens": 1.5}, "max_tokens must be"),
    "tokens-bool": ({"prompt": "a", "max_tokens": True}, "max_tokens must be"),
    "heat-negative": ({"prompt": "a", "temperature": -1}, "temperature must be a number from 0 to 2"),
    "heat-nan": (b'{"prompt": "a", "temperature": NaN}', "temperature must be"),
    "heat-text": ({"prompt": "a", "temperature": "hot"}, "temperature must be"),
    "seed-text": ({"prompt": "a", "seed": "x"}, "seed must be a whole number"),
    "stop-number": ({"prompt": "a", "stop": 1}, "stop must be a text or a list of texts"),
    "stop-numbers": ({"prompt": "a", "stop": [1]}, "stop must be a text or a list of texts"),
    "other-model": ({"prompt": "a", "model": "gpt"}, "model must be 'tiny-sea', the only model here"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_a_400_that_says_what_is_wrong(port: int, name: str) -> None:
    body, said = BAD_REQUESTS[name]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, kind, text = _request(port, "POST", "/v1/completions", raw)
    assert (status, kind) == (400, "application/json")
    error = json.loads(text)["error"]
    assert error["type"] == "invalid_request_error"
    assert said in error["message"]


@pytest.mark.parametrize(
    "messages", [None, [], {}, "hi", [1], [{}], [{"content": None}], [{"content": [{"text": "a"}]}]]
)
def test_a_bad_conversation_is_a_400(port: int, messages: Any) -> None:
    status, error = _post(port, "/v1/chat/completions", {"messages": messages})
    assert status == 400
    assert "must be" in error["error"]["message"]


def test_an_unknown_path_is_a_404(port: int) -> None:
    for method, path in (("GET", "/"), ("POST", "/v1/embeddings"), ("GET", "/v1/completions")):
        status, _, text = _request(port, method, path)
        assert (status, json.loads(text)) == (404, {"error": {"message": f"there is no {method} {path}"}})


@pytest.mark.parametrize("length", ["-5", "many"])
def test_an_odd_content_length_does_not_hang(port: int, length: str) -> None:
    assert _request(port, "POST", "/v1/completions", None, **{"Content-Length": length})[0] == 400
