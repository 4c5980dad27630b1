"""The output of `genbench list`. No torch."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.registry.listing import KINDS, ListedComponent, ListedOption, Listing


def show_listing(listing: Listing, kind: str | None) -> None:
    """Everything of one kind, or of all."""
    console = Console()
    for listed in KINDS:
        if kind in (None, f"{listed}s"):
            console.print(f"[bold]{listed}s[/]")
            for component in listing.components[listed]:
                show_component(console, component)
            console.print()
    if kind in (None, "plugins"):
        show_plugins(console, listing)


def show_component(console: Console, component: ListedComponent) -> None:
    """One component, then a line for each option."""
    source = f" [dim]({escape(component.reference)})[/]" if component.reference else ""
    console.print(f"  [cyan]{escape(component.name)}[/]  {escape(component.description)}{source}", highlight=False)
    options = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    options.add_column(no_wrap=True)
    options.add_column(no_wrap=True, style="green")
    options.add_column(overflow="fold")
    for option in component.options:
        source = f" [dim]({escape(option.reference)})[/]" if option.reference else ""
        options.add_row(f"      {option.name}", escape(option.default), f"{escape(meaning(option))}{source}")
    if options.row_count:
        console.print(options)


def meaning(option: ListedOption) -> str:
    """The description of an option with its type and bounds."""
    kind = ", ".join(word for word in (option.kind, option.bounds) if word)
    return f"{option.description} [{kind}]" if option.description else f"[{kind}]"


def show_plugins(console: Console, listing: Listing) -> None:
    """Every plug-in: state, origin, hooks, seconds of its import, and the cause where it is broken or disabled."""
    table = Table("plug-in", "state", "from", "hooks", "import", "cause", box=None, pad_edge=False, header_style="bold")
    for plugin in listing.plugins:
        color = {"loaded": "green", "broken": "red"}.get(plugin.state, "dim")
        hooks = " ".join(hook.removeprefix("genbench_") for hook in plugin.hooks)
        state, cause = f"[{color}]{plugin.state}[/]", escape(plugin.cause or plugin.note)
        table.add_row(escape(plugin.name), state, escape(plugin.origin), hooks, f"{plugin.seconds:.2f} s", cause)
    console.print(table)
