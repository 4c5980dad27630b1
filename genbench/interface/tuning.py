"""Equal tuning: the same search for every model on validation images, and a study of the choices on fresh seeds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from genbench.errors import StoreError, UnsupportedError, UsageError
from genbench.experiment.config import check_config, component_names, option_texts
from genbench.experiment.snapshots import total_steps
from genbench.interface.config import StudyConfig, lower_case, settings_of, study_config
from genbench.interface.context import data_config_of, make_room, stoppable
from genbench.interface.study import checked, listed, load_registry, work
from genbench.storage.run_dir import RunFolder, RunRecord, read_runs, read_searches, save_searches
from genbench.storage.schema import SearchRecord, StoredRun, TrialRecord
from genbench.tuning.choice import (
    REMEDY,
    best_trial,
    chosen_run,
    chosen_settings,
    search_key,
    trial_record,
    tuned_file,
    validation_number,
)
from genbench.tuning.search import (
    BATCH,
    FACTOR,
    INDEPENDENT,
    RUNGS,
    Algorithm,
    OptunaSearch,
    RandomSearch,
    affordable,
    halving_words,
    import_optuna,
    rungs,
)
from genbench.tuning.space import declared_space, default_point, read_spaces, stored_space, without_set

if TYPE_CHECKING:
    from genbench.api import DataConfig
    from genbench.execution.scheduler import Outcome
    from genbench.experiment.plan import Plan
    from genbench.experiment.run import Component, Run
    from genbench.experiment.snapshots import SnapshotSchedule
    from genbench.interface.results import Study
    from genbench.interface.session import Session
    from genbench.registry.loader import Registry
    from genbench.storage.schema import StoredMeasurement
    from genbench.tuning.search import TrialSampler
    from genbench.tuning.space import Point, Space

By = Literal["trials", "images", "seconds", "flops"]
SEARCH_SEED = 10_000
"""The training seed of the trials: no study that counts its seeds from 0 reaches it."""
TUNE = "genbench.tune"


class TuneConfig(Struct, frozen=True, kw_only=True):
    """A search and the study of its choices.

    `study` has the models, what they have in common, and the seeds and metrics of the final runs.
    """

    study: StudyConfig
    trials: Annotated[int, Meta(ge=2, le=10_000)] = 30
    metric: str | None = None
    """The metric that chooses; None: the first one of the study."""
    space: str | None = None
    """A TOML file of search spaces."""
    algorithm: Algorithm = "random"
    by: By = "trials"
    search_seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = SEARCH_SEED

    @property
    def by_metric(self) -> str:
        """The name of the metric that chooses."""
        name = self.metric or next(iter(self.study.metrics), None)
        if name is None:
            raise UsageError("--metric: name the metric by which options are chosen")
        return name

    def final(self, searches: Sequence[SearchRecord] = ()) -> StudyConfig:
        """The study of the choices; its metrics hold the one that chooses."""
        metrics = self.study.metrics if self.by_metric in self.study.metrics else (self.by_metric, *self.study.metrics)
        chosen = [setting for search in searches for setting in chosen_settings(search)]
        return msgspec.structs.replace(self.study, metrics=metrics, settings=(*self.study.settings, *chosen))

    def trial_study(self) -> StudyConfig:
        """The study of the first trials: the metric on validation images at the end, and nothing on test images."""
        study = self.study
        measured = {*study.metrics, *study.snapshot_metrics, *study.samplers, *study.controls, *study.trackers}
        left_out = measured - {self.by_metric} | {"sampler", "control", "tracker"}
        settings = tuple(text for text in study.settings if text.partition(".")[0].strip() not in left_out)
        return msgspec.structs.replace(
            study,
            seeds=(self.search_seed,),
            metrics=(),
            settings=settings,
            snapshots=1,
            snapshot_metrics=(self.by_metric,),
            select=None,
            samplers=("prior",),
            controls=(),
            trackers=(),
        )


def tune_config(study: StudyConfig, given: Mapping[str, Any], where: str) -> TuneConfig:
    """The checked configuration; `UsageError` for what no plug-in has to be known to refuse."""
    try:
        config = msgspec.convert({**given, "study": study}, TuneConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {str(error).replace(' - at `$.', ': ').rstrip('`')}") from None
    seeds = range(study.seeds) if isinstance(study.seeds, int) else study.seeds
    if config.search_seed in seeds:
        raise UsageError(
            f"--search-seed {config.search_seed}: the final runs have this seed too, and luck that got options chosen"
            " would count again: take another one"
        )
    for flag, values in (("--prior", study.priors), ("--latent-dim", study.latent_dims)):
        if len(values) > 1:
            shown = ",".join(map(str, values))
            raise UsageError(f"{flag} {shown}: a search has one: run the command once for each, with its --out")
    if study.snapshots or study.select is not None:
        raise UsageError("--snapshots and --select: a search takes the end of each training; leave them off")
    if config.algorithm == "halving" and config.trials <= FACTOR:
        raise UsageError(
            f"--trials {config.trials}: successive halving stops none of so few trials; take {FACTOR + 1} or more, or"
            " --algorithm random"
        )
    if config.algorithm not in INDEPENDENT:
        import_optuna()
    return config


# ---------------------------------------------------------------- the search


class _IncompleteError(Exception):
    """A search came to no end; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


