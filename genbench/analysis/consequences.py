"""What it means for a comparison that two runs differ in a field: one table, and what its rules depend on. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Consequence = Literal["incomparable", "with care", "what is compared", "replicate", "harmless"]

Images = Literal["same", "other", "unknown"]

ORDER: tuple[Consequence, ...] = ("incomparable", "with care", "what is compared", "replicate", "harmless")
"""Consequences, the gravest first."""

KINDS = ("dataset", "model", "prior", "network")


@dataclass(frozen=True)
class Rule:
    """What a difference in the fields that fit a pattern means; a star stands for any text, dots included."""

    pattern: str
    consequence: Consequence
    reason: str


_ROUNDING = "floats round otherwise, which training amplifies"
_COST = "what training cost: a result, no condition"

RULES = (
    Rule("state", "incomparable", "what is not trained has no numbers: finish it with the command that began it"),
    Rule("provenance.content", "incomparable", "other images: numbers on one set say nothing about another"),
    Rule("run.dataset.*", "incomparable", "another dataset, or other images of it"),
    Rule("run.role", "what is compared", "a control is what models are read against; it is never ranked"),
    Rule("run.*.fingerprint", "with care", "another code by the same name"),
    *(Rule(f"run.{kind}.options.*", "what is compared", f"options of the {kind}") for kind in KINDS[1:]),
    Rule("run.model.*", "what is compared", "the model"),
    Rule("run.prior.*", "what is compared", "the prior"),
    Rule("run.network.*", "what is compared", "the encoder and decoder"),
    Rule("run.latent_dim", "what is compared", "the dimension of the codes"),
    Rule("run.images", "with care", "another budget: the longer training is favoured"),
    Rule("run.batch", "with care", "other steps: fewer or noisier ones for the same images"),
    Rule("run.precision", "what is compared", "the arithmetic of the training; measurements are in float32"),
    Rule("run.seed", "replicate", "the training seed: repeats of one thing, paired over seeds with other models'"),
    Rule("provenance.genbench", "with care", "another version of genbench: another code"),
    Rule("provenance.commit", "with care", "the core may be another code: git diff of the two, in genbench/, tells"),
    Rule("provenance.packages.torch", "with care", f"another torch: {_ROUNDING}"),
    Rule("provenance.packages.*", "with care", "another version of a library that computes numbers"),
    Rule("provenance.device", "with care", f"another device: {_ROUNDING}, and seconds do not compare"),
    Rule("provenance.threads", "with care", f"sums in another order: {_ROUNDING}, and seconds do not compare"),
    Rule("provenance.processes", "with care", f"trained by another number of processes: {_ROUNDING}"),
    Rule("provenance.system", "with care", f"another platform: {_ROUNDING}"),
    Rule("provenance.python", "harmless", "the interpreter computes no number"),
    Rule("provenance.command", "harmless", "what it asked for stands in the fields of the run"),
    Rule("training.device", "with care", f"trained on another device: {_ROUNDING}, and seconds do not compare"),
    Rule("training.threads", "with care", f"sums in another order: {_ROUNDING}, and seconds do not compare"),
    Rule("training.precision", "what is compared", "the arithmetic of the training"),
    Rule("training.memory_format", "with care", f"convolutions sum in another order: {_ROUNDING}"),
    Rule("training.step", "harmless", "a recorded step does the same operations; seconds do not compare"),
    *(Rule(f"training.{name}", "harmless", _COST) for name in ("seconds", "peak_memory", "flops")),
    Rule("training.jobs", "harmless", "runs at once share a machine and no number; seconds do not compare"),
    Rule("training.batch", "harmless", "the run's batch, beside the seconds that it explains"),
    Rule("training.images", "harmless", "what the budget and the batch come to"),
    Rule("training.parameters", "harmless", "follows from the model, the network and the dimension"),
    Rule("*", "with care", "a field that this version of genbench has no rule for"),
)
"""The first rule that fits a field holds; `judge` says where circumstances change it."""

PROTOCOL: Mapping[str, str] = {
    "method": "another quantity",
    "dataset": "other images to compare with",
    "preparation": "the images were cropped, filtered or scaled otherwise",
    "split": "other held-out images: what is chosen on one split is told on the other",
    "references": "another count of references: another bias",
    "generated": "another count of samples: another bias",
    "values": "another range or rounding of the values",
    "extractor": "features of another network",
    "layer": "features of another layer",
    "weights": "features by other weights",
    "resize": "scaled otherwise for the extractor",
    "dtype": "another precision",
    "draws": "other random draws",
    "detail": "another setting of the metric, or of what it depends on",
    "unit": "another unit",
}
"""Why numbers whose protocols differ in a field may not be compared; any difference in a protocol forbids it."""

UNKNOWN_FIELD = "a field that this version of genbench does not know"


@dataclass(frozen=True)
class Circumstances:
    """What the meaning of a difference depends on.

    `images` says whether both runs' images are the same by their content hash; `renamed` are the kinds whose names
    differ, so that their options and sources differ of themselves; `compared` is whether anything but the seed tells
    the runs apart that one would compare, or that forbids it; `control` whether one of the two is a control.
    """

    images: Images
    renamed: frozenset[str]
    compared: bool
    control: bool


def circumstances(a: Mapping[str, Any], b: Mapping[str, Any]) -> Circumstances:
    """The circumstances of two parsed run.json."""
    contents = {str(record["provenance"].get("content") or "") for record in (a, b)}
    images: Images = "unknown" if "" in contents else "same" if len(contents) == 1 else "other"
    one, other = a["run"], b["run"]
    compared = [
        [run["latent_dim"], run.get("role"), *((run[kind]["name"], run[kind]["options"]) for kind in KINDS[1:])]
        for run in (one, other)
    ]
    return Circumstances(
        images=images,
        renamed=frozenset(kind for kind in KINDS if one[kind]["name"] != other[kind]["name"]),
        compared=compared[0] != compared[1] or images == "other",
        control="control" in (one.get("role"), other.get("role")),
    )


def judge(field: str, given: Circumstances) -> tuple[Consequence, str]:
    """What a difference in a field means under the circumstances, and why."""
    kind = field.split(".")[1] if field.startswith("run.") else ""
    if kind == "dataset" and given.images == "same":
        return "harmless", "the same images, by the hash of their content"
    if field == "provenance.content" and given.images == "unknown":
        return "with care", "not known whether the images are the same: each number's protocol tells"
    if kind in given.renamed and kind != "dataset" and not field.endswith(".name"):
        return "what is compared", f"options and source of another {kind}"
    if field == "run.seed" and given.compared:
        return "with care", "one seed each, and not the same: not paired; compare at shared seeds"
    if field in ("run.images", "run.batch") and given.control:
        return "harmless", "a control is not trained"
    rule = next(rule for rule in RULES if fnmatchcase(field, rule.pattern))
    return rule.consequence, rule.reason


def protocol_reason(field: str) -> str:
    """Why a difference in a field of a protocol forbids the comparison."""
    return PROTOCOL.get(field.split(".")[0], UNKNOWN_FIELD)
