"""What `genbench list` prints."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.options import REQUIRED, OptionSpec, specs
from genbench.plugins import KINDS, Catalogue, Entry


def show_catalogue(catalogue: Catalogue, kind: str | None) -> None:
    """Everything of one kind, or of all."""
    console = Console()
    for each in KINDS:
        if kind in (None, f"{each}s"):
            console.print(f"[bold]{each}s[/]")
            for name in sorted(catalogue.entries[each]):
                show_entry(console, catalogue.entries[each][name])
            console.print()
    if kind in (None, "plugins"):
        show_plugins(console, catalogue)


def show_entry(console: Console, entry: Entry) -> None:
    """One offer, then a line for each option."""
    offer = entry.offer
    source = f" [dim]({escape(offer.source)})[/]" if offer.source else ""
    console.print(f"  [cyan]{escape(offer.name)}[/]  {escape(offer.about)}{source}", highlight=False)
    options = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    options.add_column(no_wrap=True)
    options.add_column(no_wrap=True, style="green")
    options.add_column(overflow="fold")
    for spec in specs(offer.make).values():
        source = f" [dim]({escape(spec.meaning.source)})[/]" if spec.meaning.source else ""
        options.add_row(f"      {spec.name}", default_words(spec), f"{escape(meaning(spec))}{source}")
    if options.row_count:
        console.print(options)


def default_words(spec: OptionSpec) -> str:
    """The default as it would be typed."""
    if spec.default is REQUIRED:
        return "required"
    if isinstance(spec.default, bool) or spec.default is None:
        return str(spec.default).lower()
    return f"{spec.default:g}" if isinstance(spec.default, float) else str(spec.default)


def meaning(spec: OptionSpec) -> str:
    """What an option means, and what it may be."""
    bounds = [
        word
        for word, value in (
            (f"at least {spec.meaning.low:g}" if spec.meaning.low is not None else "", spec.meaning.low),
            (f"above {spec.meaning.above:g}" if spec.meaning.above is not None else "", spec.meaning.above),
            (f"at most {spec.meaning.high:g}" if spec.meaning.high is not None else "", spec.meaning.high),
        )
        if value is not None
    ]
    kind = ", ".join([spec.kind, *bounds])
    return f"{spec.meaning.about} [{kind}]" if spec.meaning.about else f"[{kind}]"


def show_plugins(console: Console, catalogue: Catalogue) -> None:
    """Every plug-in found: state, origin, hooks, cause."""
    table = Table("plug-in", "state", "from", "hooks", "cause", box=None, pad_edge=False, header_style="bold")
    for plugin in catalogue.plugins:
        colour = {"loaded": "green", "broken": "red"}.get(plugin.state, "dim")
        hooks = " ".join(hook.removeprefix("genbench_") for hook in plugin.hooks)
        table.add_row(
            escape(plugin.name), f"[{colour}]{plugin.state}[/]", escape(plugin.origin), hooks, escape(plugin.cause)
        )
    console.print(table)