@dataclass
class ModelSearch:
    """The search for one model's options; `key` identifies it in tuning.json."""

    base: Run
    space: Space
    key: str
    count: int
    note: str = ""
    points: list[Point] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    trials: list[TrialRecord] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.base.model.name

    def add(self, points: Sequence[Point]) -> None:
        """Make the trials of points."""
        for point in points:
            options = {name.replace("-", "_"): value for name, value in point.items()}
            component = replace(self.base.model, options=tuple(sorted({**self.base.model.values, **options}.items())))
            self.points.append(point)
            self.runs.append(replace(self.base, model=component))


@dataclass
class Tuning:
    """A planned search: `base` is the session of the first trials, `stored` has the finished searches by their keys.

    Values of trials decide which further ones are done, and nothing else does: not the order in which they end.
    """

    config: TuneConfig
    base: Session
    metric: Component
    searches: list[ModelSearch]
    stored: Mapping[str, SearchRecord]
    final_runs: int

    @property
    def open_searches(self) -> list[ModelSearch]:
        """The searches that are not done."""
        return [search for search in self.searches if search.key not in self.stored]

    def records(self) -> list[SearchRecord]:
        """The finished searches in the order of the models."""
        return [self.stored[search.key] for search in self.searches]

    def run(self, do: Callable[[Session], Outcome], say: Callable[[str], None]) -> Outcome | None:
        """Do the trials that are not done, choose, and save the choices; the outcome of an incomplete search, or None.

        `do` does the runs of a session, `say` prints a line.
        """
        if not self.open_searches:
            return None
        make_room(self.base.runner.store)
        self._check_ranking(self.open_searches)
        try:
            done = self._search(self.open_searches, do, say)
        except _IncompleteError as end:
            return end.outcome
        save_searches(self.base.runner.store, done)
        self.stored = {**self.stored, **done}
        return None

    def _search(
        self, searches: Sequence[ModelSearch], do: Callable[[Session], Outcome], say: Callable[[str], None]
    ) -> dict[str, SearchRecord]:
        """The finished searches by their keys; what is done already is not done again."""
        algorithm, by = self.config.algorithm, self.config.by

        # The first trial of each model has its default options, or those that the user has set.
        samplers: dict[str, TrialSampler] = {}
        for search in searches:
            search.count = search.count if search.space else 1
            search.add([default_point(search.space, search.base.model.values)])
        if algorithm == "random" and by == "trials":  # one batch with all others: nothing that is told changes them
            for search in searches:
                samplers[search.model] = self._sampler(search, higher_is_better=False)
                search.add(samplers[search.model].ask(search.count - 1))
        number = self._first_number(searches, self._train(searches, do))
        higher_is_better = bool(number.higher_is_better)
        if by != "trials":
            costs = [self._cost(search) for search in searches]
            for search, count in zip(searches, affordable(self.config.trials, costs, algorithm), strict=True):
                search.count = count if search.space else 1
            say(f"equal {by}: " + ", ".join(f"{s.model} {s.count} trials" for s in searches))
        if algorithm == "halving":
            for count in sorted({search.count for search in searches if search.count > FACTOR}):
                say(f"successive halving of {count} trials: {halving_words(count)}")

        # Further trials: all at once where they are independent, else in batches of fixed size.
        for search in searches:
            samplers.setdefault(search.model, self._sampler(search, higher_is_better))
        while asked := [search for search in searches if len(search.points) < search.count]:
            for search in asked:
                left = search.count - len(search.points)
                search.add(samplers[search.model].ask(left if algorithm in INDEPENDENT else min(BATCH, left)))
            before = {search.model: len(search.trials) for search in asked}
            if algorithm == "halving":
                self._halve(asked, do, higher_is_better=higher_is_better)
            else:
                self._train(asked, do)
            for search in asked:
                start = before[search.model]
                values = [trial.value for trial in search.trials[start:]]
                samplers[search.model].tell(search.points[start:], values)
        return {search.key: self._record(search, number) for search in searches}

    def _sampler(self, search: ModelSearch, higher_is_better: bool) -> TrialSampler:
        """The sampler of a model's further trials, told of those that are done."""
        seed, algorithm = self.config.search_seed, self.config.algorithm
        if algorithm in INDEPENDENT or not search.space:
            return RandomSearch(search.space, seed, search.model)
        sampler = OptunaSearch(search.space, seed, search.model, algorithm, higher_is_better=higher_is_better)
        sampler.tell(search.points, [trial.value for trial in search.trials])
        return sampler

    def _train(self, searches: Sequence[ModelSearch], do: Callable[[Session], Outcome]) -> list[RunRecord]:
        """Train the new trials of searches to their end; the records of their runs."""
        new = [(search, place) for search in searches for place in range(len(search.trials), len(search.runs))]
        trials, records = self._do(new, do)
        for (search, _), trial in zip(new, trials, strict=True):
            search.trials.append(trial)
        return records

    def _halve(
        self, searches: Sequence[ModelSearch], do: Callable[[Session], Outcome], *, higher_is_better: bool
    ) -> None:
        """Train the new trials of searches by successive halving: at each rung the best of them go on."""
        trials: dict[str, dict[int, TrialRecord]] = {search.model: {} for search in searches}
        first = {search.model: len(search.trials) for search in searches}
        sign = -1.0 if higher_is_better else 1.0

        def going_on(search: ModelSearch, count: int) -> list[int]:
            known = trials[search.model]
            if not known:
                return list(range(first[search.model], len(search.runs)))
            ranked = sorted((sign * t.early, place) for place, t in known.items() if t.early is not None)
            return sorted(place for _, place in ranked[:count])

        for share in (rung.share for rung in rungs(FACTOR**RUNGS)):
            asked = [
                (search, place)
                for search in searches
                for rung in rungs(len(search.runs) - first[search.model])
                if rung.share == share
                for place in going_on(search, rung.trials)
            ]
            for (search, place), trial in zip(asked, self._do(asked, do, share)[0], strict=True):
                trials[search.model][place] = trial
        for search in searches:
            search.trials += [trials[search.model][place] for place in range(first[search.model], len(search.runs))]

    def _do(
        self, asked: Sequence[tuple[ModelSearch, int]], do: Callable[[Session], Outcome], share: float = 1.0
    ) -> tuple[list[TrialRecord], list[RunRecord]]:
        """Do trials, each given by its search and place, up to a share of the training; what is done is not repeated.

        Raises `_IncompleteError` where they were interrupted.
        """
        store, schedule = self.base.runner.store, replace(self.base.plan.snapshots, share=share)
        session = self._session([search.runs[place] for search, place in asked], schedule)
        problems: dict[str, str] = {}
        if session.remaining:
            outcome = do(session)
            if outcome.interrupted or outcome.stopped or outcome.locked:
                raise _IncompleteError(outcome)
            problems = outcome.failed
        records, unreadable = read_runs(store / run.name for run in session.plan.runs)
        if unreadable:
            raise StoreError(unreadable[0])
        by_name = {record.name: record for record in records}
        trials = []
        for search, place in asked:
            point, run = search.points[place], search.runs[place]
            if run.name not in by_name:
                trials.append(TrialRecord(point, "", None, self._impossible(run)))
                continue
            images, whole = schedule.steps(run)[-1] * run.batch, total_steps(run) * run.batch
            trial = trial_record(point, by_name[run.name], self.metric, images, whole)
            problem = problems.get(run.name, trial.problem) if trial.problem else ""
            trials.append(msgspec.structs.replace(trial, problem=problem))
        return trials, records

    def _session(self, runs: Sequence[Run], schedule: SnapshotSchedule) -> Session:
        """The session of some trials; one whose options have no meaning together is left out.

        `UsageError` where some were trained on beyond the pause of the schedule without having been measured there.
        """
        from genbench.evaluation.snapshots import check_stored_snapshots
        from genbench.execution.scheduler import run_status
        from genbench.experiment.plan import cell_of, check_cells

        base, unique = self.base, tuple(dict.fromkeys(runs))
        cells = check_cells(base.runner.registry, unique, base.plan.dataset_info)
        possible = tuple(run for run in unique if cell_of(run) not in cells.problems)
        check_stored_snapshots(base.runner.store, possible, schedule)
        parameters = {run.name: cells.parameters[cell_of(run)] for run in possible}
        planned = replace(base.plan, runs=possible, parameters=parameters, notes=(), snapshots=schedule)
        base.runner.snapshots = schedule
        status = run_status(planned, base.runner.store)
        return replace(base, plan=planned, status=status, done=status.done)

    def _first_number(self, searches: Sequence[ModelSearch], records: Sequence[RunRecord]) -> StoredMeasurement:
        """A number that ranks trials; `StoreError` where all of the first ones failed."""
        for record in records:
            number, _ = validation_number(record, self.metric, total_steps(record.run) * record.run.batch)
            if number is not None:
                return number
        raise StoreError(
            "the first trial of every model failed, so nothing can be chosen; "
            + "; ".join(f"{search.model}: {search.trials[0].problem}" for search in searches)
            + f"; {REMEDY}"
        )

    def _impossible(self, run: Run) -> str:
        from genbench.experiment.plan import check_cells

        cells = check_cells(self.base.runner.registry, [run], self.base.plan.dataset_info)
        return next(iter(cells.problems.values()), "it is not possible")

    def _cost(self, search: ModelSearch) -> float:
        """The cost of the first trial."""
        first = search.trials[0]
        cost = {"images": float(search.base.images), "seconds": first.seconds, "flops": first.flops}[self.config.by]
        if not cost:
            raise UnsupportedError(
                f"--by {self.config.by}: the {self.config.by} of {search.model} are not known: take --by trials"
            )
        return cost

    def _check_ranking(self, searches: Sequence[ModelSearch]) -> None:
        """Raise `UnsupportedError` before any trial where the metric ranks nothing: untrained models are measured."""
        from genbench.evaluation.measure import measure
        from genbench.evaluation.selection import ranking_number
        from genbench.training.setup import TrainingJob
        from genbench.utils.torch_state import isolated

        runner, name = self.base.runner, self.metric.name
        for run in (search.base for search in searches):
            if (runner.store / run.name).exists():
                continue
            with isolated(runner.device):
                job = TrainingJob(runner.registry, run, runner.load_images(run), runner.device)
                evaluation = runner.evaluation(run, job.build_model(), None, "validation")
                entry = measure(runner.registry, self.metric, evaluation)
            if entry.inapplicable:
                raise UnsupportedError(
                    f"--metric {name}: it cannot choose among trials of {run.model.name}: {entry.inapplicable}"
                )
            if entry.trace:
                raise UnsupportedError(
                    f"--metric {name}: it fails on an untrained model, {run.model.name}: {entry.error}"
                )
            if entry.numbers and ranking_number(entry.numbers) is None:
                raise UnsupportedError(
                    f"--metric {name}: none of its numbers has a better direction, and options are chosen by one that"
                    " has: see genbench list metrics"
                )

    def _record(self, search: ModelSearch, number: StoredMeasurement) -> SearchRecord:
        metric = f"{self.metric.name}.{number.component}".rstrip(".")
        higher_is_better = bool(number.higher_is_better)
        return SearchRecord(
            model=search.model,
            run=msgspec.convert(search.base.record(), StoredRun),
            algorithm=self.config.algorithm,
            seed=self.config.search_seed,
            by=self.config.by,
            space=stored_space(search.space),
            metric=metric,
            metric_options=self.metric.values,
            higher_is_better=higher_is_better,
            protocol=number.protocol,
            trials=tuple(search.trials),
            chosen=best_trial(search.trials, search.model, higher_is_better=higher_is_better),
        )


