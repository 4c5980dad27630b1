"""What a table says first: what was trained, and which models are best, as far as the tests allow."""

from __future__ import annotations

import pytest

from genbench.analysis.formatting import p_value
from genbench.analysis.headline import extractor_agreement, join_words, setup_lines, verdict
from genbench.analysis.table import Table, assemble
from genbench.storage.results import Row
from support.studies import row

KNOWN = {"batch": 128, "options": {"conv.width": 16}, "defaults": {}}


def study(model: str, values: tuple[float, ...], **facts: object) -> list[Row]:
    return [row(model, seed, value, **{**KNOWN, **facts}) for seed, value in enumerate(values)]


def only(*groups: list[Row]) -> Table:
    (table,) = assemble([row for group in groups for row in group])
    return table


CLOSE = (study("swae", (35.0, 36.0, 37.0)), study("vae", (36.2, 35.1, 37.5)))
FAR = study("wae-gan", (40.1, 41.2, 42.1))


# ---------------------------------------------------------------- what was trained


def test_the_setup_is_told_where_all_models_share_it() -> None:
    assert setup_lines(only(*CLOSE)) == [
        "conv (width 16) · normal prior · d = 8",
        "1,000 images each in batches of 128 · float32",
        "options at their defaults",
    ]


def test_what_differs_between_models_is_told_with_all_its_values() -> None:
    facts = {"prior": "ring", "latent_dim": 2, "images": 2000, "precision": "bfloat16"}
    assert setup_lines(only(CLOSE[0], study("vae", (1.0, 2.0), **facts)))[:2] == [
        "conv (width 16) · normal or ring priors · d = 2 or 8",
        "1,000 or 2,000 images each in batches of 128 · bfloat16 or float32",
    ]


def test_options_that_are_not_at_their_defaults_stand_beside_them() -> None:
    half = {"options": {"beta-vae.beta": 0.5}, "defaults": {"beta-vae.beta": 4.0, "glyphs.size": 28, "conv.width": 8}}
    table = only(*CLOSE, study("beta-vae", (30.0, 31.0, 32.0), **half))
    assert setup_lines(table)[-1] == "not the default (in brackets): beta-vae.beta = 0.5 (4)"
    assert "defaults" not in verdict(table).text


def test_options_are_not_told_where_the_defaults_were_not_recorded() -> None:
    table = only(CLOSE[0], study("vae", (1.0, 2.0), defaults=None))
    assert not any("default" in line for line in setup_lines(table))
    assert "defaults" not in verdict(table).text


def test_controls_are_no_part_of_the_setup() -> None:
    control = study("noise", (90.0,), role="control", images=0, batch=0, defaults=None)
    assert setup_lines(only(*CLOSE, control)) == setup_lines(only(*CLOSE))
    assert setup_lines(only(control)) == []


# ---------------------------------------------------------------- the verdict


def test_models_in_the_set_of_bests_cannot_be_told_apart_and_the_others_are_behind() -> None:
    said = verdict(only(*CLOSE, FAR))
    assert said.best == ("swae", "vae")
    assert [behind.label for behind in said.worse] == ["wae-gan"]
    assert said.worse[0].difference.mean == pytest.approx(5.133, abs=1e-3)
    assert said.worse[0].p is not None
    assert said.worse[0].p < 0.01
    assert said.text.startswith("swae and vae cannot be told apart by fid; wae-gan is worse by 5.13 ± 0.14 (p < 0.0")
    assert "Differences below 2.9 are often missed with these seeds (genbench power RUNS)" in said.sentences
    assert said.sentences[-1] == "Not tuned: a comparison of defaults"


def test_a_difference_is_positive_whatever_the_better_direction() -> None:
    higher = [
        study(name, values, metric="recall", higher_is_better=True)
        for name, values in (("a", (0.9, 0.91, 0.92)), ("b", (0.50, 0.51, 0.522)))
    ]
    said = verdict(only(*higher))
    assert said.best == ("a",)
    assert said.worse[0].difference.mean > 0.3
    assert said.sentences[0].startswith("a is the best by recall; b is worse by 0.399")


def test_one_seed_decides_nothing() -> None:
    said = verdict(only(study("a", (1.0,)), study("b", (9.0,))))
    assert (said.best, said.worse) == ((), ())
    assert said.sentences[0].startswith("One seed: differences may be noise")
    assert "worse" not in said.text


def test_many_models_are_counted() -> None:
    models = [study(f"m{k}", (1.0 + k / 100, 1.5 - k / 50, 2.0)) for k in range(7)]
    assert verdict(only(*models)).sentences[0] == "7 models cannot be told apart by fid"


def test_copies_and_controls_are_never_best() -> None:
    control = study("replayed", (0.0, 0.1, 0.2), role="control")
    assert verdict(only(*CLOSE, control)).best == ("swae", "vae")


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ((1e-9, 1e-9), "No model matches the prior (p < 0.001)"),
        ((1e-9, 0.4), "Only b may match the prior (the others: p < 0.001)"),
        ((0.5, 0.4), "Every model's codes may follow the prior"),
    ],
)
def test_the_latent_fit_is_told_by_its_p_values(p_values: tuple[float, float], expected: str) -> None:
    fit = {"metric": "w2.excess", "metric_role": "latent fit", "protocol": "c"}
    rows = [study(name, (1.0,), p_value=p, **fit) for name, p in zip("ab", p_values, strict=True)]
    assert expected in verdict(only(*CLOSE, *rows)).sentences


