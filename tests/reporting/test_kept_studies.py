"""The pages in reports/: their tables follow from the rows beside them, the index names all, the files are small."""

from __future__ import annotations

import csv
import json
import re
from statistics import fmean

import pytest
from scipy.stats import kendalltau, ttest_rel

from genbench.analysis.formatting import format_estimate, format_value
from genbench.stats.equivalence import estimate_findings
from support import kept
from support.kept import REPORTS, kept_rows, with_error

MIB = 2**20

CONVERGENCE = {
    "sectors covered": "ring-coverage",
    "latent W2² excess": "latent-w2.excess",
    "latent SW2² excess": "latent-sw.excess",
    "pixel W2² excess": "pixel-w2.excess",
    "pixel SW2² excess": "pixel-sw.excess",
    "MSE per pixel": "reconstruction.pixel",
}


def page(name: str) -> str:
    return (REPORTS / name / "README.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("file", ["rows.csv", "rows-at-0.02.csv"])
def test_the_tables_of_the_convergence_follow_from_its_rows(file: str) -> None:
    rows, text = kept_rows(f"swae-convergence/{file}"), page("swae-convergence")
    assert kept.means(rows, CONVERGENCE) in text
    assert kept.differences(rows, "swae", "wae-gan", CONVERGENCE) in text


def test_the_coverage_along_the_training_follows_from_the_rows() -> None:
    assert kept.along_training(kept_rows("swae-convergence/rows.csv"), "ring-coverage") in page("swae-convergence")


@pytest.mark.parametrize("metric", ["latent-w2.excess", "latent-sw.excess"])
def test_the_excesses_of_the_priors_follow_from_their_rows(metric: str) -> None:
    assert priors(metric) in page("swae-priors")


def priors(metric: str) -> str:
    """The excess of each prior at both budgets, beside its floor, p-value and minimum detectable effect."""
    whole, tenth = (kept.single(kept_rows(f"swae-priors/{file}"), metric) for file in ("rows.csv", "rows-at-0.1.csv"))
    return kept.table(
        ["prior", "all of the budget", "p", "a tenth", "p", "floor", "MDE"],
        [
            [
                prior,
                with_error(row.value or 0.0, row.se or 0.0),
                kept.p_text(row.p_value or 0.0),
                with_error(tenth[prior].value or 0.0, tenth[prior].se or 0.0),
                kept.p_text(tenth[prior].p_value or 0.0),
                with_error(row.floor or 0.0, row.floor_sd or 0.0),
                format_value(row.minimum_detectable_effect or 0.0, 2).plain,
            ]
            for prior, row in whole.items()
        ],
    )


def test_the_errors_of_the_priors_follow_from_their_rows() -> None:
    assert prior_errors() in page("swae-priors")


def prior_errors() -> str:
    """The reconstruction error for each prior at both budgets; one seed, and no error over draws."""
    metric = "reconstruction.pixel"
    whole, tenth = (kept.single(kept_rows(f"swae-priors/{file}"), metric) for file in ("rows.csv", "rows-at-0.1.csv"))
    errors = {prior: (row.value or 0.0, tenth[prior].value or 0.0) for prior, row in whole.items()}
    lines = [[prior, *(format_value(value).plain for value in pair)] for prior, pair in errors.items()]
    return kept.table(["prior", "MSE per pixel, all of the budget", "a tenth"], lines)


@pytest.mark.parametrize("metric", ["factor", "variance of sqrt(d) SW2"])
def test_the_tables_of_the_gaussians_follow_from_their_findings(metric: str) -> None:
    assert gaussians(metric) in page("swae-gaussians")


def gaussians(metric: str) -> str:
    """A metric of the findings by dimension, with a column for each count of directions."""
    estimates = estimate_findings(kept.findings("swae-gaussians/findings.csv"))
    counts = (1, 10, 50, 100, 500, 1000)
    lines = [
        [str(d), *(format_estimate(estimates[f"d = {d}, L = {count}", metric]).plain for count in counts)]
        for d in (2**k for k in range(1, 11))
    ]
    return kept.table(["d", *(f"L = {count}" for count in counts)], lines)


def test_a_fiftieth_of_the_gaussians_missed_the_value_of_all() -> None:
    case = "d = 1024, L = 1000", "factor"
    part, whole = (
        estimate_findings(kept.findings(f"swae-gaussians/{file}.csv"))[case] for file in ("findings-of-20", "findings")
    )
    assert part.low is not None
    assert part.low > whole.mean
    for estimate in (part, whole):
        assert format_estimate(estimate).plain in page("swae-gaussians")


def test_the_numbers_of_the_faces_follow_from_their_rows() -> None:
    text, rows = page("celeba"), kept_rows("celeba/rows.csv")
    models = [row for row in rows if row.role == "model"]
    metrics = ("fid", "reconstruction.pixel", "latent-w2.excess", "latent-sw.excess", "sharpness")
    for model in ("swae", "vae", "wae-gan", "wae-mmd"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {model} |"))
        cells = [cell.strip(" *") for cell in line.split("|")[2:-1]]
        assert cells == [kept.mean(models, model, metric) for metric in metrics]
    (pca,) = (line for line in text.splitlines() if line.startswith("| *control: pca* |"))
    values = {row.metric: row.value or 0.0 for row in rows if row.model == "pca"}
    assert [cell.strip() for cell in pca.split("|")[2:-1]] == [format_value(values[each], 3).plain for each in metrics]
    words = " ".join(text.split())
    for rival, metric in (("wae-mmd", "reconstruction.pixel"), ("wae-mmd", "fid"), ("vae", "latent-sw.excess")):
        assert f"({kept.difference(models, 'swae', rival, metric)}, p" in words


def test_the_numbers_of_the_claims_follow_from_the_rows() -> None:
    claims = (REPORTS / "claims.md").read_text(encoding="utf-8")
    gaussians = estimate_findings(kept.findings("swae-gaussians/findings.csv"))
    said = [
        format_estimate(gaussians[f"d = {d}, L = {count}", metric]).plain
        for d, count, metric in (
            *((d, 1000, "factor") for d in (2, 8, 32, 1024)),
            *(
                (d, count, "variance of sqrt(d) SW2")
                for d, count in ((2, 1), (2, 10), (2, 1000), (1024, 1), (1024, 1000))
            ),
        )
    ]
    for file, models, metrics in (
        ("fashion-mnist/rows.csv", ("swae", "wae-mmd", "vae"), ("fid", "reconstruction.pixel")),
        ("swae-convergence/rows.csv", ("swae", "wae-gan"), ("ring-coverage", "latent-w2.excess", "speed.step")),
        ("swae-convergence/rows-at-0.02.csv", ("swae", "wae-gan"), ("speed.step",)),
    ):
        rows = [row for row in kept_rows(file) if row.role == "model"]
        first, *rivals = models
        for metric in metrics:
            said += [kept.mean(rows, model, metric) for model in models]
            said += [kept.difference(rows, first, rival, metric) for rival in rivals if "0.02" not in file]
    for row in kept_rows("swae-celeba/rows.csv"):
        if row.model == "swae" and row.metric == "reconstruction.pixel":
            said.append(f"{row.value:.4f}")
        elif row.model == "swae" and row.metric == "fid" and row.prior == "normal":
            said.append(f"{row.value:.2f}")
    for row in kept.single(kept_rows("swae-priors/rows.csv"), "latent-w2.excess").values():
        said += with_error(row.value or 0.0, row.se or 0.0).split(" ± ")
    assert [text for text in said if text not in claims] == []


# ---------------------------------------------------------------- the reality check


def reality(table: str) -> list[dict[str, str]]:
    with (REPORTS / "reality" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_citation_of_the_reality_check_leads_to_its_rows() -> None:
    entries = re.findall(r"^\d+\. `(\w+)\.csv` where (.*): ([\d,]+) rows$", page("reality"), re.MULTILINE)
    assert len(entries) > 20
    for table, conditions, count in entries:
        rows = reality(table)
        for key, verb, text in re.findall(r"(\w+) (is not|is) (empty|`[^`]*`)", conditions):
            value = "" if text == "empty" else text.strip("`")
            rows = [row for row in rows if (row[key] == value) is (verb == "is")]
        assert len(rows) == int(count.replace(",", "")), conditions


def test_the_means_and_tests_of_the_reality_check_follow_from_its_values() -> None:
    values: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for row in reality("values"):
        for condition in row["condition"].split("+"):
            key = (row["dataset"], row["view"], condition, row["model"])
            values.setdefault(key, {})[row["seed"]] = float(row["value"])
    for row in reality("models"):
        of_model = values[row["dataset"], row["view"], row["condition"], row["model"]]
        assert len(of_model) == int(row["seeds"])
        assert fmean(of_model.values()) == pytest.approx(float(row["mean"]), rel=1e-4)
    pairs = [row for row in reality("pairs") if row["view"].startswith("FID") and row["p"]]
    assert len(pairs) > 200
    for row in pairs:
        a, b = (values[row["dataset"], row["view"], row["condition"], row[side]] for side in "ab")
        seeds = sorted(a.keys() & b.keys())
        test = ttest_rel([a[seed] for seed in seeds], [b[seed] for seed in seeds])
        assert float(row["p"]) == pytest.approx(test.pvalue, rel=0.02)
        assert float(row["difference"]) == pytest.approx(
            fmean(a[s] for s in seeds) - fmean(b[s] for s in seeds), abs=1e-3
        )


def test_the_reality_check_tells_the_errors_and_the_power_that_were_simulated() -> None:
    rates = json.loads((REPORTS / "trust" / "tuned-comparison.json").read_text(encoding="utf-8"))["rates"]
    equal = [rate for rate in rates if rate["gain"] == 0]
    power = {rate["gain"]: rate["rule finds one"] for rate in rates if rate["gain"] and rate["trials"] == 10}
    seeds, most = [rate["seeds errs"] for rate in equal], max(rate["rule errs"] for rate in equal)
    words = " ".join(page("reality").split())
    assert f"different in {100 * min(seeds):.0f} to {100 * max(seeds):.0f} % of studies" in words
    assert f"with the trials at most {100 * most:.1f} %" in words
    assert f"finds {100 * power[2]:.0f} % of differences of two standard deviations" in words
    assert f"{100 * power[4]:.0f} % of four" in words


def test_what_one_dataset_says_of_another_follows_from_the_means_and_pairs() -> None:
    lines = reality("transfer")
    assert len(lines) == 6
    for line in lines:
        names = line["dataset_a"], line["dataset_b"]
        key = {"condition": line["condition"], "view": "FID (grey28)"}
        means, better = (
            [[row for row in reality(table) if row.items() >= {**key, "dataset": dataset}.items()] for dataset in names]
            for table in ("models", "pairs")
        )
        a, b = ({row["model"]: float(row["mean"]) for row in rows} for rows in means)
        assert float(line["tau"]) == pytest.approx(kendalltau(list(a.values()), [b[model] for model in a])[0], abs=1e-4)
        wins, others = (
            {(row["better"], *{row["a"], row["b"]} - {row["better"]}) for row in rows if row["better"]}
            for rows in better
        )
        assert int(line["same"]) == len(wins & others)
        assert int(line["opposite"]) == len({pair[::-1] for pair in wins} & others)
        assert int(line["only_a"]) == len(wins) - len(wins & others) - int(line["opposite"])


# ---------------------------------------------------------------- index and sizes


def test_every_study_stands_in_the_index() -> None:
    index = (REPORTS / "README.md").read_text(encoding="utf-8")
    for folder in sorted(path for path in REPORTS.iterdir() if path.is_dir()):
        assert f"]({folder.name}/" in index, folder.name


def test_the_reports_are_small() -> None:
    sizes = {path: path.stat().st_size for path in REPORTS.rglob("*") if path.is_file()}
    assert {path.name: size for path, size in sizes.items() if path.suffix == ".html" and size > 3 * MIB} == {}
    assert sum(sizes.values()) < 30 * MIB
