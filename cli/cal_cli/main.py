"""calctl: the command line. Here: the control plane on this machine; everyday work is in `everyday.py`."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import threading
from typing import Any

import click
from click.shell_completion import get_completion_class

from cal_cli import detach as detaching
from cal_cli import down as stopping
from cal_cli import status as looking
from cal_cli import tour as touring
from cal_cli import up as starting
from cal_cli.controlplane import BinariesNotFound, find
from cal_cli.errors import Failure
from cal_cli.everyday import COMMANDS
from cal_cli.options import PORT, state_dir
from cal_cli.stack import Settings
from cal_cli.statedir import StateDir


class _Commands(click.Group):
    """The boundary: whatever a command meets in files, pipes and arguments ends as one line, like every `Failure`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)  # and no "Aborted!": what was asked for isn't undone
        except BrokenPipeError:
            raise  # whoever reads has enough: click ends quietly
        except OSError as error:
            raise Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
        except UnicodeEncodeError as error:
            raise Failure(f"an argument is not text: {error.reason}") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="compute-abstraction-layer")
def cli() -> None:
    """The Compute Abstraction Layer: GPU compute from many providers, on Kubernetes objects."""


@cli.command()
@state_dir
@click.option("--api-port", type=PORT, default=8080, show_default=True)
@click.option("--relay-port", type=PORT, default=3000, show_default=True)
@click.option("--detach", is_flag=True, help="Return once all is ready; `calctl down` stops it.")
@click.option("--demo", is_flag=True, help="Register a made-up GPU market as well.")
@click.option("--offline", is_flag=True, help="Register no provider outside this machine.")
@click.option("--tour", is_flag=True, help="Deploy a small language model and ask it something.")
@click.option("--context", help="Use the cluster of this kubeconfig context; no control plane of our own.")
@click.option("--namespace", default="default", show_default=True, help="Where the api creates objects.")
@click.option("--in-background", is_flag=True, hidden=True)  # what --detach starts
def up(
    state: StateDir,
    api_port: int,
    relay_port: int,
    detach: bool,
    demo: bool,
    offline: bool,
    tour: bool,
    context: str | None,
    namespace: str,
    in_background: bool,
) -> None:
    """Start etcd, kube-apiserver, operator, api and relay on this machine."""
    request = starting.Request(state, api_port, relay_port, demo, offline, context, namespace)
    if not detach:
        result = _Result()
        starting.up(request, lambda settings, stop: None if in_background else _ready(settings, stop, tour, result))
        sys.exit(result.code)
    own = [argument for argument in sys.argv[1:] if argument not in ("--detach", "--tour")]
    detaching.detach(state, [*own, "--in-background"])
    settings = Settings(state, api_port, relay_port, 0, demo, namespace)
    _summary(settings, f"`calctl down{_where(state)}` stops it.")
    if tour:
        touring.tour(settings, threading.Event())


class _Result:
    """How the tour ended: it runs in a thread, and its failure is the command's."""

    code = 0


def _ready(settings: Settings, stop: threading.Event, tour: bool, result: _Result) -> None:
    _summary(settings, "Ctrl-C stops it.")
    if not tour:
        return
    try:
        touring.tour(settings, stop)
    except Failure as failure:
        if not stop.is_set():
            failure.show()
            result.code = 1


def _where(state: StateDir) -> str:
    """The option that other commands need to find this one; none for the default state directory."""
    return "" if state.is_default() else f" --state-dir {shlex.quote(str(state.path))}"


def _summary(settings: Settings, last: str) -> None:
    directory, kubeconfig = (shlex.quote(str(path)) for path in (settings.state.path, settings.state.kubeconfig))
    found = "" if settings.state.is_default() else f"\n  calctl     export CAL_STATE_DIR={directory}"
    click.echo(
        f"""
  REST api   {settings.api_url}
  logs       {settings.public_relay_url}
  kubectl    export KUBECONFIG={kubeconfig}{found}
  state      {settings.state.path}

{last}
"""
    )


@cli.command()
@state_dir
@click.option("--purge", is_flag=True, help="Remove the state directory; refused while paid instances exist.")
@click.option("--terminate", is_flag=True, help="End every deployment and wait until its instances are gone.")
def down(state: StateDir, purge: bool, terminate: bool) -> None:
    """Stop what `up` started. Paid instances run on and are listed with their price."""
    stopping.down(state, purge=purge, terminate=terminate)


@cli.command()
@state_dir
def status(state: StateDir) -> None:
    """Show what runs. Exit code 1 unless all of it does."""
    text, healthy = looking.status(state)
    click.echo(text)
    sys.exit(0 if healthy else 1)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False)
@state_dir
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(state: StateDir, arguments: tuple[str, ...]) -> None:
    """Run kubectl on the control plane of `up`."""
    known = state.read()
    if known is None or not state.kubeconfig.exists() or not (state.running() or known.context):
        raise Failure(f"no control plane runs from {state.path}: start it with `calctl up`")
    try:
        program = find(["kubectl"], lambda line: None)["kubectl"]
    except BinariesNotFound as error:
        raise Failure(str(error)) from error
    env = {**os.environ, "KUBECONFIG": str(state.kubeconfig)}
    sys.stdout.flush()
    os.execve(program, [str(program), *arguments], env)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print shell completion: `source <(calctl completion bash)`."""
    known = get_completion_class(shell)
    assert known is not None
    click.echo(known(cli, {}, "calctl", "_CALCTL_COMPLETE").source())


for _command in COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """The console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that can't show a character shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    cli(prog_name="calctl")
