"""A paper of run folders: methods in words, tables, figures, options, protocols, a checklist and the bibliography.

Every sentence comes from the records and the listing of plug-ins. `main.tex` is the author's: it is written once and
kept; the files that it inputs are written anew at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from genbench.analysis import notes
from genbench.analysis.formatting import format_value
from genbench.analysis.headline import alike, join_words, reasons, verdict
from genbench.analysis.notes import Protocols
from genbench.analysis.table import Table, choose_tables, headlines
from genbench.analysis.tuning import TuningReport, word_tables
from genbench.errors import StoreError
from genbench.experiment.run import registered_components
from genbench.plotting.report import row_drawings, search_drawings
from genbench.plotting.style import COLUMN, Drawing, save
from genbench.registry.listing import KINDS, ListedOption, Listing
from genbench.reporting.bibliography import (
    Bibliography,
    Part,
    bibliography,
    cite,
    entry_key,
    genbench_entry,
    used_parts,
)
from genbench.reporting.cost import training_seconds
from genbench.reporting.csv_json import tidy_csv
from genbench.reporting.latex import breakable, environment, escape_latex, label_of, word_label, words_environment
from genbench.stats.intervals import BOOTSTRAP_FROM
from genbench.storage.results import Row
from genbench.storage.run_dir import RunRecord
from genbench.utils.io import write_text

MAIN, BIBLIOGRAPHY, ROWS = "main.tex", "references.bib", "rows.csv"
GENERATED = ("methods.tex", "results.tex", "options.tex", "protocols.tex", "checklist.tex")
NAMED = 4
"""Models named in a title or a sentence; more are counted."""


class Tex(str):
    """Text that is LaTeX already; the templates escape everything else."""

    __slots__ = ()


@dataclass(frozen=True)
class UsedOption:
    """An option of a part: the values that the runs had, its default, meaning and source."""

    name: str
    values: tuple[str, ...]
    default: str
    meaning: str
    source: Tex


@dataclass(frozen=True)
class UsedPart:
    """A part with the values of its options, the keys to cite, and what differs from the defaults."""

    part: Part
    cites: Tex
    options: tuple[UsedOption, ...]

    @property
    def description(self) -> str:
        """The component's description, "" where its plug-in is not installed."""
        return self.part.component.description if self.part.component else ""

    @property
    def changed(self) -> str:
        """The options that are not at their default, in words."""
        changed = [option for option in self.options if option.default and option.values != (option.default,)]
        return ", ".join(f"{o.name} = {' or '.join(o.values)} (default {o.default})" for o in changed)


def write_paper(
    folder: Path,
    records: Sequence[RunRecord],
    rows: Sequence[Row],
    protocols: Protocols,
    listing: Listing,
    tuning: Sequence[TuningReport] = (),
    *,
    sort: str | None = None,
    columns: Sequence[str] = (),
) -> tuple[list[Path], list[str]]:
    """Write the paper into a folder; the files, and a line for each figure or reference that it lacks.

    Raises `StoreError` where `folder` holds a main.tex that does not input the generated files.
    """
    main = folder / MAIN
    kept = main.exists()
    if kept and r"\input{methods}" not in main.read_text(encoding="utf-8", errors="replace"):
        raise StoreError(f"{main} is of another document: name another folder by --out")

    # Collect.
    tables = choose_tables(rows, sort, columns)
    shown = tables if columns else tuple(headlines(table) for table in tables)
    parts = used_parts(records, listing)
    cited = bibliography(records, listing, parts, options=True)
    used = [_used(part, records, listing, cited) for part in parts]
    drawings, problems = row_drawings(records, rows)
    of_searches, without = search_drawings(records)
    drawings, problems = [*drawings, *of_searches], [*problems, *without]

    # Write: figures first, main.tex last.
    for drawing in drawings:
        save(drawing.figure, folder / "figures" / f"{drawing.name}.pdf")
    values = _values(records, tables, shown, used, cited, drawings, protocols, tuning)
    templates = _environment()
    write_text(folder / BIBLIOGRAPHY, cited.text())
    write_text(folder / ROWS, tidy_csv(rows))
    for name in GENERATED:
        write_text(folder / name, templates.get_template(f"paper/{name}").render(values))
    if not kept:
        write_text(main, templates.get_template(f"paper/{MAIN}").render(values))
    figures = [folder / "figures" / f"{drawing.name}.pdf" for drawing in drawings]
    files = [main, *(folder / name for name in (*GENERATED, BIBLIOGRAPHY, ROWS)), *figures]
    return files, [*(f"{MAIN} is kept as it is" for _ in (1,) if kept), *cited.missing, *problems]


