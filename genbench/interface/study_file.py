"""Study files: a study as TOML, read, written, and made from trained runs. No torch.

    models = ["swae", "wae-mmd"]
    dataset = "mnist"
    priors = ["normal", "uniform"]
    latent-dims = [2, 8]
    seeds = 5

    [set]
    swae.weight = [1, 10, 100]

The keys are the flags of `genbench run`; paths mean what they mean there, beginning in the working directory.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from genbench.errors import DataError, UsageError
from genbench.experiment.run import Component, Run, split_sampler
from genbench.interface.config import StudyConfig, decode_study, settings_of
from genbench.storage.provenance import plugin_files
from genbench.storage.run_dir import RunRecord
from genbench.utils.io import read_toml, write_text

SUFFIX = ".toml"
BARE = re.compile(r"[A-Za-z0-9_-]+")


# ---------------------------------------------------------------- reading and writing


def read_study(path: Path) -> StudyConfig:
    """The study in a file; `UsageError` names the file and the key that is wrong."""
    try:
        plain = read_toml(path)
    except DataError as error:
        raise UsageError(str(error)) from None
    if isinstance(plain.get("set"), dict):
        plain["set"] = settings_of(_flat(plain["set"], str(path)), str(path))
    return decode_study(plain, str(path))


def _flat(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of [set] by `NAME.OPTION`."""
    flat: dict[str, Any] = {}
    for owner, values in options.items():
        if not isinstance(values, dict):
            raise UsageError(f"{where}: [set]: {owner} = {values!r}: it takes the form NAME.OPTION = VALUE")
        flat |= {f"{owner}.{option}": value for option, value in values.items()}
    return flat


def study_toml(study: StudyConfig) -> str:
    """The study as the text of a study file, without the defaults; `read_study` returns the same study."""
    plain = msgspec.to_builtins(study)
    settings = plain.pop("set", ())
    tables = {"executor-options": plain.pop("executor-options", {})}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items()]
    if settings:
        lines += ["", "[set]", *_setting_lines(settings)]
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def write_study(path: Path, study: StudyConfig) -> None:
    """Write a study file; `UsageError` where there is another file of this name."""
    text = study_toml(study)
    if path.suffix != SUFFIX:
        raise UsageError(f"--write {path}: a study file is TOML: name a file that ends in {SUFFIX}")
    if path.exists() and path.read_bytes() != text.encode():
        raise UsageError(f"--write {path}: the file exists, and is another study: name another file")
    write_text(path, text)


def _setting_lines(settings: Iterable[str]) -> Iterable[str]:
    """A line for each option; texts of numbers and truth values are written as such."""
    values: dict[str, list[Any]] = {}
    for setting in settings:
        target, _, text = setting.partition("=")
        values.setdefault(target.strip(), []).append(_typed(text.strip()))
    for target, given in values.items():
        owner, _, option = target.partition(".")
        yield f"{_key(owner)}.{_key(option)} = {_value(given[0] if len(given) == 1 else given)}"


