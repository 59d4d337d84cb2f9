"""report.html: one file, no external assets, for a stranger who has never heard of steering."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Any

import numpy as np

from trimtab.demo import charts
from trimtab.demo.commands import next_commands
from trimtab.demo.results import DemoResult
from trimtab.demo.sections import honesty, how, numbers
from trimtab.evaluation.coherence import coherent
from trimtab.pages import drawing
from trimtab.pages.document import document
from trimtab.pages.drawing import short, signed
from trimtab.strips.page import SCALE, box, controls, hundredths, radios, script, story, style
from trimtab.strips.strip import Strip


def page(result: DemoResult) -> str:
    """The whole document."""
    css, js = (
        files("trimtab.demo").joinpath(n).read_text(encoding="utf-8") for n in ("report.css", "report.js")
    )
    body = "\n".join(
        (
            _top(result),
            "<main>",
            _dial(result),
            _curves(result),
            _strips(result),
            honesty(result),
            numbers(result),
            how(result),
            _next(result),
            "</main>",
            _footer(result),
        )
    )
    title = "trimtab demo: a small force on the rudder"
    return document(title, body, css + style(), script(payload(result), js))


# --- data for the script ---------------------------------------------------------------------------


def payload(result: DemoResult) -> dict[str, Any]:
    """What the dial and the strips show; z-scores travel as hundredths."""
    s, f, shown = result.settings, result.feelings, result.shown
    count = range(len(shown.prompts))
    return {
        "emotions": list(s.emotions),
        "concepts": list(s.emotions),
        "turn": "written as ",
        "doses": list(s.doses),
        "prompts": [p[-1]["content"] for p in shown.prompts],
        "personas": {e: result.materials.personas[e] for e in s.emotions},
        "best": {e: c.best.dose for e, c in f.curves.items()},
        "quality": {
            e: [{"c": round(r.coherence, 3), "ok": coherent(r.coherence, c.unsteered)} for r in c.rows]
            for e, c in f.curves.items()
        },
        "cells": {
            e: [[_cell(shown.strips[e, d, n], k, shown.score[e, d, n]) for d in s.doses] for n in count]
            for k, e in enumerate(s.emotions)
        },
        "told": {
            e: [_cell(shown.told[e, n], k, shown.told_score[e, n]) for n in count]
            for k, e in enumerate(s.emotions)
        },
        "stories": [_story(strip) for strip in result.readings.strips],
    }


def _cell(strip: Strip, concept: int, p: float) -> dict[str, Any]:
    """Answers are short, and single tokens swing: the dial tints whole sentences."""
    return {"t": list(strip.pieces), "z": hundredths(strip.smooth[:, concept]), "p": round(p, 3)}


def _story(strip: Strip) -> dict[str, Any]:
    # The first token of a text is an attention sink: its state says nothing about the text.
    z = strip.z.copy()
    z[0] = 0
    return {**story(strip), "z": hundredths(z)}


# --- sections ----------------------------------------------------------------------------------------


def _top(result: DemoResult) -> str:
    info = result.info
    return f"""<header class="top">
<p class="eyebrow">trimtab demo · model “{html.escape(info.id)}”, {info.n_layers} blocks of width {info.hidden_size}
· seed {result.settings.seed} · made in {result.wall_s:.0f} s on this machine</p>
<h1>A small force on the rudder</h1>
<p class="lede">Inside a language model, a feeling can be a <em>direction</em>: an arrow in the space of its hidden
states. trimtab found five such arrows by comparing answers, pushed the model along them while it wrote, and read
them back word by word. Nothing in the prompts changed. Turn the dial and see.</p>
<p class="aside"><b>What this is, and what it is not.</b> The model is tiny and was trained on text that this project
generates; the prompts, the persona wordings and the classifier that scores the answers come from the same small
world. Everything here is therefore <em>in distribution</em>. It shows that the machinery works and how an effect
should be measured. It says nothing about how well a large model can be steered; section 7 shows how to find
out.</p>
</header>"""


def _dial(result: DemoResult) -> str:
    s = result.settings
    first = s.emotions[0]
    ends = (min(s.doses), 0.0, max(s.doses))  # what a narrow screen still labels
    ticks = "".join(f"<span{' class=key' if d in ends else ''}>{signed(d)}</span>" for d in s.doses)
    options = "".join(
        f'<option value="{n}">{html.escape(p[-1]["content"])}</option>'
        for n, p in enumerate(result.shown.prompts)
    )
    cards = "".join(
        _card(name, label, kind)
        for name, label, kind in (
            ("away", "pushed away", "away"),
            ("plain", "untouched", ""),
            ("toward", '<span id="direction">pushed toward</span>', "toward"),
        )
    )
    return f"""<section aria-labelledby="h-dial"><h2 id="h-dial">1 · Turn the dial</h2>