def _environment() -> Environment:
    """Templates in which << x >> is a value, escaped for LaTeX unless it is `Tex`."""
    templates = Environment(
        loader=PackageLoader("genbench.reporting"),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Tex) else Tex(escape_latex(str(value))),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # LaTeX: `finalize` escapes
    )
    templates.filters["tex"] = Tex  # the output of a macro, whose values are escaped already
    return templates


def _values(
    records: Sequence[RunRecord],
    tables: Sequence[Table],
    shown: Sequence[Table],
    used: Sequence[UsedPart],
    cited: Bibliography,
    drawings: Sequence[Drawing],
    protocols: Protocols,
    tuning: Sequence[TuningReport],
) -> dict[str, object]:
    """The values of all templates."""
    by_kind = {kind: [each for each in used if each.part.kind == kind] for kind in KINDS}
    models = [each.part.name for each in by_kind["model"]]
    names = _named(models)
    datasets = join_words([each.part.name for each in by_kind["dataset"]])
    return {
        "title": f"{'Comparison of ' if len(models) > 1 else ''}{names} on {datasets}",
        "used": used,
        **{f"{kind}s": members for kind, members in by_kind.items()},
        "training": _training(records),
        "tuning": _tuning(tables),
        "tuned": Tex(join_words([rf"\ref{{{label}}}" for label, _ in _tuning_tables(tables, tuning)])),
        "tuning_tables": [Tex("\n".join(lines)) for _, lines in _tuning_tables(tables, tuning)],
        "tables": [(_label(table), Tex("\n".join(environment(table)))) for table in shown],
        "readings": [_reading(table) for table in tables],
        "shown": Tex(join_words([rf"\ref{{fig:{drawing.name}}}" for drawing in drawings])),
        "figures": [(each.name, each.caption, each.figure.get_figwidth() > COLUMN + 1) for each in drawings],
        "statistics": _statistics(tables),
        "legends": [(table.dataset, notes.legend(table, protocols)) for table in tables],
        "listed": notes.listed,
        "checklist": _checklist(records, tables),
        "libraries": _cites(key for key, uses in cited.uses.items() if any(u.startswith("library ") for u in uses)),
        "genbench": _cites([entry_key(genbench_entry(records))]),
        "code": lambda text: Tex(breakable(str(text))),
        "join_words": join_words,
    }


# ---------------------------------------------------------------- parts


def _used(part: Part, records: Sequence[RunRecord], listing: Listing, cited: Bibliography) -> UsedPart:
    """A part with the values that its options had in the runs."""
    values: dict[str, dict[str, None]] = {}
    for options in _options_of(part, records):
        for name, value in options.items():
            values.setdefault(name.replace("_", "-"), {})[_text(value)] = None
    listed = {option.name: option for option in part.component.options} if part.component else {}
    used = tuple(
        UsedOption(
            name,
            tuple(texts),
            listed[name].default if name in listed else "",
            _meaning(listed[name]) if name in listed else "",
            _source(listed[name].reference if name in listed else "", listing, cited),
        )
        for name, texts in values.items()
    )
    keys = [key for key, uses in cited.uses.items() if part.label in uses]
    return UsedPart(part, _cites(keys), used)


