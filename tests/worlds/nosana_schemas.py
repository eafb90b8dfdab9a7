"""Nosana's own schemas: made by hack/schemas/nosana from its pinned npm packages, kept in the user's cache, never committed.

`load()` makes them when they aren't there (npm with the lock file's hashes, then node). `Contract` checks requests and answers of the
world against them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema_rs import Draft202012Validator

SOURCE: Final = Path(__file__).resolve().parents[2] / "hack" / "schemas" / "nosana"
_FILES: Final = ("package.json", "package-lock.json", "schemas.mjs")
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})


def folder() -> Path:
    """Where the packages and the schemas made from them are; made now if they aren't. Its name tells the pinned versions apart."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in _FILES)).hexdigest()[:16]
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache_home / "compute-abstraction-layer" / "schemas" / f"nosana-{digest}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / ".nosana.lock"):
            if not target.exists():
                _make(target)
    return target


def _make(target: Path) -> None:
    """Builds beside the target and renames: nobody ever sees half of it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch) / "work"
        work.mkdir()
        for name in _FILES:
            shutil.copy(SOURCE / name, work)
        for command in (["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], ["node", "schemas.mjs", "."]):
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        work.rename(target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def openapi() -> dict[str, Any]:
    """The REST API, OpenAPI 3.1."""
    document: dict[str, Any] = json.loads((folder() / "openapi.json").read_text())
    return document


@cache
def job_definition() -> Draft202012Validator:
    """A validator of job definitions, out of the provider's own schemas."""
    schemas = json.loads((folder() / "job-schemas.json").read_text())
    return _validator(schemas, "/components/schemas/JobDefinition")


def _validator(document: Mapping[str, Any], pointer: str) -> Draft202012Validator:
    return Draft202012Validator({**document, "$ref": f"#{pointer}"}, validate_formats=True)


@dataclass(frozen=True)
class Operation:
    """One operation of the document: its path and method."""

    path: str
    method: str

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


class Contract:
    """Checks what goes over the wire against the provider's document. Problems are sentences; none means that it holds."""

    def __init__(self) -> None:
        self.document = openapi()
        self._validators: dict[str, Draft202012Validator] = {}

    def operations(self) -> list[Operation]:
        paths = self.document["paths"].items()
        return [Operation(path, method) for path, methods in paths for method in methods if method in _METHODS]

    def request_problems(self, operation: Operation, query: Mapping[str, str], body: object | None) -> list[str]:
        """What is wrong with a request's query and JSON body (None: no body)."""
        definition = self._definition(operation)
        problems = []
        allowed = {item["name"]: number for number, item in enumerate(definition.get("parameters", []))}
        base = self._pointer(operation) + "/parameters"
        for name, value in query.items():
            item = definition["parameters"][allowed[name]] if name in allowed else None
            if item is None or item["in"] != "query":
                problems.append(f"query parameter {name!r} doesn't exist")
                continue
            number = item["schema"].get("type") == "number"
            problems += self._problems(f"{base}/{allowed[name]}/schema", float(value) if number else value)
        wanted = definition.get("requestBody")
        if wanted and (body is not None or wanted["required"]):
            problems += self._problems(self._pointer(operation) + "/requestBody/content/application~1json/schema", body)
        return problems

    def answer_problems(self, operation: Operation, status: int, body: object | None) -> list[str]:
        """What is wrong with an answer."""
        described = self._definition(operation)["responses"].get(str(status))
        if described is None:
            return [f"status {status} is not documented"]
        if "content" not in described:
            return [] if body is None else ["there should be no body"]
        pointer = f"{self._pointer(operation)}/responses/{status}/content/application~1json/schema"
        return self._problems(pointer, body)

    def _definition(self, operation: Operation) -> dict[str, Any]:
        found: dict[str, Any] = self.document["paths"][operation.path][operation.method]
        return found

    def _pointer(self, operation: Operation) -> str:
        path = operation.path.replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
        return f"/paths/{path}/{operation.method}"

    def _problems(self, pointer: str, value: object) -> list[str]:
        if pointer not in self._validators:
            self._validators[pointer] = _validator(self.document, pointer)
        errors = self._validators[pointer].iter_errors(value)
        return [f"{'/'.join(map(str, error.instance_path)) or 'body'}: {error.message[:200]}" for error in errors]