<p>Pick a feeling and a question, then move the dose. Three answers to the same question, with the same random seed:
the only difference is a vector added to the hidden states. A dose of 1 adds, over {len(result.feelings.layers)}
layers together, as much as a hidden state is usually long.</p>
<div class="dial"><div class="controls">
{radios("emotion", s.emotions, "The feeling to steer toward")}
<div><label class="small soft" for="prompt">The question</label>
<select id="prompt">{options}</select></div>
<div class="slider"><label class="small soft" for="dose">Dose toward
“<span class="emotion">{first}</span>” (third card)</label>
<input id="dose" type="range" min="0" max="{len(s.doses) - 1}" step="1">
<div class="ticks" id="ticks" aria-hidden="true">{ticks}</div></div>
<p class="question" id="question"></p></div>
<div class="cards">{cards}</div>
<div class="told"><span class="small soft">For comparison, no steering but a persona prompt,
“<b id="persona"></b>” (reads as <span class="emotion">{first}</span>: <b id="toldp"></b>)</span>
<p class="says" id="told"></p></div>
<div class="row"><label class="check"><input type="checkbox" id="tint" checked> tint each sentence by how strongly
the untouched model reads “<span class="emotion">{first}</span>” in it</label>{SCALE}</div>
<noscript><p class="warn">The dial needs JavaScript; the numbers below do not.</p></noscript>
</div></section>"""


def _card(name: str, label: str, kind: str) -> str:
    return (
        f'<article class="card {kind}" id="{name}"><h3><span>{label}</span><b></b></h3>'
        '<p class="says"></p><div class="meter">reads as <span class="emotion"></span> <b class="p"></b>'
        '<div class="track"><div class="fill"></div></div><span class="note"></span></div></article>'
    )


def legend() -> str:
    """What the marks of the curves mean."""
    plain = '<line class="{}" x1="0" x2="34" y1="9" y2="9"/>'.format
    box, dot = (
        '<polygon class="{}" points="0,2 34,2 34,16 0,16"/>'.format,
        '<circle class="{}" cx="17" cy="9" r="{}"/>'.format,
    )
    marks = (
        (box("band") + plain("curve") + dot("dot", 4), "steered: score with 95 % interval over prompts"),
        (plain("curve broken") + dot("dot hollow", 4), "hollow: no longer coherent"),
        (dot("best", 8) + dot("dot", 4), "best coherent dose"),
        (box("null"), "random directions of the same length (lowest to 95 % quantile)"),
        (plain("persona"), "persona prompt, no steering"),
        (plain("limit"), "below this line coherence fell by more than .05"),
    )
    return drawing.legend(marks)


def _curves(result: DemoResult) -> str:
    f = result.feelings
    figures = ""
    for name, c in f.curves.items():
        null = f"; random directions stay under {short(c.null(c.best.dose))}" if c.best.dose else ""
        d = c.difference
        figures += (
            f'<figure><figcaption><h3>{name}</h3><span class="soft">{short(c.rows[_zero(c)].score)} untouched → '
            f"<b>{short(c.best.score)}</b> at dose {signed(c.best.dose)}{null}. Against the persona prompt: "
            f"{d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}].</span></figcaption>{charts.dose_chart(c)}</figure>"
        ).replace("-0.", "−0.")
    best = float(np.mean([c.best.score for c in f.curves.values()]))
    plain = float(np.mean([c.rows[_zero(c)].score for c in f.curves.values()]))
    told = float(np.mean([c.persona.score for c in f.curves.values()]))
    return f"""<section aria-labelledby="h-curves"><h2 id="h-curves">2 · Does more push mean more feeling?</h2>
<p>Score: how sure a calibrated classifier is that an answer shows the feeling, averaged over
{result.settings.prompts} held-out questions. Untouched answers average {short(plain)}; steering at the best coherent
dose reaches {short(best)}; telling the model in words reaches {short(told)}. A score alone proves little, since word
salad can score high too: so coherence is drawn below every curve, and pushing along <em>random</em> arrows of the
same length shows what a push does that means nothing.</p>
<div class="charts">{figures}{legend()}</div></section>"""


def _zero(curve: Any) -> int:
    return min(range(len(curve.rows)), key=lambda i: abs(curve.rows[i].dose))


def _strips(result: DemoResult) -> str:
    r = result.readings
    scores = ", ".join(f"{c} {short(v)}" for c, v in r.auc.items())
    boxes = "".join(box(k, f"story {k + 1}") for k in range(len(r.strips)))
    choose = controls(tuple(result.settings.emotions), "The arrow to read with", smooth=True)
    return f"""<section aria-labelledby="h-read"><h2 id="h-read">3 · Read with the same arrows</h2>
<p>The arrow that steers also reads: project each token's hidden state on it. Each story below changes its feeling on
the way; choose an arrow and watch where it lights up. Single tokens swing (a model decides at full stops, and a name
says little), so the tint starts as an average over each sentence; point at a word for its own values. The vectors
came from chat answers under persona prompts and have never seen a story. Over {r.segments} passages of {r.stories}
stories, the mean reading tells a feeling from all
others with AUC {scores} (1 is perfect, .5 is chance).</p>
{choose}
{boxes}</section>"""


def _next(result: DemoResult) -> str:
    blocks = "".join(
        f'<p>{html.escape(why)}</p><pre><button class="copy" type="button">copy</button>'
        f"<code>{html.escape(command)}</code></pre>"
        for why, command in next_commands(result)
    )
    return f'<section aria-labelledby="h-next"><h2 id="h-next">7 · Your turn</h2>{blocks}</section>'


def _footer(result: DemoResult) -> str:
    return f"""<footer>In this folder: <code>feelings.safetensors</code>, <code>honest.safetensors</code> and
<code>honest-learned.safetensors</code> (the vectors, each with its manifest), <code>samples.jsonl</code> (every text
that was scored), <code>metrics.json</code> (every number). For
another draw, run <code>trimtab demo --seed {result.settings.seed + 1}</code>.</footer>"""