def _options_of(part: Part, records: Sequence[RunRecord]) -> Iterable[Mapping[str, object]]:
    """The options of a part in each run that used it."""
    for record in records:
        run = record.run
        role = "control" if run.role == "control" else "model"
        for kind, component in ((role, run.model), ("prior", run.prior), ("network", run.network)):
            if (kind, component.name) == (part.kind, part.name):
                yield component.values
        if (part.kind, run.dataset.name) == ("dataset", part.name):
            yield run.dataset.values
        for entry in record.measurements.values() if part.kind in ("metric", "sampler") else ():
            metric, _, sampler = entry.metric.partition("@")
            mine = {name: value for name, value in entry.options.items() if name.startswith(f"{sampler}.") and sampler}
            if part.kind == "metric" and metric == part.name:
                yield {name: value for name, value in entry.options.items() if name not in mine}
            elif part.kind == "sampler" and sampler == part.name:
                yield {name.partition(".")[2]: value for name, value in mine.items()}


def _text(value: object) -> str:
    """A value as it would be typed, as the listing writes defaults."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meaning(option: ListedOption) -> str:
    return ", ".join(word for word in (option.description, option.bounds) if word)


def _source(reference: str, listing: Listing, cited: Bibliography) -> Tex:
    """The source of a default in words, with the works that it names."""
    keys = cite(reference, listing.bibtex, cited, "")
    return Tex(escape_latex(reference) + (f" {_cites(keys)}" if keys else ""))


def _cites(keys: Iterable[str]) -> Tex:
    members = list(keys)
    return Tex(rf"\cite{{{','.join(members)}}}" if members else "")


# ---------------------------------------------------------------- methods and results in words


def _training(records: Sequence[RunRecord]) -> str:
    """Sentences on the training: images, batches, latent sizes, precision, seeds, parameters."""
    runs = [record.run for record in records if record.run.role == "model"]
    if not runs:
        return ""
    images = _several(f"{run.images:,}" for run in runs)
    batches = _several(f"{run.batch:,}" for run in runs)
    dims = _several(str(run.latent_dim) for run in runs)
    sentences = [
        f"Each model was shown {images} training images in batches of {batches}, in an order that depends on the seed"
        f" alone, with a latent space of dimension {dims} and arithmetic in {_several(run.precision for run in runs)}."
    ]
    parameters = [record.training.parameters for record in records if record.training and record.run.role == "model"]
    if parameters:
        least, most = min(parameters), max(parameters)
        span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        sentences.append(f"The models have {span} trainable parameters.")
    seeds = sorted({run.seed for run in runs})
    sentences.append(
        f"Every model was trained with {len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))}); a seed"
        " decides the initial weights, the order of the images and all draws, and is shared by all models."
    )
    return " ".join(sentences)


def _tuning(tables: Sequence[Table]) -> str:
    """Sentences on the searches of options; "" where nothing was tuned."""
    rows = [row for table in tables for row in table.rows if row.role == "model" and not row.elsewhere]
    tuned = [row for row in rows if row.trials]
    if not tuned:
        return ""
    ways: dict[tuple[int, str], dict[str, None]] = {}
    for row in tuned:
        ways.setdefault((row.trials, row.tuned_by), {})[row.model] = None
    sentences = [
        f"The options of {join_words(list(models))} were tuned: {trials} trials{' each' if len(models) > 1 else ''},"
        f" {how}."
        for (trials, how), models in ways.items()
    ]
    if not alike(rows):
        models = {row.model for row in tuned}
        untuned = list(dict.fromkeys(row.model for row in rows if not row.trials and row.model not in models))
        verb = "was" if len(untuned) == 1 else "were"
        whose = f"{join_words(untuned)} {verb} not tuned" if untuned else "The rows of the table were not tuned alike"
        sentences.append(f"{whose}: ranks may be owed to that alone.")
    sentences.append(
        "The first trial had the default options, and no trial has seen a test image. The value of the best trial is"
        " too good, as the best of many (the winner's curse), and is no result: the chosen options were trained anew"
        " with the seeds above, none of which a trial had, and measured once on test images. These numbers compare the"
        " options that were chosen; another search could choose others."
    )
    columns = [
        table.columns[place] for table in tables if notes.of_options(table) and (place := table.ranking) is not None
    ]
    sentences += [
        f"By {column.head} no model is called worse than another: {reasons(column.unproven)}."
        if column.unproven
        else f"By {column.head} a model is called worse than another only where the trials of the two searches show it"
        " as well: their expected best values at half of the random trials, by a permutation test with Bonferroni's"
        " correction for the pairs of models."
        for column in columns
    ]
    return " ".join(dict.fromkeys(sentences))


def _tuning_tables(tables: Sequence[Table], tuning: Sequence[TuningReport]) -> list[tuple[str, list[str]]]:
    """The label and the lines of each table on the tuning."""
    return [
        (label, words_environment(words, label))
        for table in tables
        for words in word_tables(tuning, table.dataset)
        for label in (word_label(table, words),)
    ]


def _several(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(values))


def _statistics(tables: Sequence[Table]) -> str:
    """Sentences on the statistics that the tables use."""
    cells = [cell for table in tables for row in table.rows for cell in row.cells if cell]
    kinds = {cell.estimate.kind for cell in cells if cell.estimate.half_width is not None}
    sentences = []
    if cells and all(cell.estimate.n == 1 for cell in cells):
        sentences.append("Each model was trained with one seed: there are no intervals and no tests.")
    if "t" in kinds:
        sentences.append("Intervals of means over training seeds are Student's t-intervals at 95%.")
    if "bootstrap" in kinds:
        sentences.append(f"From {BOOTSTRAP_FROM} seeds on they are studentised bootstrap intervals at 95%.")
    if "sampling" in kinds:
        sentences.append(
            "Shares of samples whose seeds vary less than their sampling error have the normal interval of that error,"
            " and their tests are no more certain than it allows."
        )
    if "sampling" in kinds:
        sentences.append(
            "Shares whose seeds vary less than their draws have normal intervals of the known sampling error."
        )
    if any(cell.mark == "best" for cell in cells):
        sentences.append(
            "In each column the set of models that are not distinguishable from the best is found by paired one-sided"
            " tests over shared seeds with Holm's correction, at a family-wise error of 5%; a model of few or spread"
            " seeds may be in it with a worse mean than one outside."
        )
    if any(column.floor is not None for table in tables for column in table.columns):
        sentences.append(
            "The score of a perfect model is that of as many real images, or of as many draws of the prior, in place of"
            " the model's."
        )
    return " ".join(sentences)


def _reading(table: Table) -> str:
    """What the ranking column of a table says, in one or two sentences."""
    result = verdict(table)
    head = next((column.head for column in table.columns if column.metric == result.metric), "")
    if not head or len(result.best) + len(result.worse) + len(result.undecided) < 2:
        return ""
    if not result.best:
        return f"By {head} on {table.dataset} no test between the models was possible."
    if not result.worse:
        return f"By {head} on {table.dataset} the models are not distinguishable with these seeds."
    verb = "is the best" if len(result.best) == 1 else "are not distinguishable from the best"
    worse = _named([behind.label for behind in result.worse])
    return f"By {head} on {table.dataset}, {_named(result.best)} {verb}; {worse} can be told from it."


def _named(labels: Sequence[str]) -> str:
    """Labels in a sentence; many are counted."""
    return join_words(labels) if len(labels) <= NAMED else f"{len(labels)} models"


def _label(table: Table) -> Tex:
    return Tex(label_of(table))


# ---------------------------------------------------------------- the checklist


def _checklist(records: Sequence[RunRecord], tables: Sequence[Table]) -> list[tuple[str, list[Tex]]]:
    """Questions on reproducibility with the answers that the records give."""
    code = _facts(records, lambda p: " ".join(filter(None, (f"genbench {p.get('genbench')}", _commit(p)))))
    packages = _facts(records, lambda p: ", ".join(f"{k} {v}" for k, v in _mapping(p.get("packages")).items()))
    python = _facts(records, lambda p: f"Python {p.get('python')}, {p.get('system')}")
    devices = _facts(records, lambda p: str(p.get("device", "")))
    content = dict.fromkeys(
        f"{r.run.dataset.name}: SHA-256 {r.provenance['content']}" for r in records if "content" in r.provenance
    )
    sources = dict.fromkeys(
        f"{component.name} {component.fingerprint}"
        for r in records
        for component in registered_components(r.run).values()
    )
    seeds = sorted({r.run.seed for r in records})
    counts = {role: sum(row.role == role for table in tables for row in table.rows) for role in notes.ROLES}
    groups = ", ".join(f"{n} {role}{'' if n == 1 else 's'}" for role, n in counts.items() if n)
    done = sum(record.is_trained for record in records)
    problems = [failure.text for table in tables for failure in notes.failures(table)]
    selected = sorted({selection.by for r in records for selection in r.selections.values()})
    selection = (
        f"the snapshot best by {join_words(selected)} on validation images" if selected else "the end of training"
    )
    return [
        ("Code and version", [Tex(breakable(text)) for text in code]),
        ("Source of the components (hash of their code)", [Tex(breakable(", ".join(sources)))]),
        ("Libraries", [_tex(text) for text in (*python, *packages)]),
        ("Hardware", [_tex(text) for text in devices]),
        ("Data (hash of the decoded images)", [Tex(breakable(text)) for text in content]),
        ("Training seeds", [_tex(", ".join(map(str, seeds)))]),
        ("Weights that are measured", [_tex(selection)]),
        ("Time and compute", [_tex(text) for text in _compute(records)]),
        (
            "Runs",
            [_tex(f"{len(records)} runs, of which {done} are trained, of {groups}"), *map(_tex, problems)],
        ),
        ("Commands", [Tex(breakable(text)) for text in _facts(records, lambda p: str(p.get("command", "")))]),
    ]


def _tex(text: str) -> Tex:
    return Tex(escape_latex(text))


def _facts(records: Sequence[RunRecord], fact: Callable[[Mapping[str, object]], str]) -> list[str]:
    """The distinct texts of a fact over the runs' provenance."""
    return [text for text in dict.fromkeys(fact(record.provenance) for record in records) if text.strip()]


