"""Progress of a study: live bars in a terminal, few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from genbench.api import ProgressEvent
from genbench.experiment.plan import Plan
from genbench.experiment.run import Component, Run
from genbench.training.loop import TrainState
from genbench.training.step import ALONE, EAGER_FALLBACK

WIDE = 110
"""The width of a terminal from which bars have their full length."""

FIXED = 2 + 6 + 8 + 3
"""Characters of the spinner, the percentage, the time left and the gaps beside them."""

LINE_SECONDS = 10.0
"""The interval of a training's lines where there is no terminal."""


def titles(runs: Sequence[Run]) -> dict[str, str]:
    """Each run in a few words, by its name: the model, and of prior, latent size and seed what not all runs share."""
    priors, dims = {run.prior.name for run in runs}, {run.latent_dim for run in runs}
    seeds = {run.seed for run in runs}
    return {
        run.name: ", ".join(
            [("" if run.role == "model" else f"{run.role} ") + run.model.name]
            + [f"{run.prior.name} prior"] * (len(priors) > 1)
            + [f"d={run.latent_dim}"] * (len(dims) > 1)
            + [f"seed {run.seed}"] * (len(seeds) > 1)
        )
        for run in runs
    }


def loss_words(terms: Mapping[str, float], width: int | None = None) -> str:
    """The loss terms in one line, as many of the first as fit into so many characters.

    >>> loss_words({"reconstruction": 33.17, "penalty": 0.5}, 24)
    'reconstruction 33.17'
    """
    text = ""
    for name, value in terms.items():
        longer = f"{text}{'  ' if text else ''}{name} {value:.4g}"
        if width is not None and len(longer) > width:
            break
        text = longer
    return text


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class ActiveRun:
    """An active run: its bar where there are bars, the times of its start and last line, its images so far."""

    run: Run
    title: str
    began: float
    printed: float
    bar: TaskID | None = None
    images: int = 0
    remarks: set[str] = field(default_factory=set)
    """What was said of this model before."""

    def reason(self, state: TrainState) -> str:
        """Why the steps are not a CUDA graph, or the run no member of an ensemble, once for each model; else ""."""
        how, _, alone = state.how.partition(ALONE)
        remark = ""
        if how.startswith(EAGER_FALLBACK):
            reason = how.removeprefix(EAGER_FALLBACK)
            remark = f"its step cannot be a CUDA graph, and is slower: {reason}"
        if alone:
            remark += f"{'; it' if remark else 'it'} is not trained in an ensemble: {alone}"
        if not remark or remark in self.remarks:
            return ""
        self.remarks.add(remark)
        return f"{self.title}: {remark}"


class Bars:
    """Live bars: the study, the runs at work, their speed and loss terms, the time left of all."""

    def __init__(self, console: Console, plan: Plan, total: int) -> None:
        """For a terminal, and `total` runs of the plan that lack something; use as a context."""
        self._console, self._total = console, total
        self._titles = titles(plan.runs)
        self._share = plan.snapshots.share
        # A control trains on none, and counts as one run all the same.
        self._each = round(self._share * max(run.images for run in plan.runs))
        # Bar, percentage and time left keep their width; descriptions are cut, and facts get the rest.
        bar = 24 if console.width >= WIDE else 10
        longest = max(map(len, (*self._titles.values(), f"run {total} of {total}")))
        description = min(longest, max(12, console.width // 3))
        self._room = max(0, console.width - description - bar - FIXED)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=_cut(description)),
            BarColumn(bar_width=bar),
            TextColumn("{task.percentage:>3.0f} %", table_column=_cut(5)),
            TimeRemainingColumn(table_column=_cut(7)),
            TextColumn("[dim]{task.fields[facts]}", table_column=_cut(self._room)),
            console=console,
            transient=True,
        )
        self._study: TaskID | None = None
        self._data: TaskID | None = None
        self._said: set[str] = set()
        """What was said of things that are computed once."""
        self._active: dict[str, ActiveRun] = {}
        self._remarks: dict[Component, set[str]] = {}
        self._started = 0
        self._ended = 0

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def on_data(self, progress: ProgressEvent) -> None:
        """One bar for the dataset; what a metric computes once is a line."""
        if self._study is not None and not progress.total:
            if progress.what not in self._said:
                self._said.add(progress.what)
                self._console.print(f"[dim]{escape(progress.what)}[/]", highlight=False)
            return
        if self._data is None:
            self._data = self._bars.add_task(escape(progress.what), total=None, facts="")
        facts = f"{progress.done:,} of {progress.total:,}" if progress.total else ""
        self._bars.update(
            self._data,
            description=escape(progress.what),
            completed=progress.done,
            total=progress.total or None,
            facts=facts,
        )

    def on_run_start(self, run: Run, state: str) -> None:
        """The run's bar below the study's."""
        if self._study is None:
            if self._data is not None:
                self._bars.remove_task(self._data)
            self._study = self._bars.add_task("study", total=self._total * self._each, facts="")
        title = self._titles[run.name]
        bar = self._bars.add_task(escape(title), total=round(self._share * run.images), facts="")
        self._active[run.name] = ActiveRun(
            run, title, time.perf_counter(), 0.0, bar, remarks=self._remarks.setdefault(run.model, set())
        )
        self._started += 1
        self._bars.update(self._study, description=f"run {self._started} of {self._total}")
        self._count()

    def on_log(self, run: Run, state: TrainState) -> None:
        """Show speed and loss terms."""
        work = self._active[run.name]
        assert work.bar is not None
        if reason := work.reason(state):
            self._console.print(f"[yellow]![/] {escape(reason)}", highlight=False)
        rate = f"{state.rate:,.0f} images/s"
        facts = f"{rate}  {loss_words(state.terms, self._room - len(rate) - 2)}".rstrip()
        facts = escape(facts) if state.step < state.steps else "measuring"
        self._bars.update(work.bar, completed=state.images, facts=facts)
        work.images = min(state.images, self._each)
        self._count()

    def on_metric_start(self, run: Run, metric: str) -> None:
        """The metric that is measured now."""
        work = self._active[run.name]
        assert work.bar is not None
        self._bars.update(work.bar, facts=f"measuring {escape(metric)}")

    def on_run_end(self, run: Run, status: str, problem: str) -> None:
        """A line that stays, unless the run was interrupted."""
        work = self._active.pop(run.name)
        assert work.bar is not None
        self._bars.remove_task(work.bar)
        self._ended += 1
        self._count()
        if status == "interrupted":
            return
        mark = {"done": "[green]✓[/]", "locked": "[dim]-[/]"}.get(status, "[red]✗[/]")
        seconds = clock(time.perf_counter() - work.began)
        line = f"{mark} {escape(work.title)}{f': {escape(problem)}' if problem else ''}"
        self._console.print(f"{line} [dim]({seconds})[/]", highlight=False)

    def _count(self) -> None:
        assert self._study is not None
        images = sum(work.images for work in self._active.values())
        self._bars.update(self._study, completed=self._ended * self._each + images)