@contextmanager
def open_tuning(
    config: TuneConfig, registry: Registry, data_config: DataConfig, command: str, stop: Callable[[], bool]
) -> Iterator[Tuning]:
    """The planned search, and the final study checked; `GenbenchError` before anything is written."""
    from genbench.experiment.plan import plan
    from genbench.experiment.snapshots import validation_setting
    from genbench.interface.session import open_study
    from genbench.training.distributed import launched

    if launched():
        raise UsageError("torchrun trains one model in several processes; tune in one process")
    planned = plan(config.final().experiment(), registry, data_config)
    info, dataset = planned.dataset_info, planned.runs[0].dataset
    if not info.validation:
        setting = validation_setting(dataset, info)
        remedy = f"set training images aside with --set {setting}" if setting else "take a dataset that has"
        raise UnsupportedError(
            f"a search is measured on validation images, and the dataset '{dataset.name}' has none: {remedy}"
        )
    study = config.trial_study()
    searches = plan_searches(config, study, registry, planned)
    with open_study(study, registry, data_config, command, stop) as session:
        bases: dict[str, list[Run]] = {}
        for run in session.plan.runs:
            bases.setdefault(run.model.name, []).append(replace(run, role="trial"))
        (metric,) = session.plan.snapshots.metrics
        made = []
        for name, (space, note) in searches.items():
            base, *more = bases[name]
            if more:
                raise UsageError(f"{name} has options with several values: give each one, or leave it to the search")
            if config.algorithm == "halving" and total_steps(base) < FACTOR ** (RUNGS - 1):
                raise UsageError(
                    f"--algorithm halving: a training has {total_steps(base)} steps, and trials are measured after a"
                    f" ninth of them: take more images, or --algorithm random"
                )
            facts: dict[str, Any] = {
                "run": base.key,
                "space": msgspec.to_builtins(stored_space(space)),
                "metric": metric.key,
                **{fact: getattr(config, fact) for fact in ("algorithm", "by", "trials", "search_seed")},
                "models": [] if config.by == "trials" else sorted(bases),
            }
            made.append(ModelSearch(base, space, search_key(facts), config.trials, note))
        stored = read_searches(study.folder)
        final_runs = sum(run.role == "model" for run in planned.runs)
        yield Tuning(config, session, metric, made, stored, final_runs)


