"""Everyday commands, on any api: get, create, deploy, logs, key, explain, terminate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml

from cal_cli import deploy as deploying
from cal_cli import get as getting
from cal_cli import logs as logging_
from cal_cli.errors import Failure, say
from cal_cli.options import PORT, Plural, remote, scope_of
from cal_cli.resources import RESOURCES, one
from cal_cli.statedir import StateDir


@click.command()
@click.argument("kind", type=Plural(list(RESOURCES)))
@click.argument("wanted", metavar="[ID]", required=False)
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table")
@click.option("--owner", envvar="CAL_OWNER", help="Only this owner's (pools and deployments).")
@remote
def get(
    kind: str,
    wanted: str | None,
    output: str,
    owner: str | None,
    state: StateDir,
    api: str | None,
    kubeconfig: Path | None,
) -> None:
    """List resources, or show one by its id or name. `-o yaml` is the Kubernetes object behind it."""
    click.echo(getting.get(kind, wanted, output, scope_of(state, api, kubeconfig, owner)))


@click.group()
def create() -> None:
    """Create resources."""


@create.command()
@click.argument("name")
@click.option("--provider", required=True)
@click.option("--owner", envvar="CAL_OWNER", default="me", show_default=True, help="Id of its owner.")
@click.option("--owner-type", default="user", show_default=True)
@click.option("--gpu-type", "gpu_types", multiple=True, help="Allowed GPU type; repeat for more. None: any.")
@click.option("--gpu-count", type=click.IntRange(0), help="GPUs per replica unless a deployment says otherwise.")
@click.option("--max-cost", metavar="USD", help="Dearest node, USD per hour.")
@click.option("--region", "regions", multiple=True)
@click.option("--strategy", help="best_fit, cheapest or spread.")
@click.option("--provider-pool-id", default="", help="A market, a namespace: whatever the provider calls its pools.")
@click.option("--credential", help="Name of the provider's credential.")
@click.option("--dedicated", is_flag=True)
@remote
def pool(state: StateDir, api: str | None, kubeconfig: Path | None, **given: Any) -> None:
    """Create a pool."""
    body = {
        "pool_name": given["name"],
        "owner_type": given["owner_type"],
        "owner_id": given["owner"],
        "provider": given["provider"],
        "allowed_gpu_types": list(given["gpu_types"]),
        "max_cost_per_hour": given["max_cost"],
        "is_dedicated": given["dedicated"],
        "provider_pool_id": given["provider_pool_id"],
        "scheduling_policy_json": json.dumps({"strategy": given["strategy"]}) if given["strategy"] else "{}",
        "provider_credential_name": given["credential"],
        "gpu_count": given["gpu_count"],
        "region_constraint": list(given["regions"]) or None,
    }
    scope = scope_of(state, api, kubeconfig)
    answer = scope.rest.post("/createpool", {key: value for key, value in body.items() if value is not None})
    click.echo(f"pool {answer['pool_id']} {str(answer.get('status', '')).lower()}")


@click.command()
@click.argument("model")
@click.argument("command", nargs=-1)
@click.option("--pool", "pool_", required=True, help="Id or name of the pool.")
@click.option("--model-version")
@click.option("--replicas", type=click.IntRange(0), default=1, show_default=True)
@click.option("--gpus", type=click.IntRange(0), help="GPUs per replica.")
@click.option("--engine", help="vllm, sglang, ollama, infinity or tei: implies image, arguments, port and probe.")
@click.option("--image")
@click.option("--type", "workload_type", default="inference", show_default=True)
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE")
@click.option("--port", "ports", type=PORT, multiple=True, help="Port that the workload listens on.")
@click.option("--org", help="Organization; one model runs once in each.")
@click.option("--owner", envvar="CAL_OWNER", help="Owner's id; also tells pools of one name apart.")
@click.option("--config", type=click.File(), help="YAML or JSON with a whole `configuration`; options come on top.")
@click.option("--wait", is_flag=True, help="Until it runs; shows states, reasons and time.")
@click.option("--timeout", type=click.FloatRange(0), default=1800.0, show_default=True, help="Of --wait, seconds.")
@remote
def deploy(state: StateDir, api: str | None, kubeconfig: Path | None, **given: Any) -> None:
    """Deploy MODEL to a pool. What follows `--` is the command to run."""
    scope = scope_of(state, api, kubeconfig, given["owner"])
    pool_id = one(RESOURCES["pools"], scope, given["pool_"])["pool_id"]
    body = {
        "pool_id": pool_id,
        "model_name": given["model"],
        "model_version": given["model_version"],
        "replicas": given["replicas"],
        "gpu_per_replica": given["gpus"],
        "org_id": given["org"],
        "owner_id": given["owner"],
        "configuration": _configuration(given),
    }
    answer = scope.rest.post_once("/deploy", {key: value for key, value in body.items() if value is not None})
    identifier = str(answer["deployment_id"])
    click.echo(f"deployment {identifier} {str(answer.get('status', '')).lower()}")
    if given["wait"]:
        try:
            running = deploying.wait_running(scope.rest, identifier, given["timeout"], say)
        except KeyboardInterrupt:
            say(f"deployment {identifier} goes on without us; `calctl terminate {identifier}` ends it")
            raise
        click.echo(running.get("endpoint") or "running")


def _configuration(given: dict[str, Any]) -> dict[str, Any]:
    try:
        base = yaml.safe_load(given["config"]) if given["config"] else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"--config {given['config'].name} is neither YAML nor JSON: {error}") from error
    if not isinstance(base, dict):
        raise Failure("--config must hold a mapping")
    own = {
        "image": given["image"],
        "engine": given["engine"],
        "workload_type": given["workload_type"],
        "entrypoint": list(given["command"]) or None,
        "env": deploying.environment(given["env"]) or None,
        "expose": [{"port": port, "type": "http"} for port in given["ports"]] or None,
    }
    return {**base, **{key: value for key, value in own.items() if value is not None}}


@click.command()
@click.argument("wanted", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the log ends.")
@click.option("--tail", type=click.IntRange(0), help="How many of the last lines.  [default: 100; with -f all]")
@remote
def logs(
    wanted: str, follow: bool, tail: int | None, state: StateDir, api: str | None, kubeconfig: Path | None
) -> None:
    """Print the log of a deployment."""
    scope = scope_of(state, api, kubeconfig)
    identifier = one(RESOURCES["deployments"], scope, wanted)["deployment_id"]
    if follow:
        for line in logging_.follow(scope.rest, identifier, tail):
            click.echo(line)
        return
    for line in logging_.tail(scope.rest, identifier, 100 if tail is None else tail):
        click.echo(line)


@click.command()
@click.argument("wanted", metavar="ID")
@remote
def key(wanted: str, state: StateDir, api: str | None, kubeconfig: Path | None) -> None:
    """Print the API key that a deployment's model asks its callers for: `Authorization: Bearer KEY`."""
    scope = scope_of(state, api, kubeconfig)
    identifier = one(RESOURCES["deployments"], scope, wanted)["deployment_id"]
    click.echo(scope.rest.get(f"/key/{identifier}")["api_key"])


