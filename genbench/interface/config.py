"""A study with everything that `genbench run` takes: one declaration of names, types, bounds and defaults. No torch.

The command line, `genbench.run` and study files are read into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import msgspec.inspect
from msgspec import Meta, Struct, field

from genbench.errors import UsageError, unknown
from genbench.execution.executors.choice import ExecutorConfig, ExecutorName, Jobs, check_executor
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.run import Precision

DEFAULT_METRICS = ("fid", "reconstruction", "latent-w2", "latent-sw", "nearest-train", "sharpness", "speed")
DEFAULT_EPOCHS = 3

Name = Annotated[str, Meta(min_length=1)]
Names = Annotated[tuple[Name, ...], Meta(min_length=1)]
Whole = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Scalar = str | bool | int | float


class StudyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"):
    """A study: a grid of models, priors, latent dimensions, options and seeds, and how it is trained and measured.

    The fields are the flags of `genbench run`, the keys of a study file and the arguments of `genbench.run`.
    """

    models: Names
    dataset: Name = "glyphs"
    priors: Names = ("normal",)
    latent_dims: Annotated[tuple[Whole, ...], Meta(min_length=1)] = (8,)
    network: Name = "conv"
    seeds: (
        Annotated[int, Meta(ge=1, le=10_000)]
        | Annotated[tuple[Annotated[int, Meta(ge=0, le=2**63 - 1)], ...], Meta(min_length=1)]
    ) = 1
    """How many (they are 0, 1, ...), or the seeds themselves."""
    epochs: Whole | None = None
    images: Whole | None = None
    batch: Annotated[int, Meta(ge=2, le=2**31 - 1)] = 128
    metrics: tuple[Name, ...] = DEFAULT_METRICS
    precision: Precision = "float32"
    settings: tuple[str, ...] = field(default=(), name="set")
    """`NAME.OPTION=VALUE`, as `--set` takes it."""
    snapshots: Annotated[int, Meta(ge=0)] = 0
    snapshot_metrics: tuple[Name, ...] = ()
    select: Name | None = None
    samplers: Names = ("prior",)
    controls: tuple[Name, ...] = ()
    skip_impossible: bool = False
    trackers: tuple[Name, ...] = ()
    device: Name = "auto"
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    ensemble: Annotated[int, Meta(ge=1)] | Literal["off", "auto"] = "auto"
    """The most runs that are trained as one tensor program."""
    executor: ExecutorName | None = None
    jobs: Jobs | None = None
    run_timeout: Annotated[float, Meta(gt=0)] | None = None
    executor_options: dict[str, str | int | float] = {}
    data_root: Name | None = None
    download: bool = False
    skip_corrupt: bool = False
    out: Name = "runs"
    plugins: tuple[Name, ...] = ()
    disabled_plugins: tuple[Name, ...] = ()

    def experiment(self) -> ExperimentConfig:
        """The part of the study that is planned; `UsageError` where both `epochs` and `images` are given."""
        if self.epochs is not None and self.images is not None:
            raise UsageError(f"--epochs {self.epochs} and --images {self.images}: give one of them")
        same = {each.name: getattr(self, each.name) for each in fields(ExperimentConfig) if each.name != "defaulted"}
        defaulted = {name for name in ("batch", "metrics") if getattr(self, name) == FIELDS[name].default}
        seeds = tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
        epochs = None if self.images is not None else self.epochs or DEFAULT_EPOCHS
        return ExperimentConfig(
            **{**same, "seeds": seeds, "epochs": epochs}, defaulted=frozenset({"options", *defaulted})
        )

    def executor_config(self) -> ExecutorConfig:
        """The executor; `UsageError` for options that do not fit each other."""
        return check_executor(self.executor, self.jobs, self.run_timeout, self.executor_options)

    @property
    def plugin_files(self) -> tuple[Path, ...]:
        """The plug-in files."""
        return tuple(Path(file) for file in self.plugins)

    @property
    def folder(self) -> Path:
        """The folder of the runs."""
        return Path(self.out)


FIELDS: Mapping[str, msgspec.inspect.Field] = {
    each.name: each
    for each in msgspec.inspect.type_info(StudyConfig).fields  # type: ignore[attr-defined]  # a struct
}
COMPONENTS = frozenset(
    FIELDS[name].encode_name
    for name in (
        *("models", "dataset", "priors", "network", "metrics", "snapshot_metrics", "select"),
        *("samplers", "controls", "trackers"),
    )
)
"""Keys whose values are names of components."""
LISTS = frozenset(each.encode_name for each in FIELDS.values() if isinstance(each.type, msgspec.inspect.VarTupleType))
"""Keys whose value is a list; a single value stands for a list of it."""


def study_config(values: Mapping[str, Any], where: str) -> StudyConfig:
    """The study of values by field name; `UsageError` names `where`, the key and the value that are wrong."""
    return decode_study({FIELDS[name].encode_name: value for name, value in values.items()}, where)


def decode_study(plain: Mapping[str, Any], where: str) -> StudyConfig:
    """The study of values by the keys of a study file; errors as of `study_config`."""
    keys = StudyConfig.__struct_encode_fields__
    for key in plain:
        if key not in keys:
            raise UsageError(f"{where}: {unknown('key', str(key), keys)}")
    for key, value in plain.items():
        if "\0" in str(value):
            raise UsageError(f"{where}: key '{key}': no value can hold the character NUL")
        if key in LISTS and isinstance(value, Mapping):  # its keys would be taken for the list
            raise UsageError(f"{where}: key '{key}': a table, where a list belongs: {key} = [...]")
    plain = {key: _listed(value) if key in LISTS else _plain(value) for key, value in plain.items()}
    for key in COMPONENTS.intersection(plain):
        plain[key] = lower_case(plain[key]) if key in LISTS else lower_case([plain[key]])[0]
    if "models" not in plain:
        raise UsageError(f"{where}: the key 'models' is missing: a list of names")
    try:
        config = msgspec.convert(plain, StudyConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {_words(str(error), plain)}") from None
    seeds = config.seeds if isinstance(config.seeds, tuple) else ()
    for key, given in (("seeds", seeds), ("latent-dims", config.latent_dims)):
        if len(set(given)) < len(given):
            raise UsageError(f"{where}: key '{key}': {', '.join(map(str, given))}: each once")
    return config


def lower_case(names: Iterable[Any]) -> tuple[Any, ...]:
    """Names of components as plug-ins spell them: `FID` is fid. What is no text is left as it is."""
    return tuple(name.lower() if isinstance(name, str) else name for name in names)


def override(study: StudyConfig, changes: Mapping[str, Any], where: str) -> StudyConfig:
    """The study with changes by field name, as of the command line over a file.

    An option that is set anew replaces all values of that option, one of `epochs` and `images` replaces the other, and
    options of models that are left out are left out.
    """
    values = {name: getattr(study, name) for name in study.__struct_fields__}
    if ("epochs" in changes) != ("images" in changes):
        values |= {"epochs": None, "images": None}
    if "models" in changes:
        left_out = set(study.models) - set(changes["models"])
        remaining = tuple(text for text in study.settings if setting_target(text).partition(".")[0] not in left_out)
        study = msgspec.structs.replace(study, settings=remaining)
        values["settings"] = remaining
    if "settings" in changes:
        renewed = {setting_target(setting) for setting in changes["settings"]}
        unchanged = [setting for setting in study.settings if setting_target(setting) not in renewed]
        changes = {**changes, "settings": (*unchanged, *changes["settings"])}
    return study_config({**values, **changes}, where)


def setting_target(setting: str) -> str:
    """`NAME.OPTION` of a setting, hyphens for underscores in the option."""
    owner, dot, option = setting.partition("=")[0].partition(".")
    return f"{owner.strip()}{dot}{option.strip().replace('_', '-')}"


def settings_of(options: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The settings of a mapping from `NAME.OPTION` to a value or a list of values."""
    settings: list[str] = []
    for target, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise UsageError(f"{where}: {target}: no value; give at least one")
        settings += [f"{target}={_setting_text(each, target, where)}" for each in values]
    return tuple(settings)


def _setting_text(value: Any, target: str, where: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise UsageError(f"{where}: {target}: {value!r} is neither a text, a number nor true or false")
    return str(value)


def _listed(value: Any) -> Any:
    """A list of a single value, or of the values of any other iterable."""
    if isinstance(value, str | int | float | Path) or not isinstance(value, Iterable):
        return [_plain(value)]
    return [_plain(each) for each in value]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _words(message: str, plain: Mapping[str, Any]) -> str:
    """What msgspec says, with the key and its value in place of a JSON path."""
    text, _, path = message.partition(" - at `$")
    key = re.split(r"[.\[`]", path.lstrip("."))[0]
    expected = text.replace("`", "").replace("Expected", "expected").replace("array", "list")
    if expected.startswith("Invalid enum value"):
        (field_type,) = (each.type for each in FIELDS.values() if each.encode_name == key)
        members = field_type.types if isinstance(field_type, msgspec.inspect.UnionType) else (field_type,)
        values = [v for each in members if isinstance(each, msgspec.inspect.LiteralType) for v in each.values]
        expected = f"possible are {', '.join(map(str, values))}"
    return f"key '{key}': {plain[key]!r}: {expected}" if key in plain else expected