def plan_searches(
    config: TuneConfig, study: StudyConfig, registry: Registry, planned: Plan
) -> dict[str, tuple[Space, str]]:
    """The space of each model, and a line for one that declares none; options that the user has set are fixed."""
    factories = {name: registry.get("model", name).spec.factory for name in study.models}
    given = {} if config.space is None else read_spaces(Path(config.space), factories)
    experiment = study.experiment()
    texts = option_texts(study.settings, component_names(experiment, registry), registry)
    spaces: dict[str, tuple[Space, str]] = {}
    for name, factory in factories.items():
        space, note = (given[name], "") if name in given else declared_space(name, factory)
        fixed = texts.get(("model", name), {})
        clash = sorted(set(fixed) & set(given.get(name, {})))
        if clash:
            raise UsageError(f"{name}.{clash[0]} is set by --set and searched by --space: leave one off")
        spaces[name] = (without_set(space, fixed), note)
    if not any(space for space, _ in spaces.values()):
        raise UsageError("no option is left to be searched: name some in a file, --space FILE.toml")
    return spaces


def mark_tuned(tuning: Tuning, runs: Sequence[Run], store: Path) -> None:
    """Record in each trained run of a choice how its options were chosen."""
    for search in tuning.searches:
        record = tuning.stored[search.key]
        tuned = tuned_file(search.key, record)
        for run in runs:
            folder = RunFolder(store / run.name)
            if run == chosen_run(record, run.seed) and folder.state == "trained":
                folder.save_tuned(tuned)


