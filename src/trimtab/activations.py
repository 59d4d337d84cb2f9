"""Rows of hidden states with labels, and the rules that choose which tokens of a text are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from trimtab.directions import frozen
from trimtab.errors import InputError, UnknownName
from trimtab.evidence import STREAMED_NEEDS, Evidence
from trimtab.prompts import Prompt
from trimtab.sites import Site

# --- poolings: which tokens of a text are read (then averaged)


def _content(prompt: Prompt) -> np.ndarray:
    return np.array([i for i in range(1, len(prompt)) if i not in prompt.special], dtype=np.int64)


def _last(prompt: Prompt) -> np.ndarray:
    return np.array([len(prompt) - 1])


def _last_content(prompt: Prompt) -> np.ndarray:
    if prompt.spans:
        return np.array([prompt.spans[-1].end - 1])
    content = _content(prompt)
    return content[-1:] if len(content) else _last(prompt)


def _mean_role(role: str) -> Callable[[Prompt], np.ndarray]:
    def positions(prompt: Prompt) -> np.ndarray:
        ranges = prompt.role_ranges(role)
        found = [
            i for a, b in ranges for i in range(a, b or len(prompt)) if i not in prompt.special and i > 0
        ]
        return np.array(found, dtype=np.int64)

    return positions


_POOLINGS: Mapping[str, Callable[[Prompt], np.ndarray]] = {
    "last": _last,
    "prompt_last": _last,  # the last token of a rendered generation prompt; the data layer renders it so
    "last_content": _last_content,
    "mean_all": _content,
    "mean_system": _mean_role("system"),
    "mean_user": _mean_role("user"),
    "mean_assistant": _mean_role("assistant"),
}
#: Names of the poolings; `last_<n>` (mean of the last n tokens) exists for every n >= 1.
POOLINGS = (*_POOLINGS, "last_<n>")


def pool_positions(pooling: str, prompt: Prompt) -> np.ndarray:
    """Token positions [n], int64, that `pooling` reads in `prompt`, ascending; their states are averaged. A pooling
    that finds no token is an `InputError`."""
    if match := re.fullmatch(r"last_([1-9]\d*)", pooling):
        return np.arange(max(0, len(prompt) - int(match[1])), len(prompt))
    if pooling not in _POOLINGS:
        raise UnknownName.of("pooling", pooling, POOLINGS)
    found = _POOLINGS[pooling](prompt)
    if not len(found):
        shown = (prompt.text or str(prompt.tokens))[:60]
        raise InputError(
            f"pooling {pooling!r} finds no token to read in {shown!r}; use 'last', or longer texts"
        )
    return found


def check_pooling(pooling: str) -> str:
    """Refuse an unknown pooling before any model loads."""
    if pooling not in _POOLINGS and not re.fullmatch(r"last_[1-9]\d*", pooling):
        raise UnknownName.of("pooling", pooling, POOLINGS)
    return pooling


# --- rows with labels


@dataclass(frozen=True, eq=False)
class Activations:
    """Rows [n, width] at one site with where they came from: a label, a group (pair or scenario), text and
    position.
    """

    site: Site
    rows: np.ndarray
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    texts: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", frozen(self.rows))
        for name in ("labels", "groups", "texts", "positions"):
            column = getattr(self, name)
            if len(column) != len(self.rows) and (column or name in ("labels", "groups")):
                raise InputError(f"{len(self.rows)} rows but {len(column)} {name}")

    def of(self, label: str) -> np.ndarray:
        """Rows with a label."""
        return self.rows[[i for i, name in enumerate(self.labels) if name == label]]

    def evidence(
        self, concept: str, negative: str, needs: Iterable[str] = STREAMED_NEEDS, paired: bool = False
    ) -> Evidence:
        """Evidence for `concept` against `negative`; paired rows are matched by group."""
        if not paired:
            needs = frozenset(needs) - {"gram"}
            return Evidence.from_rows(self.site, self.of(concept), self.of(negative), needs, paired=False)
        side = {
            label: {
                g: self.rows[i]
                for i, (g, name) in enumerate(zip(self.groups, self.labels, strict=True))
                if name == label
            }
            for label in (concept, negative)
        }
        if side[concept].keys() != side[negative].keys():
            odd = sorted(side[concept].keys() ^ side[negative].keys())
            raise InputError(f"groups {odd[:5]} have only one side; pairs need both")
        order = list(side[concept])
        pick = {label: np.stack([rows[g] for g in order]) for label, rows in side.items()}
        return Evidence.from_rows(self.site, pick[concept], pick[negative], needs, paired=True)
