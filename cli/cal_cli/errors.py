"""What calctl says and ends with when it can't do what it was asked: one clear line, exit code 1."""

from __future__ import annotations

import sys

import click


class Failure(click.ClickException):
    """Shown as one line; exit code 1."""

    def show(self, file: object = None) -> None:
        click.echo(f"calctl: {self.format_message()}", err=True)


def say(line: str) -> None:
    """A line about what is going on. On stderr, so that stdout holds results alone."""
    click.echo(line, err=True)
    sys.stderr.flush()