# ---------------------------------------------------------------- genbench.tune


def tune(
    models: str | Sequence[str],
    *,
    trials: int = 30,
    metric: str | None = None,
    space: str | Path | None = None,
    algorithm: Algorithm = "random",
    by: By = "trials",
    search_seed: int = SEARCH_SEED,
    seeds: int | Sequence[int] = 3,
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
    **study: Any,
) -> Study:
    """Search every model's options equally on validation images and compare the choices, as `genbench tune` does.

    Trials that are done are skipped, and a search that was interrupted goes on and chooses the same.

    Args:
        models: Names of models.
        trials: Trials of each model; the first one has its default options.
        metric: The metric on validation images that chooses. [the first one of `metrics`]
        space: A TOML file of search spaces, in place of those that models declare.
        algorithm: "random", "halving" (random trials that are stopped early where others are better), or optuna's "tpe"
            or "gp".
        by: What models have alike: "trials", or "images", "seconds" or "flops" of training; then the cheapest model has
            `trials`.
        search_seed: The training seed of the trials.
        seeds: Seeds of the final runs, or how many; never that of the trials.
        options: Values of components' options by "NAME.OPTION"; an option of a model that is set is not searched.
        progress: Show bars, or lines where there is no terminal.
        **study: Further arguments of `genbench.run`: `dataset`, `images`, `metrics`, `out`, ...

    Returns:
        The final runs on test images.

    Raises:
        UsageError: A value or a name that does not fit, before anything is trained.
        UnsupportedError: The dataset has no validation images, or the metric ranks nothing.
        KeyboardInterrupt: The search was interrupted; its state is saved.

    Example:
        >>> import genbench
        >>> study = genbench.tune(["swae", "vae"], trials=2, metric="reconstruction", seeds=1, images=64, batch=32,
        ...                       latent_dims=2, network="mlp", metrics=["reconstruction"], options={"mlp.width": 8},
        ...                       out="tuned")
        >>> {row.trials for row in study}
        {2}
    """
    from genbench.interface.results import Study

    settings = settings_of(options or {}, TUNE)
    plain = {**study, "models": models, "settings": settings}
    plain["seeds"] = seeds if isinstance(seeds, int) else tuple(seeds)
    unexpected = sorted(plain.keys() - set(StudyConfig.__struct_fields__))
    if unexpected:
        raise UsageError(f"{TUNE}: there is no argument '{unexpected[0]}'; possible: those of genbench.run")
    given: dict[str, Any] = {"trials": trials, "algorithm": algorithm, "by": by, "search_seed": search_seed}
    given |= {"space": None if space is None else str(space), "metric": lower_case([metric])[0]}
    config = tune_config(study_config(plain, TUNE), given, TUNE)
    registry = load_registry(config.study.plugin_files, config.study.disabled_plugins)
    check_config(config.final().experiment(), registry)
    data_config, command = data_config_of(config.study), f"{TUNE}({listed(models)!r}, trials={trials}, seeds={seeds!r})"

    from genbench.interface.session import open_study

    with stoppable() as stop:
        with open_tuning(config, registry, data_config, command, stop) as tuning:
            outcome = tuning.run(lambda session: work(session, progress=progress), warnings.warn)
        if outcome is not None:
            checked(outcome, ())
            raise StoreError(outcome.stopped or f"running in another process: {', '.join(outcome.locked)}")
        final = config.final(tuning.records())
        with open_study(final, registry, data_config, command, stop) as session:
            outcome = work(session, progress=progress)
            mark_tuned(tuning, session.plan.runs, final.folder)
    records, problems = read_runs(final.folder / run.name for run in session.plan.runs)
    metrics = [metric.name for metric in session.plan.metrics]
    return Study(final, metrics, records, checked(outcome, problems))
