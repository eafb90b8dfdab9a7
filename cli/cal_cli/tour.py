"""The tour of `calctl up --tour`: a pool and a small language model, deployed and asked a question."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import httpx

from cal_cli.bootstrap import documents, examples
from cal_cli.errors import Failure, say
from cal_cli.kube import Kube
from cal_cli.rest import Rest
from cal_cli.stack import Settings
from cal_crds.deployment import DeploymentDesiredState, DeploymentState
from cal_crds.meta import DEPLOYMENT

QUESTION = "What does the sea do at night?"
_WAIT = 300.0
_POLL = 0.3
_NEXT = "\n  "


def tour(settings: Settings, stop: threading.Event) -> None:
    """Applies `examples/local`, waits with visible progress, asks, and says what to try next. Raises `Failure`."""
    kube = Kube(settings.state.kubeconfig)
    say(f"tour: applying {examples() / 'local'}")
    deployments = [body for body in _apply(kube, examples() / "local", settings.namespace) if _is_deployment(body)]
    if not deployments:
        raise Failure(f"tour: no ModelDeployment in {examples() / 'local'}")
    _wake(settings, deployments[0])
    running = _wait(kube, DEPLOYMENT.path(settings.namespace, deployments[0]["metadata"]["name"]), stop)
    if running is not None:
        answer = _ask(running["status"]["endpoint"], running["spec"]["model"]["name"])
        _show(settings, running, answer)


def _apply(kube: Kube, folder: Path, namespace: str) -> list[dict[str, Any]]:
    bodies = list(documents(folder))
    return [kube.apply(body, namespace) for body in bodies]


def _wake(settings: Settings, deployment: dict[str, Any]) -> None:
    """Start a deployment that was terminated or failed after an earlier tour: applying it again changes nothing about that."""
    terminated = deployment["spec"].get("desiredState") == DeploymentDesiredState.TERMINATED
    if terminated or _state(deployment) == DeploymentState.FAILED:
        say(f"tour: {deployment['metadata']['name']} {'was terminated' if terminated else 'failed'}; starting it again")
        Rest(settings.api_url).post("/start", {"deployment_id": deployment["metadata"]["uid"]})


def _state(deployment: dict[str, Any]) -> str:
    """Its state; PENDING while what it failed of was an earlier spec."""
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
    state = str(status.get("state") or DeploymentState.PENDING)
    return state if seen or state != DeploymentState.FAILED else str(DeploymentState.PENDING)


def _is_deployment(body: dict[str, Any]) -> bool:
    return bool(body.get("kind") == DEPLOYMENT.name)


def _wait(kube: Kube, path: str, stop: threading.Event) -> dict[str, Any] | None:
    """The deployment once it runs; None when `stop` was set in the meantime. Each new state is a line."""
    began, said = time.monotonic(), ""
    while not stop.wait(_POLL):
        body = kube.get(path)
        status = body.get("status") or {}
        state, waiting = _state(body), (status.get("waiting") or {}).get("message") or ""
        line = f"{state}{f' ({waiting})' if waiting else ''}"
        if line != said:
            said = line
            say(f"tour: {body['metadata']['name']} is {line}, {time.monotonic() - began:.1f} s")
        if state == "RUNNING" and status.get("endpoint"):
            return body
        if state == "FAILED" or time.monotonic() - began > _WAIT:
            reason = status.get("errorMessage") or waiting or "no reason given"
            raise Failure(
                f"tour: {body['metadata']['name']} is {state} after {time.monotonic() - began:.0f} s: {reason}"
            )
    return None


def _ask(endpoint: str, model: str) -> str:
    question = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60, "seed": 7}
    try:
        answer = httpx.post(f"{endpoint}/v1/chat/completions", json=question, timeout=30, trust_env=False)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"]).strip()
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise Failure(f"tour: the model at {endpoint} did not answer: {error!r}") from error


def _show(settings: Settings, deployment: dict[str, Any], answer: str) -> None:
    endpoint, uid = deployment["status"]["endpoint"], deployment["metadata"]["uid"]
    name = deployment["metadata"]["name"]
    body = json.dumps({"prompt": "The tide", "max_tokens": 20})
    calctl = shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "calctl" else "calctl"
    directory, kubeconfig = (shlex.quote(str(path)) for path in (settings.state.path, settings.state.kubeconfig))
    elsewhere = "" if settings.state.is_default() else f"{_NEXT}export CAL_STATE_DIR={directory}"
    click.echo(
        f"""
  you:    {QUESTION}
  model:  {answer}

It runs at {endpoint}. Try next, in another terminal:

  export KUBECONFIG={kubeconfig}{elsewhere}
  curl {settings.api_url}/status/{uid}
  curl {endpoint}/v1/completions -H 'content-type: application/json' -d '{body}'
  {calctl} get deployments
  {calctl} logs -f {name}
  {calctl} kubectl get cal
  {calctl} terminate {name}
"""
    )
