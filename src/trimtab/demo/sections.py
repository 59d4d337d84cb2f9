"""The report's plainer sections: honesty, the numbers, how they were measured."""

from __future__ import annotations

import html

import numpy as np

from trimtab.demo import charts
from trimtab.demo.results import DemoResult
from trimtab.evaluation.coherence import coherent
from trimtab.pages.document import table
from trimtab.pages.drawing import short, signed

# --- honesty -------------------------------------------------------------------------------------


def honesty(result: DemoResult) -> str:
    """The mean difference beside the learned vector, with dilemmas and free answers."""
    h = result.honesty
    left, right = charts.honesty_charts(h)
    first, last = h.mean_diff[0], h.mean_diff[-1]
    return f"""<section aria-labelledby="h-honesty">
<h2 id="h-honesty">4 · Honesty: sometimes an average is not enough</h2>
<p>The model answers yes/no dilemmas honestly by default ({h.zero.accuracy:.0%} of {h.zero.n} held-out ones). The
<em>difference of means</em> between honest and lying personas moves it in the right direction, from
{h.zero.log_ratio:+.2f} nats to {first.log_ratio:+.2f} at dose {signed(first.dose)} and {last.log_ratio:+.2f} at
{signed(last.dose)}. A vector <em>learned</em> in {h.seconds:.0f} s by gradient descent on other dilemmas, of length
{short(h.learned_dose)} in the same unit, takes accuracy from {h.plus.accuracy:.0%} at +1 to {h.minus.accuracy:.0%} at
−1, while free answers keep a coherence of {short(h.minus.coherence)} (untouched: {short(h.zero.coherence)}). For
scale: a persona prompt reaches {h.persona_honest.accuracy:.0%} and {h.persona_liar.accuracy:.0%}.</p>
<div class="charts two"><figure><figcaption><h3>difference of means</h3><span class="soft">log p(honest) −
log p(lie), in nats, over doses</span></figcaption>{left}</figure>
<figure><figcaption><h3>learned vector</h3><span class="soft">the same quantity at −1, 0 and +1</span></figcaption>
{right}</figure></div>
<details open><summary>Some held-out dilemmas</summary>{_dilemmas(result)}</details>
<details><summary>Free answers under the learned vector</summary>{_free(result)}</details></section>""".replace(
        "-0.", "−0."
    )


def _dilemmas(result: DemoResult, count: int = 6) -> str:
    h = result.honesty
    rows = []
    # An honest yes and an honest no in turn: a push toward one word would show.
    sides = [[d for d in enumerate(h.dilemmas) if d[1].honest == answer] for answer in ("Yes", "No")]
    for i, d in [both for pair in zip(*sides) for both in pair][:count]:
        cells = [html.escape(d.question), d.honest]
        for name in ("learned -1", "learned 0", "learned +1"):
            cells.append(f"{_p_yes(float(h.ratios[name][i]) * d.sign):.0%}")
        rows.append(("", cells))
    head = ("question", "honest answer", "p(yes) at −1", "untouched", "at +1")
    return table(head, rows, "Probability of yes among the two answers.", "wide")


def _p_yes(log_ratio: float) -> float:
    return float(1 / (1 + np.exp(-log_ratio)))


def _free(result: DemoResult, count: int = 4) -> str:
    texts, questions = result.honesty.texts, result.materials.open_questions
    rows = []
    for i in range(min(count, len(questions))):
        says = [html.escape(texts[n].texts[i][0]) for n in ("learned -1", "learned 0", "learned +1")]
        rows.append(("", [html.escape(questions[i][-1]["content"]), *says]))
    head = ("question", "−1", "untouched", "+1")
    made = table(head, rows, "First sample of each; not chosen.", "wide")
    return made.replace("<td>", '<td class="say">')


# --- numbers -------------------------------------------------------------------------------------


def numbers(result: DemoResult) -> str:
    """Every row of every curve."""
    f, n = result.feelings, result.settings.prompts
    blocks = []
    for name, c in f.curves.items():
        rows = []
        null = {round(r.row.dose, 6): r for r in c.random}
        for r in c.rows:
            ok = coherent(r.coherence, c.unsteered)
            other = null.get(round(r.dose, 6))
            rows.append(
                (
                    "bestrow" if r == c.best else "" if ok else "dim",
                    [
                        signed(r.dose) + (" ★" if r == c.best else ""),
                        f"{r.score:.3f}",
                        f"[{r.low:.3f}, {r.high:.3f}]",
                        f"{r.coherence:.3f}{'' if ok else ' ✗'}",
                        "" if other is None else f"{other.row.score:.3f}",
                        "" if other is None else f"{other.q95:.3f}",
                        "" if other is None else f"{other.row.coherence:.3f}",
                    ],
                )
            )
        p = c.persona
        cells = [
            "persona prompt",
            f"{p.score:.3f}",
            f"[{p.low:.3f}, {p.high:.3f}]",
            f"{p.coherence:.3f}",
            "",
            "",
            "",
        ]
        rows.append(("", cells))
        head = (
            "dose",
            "score",
            "95 % interval",
            "coherence",
            "random mean",
            "random 95 % q.",
            "random coherence",
        )
        blocks.append(
            table(head, rows, f"<b>{name}</b>, n = {n} prompts. ★ best coherent dose, ✗ not coherent.")
        )
    body = "".join(f"<details{' open' if i == 0 else ''}><summary>{name}</summary>{b}</details>"
                   for i, (name, b) in enumerate(zip(f.curves, blocks)))  # fmt: skip
    return (
        '<section aria-labelledby="h-numbers"><h2 id="h-numbers">5 · The numbers</h2>'
        f"{body}<details><summary>honesty</summary>{_honesty_table(result)}</details></section>"
    )


