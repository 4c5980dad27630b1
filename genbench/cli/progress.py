"""How a study is shown while it goes: live bars in a terminal, few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from genbench.api import ProgressEvent as Preparation
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.training.callbacks import LEFT
from genbench.training.loop import TrainState
from genbench.training.step import EAGER_FALLBACK

LINE_SECONDS = 10.0
"""How often a training prints a line where there is no terminal."""


def title(run: Run) -> str:
    """A run in a few words."""
    control = "control " if run.role == "control" else ""
    return f"{control}{run.model.name}, {run.prior.name} prior, d={run.latent_dim}, seed {run.seed}"


def loss_words(terms: Mapping[str, float]) -> str:
    """The loss terms in one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in terms.items())


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class Work:
    """A run at work: its bar where there are bars, when it began, when it last printed a line, its images so far."""

    run: Run
    began: float
    told: float
    bar: TaskID | None = None
    images: int = 0
    without_graph: bool = False

    def reason(self, moment: TrainState) -> str:
        """Why a GPU takes its steps one operation at a time, when a moment first tells of it; else ""."""
        if self.without_graph or not moment.how.startswith(EAGER_FALLBACK):
            return ""
        self.without_graph = True
        reason = moment.how.removeprefix(EAGER_FALLBACK)
        return f"{title(self.run)}: its step cannot be a CUDA graph, and is slower: {reason}"


class Bars:
    """Live bars: the study, the runs at work, their speed and loss terms, the time left of all."""

    def __init__(self, console: Console, plan: Plan) -> None:
        """For a terminal; use as a context."""
        self._console = console
        self._each = max(run.images for run in plan.runs)  # a control shows none, and still is a part of the study
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[facts]}"),
            console=console,
            transient=True,
        )
        self._study: TaskID | None = None
        self._data: TaskID | None = None
        self._works: dict[str, Work] = {}
        self._about = ""
        self._over = 0

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take them away."""
        self._bars.stop()

    def preparing(self, progress: Preparation) -> None:
        """One bar for the dataset."""
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

    def about(self, run: Run) -> None:
        """Which bar moves next."""
        self._about = run.name

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """The run's bar below the study's."""
        if self._study is None:
            if self._data is not None:
                self._bars.remove_task(self._data)
            self._study = self._bars.add_task("study", total=total * self._each, facts="")
        bar = self._bars.add_task(escape(title(run)), total=run.images, facts="")
        self._works[run.name] = Work(run, time.perf_counter(), 0.0, bar)
        self._bars.update(self._study, description=f"run {index} of {total}")
        self._count()

    def trained(self, moment: TrainState) -> None:
        """Speed and loss terms."""
        work = self._works[self._about]
        assert work.bar is not None
        if reason := work.reason(moment):
            self._console.print(f"[yellow]![/] {escape(reason)}", highlight=False)
        facts = f"{moment.rate:,.0f} images/s  {escape(loss_words(moment.terms))}"
        self._bars.update(work.bar, completed=moment.images, facts=facts)
        work.images = min(moment.images, self._each)
        self._count()

    def measuring(self, metric: str) -> None:
        """What is measured now."""
        work = self._works[self._about]
        assert work.bar is not None
        self._bars.update(work.bar, facts=f"measuring {escape(metric)}")

    def ended(self, run: Run, problem: str) -> None:
        """A line that stays."""
        seconds = clock(self._leave(run))
        mark = "[dim]-[/]" if problem == LEFT else "[red]✗[/]" if problem else "[green]✓[/]"
        told = f"{mark} {escape(title(run))}{f': {escape(problem)}' if problem else ''}"
        self._console.print(f"{told} [dim]({seconds})[/]", highlight=False)

    def paused(self, run: Run) -> None:
        """Its bar goes."""
        self._leave(run)

    def _leave(self, run: Run) -> float:
        """Take a run's bar away; how long it was at work, in seconds."""
        work = self._works.pop(run.name, None)
        if work is None:  # its worker died before it began
            return 0.0
        assert work.bar is not None
        self._bars.remove_task(work.bar)
        self._over += 1
        self._count()
        return time.perf_counter() - work.began

    def _count(self) -> None:
        assert self._study is not None
        at_work = sum(work.images for work in self._works.values())
        self._bars.update(self._study, completed=self._over * self._each + at_work)


class Lines:
    """Few plain lines, for logs and pipes."""

    def __init__(self, console: Console, plan: Plan) -> None:
        """For anything but a terminal; use as a context."""
        self._console = console
        self._last = time.perf_counter()
        self._name = ""
        self._works: dict[str, Work] = {}
        self._about = ""
        self._several = False

    def __enter__(self) -> Lines:
        """Nothing to show yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take away."""

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def preparing(self, progress: Preparation) -> None:
        """The beginning, and a line now and then."""
        now = time.perf_counter()
        if progress.what != self._name:
            self._say(f"{progress.what}{f', {progress.total:,}' if progress.total else ''}")
        elif now - self._last >= LINE_SECONDS:
            self._say(f"    {progress.done:,} of {progress.total:,}")
        else:
            return
        self._name, self._last = progress.what, now

    def about(self, run: Run) -> None:
        """Whose lines come next."""
        self._about = run.name

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """A line."""
        now = time.perf_counter()
        self._works[run.name] = Work(run, now, now)
        self._several = self._several or len(self._works) > 1
        how = {"interrupted": "resuming", "trained": "measuring"}.get(state, "training")
        told = f"{how}, {run.images:,} images" if run.role == "model" else "measuring"
        self._say(f"[{index}/{total}] {title(run)}: {told}")

    def trained(self, moment: TrainState) -> None:
        """A line now and then."""
        now, work = time.perf_counter(), self._works[self._about]
        if reason := work.reason(moment):
            self._say(f"    {reason}")
        if now - work.told < LINE_SECONDS:
            return
        work.told = now
        left = clock((moment.steps - moment.step) * (moment.images / moment.step) / max(moment.rate, 1e-9))
        share = 100 * moment.step // moment.steps
        self._say(
            f"    {share:3d} %  {moment.rate:,.0f} images/s  {loss_words(moment.terms)}  {left} left"
            + self._whose(work.run)
        )

    def measuring(self, metric: str) -> None:
        """Nothing: the run's last line follows soon."""

    def ended(self, run: Run, problem: str) -> None:
        """A line."""
        work = self._works.pop(run.name, None)
        seconds = clock(time.perf_counter() - work.began if work else 0.0)
        told = problem if problem == LEFT else f"FAILED: {problem}" if problem else "done"
        self._say(f"    {told} ({seconds}){self._whose(run)}")

    def paused(self, run: Run) -> None:
        """Nothing: the last line of all tells of it."""
        self._works.pop(run.name, None)

    def _whose(self, run: Run) -> str:
        """The run's name, where lines of several mix."""
        return f"  [{title(run)}]" if self._several else ""
