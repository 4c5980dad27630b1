"""Shell completion of names and options from the cached listing. No torch unless the listing must be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from genbench.errors import GenbenchError
from genbench.registry.cache import get_listing
from genbench.registry.listing import Listing

VARIABLE = "_GENBENCH_COMPLETE"
DISABLED = "genbench.disabled"
"""The key of the names of --disable-plugin in a command's context."""
INSTALL = {
    "bash": "genbench completion bash > ~/.genbench-complete.bash && echo '. ~/.genbench-complete.bash' >> ~/.bashrc",
    "zsh": "genbench completion zsh > ~/.genbench-complete.zsh && echo '. ~/.genbench-complete.zsh' >> ~/.zshrc",
    "fish": "genbench completion fish > ~/.config/fish/completions/genbench.fish",
}

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def script(shell: str) -> str:
    """The script of a shell, headed by how to install it."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None, shell  # the command line offers click's three shells
    root = click.get_current_context().find_root().command
    return f"# To install: {INSTALL[shell]}\n{completion_class(root, {}, 'genbench', VARIABLE).source()}"


def complete_names(kind: str) -> Completer:
    """Completes names of a kind, the last one of several with commas."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        given = set(before.split(","))
        return [
            CompletionItem(f"{before}{comma}{component.name}", help=component.description)
            for component in _listing(ctx).components.get(kind, ())
            if component.name.startswith(last) and component.name not in given
        ]

    return complete


def complete_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes NAME.OPTION=VALUE: first the name, then the option, then a choice where the option has some."""
    return list(_settings(_listing(ctx), incomplete))


def _settings(listing: Listing, incomplete: str) -> Iterable[CompletionItem]:
    owner, dot, rest = incomplete.partition(".")
    components = [component for listed in listing.components.values() for component in listed if component.options]
    if not dot:
        yield from (CompletionItem(f"{c.name}.", help=c.description) for c in components if c.name.startswith(owner))
        return
    name, equals, value = rest.partition("=")
    for option in (option for component in components if component.name == owner for option in component.options):
        if equals and option.name == name:
            values = [word for word in option.kind.split("|") if "|" in option.kind or word == "none"]
            values = ["true", "false"] if option.kind == "bool" else values
            yield from (CompletionItem(f"{owner}.{name}={each}") for each in values if each.startswith(value))
        elif not equals and option.name.startswith(name):
            yield CompletionItem(f"{owner}.{option.name}=", help=f"{option.description} [{option.default}]")


def complete_plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes names of installed plug-ins, the last one of several with commas."""
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(","))
    return [
        CompletionItem(f"{before}{comma}{plugin.name}", help=plugin.origin)
        for plugin in _listing(ctx).plugins
        if plugin.name.startswith(last) and plugin.name not in given
    ]


def complete_metrics_of_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the metrics that the RUNS given before, or those in `runs`, were measured by."""
    from genbench.storage.results import rows
    from genbench.storage.run_dir import find_runs, read_runs

    paths = ctx.params.get("runs") or ctx.args or ["runs"]  # click keeps them in args while an option lacks its value
    try:
        records, _ = read_runs(find_runs([Path(path) for path in paths]))
    except GenbenchError:
        return []
    names = {row.metric for row in rows(records) if row.metric}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _listing(ctx: click.Context) -> Listing:
    """The listing, with the files of --plugin on the line, which are loaded at each call and take seconds."""
    files = tuple(path for path in ctx.params.get("plugins") or () if path.is_file())
    disabled = ctx.meta.get(DISABLED, ())
    with redirect_stderr(StringIO()):  # a plug-in must not print into the line being typed
        try:
            return get_listing(files, disabled)
        except GenbenchError:
            return get_listing(disabled=disabled)
