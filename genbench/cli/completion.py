"""Shell completion of names and options, answered from the kept catalogue. No torch unless it must be made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from genbench.errors import GenbenchError
from genbench.registry.cache import Index

VARIABLE = "_GENBENCH_COMPLETE"
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
        offers = _index(ctx).offers.get(kind, ())
        return [
            CompletionItem(f"{before}{comma}{offer.name}", help=offer.about)
            for offer in offers
            if offer.name.startswith(last) and offer.name not in given
        ]

    return complete


def complete_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes NAME.OPTION=VALUE: first the name, then the option, then a choice where the option has some."""
    return list(_settings(_index(ctx), incomplete))


def _settings(index: Index, incomplete: str) -> Iterable[CompletionItem]:
    owner, dot, rest = incomplete.partition(".")
    offers = [offer for kind in index.offers for offer in index.offers[kind] if offer.options]
    if not dot:
        yield from (CompletionItem(f"{o.name}.", help=o.about) for o in offers if o.name.startswith(owner))
        return
    name, equals, value = rest.partition("=")
    for option in (option for offer in offers if offer.name == owner for option in offer.options):
        if equals and option.name == name:
            choices = [choice for choice in option.kind.split("|") if "|" in option.kind or choice == "none"]
            choices = ["true", "false"] if option.kind == "bool" else choices
            yield from (CompletionItem(f"{owner}.{name}={c}") for c in choices if c.startswith(value))
        elif not equals and option.name.startswith(name):
            yield CompletionItem(f"{owner}.{option.name}=", help=f"{option.about} [{option.default}]")


def complete_plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes names of installed plug-ins, the last one of several with commas."""
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(","))
    return [
        CompletionItem(f"{before}{comma}{plugin.name}", help=plugin.origin)
        for plugin in _index(ctx).plugins
        if plugin.name.startswith(last) and plugin.name not in given
    ]


def complete_metrics_of_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the metrics that the RUNS given before, or those in `runs`, were measured by."""
    from genbench.storage.results import rows
    from genbench.storage.run_dir import find_runs, read_runs

    places = ctx.params.get("runs") or ctx.args or ["runs"]  # before an option without its value, they stand in args
    try:
        records, _ = read_runs(find_runs([Path(place) for place in places]))
    except GenbenchError:
        return []
    names = {row.metric for row in rows(records) if row.metric}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _index(ctx: click.Context) -> Index:
    """The catalogue, with the files of --plugin that stand on the line: those are loaded anew, which takes seconds."""
    from genbench.cli.options import load_listing

    files = tuple(path for path in ctx.params.get("plugins") or () if path.is_file())
    with (
        ctx.scope(cleanup=False),
        redirect_stderr(StringIO()),
    ):  # a broken plug-in must not write into the line being typed
        try:
            return load_listing(files, quiet=True)
        except GenbenchError:
            return load_listing(quiet=True)