def _commit(provenance: Mapping[str, object]) -> str:
    commit = str(provenance.get("commit") or "")
    if not commit:
        return ""
    return f"commit {commit}" + (" (the source tree had changes)" if commit.endswith("-dirty") else "")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _compute(records: Sequence[RunRecord]) -> list[str]:
    """Seconds and operations of the trainings: all of them, and of one run of each model."""
    trained = [(r.run.model.name, r.training) for r in records if r.training and r.run.role == "model"]
    if not trained:
        return []
    total = sum(training_seconds(training) for _, training in trained)
    lines = [f"{len(trained)} trainings, {_seconds(total)} in total (evaluation not counted)"]
    for model in dict.fromkeys(name for name, _ in trained):
        costs = [training for name, training in trained if name == model]
        flops = [cost.flops for cost in costs if cost.flops is not None]
        mean = sum(training_seconds(cost) for cost in costs) / len(costs)
        operations = f", {format_value(sum(flops) / len(flops), digits=2).plain} FLOPs" if flops else ""
        lines.append(f"{model}: {_seconds(mean)}{operations} a run")
    return lines


def _seconds(seconds: float) -> str:
    """A duration in words.

    >>> _seconds(5), _seconds(7200)
    ('5.0 seconds', '2.0 hours')
    """
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds" if seconds < 1 else f"{seconds:.1f} seconds"
