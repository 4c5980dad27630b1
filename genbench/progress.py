"""How a study is shown while it goes: live bars in a terminal, few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from genbench.api import Progress as Preparation
from genbench.listener import LEFT
from genbench.plan import Plan
from genbench.runs import Run
from genbench.train import Moment

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


class Bars:
    """Live bars: the study, the run at work, its speed and loss terms, the time left of both."""

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
        self._work: TaskID | None = None
        self._began = time.perf_counter()
        self._shown = 0

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take them away."""
        self._bars.stop()

    def preparing(self, progress: Preparation) -> None:
        """One bar for the dataset."""
        if self._work is None:
            self._work = self._bars.add_task(escape(progress.what), total=None, facts="")
        facts = f"{progress.done:,} of {progress.total:,}" if progress.total else ""
        self._bars.update(
            self._work,
            description=escape(progress.what),
            completed=progress.done,
            total=progress.total or None,
            facts=facts,
        )

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """The run's bar below the study's."""
        if self._study is None:
            if self._work is not None:
                self._bars.remove_task(self._work)
            self._study = self._bars.add_task("study", total=total * self._each, facts="")
            self._work = self._bars.add_task("", total=1, facts="")
        assert self._work is not None
        self._bars.reset(self._work, total=run.images, description=escape(title(run)))
        self._bars.update(self._study, completed=(index - 1) * self._each, description=f"run {index} of {total}")
        self._before = (index - 1) * self._each
        self._began = time.perf_counter()

    def trained(self, moment: Moment) -> None:
        """Speed and loss terms."""
        assert self._work is not None
        assert self._study is not None
        facts = f"{moment.rate:,.0f} images/s  {escape(loss_words(moment.terms))}"
        self._bars.update(self._work, completed=moment.images, facts=facts)
        self._bars.update(self._study, completed=self._before + moment.images)

    def measuring(self, metric: str) -> None:
        """What is measured now."""
        assert self._work is not None
        self._bars.update(self._work, facts=f"measuring {escape(metric)}")

    def ended(self, run: Run, problem: str) -> None:
        """A line that stays."""
        seconds = clock(time.perf_counter() - self._began)
        mark = "[dim]-[/]" if problem == LEFT else "[red]✗[/]" if problem else "[green]✓[/]"
        told = f"{mark} {escape(title(run))}{f': {escape(problem)}' if problem else ''}"
        self._console.print(f"{told} [dim]({seconds})[/]", highlight=False)


class Lines:
    """Few plain lines, for logs and pipes."""

    def __init__(self, console: Console, plan: Plan) -> None:
        """For anything but a terminal; use as a context."""
        self._console = console
        self._last = self._began = time.perf_counter()
        self._name = ""

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

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """A line."""
        self._began = self._last = time.perf_counter()
        how = {"interrupted": "resuming", "trained": "measuring"}.get(state, "training")
        told = f"{how}, {run.images:,} images" if run.role == "model" else "measuring"
        self._say(f"[{index}/{total}] {title(run)}: {told}")

    def trained(self, moment: Moment) -> None:
        """A line now and then."""
        now = time.perf_counter()
        if now - self._last < LINE_SECONDS:
            return
        self._last = now
        left = clock((moment.steps - moment.step) * (moment.images / moment.step) / max(moment.rate, 1e-9))
        share = 100 * moment.step // moment.steps
        self._say(f"    {share:3d} %  {moment.rate:,.0f} images/s  {loss_words(moment.terms)}  {left} left")

    def measuring(self, metric: str) -> None:
        """Nothing: the run's last line follows soon."""

    def ended(self, run: Run, problem: str) -> None:
        """A line."""
        told = problem if problem == LEFT else f"FAILED: {problem}" if problem else "done"
        self._say(f"    {told} ({clock(time.perf_counter() - self._began)})")
