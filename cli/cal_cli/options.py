"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cal_cli.resources import Scope
from cal_cli.rest import connect
from cal_cli.statedir import StateDir, default_path

F = TypeVar("F", bound=Callable[..., Any])


class StateDirType(click.ParamType[StateDir]):
    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> StateDir:
        if isinstance(value, StateDir):
            return value
        if not str(value):  # most likely a variable that isn't set; it would mean the current directory
            self.fail("is empty", param, ctx)
        return StateDir(Path(value))


class Plural(click.Choice[str]):
    """One of some plurals; the singular, which kubectl takes too, means the same."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        plural = f"{value}s"
        return super().convert(plural if plural in self.choices else value, param, ctx)


state_dir = click.option(
    "--state-dir",
    "state",
    type=StateDirType(),
    default=default_path,
    show_default="$CAL_STATE_DIR, else $XDG_STATE_HOME/compute-abstraction-layer",
    help="Where `up` keeps its data.",
)
PORT = click.IntRange(1, 65535)


def remote(command: F) -> F:
    """The options of every command that talks to an api."""
    options = [
        state_dir,
        click.option("--api", envvar="CAL_API_URL", help="URL of the api; else that of the running `up`."),
        click.option("--kubeconfig", type=click.Path(path_type=Path), help="Of the cluster behind --api."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def scope_of(state: StateDir, api: str | None, kubeconfig: Path | None, owner: str | None = None) -> Scope:
    own = state.kubeconfig if api is None and state.kubeconfig.exists() else None
    return Scope(connect(api, state), owner, kubeconfig or own)
