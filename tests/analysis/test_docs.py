"""The page in the docs states the thresholds that the code applies."""

from pathlib import Path

import pytest

from trimtab.analysis.quality import heldout, influence, neurons, redundancy, shortcuts, spectrum, triage

PAGE = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        f"fewer than {triage.MIN_GROUPS} groups",
        f"AUC under {triage.MIN_AUC:g}",
        f"a word that {shortcuts.MARKS:.0%}".replace("%", " %"),
        f"length alone with AUC {shortcuts.LENGTH_AUC:g}",
        f"of {triage.TEMPLATE_COSINE:g} or more",
        f"concepts above {redundancy.REDUNDANT:g}",
        f"above {triage.SAME:g} with X",
        f"above {neurons.ONE_NEURON:g})",
        f"{spectrum.PERMUTATIONS} times",
        f"λ = {redundancy.RIDGE:g}",
        f"for {neurons.DRAWS} random directions",
        f"for the {influence.REFITS} most likely",
    ],
)
def test_the_page_says_what_the_code_does(words):
    assert words in PAGE


def test_five_folds_and_ten_times():
    assert heldout.FOLDS == 5 and "five folds" in PAGE and triage.OUTLIER == 10 and "ten times as far" in PAGE