def _typed(text: str) -> Any:
    """The TOML value that is read as this text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text and abs(value) < 2**63:
            return value
    return text


def _key(text: str) -> str:
    return text if BARE.fullmatch(text) else _value(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # TOML's basic strings have JSON's escapes, and also forbid the character 127.
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    return f"[{', '.join(map(_value, value))}]"


# ---------------------------------------------------------------- the study of trained runs


def studies_of_runs(records: Sequence[RunRecord]) -> list[StudyConfig]:
    """Studies that make these runs, no others, with the same keys; one where the runs are a full grid.

    Metrics are those that the runs were measured by. What differs from a grid is a study of its own.
    """
    frames: dict[Hashable, list[RunRecord]] = {}
    for record in records:
        run = record.run
        if run.role == "model":
            frame = (run.dataset, run.network.name, run.images, run.batch, run.precision)
            frames.setdefault(frame, []).append(record)
    studies = [
        _study(grid, members, records)
        for members in frames.values()
        for grid in _grids(dict.fromkeys(record.run for record in members))
    ]
    if not studies:
        raise UsageError("none of these runs trained a model, and a study trains at least one")
    return studies


Grid = tuple[tuple[Component, ...], tuple[Component, ...], tuple[Component, ...], tuple[int, ...], tuple[int, ...]]
"""Networks, models, priors, latent dimensions and seeds, all combinations of which are runs."""


def _grids(runs: Iterable[Run]) -> list[Grid]:
    """Full grids that hold each run once."""
    cells = [(run.network, run.model, run.prior, run.latent_dim, run.seed) for run in runs]
    return [
        (networks, models, priors, dims, seeds)
        for all_networks, all_models, all_priors, dims, seeds in _boxes(cells)
        for networks in _option_grids(all_networks)
        for models in _option_grids(all_models)
        for priors in _option_grids(all_priors)
    ]


def _boxes(cells: Iterable[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], ...]]:
    """Products of sets that hold each cell once: values of the first axis that share the rest are one set."""
    rests: dict[Any, dict[tuple[Any, ...], None]] = {}
    for first, *rest in cells:
        rests.setdefault(first, {})[tuple(rest)] = None
    groups: dict[frozenset[tuple[Any, ...]], list[Any]] = {}
    for first, of_first in rests.items():
        groups.setdefault(frozenset(of_first), []).append(first)
    return [
        (tuple(firsts), *box)
        for firsts in groups.values()
        for box in ([()] if () in rests[firsts[0]] else _boxes(rests[firsts[0]]))
    ]


def _option_grids(components: Sequence[Component]) -> list[tuple[Component, ...]]:
    """The components in groups that settings can say: of each name all combinations of some values of its options."""
    families: dict[str, list[Component]] = {}
    for component in components:
        families.setdefault(component.name, []).append(component)
    together: list[Component] = []
    separate: list[tuple[Component, ...]] = []
    for members in families.values():
        values = _option_values(members)
        full = len(members) == len(list(itertools.product(*values.values())))
        if full:
            together += members
        else:
            separate += [(member,) for member in members]
    return [*([tuple(together)] if together else []), *separate]


def _option_values(components: Iterable[Component]) -> dict[str, list[Any]]:
    """The values of each option, each once."""
    values: dict[str, dict[str, Any]] = {}
    for component in components:
        for option, value in component.options:
            values.setdefault(option, {})[repr(value)] = value
    return {option: sorted(given.values(), key=_order) for option, given in values.items()}


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before all else."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, str(value)


def _study(grid: Grid, members: Sequence[RunRecord], records: Sequence[RunRecord]) -> StudyConfig:
    """The study of one grid; options are written out, so that a changed default changes no run."""
    networks, models, priors, dims, seeds = grid
    chosen = [
        record
        for record in members
        if record.run.model in models
        and record.run.network in networks
        and record.run.prior in priors
        and record.run.latent_dim in dims
        and record.run.seed in seeds
    ]
    first = chosen[0].run
    controls = [
        record.run.model
        for record in records
        if record.run.role == "control"
        and record.run.dataset == first.dataset
        and record.run.network in networks
        and record.run.prior in priors
        and record.run.latent_dim in dims
    ]
    measured = dict.fromkeys(
        Component(entry.metric, tuple(sorted(entry.options.items())), "")
        for record in chosen
        for group in (record.measurements, *(selection.measurements for selection in record.selections.values()))
        for entry in group.values()
    )
    pairs = [split_sampler(component) for component in measured]
    metrics = list(dict.fromkeys(metric for metric, _ in pairs))
    samplers = list(dict.fromkeys(sampler for _, sampler in pairs if sampler is not None))
    plain = any(sampler is None for _, sampler in pairs) or not pairs
    snapshot_metrics = dict.fromkeys(
        Component(entry.metric, tuple(sorted(entry.options.items())), "")
        for record in chosen
        for snapshot in record.snapshots.values()
        for entry in snapshot.measurements.values()
    )
    selected = {selection.by.split(".")[0] for record in chosen for selection in record.selections.values()}
    files = dict.fromkeys(file for record in chosen for file in plugin_files(str(record.provenance.get("command", ""))))
    components = (first.dataset, *networks, *models, *priors, *metrics, *samplers, *controls, *snapshot_metrics)
    return StudyConfig(
        models=_names(models),
        dataset=first.dataset.name,
        priors=_names(priors),
        latent_dims=tuple(sorted(dims)),
        network=first.network.name,
        seeds=len(seeds) if sorted(seeds) == list(range(len(seeds))) else tuple(sorted(seeds)),
        images=first.images,
        batch=first.batch,
        metrics=_names(metrics),
        precision=first.precision,
        settings=settings_of(_options(components), "these runs"),
        snapshots=max((len(record.snapshots) for record in chosen), default=0),
        snapshot_metrics=_names(snapshot_metrics),
        select=selected.pop() if len(selected) == 1 else None,
        samplers=(*(("prior",) if plain else ()), *_names(samplers)),
        controls=_names(controls),
        plugins=tuple(files),
    )


def _names(components: Iterable[Component]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(component.name for component in components))


def _options(components: Iterable[Component]) -> dict[str, list[Any]]:
    """The values of every option by `NAME.OPTION`."""
    families: dict[str, list[Component]] = {}
    for component in components:
        families.setdefault(component.name, []).append(component)
    return {
        f"{name}.{option.replace('_', '-')}": given
        for name, members in families.items()
        for option, given in _option_values(members).items()
    }
