"""The commands on plug-ins: list, new, check, docs, news, completion. Heavy modules are imported in the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from genbench.cli.options import (
    FilePath,
    form_option,
    load_listing,
    load_registry,
    plugin_option,
    refuse_plugin_files,
    run_paths,
)
from genbench.cli.store import list_runs
from genbench.errors import UsageError, unknown
from genbench.interface.components import listing_plain
from genbench.registry.listing import KINDS, Kind
from genbench.registry.scaffold import SCRIPT, TRY, check_name, next_steps, write_plugin

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.registry.listing import ListedComponent, Listing
    from genbench.registry.loader import Registry
    from genbench.testing import Result

LISTED = (*(f"{kind}s" for kind in KINDS), "plugins", "runs")
"""What `genbench list` lists."""

COLORS = {"holds": "green", "fails": "red", "skipped": "dim", "reported": "yellow"}


# ---------------------------------------------------------------- list


def complete_listed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What can be listed, by its beginning."""
    return [word for word in LISTED if word.startswith(incomplete)]


@click.command(name="list", short_help="List the components of all plug-ins, or runs.")
@click.argument(
    "kind",
    required=False,
    metavar="[KIND]",
    shell_complete=complete_listed,
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@form_option
@plugin_option
@click.pass_context
def list_(ctx: click.Context, kind: str | None, names: tuple[str, ...], form: str, plugins: tuple[Path, ...]) -> None:
    """List the components of all plug-ins with their options, defaults, meanings and sources.

    KIND is one of them in the plural (`genbench list priors`), plugins, or runs. NAMEs are components of that kind
    (`genbench list models swae`), or the folders whose runs are listed with state, date and size. [runs] A kind whose
    components come in families, as models, is an overview of one line each; name some of them for their options.
    """
    if kind not in (None, *LISTED):
        raise _unknown_kind(str(kind), LISTED, load_listing(plugins))
    if kind == "runs":
        folders = tuple(FilePath().convert(name, None, ctx) for name in names or ("runs",))
        list_runs(run_paths(ctx, ctx.command.params[1], folders), form)
        return
    if names and kind == "plugins":
        raise UsageError(f"genbench list plugins {names[0]}: it lists all plug-ins and takes no names")
    from rich.console import Console

    listing, console = load_listing(plugins), Console()
    chosen = [listed for listed in KINDS if kind in (None, f"{listed}s")]
    if names:
        listing = _only(listing, chosen[0], names)
    if form == "json":
        click.echo(json.dumps(listing_plain(listing, chosen, plugins=kind in (None, "plugins")), indent=1))
        return
    for listed in chosen:
        console.print(f"[bold]{listed}s[/]")
        if kind and not names and any(component.family for component in listing.components[listed]):
            show_families(console, listed, listing.components[listed])
        else:
            for component in listing.components[listed]:
                show_component(console, component)
        console.print()
    if kind in (None, "plugins"):
        show_plugins(console, listing)


def _only(listing: Listing, kind: Kind, names: Sequence[str]) -> Listing:
    """The listing with the named components of a kind alone, in the order of the names."""
    known = {component.name: component for component in listing.components[kind]}
    for name in names:
        if name.lower() not in known:
            raise unknown(kind, name, known, listing.aliases(kind))
    chosen = tuple(known[name] for name in dict.fromkeys(map(str.lower, names)))
    return replace(listing, components={**listing.components, kind: chosen})


def _unknown_kind(given: str, possible: Sequence[str], listing: Listing) -> UsageError:
    """The refusal of `genbench list NAME`; it says where a component is listed."""
    for kind, components in () if f"{given}s" in possible else listing.components.items():
        if any(component.name == given.lower() for component in components):
            return UsageError(
                f"genbench list takes a kind, and '{given}' is a {kind}: genbench list {kind}s {given.lower()}"
            )
    return unknown("kind to list called", given, possible)


def show_families(console: Console, kind: Kind, components: Sequence[ListedComponent]) -> None:
    """Print a line for each component under the heading of its family; those without a family come last."""
    from rich.markup import escape
    from rich.table import Table

    width = max(len(component.name) for component in components)
    families = sorted({component.family for component in components}, key=lambda family: (not family, family))
    for family in families:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=width + 4)
        table.add_column(overflow="fold")
        for component in components:
            if component.family == family:
                table.add_row(f"    [cyan]{escape(component.name)}[/]", escape(component.description))
        console.print(f"  {escape(family) or 'others'}")
        console.print(table)
    console.print(f"  [dim]options and sources: genbench list {kind}s NAME[/]")


