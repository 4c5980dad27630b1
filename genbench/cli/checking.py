"""The output of `genbench check`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.markup import escape

from genbench.registry.loader import Registry
from genbench.testing import Result, check_plugin
from genbench.testing.checks import selected
from genbench.testing.public_imports import warnings_of

COLORS = {"holds": "green", "fails": "red", "skipped": "dim", "reported": "yellow"}


def results_of(registry: Registry, names: tuple[str, ...], files: tuple[Path, ...]) -> Iterator[Result]:
    """The results of all checks, with the current check on a terminal's stderr."""
    yield from warnings_of(registry, files)
    chosen = selected(registry, names, None, files)
    for number, (kind, name) in enumerate(chosen, 1):
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[Kchecking {number} of {len(chosen)}: {kind} {name}", nl=False, err=True)
        yield from check_plugin(registry, kind, name)
    if chosen and sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)


def show_checks(
    registry: Registry, names: tuple[str, ...], files: tuple[Path, ...], form: Literal["table", "json"]
) -> int:
    """Print every result and return the exit status: 1 where a check fails."""
    console, last = Console(), ("", "")
    results: list[Result] = []
    for result in results_of(registry, names, files):
        results.append(result)
        if form == "table":
            if (result.kind, result.name) != last:
                last = (result.kind, result.name)
                console.print(f"[bold]{result.kind} {escape(result.name)}[/]", highlight=False)
            show_result(console, result)
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in COLORS}
    if form == "json":
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
    else:
        console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), highlight=False)
    return 1 if counts["fails"] else 0


def show_result(console: Console, result: Result) -> None:
    """One check: verdict, detail, and advice where it fails."""
    verdict = f"[{COLORS[result.verdict]}]{result.verdict:8}[/]"
    console.print(f"  {verdict} {result.check}  [dim]{escape(result.detail)}[/]", highlight=False, soft_wrap=True)
    if result.advice:
        console.print(f"           to do: {escape(result.advice)}", highlight=False, soft_wrap=True)
