"""What the commands do, once their arguments are read. Only this layer and `report` print."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.errors import UsageError
from genbench.rows import Row
from genbench.store import RECONSTRUCTIONS, SAMPLES, RunFolder, find, protocols
from genbench.study import rows

if TYPE_CHECKING:
    import torch

    from genbench.api import Place
    from genbench.bench import Bench, Outcome
    from genbench.plan import Choice, Grid, Plan, Run
    from genbench.plugins import Catalogue

INTERRUPTED = 130


def run_study(grid: Grid, catalogue: Catalogue, place: Place, device: str, out: Path, *, dry_run: bool) -> int:
    """Plan, train, measure, show; the exit status: 0, 1 where a run failed, 130 where it was interrupted."""
    from genbench.plan import plan

    console = Console()
    chosen = pick_device(device)
    planned = plan(grid, catalogue, place)
    with stoppable() as stop:
        bench = make_bench(catalogue, out, place, chosen, stop)
        show_plan(console, planned, bench, brief=not dry_run)
        if dry_run:
            return 0
        outcome = conduct(console, bench, planned)
    folders = [bench.folder(run) for run in planned.runs if (bench.folder(run).path / "run.json").exists()]
    show_table(console, folders, grid.metrics, sort=grid.metrics[0] if grid.metrics else None)
    return closing(console, outcome, out)


def measure_runs(
    places: Sequence[Path],
    catalogue: Catalogue,
    place: Place,
    device: str,
    metrics: Sequence[str],
    settings: Sequence[str],
) -> int:
    """Measure trained runs; the exit status as in `run_study`."""
    from genbench.plan import metric_choices, plan_of_runs

    console = Console()
    chosen = pick_device(device)
    choices = metric_choices(catalogue, metrics, settings)
    folders = find(places)
    untrained = [folder.name for folder in folders if folder.state != "trained"]
    trained = [folder for folder in folders if folder.state == "trained"]
    if untrained:
        console.print(f"left out, not trained: {', '.join(untrained)}", markup=False)
    plans: list[tuple[Path, Plan]] = plan_of_runs(trained, choices, catalogue, place)
    total = 0
    with stoppable() as stop:
        for store, planned in plans:
            outcome = conduct(console, make_bench(catalogue, store, place, chosen, stop), planned)
            total = total or (INTERRUPTED if outcome.interrupted else int(bool(outcome.failed)))
    show_table(console, trained, metrics, sort=None)
    return total


def conduct(console: Console, bench: Bench, planned: Plan) -> Outcome:
    """Do the work behind bars in a terminal, or with few lines elsewhere."""
    from genbench.progress import Bars, Lines

    shown = Bars(console, planned) if console.is_terminal else Lines(console, planned)
    with shown:
        return replace(bench, listener=shown).conduct(planned)


def closing(console: Console, outcome: Outcome, out: Path) -> int:
    """The last lines: what failed, where everything is, what to do next."""
    for name, problem in outcome.failed.items():
        console.print(f"[red]failed[/] {escape(name)}: {escape(problem)}", soft_wrap=True, highlight=False)
    if outcome.interrupted:
        console.print("Stopped. Nothing is lost: repeat the command and it goes on where it stopped.")
    console.print(
        f"Everything is in {out}/ (models, pictures, numbers). All columns and protocols: genbench report {out};"
        " tables and page: --export reports/NAME/",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return INTERRUPTED if outcome.interrupted else int(bool(outcome.failed))


# ---------------------------------------------------------------- reports


def report_runs(places: Sequence[Path], target: Path | None, form: str, sort: str | None) -> None:
    """Show and export the runs below the places."""
    from genbench import export
    from genbench.report import render

    folders = find(places)
    tidy, how = rows(folders), protocols(folders)
    if form == "table":
        render(Console(), tidy, sort=sort, protocols=how)
    else:
        writers: dict[str, Callable[[], str]] = {
            "csv": lambda: export.tidy_csv(tidy),
            "json": lambda: export.tidy_json(tidy),
            "md": lambda: export.table_markdown(tidy, sort=sort),
            "tex": lambda: export.table_latex(tidy, sort=sort),
        }
        click.echo(writers[form](), nl=False)
    if target is not None:
        write_report(folders, tidy, how, target, sort)
        click.echo(
            f"Written to {target}/: {', '.join(sorted(path.name for path in target.iterdir()))}", err=form != "table"
        )


def write_report(
    folders: Sequence[RunFolder], tidy: list[Row], how: Mapping[str, Any], target: Path, sort: str | None
) -> None:
    """Export everything to a folder."""
    from genbench import export
    from genbench.provenance import command_line

    facts = {folder.name: export.RunFacts(folder.name, folder.path, folder.record()) for folder in folders}
    export.export(target, tidy, runs=facts, protocols=how, command=command_line(), sort=sort)


def show_table(console: Console, folders: Sequence[RunFolder], metrics: Sequence[str], sort: str | None) -> None:
    """The comparison of some runs by some metrics."""
    from genbench.report import render

    tidy = [row for row in rows(folders) if not row.metric or row.metric.split(".")[0] in metrics]
    ranking = [row.metric for row in tidy if row.metric.split(".")[0] == sort and row.better != "neither"]
    if tidy:
        console.print()
        render(console, tidy, sort=next(iter(ranking), None), protocols=protocols(folders), brief=True)


def show_plan(console: Console, planned: Plan, bench: Bench, *, brief: bool) -> None:
    """The cells of a plan, their parameters and states; in brief one line."""
    runs = planned.runs
    states = {run.name: "done" if bench.complete(run, planned.metrics) else bench.folder(run).state for run in runs}
    first, summary = runs[0], planned.summary
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    console.print(
        f"{len(runs)} run{'s' * (len(runs) > 1)} on {first.dataset.name} ({summary.train:,} training images,"
        f" {'x'.join(map(str, summary.shape))}), network {first.network.name}, {first.images:,} images each"
        f" in batches of {first.batch}, on {bench.device}: {counts}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if brief:
        return
    table = Table("model", "prior", "d", "parameters", "seeds", "state", box=None, pad_edge=False, header_style="bold")
    cells: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.model.name, run.prior.name, run.latent_dim), []).append(run)
    for (model, prior, dim), members in cells.items():
        state = Counter(states[run.name] for run in members)
        words = ", ".join(f"{count} {what}" for what, count in state.items())
        table.add_row(model, prior, str(dim), f"{planned.size(members[0]):,}", str(len(members)), words)
    console.print(table)
    show_options(console, planned)


def show_options(console: Console, planned: Plan) -> None:
    """Every option of everything in the plan."""
    first = planned.runs[0]
    chosen: dict[str, Choice] = {first.dataset.name: first.dataset, first.network.name: first.network}
    for run in planned.runs:
        chosen |= {run.model.name: run.model, run.prior.name: run.prior}
    chosen |= {metric.name: metric for metric in planned.metrics}
    console.print()
    for name, choice in chosen.items():
        words = ", ".join(f"{option.replace('_', '-')}={value}" for option, value in choice.options) or "no options"
        console.print(f"[bold]{escape(name)}[/]  {escape(words)}", highlight=False)


# ---------------------------------------------------------------- one run


def show_run(path: Path) -> None:
    """A run's options, provenance, state, numbers and pictures."""
    console, folder = Console(), RunFolder(path)
    record = folder.record()
    console.print(f"[bold]{escape(folder.name)}[/]  {folder.state}", highlight=False)
    if folder.failure():
        console.print(f"[red]{escape(folder.failure())}[/]", highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in {**record["run"], **record["provenance"]}.items():
        table.add_row(f"[dim]{escape(name)}[/]", escape(_words(value)))
    console.print(table)
    numbers = Table("metric", "value", "floor", "n", "protocol", box=None, pad_edge=False, header_style="bold")
    for row in rows([folder]):
        if row.metric:
            value = "failed: " + row.error if row.value is None else f"{row.value:.6g} {row.unit}"
            floor = "" if row.floor is None else f"{row.floor:.4g}"
            numbers.add_row(escape(row.metric), escape(value), floor, str(row.n or ""), row.protocol)
    console.print(numbers)
    for picture in (SAMPLES, RECONSTRUCTIONS):
        if (path / picture).exists():
            console.print(str(path / picture), markup=False, highlight=False, soft_wrap=True)


def _words(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        options = ", ".join(f"{name.replace('_', '-')}={it}" for name, it in value.get("options", {}).items())
        return f"{value['name']}" + (f" ({options})" if options else "")
    if isinstance(value, dict):
        return ", ".join(f"{name} {it}" for name, it in value.items())
    return str(value)


def sample_run(path: Path, catalogue: Catalogue, count: int, seed: int, target: Path, device: str) -> None:
    """Decode prior draws of a trained run into a picture."""
    from genbench.bench import trained_model
    from genbench.images import save_grid, to_uint8
    from genbench.plan import make_prior, run_of_record
    from genbench.random import generator

    if target.suffix.lower() != ".png":
        raise UsageError(f"--out {target}: the picture is a PNG; name a file that ends in .png")
    folder, chosen = RunFolder(path), pick_device(device)
    run = run_of_record(folder.record()["run"])
    model = trained_model(catalogue, run, folder, chosen).eval()
    draws = make_prior(catalogue, run).sample(count, generator("cpu", seed, "sample"))
    import torch

    with torch.no_grad():
        images = torch.cat([to_uint8(model.decode(block)) for block in draws.to(chosen).split(500)])
    save_grid(target, images, columns=max(1, round(count**0.5)))
    click.echo(f"{count} samples of {folder.name}: {target}")


# ---------------------------------------------------------------- surroundings


def pick_device(name: str) -> torch.device:
    """The device of `--device`; `UsageError` where there is none such."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: possible are auto, cpu, cuda, cuda:i") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: possible are auto, cpu, cuda, cuda:i")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def make_bench(catalogue: Catalogue, out: Path, place: Place, device: torch.device, stop: Callable[[], bool]) -> Bench:
    """The bench of one command."""
    from genbench.bench import Bench, Deaf
    from genbench.provenance import arguments, provenance

    return Bench(catalogue, out, place, device, provenance(device, arguments()), Deaf(), stop)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Whether the user wants to stop: the first Ctrl-C or SIGTERM asks for it, a second Ctrl-C insists."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        click.echo("stopping after this step; once more to stop at once", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