def _honesty_table(result: DemoResult) -> str:
    h = result.honesty
    named = [(f"mean difference, dose {signed(r.dose)}", r) for r in h.mean_diff]
    named += [("learned −1", h.minus), ("learned 0 (untouched)", h.zero), ("learned +1", h.plus)]
    named += [("persona: honest", h.persona_honest), ("persona: liar", h.persona_liar)]
    rows = [
        (
            "",
            [
                name,
                f"{r.accuracy:.2f}",
                f"{r.log_ratio:+.2f} [{r.low:+.2f}, {r.high:+.2f}]",
                f"{r.score:.2f}",
                f"{r.coherence:.3f}",
                f"{r.valid:.0%}",
            ],
        )
        for name, r in named
    ]
    head = (
        "condition",
        "accuracy",
        "log-ratio, nats",
        "p(honest)",
        "coherence of free text",
        "answers hold ≥ ½ of p",
    )
    return table(head, rows, f"n = {h.zero.n} held-out dilemmas.")


# --- method --------------------------------------------------------------------------------------


def how(result: DemoResult) -> str:
    """What a reader must know to doubt the numbers properly."""
    s, f, r = result.settings, result.feelings, result.readings
    quality = f.classifier.quality
    sets = "; ".join(f"{', '.join(map(str, k))}: {short(v)}" for k, v in f.layer_scores.items() if v == v)
    chosen = f"chosen on {s.select_prompts} other prompts ({sets})" if sets else "fixed beforehand"
    return f"""<section aria-labelledby="h-how"><h2 id="h-how">6 · How it was measured</h2><ul class="plain">
<li><b>Vectors.</b> Mean over assistant tokens of answers after a persona that names the feeling, minus answers after
neutral ones; the answers themselves are neutral text. One direction per layer. Honesty: mean over the tokens of the
user's question, under honest and lying personas, with yes and no balanced.</li>
<li><b>Dose.</b> Displacement in units of the typical residual norm, summed over layers {", ".join(map(str, f.layers))}
of {result.info.n_layers} (counted from 0; {chosen}). It acts on every token.</li>
<li><b>Score.</b> Mean posterior of the feeling under a calibrated classifier (word TF-IDF and logistic regression,
trained on {len(result.materials.labelled)} generated texts; held-out accuracy {short(quality.accuracy)}, calibration
error {quality.calibration_error:.3f}). Items are {s.prompts} prompts with {s.samples} seeded samples each of at most
{s.max_tokens} tokens at temperature {s.temperature:g}, top-p {s.top_p:g}; all disjoint from extraction, layer choice
and classifier training. Intervals: 95 % bootstrap over prompts.</li>
<li><b>Coherence.</b> 1 − the share of word trigrams that a reference corpus of the same world, fixed before any
result, does not contain. Untouched answers: {short(f.coherence)}; a dose is coherent down to
{short(f.coherence - 0.05)}. {f.neutral_share:.0%} of untouched answers are classified as neutral.</li>
<li><b>Random directions.</b> {s.random_directions} per dose, same displacement at the same layers,
{s.random_samples} sample(s) per prompt; their 95 % quantile is over the directions' means. A direction and its
opposite are equally random, so one set stands for both signs of a dose.</li>
<li><b>Best dose.</b> The coherent dose with the highest score, chosen on the rows that are shown: slightly
optimistic, which is why its lower bound is what must clear the random directions.</li>
<li><b>Persona prompt.</b> The wording that the model was trained on, same questions, seeds and length, no
steering.</li>
<li><b>Readings.</b> Projection on the unit vector at layer {r.site.layer}, as a z-score over the tokens of the other
stories.</li>
<li><b>Limits.</b> Metric, words and prompts come from one generator; there is no human or model judge; the world has
five feelings and short sentences. Read the texts, not only the curves.</li></ul></section>"""