def _cut(width: int) -> Column:
    """A column of one width, whose text is cut where it is longer."""
    return Column(width=width, no_wrap=True, overflow="ellipsis")


class Lines:
    """Few plain lines, for logs and pipes."""

    def __init__(self, console: Console, plan: Plan, total: int) -> None:
        """For anything but a terminal, and `total` runs of the plan that lack something; use as a context."""
        self._console, self._total = console, total
        self._titles, self._share = titles(plan.runs), plan.snapshots.share
        self._last = time.perf_counter()
        self._name = ""
        self._active: dict[str, ActiveRun] = {}
        self._remarks: dict[Component, set[str]] = {}
        self._started = 0
        self._several = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """No bars to remove."""

    def on_data(self, progress: ProgressEvent) -> None:
        """The beginning, and a line now and then."""
        now = time.perf_counter()
        if progress.what != self._name:
            self._print(f"{progress.what}{f', {progress.total:,}' if progress.total else ''}")
        elif progress.total and now - self._last >= LINE_SECONDS:
            self._print(f"    {progress.done:,} of {progress.total:,}")
        else:
            return
        self._name, self._last = progress.what, now

    def on_run_start(self, run: Run, state: str) -> None:
        now = time.perf_counter()
        title = self._titles[run.name]
        self._active[run.name] = ActiveRun(run, title, now, now, remarks=self._remarks.setdefault(run.model, set()))
        self._several = self._several or len(self._active) > 1
        self._started += 1
        verb = {"interrupted": "resuming", "trained": "measuring"}.get(state, "training")
        some = f"up to {round(self._share * run.images):,} of " * (self._share < 1)
        work = f"{verb}, {some}{run.images:,} images" if run.trains else "measuring"
        self._print(f"[{self._started}/{self._total}] {title}: {work}")

    def on_log(self, run: Run, state: TrainState) -> None:
        """A line now and then."""
        now, work = time.perf_counter(), self._active[run.name]
        if reason := work.reason(state):
            self._print(f"    {reason}")
        if now - work.printed < LINE_SECONDS:
            return
        work.printed = now
        left = clock((state.steps - state.step) * (state.images / state.step) / max(state.rate, 1e-9))
        share = 100 * state.step // state.steps
        self._print(
            f"    {share:3d} %  {state.rate:,.0f} images/s  {loss_words(state.terms)}  {left} left{self._suffix(run)}"
        )

    def on_metric_start(self, run: Run, metric: str) -> None:
        """No line: the run's last one follows soon."""

    def on_run_end(self, run: Run, status: str, problem: str) -> None:
        """A line, unless the run was interrupted, which the command's last line reports."""
        work = self._active.pop(run.name)
        if status == "interrupted":
            return
        end = {"done": "done", "locked": problem}.get(status, f"FAILED: {problem}")
        self._print(f"    {end} ({clock(time.perf_counter() - work.began)}){self._suffix(run)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _suffix(self, run: Run) -> str:
        """The run's name, where lines of several mix."""
        return f"  [{self._titles[run.name]}]" if self._several else ""


def show_progress(console: Console, plan: Plan, total: int) -> Bars | Lines:
    """Bars in a terminal, few lines elsewhere."""
    return Bars(console, plan, total) if console.is_terminal else Lines(console, plan, total)
