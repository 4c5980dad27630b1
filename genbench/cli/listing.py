"""What `genbench list` prints, from the catalogue as plain data. No torch."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.registry.cache import KINDS, Index, ListedOffer, ListedOption, ListedPlugin


def show_catalogue(index: Index, kind: str | None) -> None:
    """Everything of one kind, or of all."""
    console = Console()
    for each in KINDS:
        if kind in (None, f"{each}s"):
            console.print(f"[bold]{each}s[/]")
            for offer in index.offers[each]:
                show_offer(console, offer)
            console.print()
    if kind in (None, "plugins"):
        show_plugins(console, index)


def show_offer(console: Console, offer: ListedOffer) -> None:
    """One offer, then a line for each option."""
    source = f" [dim]({escape(offer.source)})[/]" if offer.source else ""
    console.print(f"  [cyan]{escape(offer.name)}[/]  {escape(offer.about)}{source}", highlight=False)
    options = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    options.add_column(no_wrap=True)
    options.add_column(no_wrap=True, style="green")
    options.add_column(overflow="fold")
    for option in offer.options:
        source = f" [dim]({escape(option.source)})[/]" if option.source else ""
        options.add_row(f"      {option.name}", escape(option.default), f"{escape(meaning(option))}{source}")
    if options.row_count:
        console.print(options)


def meaning(option: ListedOption) -> str:
    """What an option means, and what it may be."""
    kind = ", ".join(word for word in (option.kind, option.bounds) if word)
    return f"{option.about} [{kind}]" if option.about else f"[{kind}]"


def show_plugins(console: Console, index: Index) -> None:
    """Every plug-in found: state, origin, hooks, seconds of its import, cause or what is odd."""
    table = Table("plug-in", "state", "from", "hooks", "import", "cause", box=None, pad_edge=False, header_style="bold")
    for plugin in index.plugins:
        color = {"loaded": "green", "broken": "red"}.get(plugin.state, "dim")
        hooks = " ".join(hook.removeprefix("genbench_") for hook in plugin.hooks)
        state, told = f"[{color}]{plugin.state}[/]", escape(cause(plugin))
        table.add_row(escape(plugin.name), state, escape(plugin.origin), hooks, f"{plugin.seconds:.2f} s", told)
    console.print(table)


def cause(plugin: ListedPlugin) -> str:
    """Why a plug-in is not loaded, and what is odd about it."""
    return "; ".join(word for word in (plugin.cause, *plugin.notes) if word)