def show_component(console: Console, component: ListedComponent) -> None:
    """Print one component, then a line for each option."""
    from rich.markup import escape
    from rich.table import Table

    source = f" [dim]({escape(component.reference)})[/]" if component.reference else ""
    head = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    head.add_column(no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row(f"  [cyan]{escape(component.name)}[/]", f"{escape(component.description)}{source}")
    console.print(head)
    options = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    options.add_column(no_wrap=True)
    options.add_column(no_wrap=True, style="green")
    options.add_column(overflow="fold")
    for option in component.options:
        kind = ", ".join(word for word in (option.kind, option.bounds) if word)
        meaning = f"{option.description} [{kind}]" if option.description else f"[{kind}]"
        source = f" [dim]({escape(option.reference)})[/]" if option.reference else ""
        options.add_row(f"      {option.name}", escape(option.default), f"{escape(meaning)}{source}")
    if options.row_count:
        console.print(options)


def show_plugins(console: Console, listing: Listing) -> None:
    """Print every plug-in: state, origin, hooks, seconds of its import, cause or note."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("plug-in", "state", "from", "hooks", "import", "cause", box=None, pad_edge=False, header_style="bold")
    for plugin in listing.plugins:
        color = {"loaded": "green", "broken": "red"}.get(plugin.state, "dim")
        hooks = " ".join(hook.removeprefix("genbench_") for hook in plugin.hooks)
        cause = plugin.cause or plugin.note
        state, seconds = f"[{color}]{plugin.state}[/]", f"{plugin.seconds:.2f} s"
        table.add_row(escape(plugin.name), state, escape(plugin.origin), hooks, seconds, escape(cause))
    console.print(table)


# ---------------------------------------------------------------- new and completion


@click.command(short_help="Write a working plug-in of a KIND to start from.")
@click.argument("kind", type=click.Choice([*TRY, SCRIPT]))
@click.argument("name")
@click.option("--package", is_flag=True, help="Write a whole distribution, with a test, instead of one file.")
@click.option(
    "--to",
    type=FilePath(file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Folder to write it to. [here]",
)
def new(kind: str, name: str, package: bool, to: Path) -> None:
    """Write a working plug-in of a KIND called NAME to start from; the contract is in its comments.

    `external` is no plug-in but a script, which scores a model that was trained elsewhere by its weights file.
    """
    if kind == SCRIPT and package:
        raise UsageError("genbench new external writes a script: leave --package off")
    if kind == SCRIPT:
        check_name(kind, name, ())
    else:
        listing = load_listing(())
        check_name(kind, name, listing.names(cast("Kind", kind)), [plugin.name for plugin in listing.plugins])
    for path in write_plugin(kind, name, to, package=package):
        click.echo(f"wrote {path}")
    click.echo("next:")
    for command in next_steps(kind, name, to, package=package):
        click.echo(f"  {command}")


@click.command(short_help="Show a page of the documentation.")
@click.argument("page", required=False)
def docs(page: str | None) -> None:
    """Show a PAGE of the documentation that is installed with genbench; without a PAGE, list them.

    The page is Markdown where the output is no terminal. `agents` has instructions for coding agents.
    """
    texts = doc_pages()
    if page is None:
        width = max(map(len, texts))
        click.echo("genbench docs PAGE prints one of:")
        for name, text in texts.items():
            click.echo(f"  {name:{width}}  {page_summary(text)}")
    elif page not in texts:
        raise unknown("page", page, texts)
    else:
        show_page(texts[page])


@click.command(short_help="Show what is new in each version.")
def news() -> None:
    """Show what is new, changed and mended in each version; the same as `genbench docs news`."""
    show_page(doc_pages()["news"])


def show_page(text: str) -> None:
    """Print a page: rendered in a pager in a terminal, as Markdown elsewhere."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.capture() as captured:
        console.print(Markdown(text))
    click.echo_via_pager(captured.get(), color=True)


def page_summary(text: str) -> str:
    """What a page holds: the line below its title, which is a paragraph by itself."""
    return text.split("\n\n")[1]


def doc_pages() -> dict[str, str]:
    """The packaged pages by name."""
    folder = files("genbench").joinpath("docs")
    pages = sorted((path for path in folder.iterdir() if path.name.endswith(".md")), key=lambda path: path.name)
    return {path.name.removesuffix(".md"): path.read_text(encoding="utf-8") for path in pages}


@click.command(short_help="Print the completion script for SHELL.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes genbench's commands, names and options on TAB."""
    from genbench.cli.completion import script

    click.echo(script(shell))


# ---------------------------------------------------------------- check


@click.command(short_help="Check plug-ins against the contract.")
@click.argument("names_", nargs=-1, metavar="[NAME]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of the output.",
)
@plugin_option
def check(names_: tuple[str, ...], form: Literal["table", "json"], plugins: tuple[Path, ...]) -> None:
    """Check NAMEs, all of each --plugin, or everything against the contract; exit status 1 where something fails."""
    from rich.console import Console
    from rich.markup import escape

    refuse_plugin_files(names_)
    console, last = Console(), ("", "")
    results: list[Result] = []
    for result in run_checks(load_registry(plugins), names_, plugins):
        results.append(result)
        if form == "table":
            if (result.kind, result.name) != last:
                last = (result.kind, result.name)
                console.print(f"[bold]{result.kind} {escape(result.name)}[/]", highlight=False)
            show_result(console, result)
    counts = {status: sum(result.status == status for result in results) for status in COLORS}
    if form == "json":
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
    else:
        console.print(", ".join(f"{count} {status}" for status, count in counts.items()), highlight=False)
    sys.exit(1 if counts["fails"] else 0)


def run_checks(registry: Registry, names: tuple[str, ...], files: tuple[Path, ...]) -> Iterator[Result]:
    """The results of all checks; on a terminal, stderr has a line for the component that is being checked."""
    from genbench.testing import check_plugin
    from genbench.testing.checks import selected, warnings_of

    yield from warnings_of(registry, files)
    chosen = selected(registry, names, None, files)
    for number, (kind, name) in enumerate(chosen, 1):
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[Kchecking {number} of {len(chosen)}: {kind} {name}", nl=False, err=True)
        yield from check_plugin(registry, kind, name)
    if chosen and sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)


def show_result(console: Console, result: Result) -> None:
    """Print one check: its status, details, and advice where it fails."""
    from rich.markup import escape

    status = f"[{COLORS[result.status]}]{result.status:8}[/]"
    console.print(f"  {status} {result.check}  [dim]{escape(result.detail)}[/]", highlight=False, soft_wrap=True)
    if result.advice:
        console.print(f"           to do: {escape(result.advice)}", highlight=False, soft_wrap=True)


COMMANDS: tuple[click.Command, ...] = (list_, new, check, docs, news, completion)
