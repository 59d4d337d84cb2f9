"""Strips on a page: data for the script, and the marks around it. The script and its style stand beside this file."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from trimtab.strips.strip import Strip

SCALE = '<span class="scale">−2σ <i></i> +2σ</span>'


def style() -> str:
    """CSS of tokens, strips and choices; it uses the colours of `pages`."""
    return files("trimtab.strips").joinpath("strips.css").read_text(encoding="utf-8")


def script(data: Any, more: str = "") -> str:
    """The page's data and the script that draws them; `more` follows it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    js = files("trimtab.strips").joinpath("strips.js").read_text(encoding="utf-8")
    return f'<script type="application/json" id="data">{text}</script>\n<script>\n{js}{more}</script>\n'


def story(strip: Strip) -> dict[str, Any]:
    """One strip for the script."""
    truth = list(strip.truth) or [""] * len(strip.pieces)
    return {"t": list(strip.pieces), "e": truth, "z": hundredths(strip.z), "s": hundredths(strip.smooth)}


def hundredths(values: np.ndarray) -> Any:
    """Whole hundredths within ±9, as lists; None where nothing was read."""
    read = np.isfinite(values)
    found = np.rint(np.clip(np.where(read, values, 0), -9, 9) * 100).astype(int).astype(object)
    found[~read] = None
    return found.tolist()


def controls(concepts: Sequence[str], legend: str, smooth: bool) -> str:
    """Which concept tints the strips, and whether sentences are averaged."""
    checked = " checked" if smooth else ""
    return (
        f'<div class="row">{radios("concept", concepts, legend)}\n'
        f'<label class="check"><input type="checkbox" id="smooth"{checked}> average over each sentence</label>'
        f"{SCALE}</div>"
    )


def box(k: int, label: str) -> str:
    """Where strip `k` is drawn, and the line that tells the values of one token."""
    return (
        f'<div class="strip" id="strip{k}" tabindex="0" role="group" aria-label="{html.escape(label)}, '
        f'token by token; use the arrow keys"></div><div class="readout" id="readout{k}" aria-live="polite">'
        "Point at a word, or focus the story and use ← →.</div>"
    )


def radios(name: str, values: Sequence[str], legend: str) -> str:
    """A row of choices of which the first is chosen."""
    choices = "".join(
        f'<label><input type="radio" name="{name}" value="{html.escape(v)}"{" checked" if i == 0 else ""}>'
        f"<span>{html.escape(v)}</span></label>"
        for i, v in enumerate(values)
    )
    return f'<fieldset class="choices" aria-label="{html.escape(legend)}">{choices}</fieldset>'
