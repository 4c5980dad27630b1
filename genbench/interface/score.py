"""`genbench.score`: the results of a model that was trained elsewhere, as a row like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genbench.api import DataConfig, DatasetInfo
from genbench.data.arrays import Pieces, Source, read_codes, read_images
from genbench.errors import DataError, UsageError
from genbench.evaluation.external import ExternalResults, save_results, too_few
from genbench.execution.scheduler import run_status
from genbench.experiment.build import create_metric
from genbench.experiment.config import PlanError, check_names, option_texts
from genbench.experiment.plan import Plan, named_components, plan_dataset, plan_of_runs
from genbench.experiment.run import NONE, external_run
from genbench.interface.config import DEFAULT_METRICS, lower_case, settings_of
from genbench.interface.context import load_plugins, make_data_config, make_room, stoppable
from genbench.interface.results import Results
from genbench.interface.session import Session, make_runner
from genbench.interface.study import Names, Value, checked, listed, work
from genbench.registry.listing import Kind
from genbench.registry.loader import Registry
from genbench.registry.scaffold import NAME
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import RunFolder, find_runs, read_runs
from genbench.training.distributed import launched
from genbench.utils.torch_state import pick_device

SCORE = "genbench.score"


@dataclass(frozen=True)
class ScoreConfig:
    """What `genbench score` and `genbench.score` take; `prior` is that of the codes."""

    name: str
    dataset: str
    samples: Source | None = None
    reconstructions: Source | None = None
    codes: Source | None = None
    prior: str = "normal"
    seed: int = 0
    metrics: tuple[str, ...] = DEFAULT_METRICS
    settings: tuple[str, ...] = ()
    device: str = "auto"
    out: Path = Path("runs")


def score(
    name: str,
    samples: Source | None = None,
    *,
    dataset: str,
    reconstructions: Source | None = None,
    codes: Source | None = None,
    prior: str = "normal",
    seed: int = 0,
    metrics: Names = DEFAULT_METRICS,
    options: Mapping[str, Value | Sequence[Value]] | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    out: str | Path = "runs",
    plugins: str | Path | Iterable[str | Path] = (),
    disabled_plugins: Names = (),
    progress: bool = False,
) -> Results:
    """Measure the samples, reconstructions and codes of a model that was trained elsewhere, as `genbench score` does.

    The result is a run folder like any other, whose row is marked "trained elsewhere". Call it once for each training
    seed. Other files under the same name and seed are another run, and take the place of the earlier one in reports.

    Args:
        name: The model's name: lower case letters, digits and single hyphens.
        samples: A folder or zip archive of pictures, an `.npz`, `.npy` or `.safetensors` file, or an array of NumPy or
            torch: `(n, c, h, w)`, `(n, h, w, c)` or, of grey images, `(n, h, w)`; whole numbers from 0 to 255 or floats
            from 0 to 1, which are rounded to 0..255 as a file would.
        dataset: The dataset whose test images they are compared with.
        reconstructions: The same for reconstructions of all test images in the dataset's order; not rounded.
        codes: Codes of test images, `(n, d)`, for the metrics of the latent fit.
        prior: The prior that codes are compared with.
        seed: The training seed, which also decides the draws of the metrics.
        metrics: The metrics; those that need what is not given are not applicable.
        options: Options of the metrics, the dataset and the prior by "NAME.OPTION".
        device: "auto", "cpu", "cuda" or "cuda:i".
        data_root: Folder of the datasets. [`data` in GENBENCH_CACHE or ~/.cache/genbench]
        download: Allow downloads of datasets and weights.
        skip_corrupt: Leave corrupt images of the dataset out.
        out: Folder of the runs.
        plugins: Plug-in files to load.
        disabled_plugins: Installed plug-ins that are not loaded.
        progress: Show bars, or lines where there is no terminal.

    Returns:
        The numbers of this run. A metric that failed is named by a warning.

    Raises:
        UsageError: A name, an option or a file that does not exist or does not fit.
        DataError: The files are no images of the dataset's size and range, or cannot be read.
        KeyboardInterrupt: It was interrupted; what was measured is kept.

    Example:
        >>> import genbench, torch
        >>> samples, options = torch.rand(64, 1, 28, 28), {"sharpness.n": 64}
        >>> results = genbench.score("noise", samples, dataset="glyphs", metrics="sharpness", options=options)
        >>> [row.label for row in results]
        ['noise (trained elsewhere)']
    """
    settings = settings_of(options or {}, SCORE)
    config = ScoreConfig(
        name,
        dataset,
        samples,
        reconstructions,
        codes,
        prior,
        seed,
        lower_case(listed(metrics)),
        settings,
        device,
        Path(out),
    )
    files = [Path(file) for file in listed(plugins)]
    registry, _ = load_plugins(files, tuple(listed(disabled_plugins)))
    root = None if data_root is None else Path(data_root)
    data_config = make_data_config(root, download=download, skip_corrupt=skip_corrupt)
    with stoppable() as stop:
        session, _ = open_score(config, registry, data_config, f"{SCORE}({name!r}, dataset={dataset!r})", stop)
        outcome = work(session, progress=progress)
    records, problems = read_runs(find_runs([session.runner.folder(run).path for run in session.plan.runs]))
    checked(outcome, problems)
    return Results(records)


def open_score(
    config: ScoreConfig, registry: Registry, data_config: DataConfig, command: str, stop: Callable[[], bool]
) -> tuple[Session, tuple[str, ...]]:
    """Reads and checks the results, stores them in the run's folder; what measures them, and notes on what was read.

    Raises `GenbenchError` before anything is written.
    """
    if launched():
        raise UsageError("torchrun trains; score with one process")
    if not NAME.fullmatch(config.name):
        raise UsageError(f"'{config.name}' is no name: lower case letters, digits and single hyphens, as in my-gan")
    if config.samples is None and config.reconstructions is None and config.codes is None:
        raise UsageError("nothing to score: give --samples, --reconstructions or --codes")

    # Names and options.
    names: dict[Kind, tuple[str, ...]] = {"dataset": (config.dataset,), "metric": config.metrics}
    if config.codes is not None:
        names["prior"] = (config.prior,)
    check_names(names, registry)
    texts = option_texts(config.settings, names, registry)
    dataset, info = plan_dataset(registry, config.dataset, texts, data_config)
    metrics = named_components(registry, "metric", config.metrics, texts)
    priors = named_components(registry, "prior", names.get("prior", ()), texts)
    if len(priors) > 1:
        raise UsageError(f"--prior {config.prior}: its options have several values; give each of them one")

    # Files.
    pieces = _read(config, info, data_config)
    results = ExternalResults(**{piece: read.tensor for piece, read in pieces.items()})
    notes = tuple(f"{piece}: {note}" for piece, read in pieces.items() for note in read.notes)
    facts: dict[str, str | int] = {}
    for piece, read in pieces.items():
        source = getattr(config, piece)
        facts |= {piece: str(source) if isinstance(source, str | Path) else "array", f"{piece}-n": len(read.tensor)}
        facts |= {f"{piece}-sha256": read.sha256} if read.sha256 else {}

    # The run.
    prior, latent_dim = (priors[0], results.codes.shape[1]) if results.codes is not None else (NONE, 0)
    run = external_run(config.name, dataset, config.seed, results.sha256, prior, latent_dim)
    folder = RunFolder(config.out / run.name)
    defaulted = config.metrics == DEFAULT_METRICS
    ((store, planned),) = plan_of_runs([(folder.path, run)], metrics, registry, data_config, texts, leave_out=defaulted)
    planned, left_out = _enough(planned, results, registry, leave_out=defaulted)
    device = pick_device(config.device)
    make_room(config.out)
    try:
        with lock_run(folder.path):
            save_results(folder, run.key, results)
    except RunLockedError:
        raise UsageError(f"{folder.path} is being scored by another process: wait for it") from None
    runner = make_runner(registry, planned, store, data_config, device, command, stop)
    runner.provenance = {**runner.provenance, "results": facts}
    status = run_status(planned, store)
    return Session(planned, runner, status, status.done), (*notes, *planned.notes, *left_out)


def _enough(
    planned: Plan, results: ExternalResults, registry: Registry, *, leave_out: bool
) -> tuple[Plan, tuple[str, ...]]:
    """The plan without metrics that need more samples or codes than were given, which are left out or refused."""
    measured, problems = [], []
    for component in planned.metrics:
        needs = create_metric(registry, component).counts_needed(planned.dataset_info)
        given = {"samples": results.samples, "codes": results.codes}
        lacking = [
            f"{component.name}: {too_few(count, len(there), piece)}"
            for piece, count in needs.items()
            if (there := given[piece]) is not None and count > len(there)
        ]
        problems += lacking
        measured += [] if lacking else [component]
    if problems and not (leave_out and measured):
        raise PlanError(problems)
    return replace(planned, metrics=tuple(measured)), tuple(f"left out: {problem}" for problem in problems)


def _read(config: ScoreConfig, info: DatasetInfo, data_config: DataConfig) -> dict[str, Pieces]:
    """What is given, by its name, each with as many images as it needs."""
    pieces: dict[str, Pieces] = {}
    if config.samples is not None:
        pieces["samples"] = read_images(config.samples, "samples", info.shape, data_config, rounded=True)
    if config.reconstructions is not None:
        read = read_images(config.reconstructions, "reconstructions", info.shape, data_config, rounded=False)
        if len(read.tensor) != info.test:
            raise DataError(
                f"{_words(config, 'reconstructions')}: {len(read.tensor):,} images, and {config.dataset} has"
                f" {info.test:,} test images: give the reconstructions of all of them, in the dataset's order"
            )
        pieces["reconstructions"] = read
    if config.codes is not None:
        pieces["codes"] = read_codes(config.codes)
    return pieces


def _words(config: ScoreConfig, piece: str) -> str:
    source = getattr(config, piece)
    return f"--{piece} {source}" if isinstance(source, str | Path) else piece
