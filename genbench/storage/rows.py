"""Tidy rows: one for each run, metric and protocol; what every report and export is made from. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One number of one run, or one failed or unfinished run (then `metric` is "" and `value` None).

    `group` is the run without its seed: rows that share it differ by training seed alone. `label` is the group's
    short name in tables, `head` the metric's column head ("FID (grey28)"), `protocol` the hash of how the number was
    measured. `seconds` is the run's training time, `images` the count of images it trained on, `status` one of
    "done", "failed", "unfinished".
    """

    run: str
    group: str
    label: str
    dataset: str
    model: str
    prior: str
    network: str
    latent_dim: int
    seed: int
    images: int
    role: str = "model"
    stage: str = "final"
    split: str = "test"
    metric: str = ""
    metric_role: str = ""
    head: str = ""
    value: float | None = None
    floor: float | None = None
    floor_sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    minimum_detectable_effect: float | None = None
    unit: str = ""
    better: str = ""
    n: int | None = None
    protocol: str = ""
    seconds: float | None = None
    flops: float | None = None
    status: str = "done"
    error: str = ""

    def as_dict(self) -> dict[str, object]:
        """The row as plain data, columns in their fixed order."""
        return asdict(self)


COLUMNS = tuple(field.name for field in fields(Row))
