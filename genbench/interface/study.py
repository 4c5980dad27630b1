"""`genbench.run` and `genbench.evaluate`: the commands as functions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genbench.errors import StoreError, shell_word
from genbench.experiment.config import check_config
from genbench.interface.config import (
    DEFAULT_METRICS,
    StudyConfig,
    lower_case,
    settings_of,
    study_config,
)
from genbench.interface.context import (
    data_config_of,
    load_plugins,
    make_data_config,
    make_room,
    plugin_problems,
    stoppable,
)
from genbench.interface.results import Results, Study
from genbench.interface.study_file import read_study as read_file
from genbench.registry.cache import cached_listing

if TYPE_CHECKING:
    from genbench.execution.scheduler import Outcome
    from genbench.experiment.run import Precision
    from genbench.interface.session import Session
    from genbench.registry.loader import Registry
    from genbench.training.callbacks import Callback

Names = str | Iterable[str]
Value = str | bool | int | float | None
RUN = "genbench.run"
EVALUATE = "genbench.evaluate"


def run(
    models: Names,
    *,
    dataset: str = "glyphs",
    priors: Names = "normal",
    latent_dims: int | Iterable[int] = 8,
    network: str = "conv",
    seeds: int | Iterable[int] = 1,
    epochs: int | None = None,
    images: int | None = None,
    batch: int = 128,
    metrics: Names = DEFAULT_METRICS,
    options: Mapping[str, Value | Sequence[Value]] | None = None,
    snapshots: int = 0,
    snapshot_metrics: Names = (),
    select: str | None = None,
    samplers: Names = "prior",
    controls: Names = (),
    trackers: Names = (),
    precision: Precision = "float32",
    device: str = "auto",
    threads: int | None = None,
    ensemble: int | Literal["off", "auto"] = "auto",
    executor: Literal["serial", "process", "ray", "slurm"] | None = None,
    jobs: int | Literal["auto"] | None = None,
    run_timeout: float | None = None,
    executor_options: Mapping[str, str | float] | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    skip_impossible: bool = False,
    out: str | Path = "runs",
    plugins: str | Path | Iterable[str | Path] = (),
    disabled_plugins: Names = (),
    progress: bool = False,
) -> Study:
    """Train models on a dataset and compare them, as the command `genbench run` does.

    Runs that are done are skipped, interrupted ones are resumed. Ctrl-C, or the notebook's stop, saves the state of the
    run at work and raises `KeyboardInterrupt`: call it again to resume.

    Args:
        models: Names of models; `genbench.list_components("model")` lists them.
        dataset: The dataset.
        priors: Priors of the codes.
        latent_dims: Dimensions of the codes.
        network: Encoder and decoder of every model.
        seeds: How many training seeds (0, 1, ...), or the seeds themselves.
        epochs: Passes over the training set. [3]
        images: Training images shown, instead of `epochs`.
        batch: Images per step.
        metrics: The metrics; the first one ranks.
        options: Values of components' options by "NAME.OPTION"; each of a list of values is a row of the table.
        snapshots: Keep so many snapshots of each training, evenly spaced, its end among them.
        snapshot_metrics: Metrics of the snapshots, on validation images. [the first of `metrics`]
        select: Take the final numbers of each run's best snapshot by this metric.
        samplers: Sources of the decoded samples.
        controls: Controls that are measured as well; "all" stands for every one.
        trackers: Trackers that follow the runs, such as "tensorboard".
        precision: Arithmetic of the training: "float32", "tf32" (needs a GPU) or "bfloat16".
        device: "auto", "cpu", "cuda" or "cuda:i".
        threads: CPU threads of a training. [1 for small steps, all cores for large ones]
        ensemble: The most runs that are trained as one tensor program: runs that differ by seed, or by options that are
            real numbers. "auto": on a GPU where it is measured to be faster, unless `executor`, `jobs` or
            `run_timeout` is given.
        executor: "serial" in this process, "process", "ray" or "slurm". [serial; process for several runs at once]
        jobs: Runs at once. A script that asks for several needs `if __name__ == "__main__":`.
        run_timeout: Seconds after which a run is ended and recorded as failed.
        executor_options: Options of the executor, by name.
        data_root: Folder of the datasets. [`data` in GENBENCH_CACHE or ~/.cache/genbench]
        download: Allow downloads of datasets and weights.
        skip_corrupt: Leave corrupt images out.
        skip_impossible: Leave combinations without meaning out, such as a VAE with a prior without density.
        out: Folder of the runs.
        plugins: Plug-in files to load, such as one that a notebook's cell wrote with `%%writefile moons.py`.
        disabled_plugins: Installed plug-ins that are not loaded.
        progress: Show bars, or lines where there is no terminal; without it nothing is printed.

    Returns:
        The results. Runs that failed are in `Study.failed`, and a warning names them.

    Raises:
        UsageError: A name, an option or a value that does not exist or does not fit; before anything is trained.
        UnsupportedError: A combination without meaning, such as a VAE with a prior without density.
        DataError: The dataset is missing.
        KeyboardInterrupt: The study was interrupted; its state is saved.

    Example:
        >>> import genbench
        >>> study = genbench.run(["swae", "vae"], seeds=2, images=256, batch=32, latent_dims=2, network="mlp",
        ...                      metrics=["reconstruction"], options={"mlp.width": 16})
        >>> study
        <Study: 4 runs on glyphs: swae, vae>
        >>> [row.value is not None for row in study][:2]
        [True, True]
    """
    given = {name: value for name, value in locals().items() if name in StudyConfig.__struct_fields__}
    given |= {"settings": settings_of(options or {}, RUN), "executor_options": dict(executor_options or {})}
    given["seeds"] = seeds if isinstance(seeds, int) else tuple(seeds)
    config = study_config(given, RUN)
    return run_study(config, progress=progress)


def run_study(config: StudyConfig, *, progress: bool = False) -> Study:
    """The results of a study; `run` describes errors and interruption."""
    # A typing error is refused before torch is imported, where the installed names are cached.
    experiment = config.experiment()
    config.executor_config()
    if not config.plugins and (installed := cached_listing(config.disabled_plugins)):
        check_config(experiment, installed)
    registry = load_registry(config.plugin_files, config.disabled_plugins)

    from genbench.interface.session import open_study

    with stoppable() as stop, open_study(config, registry, data_config_of(config), command_of(config), stop) as session:
        for line in session.warnings:
            warnings.warn(line, stacklevel=3)
        make_room(config.folder)
        outcome = work(session, progress=progress)
    records, problems = session.records()
    metrics = [metric.name for metric in session.plan.metrics]
    return Study(config, metrics, records, checked(outcome, problems))


def evaluate(
    runs: str | Path | Iterable[str | Path],
    metrics: Names,
    *,
    options: Mapping[str, Value | Sequence[Value]] | None = None,
    samplers: Names = "prior",
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    plugins: str | Path | Iterable[str | Path] = (),
    disabled_plugins: Names = (),
    allow_changed_source: bool = False,
    progress: bool = False,
) -> Results:
    """Evaluate trained runs by further metrics, as the command `genbench evaluate` does; nothing is trained.

    Args:
        runs: Run folders, or folders of them; runs that are not trained are left out.
        metrics: The metrics.
        options: Options of the metrics and samplers by "NAME.OPTION"; each of a list of values is measured.
        samplers: Sources of the decoded samples.
        device: "auto", "cpu", "cuda" or "cuda:i".
        data_root: Folder of the datasets. [`data` in GENBENCH_CACHE or ~/.cache/genbench]
        download: Allow downloads of weights.
        skip_corrupt: Leave corrupt images out.
        plugins: Plug-in files that the runs need.
        disabled_plugins: Installed plug-ins that are not loaded.
        allow_changed_source: Accept plug-ins whose source has changed since the training.
        progress: Show bars, or lines where there is no terminal.

    Returns:
        All numbers of the runs.

    Raises:
        StoreError: None of the runs is trained, or a plug-in's source has changed.
        UsageError: There is no such metric, sampler or option.
        KeyboardInterrupt: It was interrupted; what was measured is kept.

    Example:
        >>> import genbench
        >>> results = genbench.evaluate("runs", "sharpness", options={"sharpness.n": 64})
        >>> sorted({row.metric for row in results})
        ['reconstruction.image', 'reconstruction.pixel', 'sharpness']
    """
    from genbench.execution.executors.choice import SERIAL
    from genbench.storage.run_dir import find_runs, read_runs

    settings = settings_of(options or {}, EVALUATE)
    files = [Path(file) for file in listed(plugins)]
    folders = [Path(folder) for folder in listed(runs)]
    records, problems = read_runs(find_runs(folders))
    registry = load_registry(files, tuple(listed(disabled_plugins)), allow_changed_source=allow_changed_source)
    root = None if data_root is None else Path(data_root)
    data_config = make_data_config(root, download=download, skip_corrupt=skip_corrupt)

    from genbench.interface.session import evaluable, open_evaluations

    names, sources = lower_case(listed(metrics)), lower_case(listed(samplers))
    command = f"{EVALUATE}({[str(folder) for folder in folders]!r}, {list(names)!r})"
    failed: dict[str, str] = {}
    with stoppable() as stop:
        trained, unusable = evaluable(records, registry)
        for problem in (*problems, *unusable):
            warnings.warn(f"left out: {problem}", stacklevel=2)
        sessions = open_evaluations(
            trained, names, settings, sources, registry, data_config, device, command, stop, SERIAL
        )
        for session in sessions:
            outcome = work(session, progress=progress)
            _, unreadable = session.records()
            failed |= checked(outcome, unreadable)
    records, problems = read_runs(find_runs(folders))
    if not records:
        raise StoreError(problems[0])
    return Results(records)


def read_study(path: str | Path) -> dict[str, Any]:
    """The study in a file, as the arguments of `run`; those that are not in it have their defaults.

    Args:
        path: A study file, as `genbench run --write`, `genbench config` and `Study.save` write it.

    Raises:
        UsageError: The file cannot be read; the text names the key that is wrong.

    Example:
        >>> import genbench
        >>> from pathlib import Path
        >>> _ = Path("study.toml").write_text('models = ["swae"]\\nset.swae.weight = [1, 10]\\n')
        >>> study = genbench.read_study("study.toml")
        >>> study["models"], study["options"]
        (('swae',), {'swae.weight': ['1', '10']})
    """
    config = read_file(Path(path))
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    options: dict[str, list[str]] = {}
    for setting in values.pop("settings"):
        target, _, text = setting.partition("=")
        options.setdefault(target, []).append(text)
    return {**values, "options": options}


# ---------------------------------------------------------------- shared


def work(session: Session, *, progress: bool) -> Outcome:
    """Do the runs of a session that are not done."""
    from genbench.execution.scheduler import run_all

    with session.working(_progress(session, progress=progress), _warn) as executor:
        return run_all(session.plan, executor, session.runner, session.done)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def _progress(session: Session, *, progress: bool) -> AbstractContextManager[Callback]:
    from genbench.execution.progress import show_progress
    from genbench.training.callbacks import NullCallback

    if not progress or not session.runner.distributed.is_main_process:
        return nullcontext(NullCallback())
    from rich.console import Console

    return show_progress(Console(), session.plan, session.remaining)


def checked(outcome: Outcome, problems: Iterable[str]) -> dict[str, str]:
    """The causes of failed runs, also as a warning; `KeyboardInterrupt` where the work was interrupted."""
    if outcome.interrupted:
        raise KeyboardInterrupt("interrupted; the state is saved: call it again to resume")
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=4)
    failed = dict(outcome.failed) | dict.fromkeys(outcome.locked, "it is running in another process")
    for name, cause in failed.items():
        warnings.warn(f"{name} failed: {cause}", stacklevel=4)
    return failed


def load_registry(files: Sequence[Path], disabled: Sequence[str], *, allow_changed_source: bool = False) -> Registry:
    """The loaded plug-ins; each broken one is a warning."""
    registry, listing = load_plugins(files, disabled, allow_changed_source=allow_changed_source)
    for problem in plugin_problems(listing, slow=False):
        warnings.warn(problem, stacklevel=4)
    return registry


def listed(values: Any) -> list[Any]:
    """A list of a single name or path, or of several."""
    return [values] if isinstance(values, str | Path) else list(values)


FLAGS = {
    "priors": "--prior",
    "latent_dims": "--latent-dim",
    "settings": "--set",
    "samplers": "--sampler",
    "trackers": "--tracker",
    "plugins": "--plugin",
    "disabled_plugins": "--disable-plugin",
    "executor_options": "--executor-option",
}
"""The flags that are not called as their field of `StudyConfig`."""


def command_of(config: StudyConfig) -> str:
    """The command that makes the same runs, for their records; the call itself where seeds are listed."""
    defaults = StudyConfig(models=config.models)
    given = {
        name: value
        for name in config.__struct_fields__
        if name != "models" and (value := getattr(config, name)) != getattr(defaults, name)
    }
    if "seeds" in given and not isinstance(given["seeds"], int):
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{RUN}({list(config.models)!r}, {arguments})"
    words = ["genbench", "run", *config.models]
    for name, value in given.items():
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        if isinstance(value, Mapping):
            words += [word for key, each in value.items() for word in (flag, f"{key}={each}")]
        elif isinstance(value, tuple):
            words += [word for each in value for word in (flag, str(each))]
        else:
            words += [flag] if value is True else [flag, str(value)]
    return " ".join(map(shell_word, words))