def test_a_single_model_has_no_ranking() -> None:
    assert verdict(only(CLOSE[0])).sentences == ()


def test_words_are_joined() -> None:
    assert [join_words(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_a_model_is_worse_than_the_one_against_which_the_evidence_is_strongest() -> None:
    """The noisy leader's difference from the worse model is not significant; that of a steadier rival is."""
    noisy = study("noisy", (5.0, 60.0, 10.0, 55.0))
    steady = study("steady", (40.0, 40.1, 40.0, 40.1))
    worse = study("vae", (50.0, 50.3, 50.0, 50.2))
    result = verdict(only(noisy, steady, worse))
    (behind,) = result.worse
    assert (behind.label, behind.rival) == ("vae", "steady")
    assert behind.difference.low is not None
    assert behind.difference.low > 0
    assert "vae is worse than steady by 10." in result.sentences[0]


# ---------------------------------------------------------------- whether extractors agree

SWAE_BEST = {"swae": (30.0, 31.0, 32.2, 30.4), "vae": (35.1, 36.0, 37.3, 35.2), "ae": (40.1, 41.2, 42.1, 40.3)}
VAE_BEST = SWAE_BEST | {"swae": SWAE_BEST["vae"], "vae": SWAE_BEST["swae"]}
UNSURE = SWAE_BEST | {"swae": (30.0, 37.0, 31.0, 36.0), "vae": (35.0, 31.0, 36.5, 30.0)}


def by(extractor: str, values: dict[str, tuple[float, ...]], **facts: object) -> list[Row]:
    how = {"protocol": extractor, "head": f"FID ({extractor})", **facts}
    return [r for model, numbers in values.items() for r in study(model, numbers, **how)]


def agreement(*rows: list[Row], **protocols: dict[str, object]) -> str:
    fields: dict[str, dict[str, object]] = {
        name: {"method": "distance", "extractor": name, "generated": 500} for name in ("grey28", "inception", "clip")
    }
    return extractor_agreement(only(*rows), fields | protocols)


def test_extractors_agree_where_each_one_finds_the_same_single_best() -> None:
    text = agreement(by("grey28", SWAE_BEST), by("inception", SWAE_BEST), by("clip", SWAE_BEST))
    assert text.startswith("Extractors: FID: grey28, inception and clip agree that swae is the best (p ")
    table = only(by("grey28", SWAE_BEST))
    p = max(cell.p_best or 0.0 for row in table.rows[1:] if (cell := row.cells[0]))
    assert text.endswith(f"({', '.join([p_value(p)] * 2)} and {p_value(p)})")


def test_extractors_disagree_where_every_model_is_refuted_by_some_of_them() -> None:
    text = agreement(by("grey28", SWAE_BEST), by("inception", VAE_BEST))
    assert text.startswith("Extractors: FID: grey28 and inception disagree on the best: swae by grey28 (p ")
    assert "vae by inception (p " in text
    assert "(together p " in text


def test_extractors_are_not_said_to_disagree_on_evidence_that_does_not_hold_for_both_together() -> None:
    weak = {"swae": (30.0, 31.0, 32.0), "vae": (31.2, 32.0, 33.9)}
    table = only(by("grey28", weak))
    p = next(cell.p_best for row in table.rows[1:] if (cell := row.cells[0]))
    turned = {"swae": weak["vae"], "vae": weak["swae"]}
    text = agreement(by("grey28", weak), by("inception", turned))
    assert p is not None
    assert 0.025 < p <= 0.05  # enough for one extractor, too little for both at once
    assert text.startswith(
        "Extractors: FID: cannot tell whether grey28 and inception agree on the best: swae by grey28"
    )


def test_extractors_may_agree_where_their_bests_overlap() -> None:
    text = agreement(by("grey28", SWAE_BEST), by("inception", UNSURE))
    assert "cannot tell whether grey28 and inception agree on the best: swae by grey28 (p" in text
    assert "swae or vae by inception (p" in text


def test_few_seeds_or_a_missing_model_leave_agreement_open() -> None:
    single = {"swae": (30.0,), "vae": (35.0,)}
    text = agreement(by("grey28", single), by("inception", single))
    assert text.endswith("cannot tell whether grey28 and inception agree: too few seeds for a test (use --seeds 5)")
    fewer = {"swae": SWAE_BEST["swae"], "vae": SWAE_BEST["vae"]}
    text = agreement(by("grey28", SWAE_BEST), by("inception", fewer))
    assert text.endswith("cannot tell whether grey28 and inception agree: ae was not measured by inception")


def test_nothing_is_said_of_one_extractor_or_of_different_ways_of_measuring() -> None:
    assert agreement(by("grey28", SWAE_BEST)) == ""
    assert extractor_agreement(only(by("grey28", SWAE_BEST), by("inception", SWAE_BEST)), {}) == ""
    more: dict[str, object] = {"method": "distance", "extractor": "grey28", "generated": 5000}
    assert agreement(by("grey28", SWAE_BEST), by("more", SWAE_BEST), more=more) == ""  # one extractor, two counts
    sampled: dict[str, object] = {"method": "distance", "extractor": "inception", "detail": "sampler gmm"}
    assert agreement(by("grey28", SWAE_BEST), by("gmm", SWAE_BEST), gmm=sampled) == ""
    only_one = {"swae": SWAE_BEST["swae"]}
    assert agreement(by("grey28", only_one), by("inception", only_one)) == ""