@click.command()
@click.argument("wanted", metavar="ID")
@remote
def explain(wanted: str, state: StateDir, api: str | None, kubeconfig: Path | None) -> None:
    """Say why a deployment is where it is: what it waits for, which offers were refused and why."""
    click.echo(deploying.explain(scope_of(state, api, kubeconfig), wanted))


@click.command()
@click.argument("wanted", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every deployment of --owner.")
@click.option("--owner", envvar="CAL_OWNER")
@remote
def terminate(
    wanted: str | None, everything: bool, owner: str | None, state: StateDir, api: str | None, kubeconfig: Path | None
) -> None:
    """Terminate a deployment, or with `--all --owner X` all of an owner's."""
    if everything == bool(wanted) or (everything and not owner):
        raise click.UsageError("give an ID, or --all with --owner")
    scope = scope_of(state, api, kubeconfig, owner)
    if wanted:
        identifiers = [str(one(RESOURCES["deployments"], scope, wanted)["deployment_id"])]
    else:
        identifiers = deploying.of_owner(scope)
    for answer in deploying.terminate(scope, identifiers):
        click.echo(f"deployment {answer['deployment_id']} {str(answer.get('status', '')).lower()}")
    if not identifiers:
        click.echo(f"{owner} has nothing to terminate")


COMMANDS = (get, create, deploy, logs, key, explain, terminate)
