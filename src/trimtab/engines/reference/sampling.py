"""Choosing tokens and letting text out: the parts of generation that know nothing of steering."""

from __future__ import annotations

import codecs
from collections.abc import Callable

import numpy as np

from trimtab.engines.requests import Sampling


def generator(sampling: Sampling, index: int) -> np.random.Generator:
    """Random numbers of sample `index` of a request: its own, whatever else runs beside it."""
    sample, drawn = sampling.resumes or (index, 0)
    found = np.random.default_rng(None if sampling.seed is None else [sampling.seed % 2**64, sample])
    found.random(drawn)  # one number per token
    return found


def choose(logprobs: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """One token from natural log-probabilities [V]: temperature, then the k likeliest, then the smallest set
    that holds top_p of the mass; drawn by inverse CDF. Temperature 0 is the likeliest token."""
    if sampling.temperature == 0:
        return int(np.argmax(logprobs))
    order = np.argsort(-logprobs, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    weight = np.exp((logprobs[order] - logprobs[order[0]]) / sampling.temperature)
    weight /= weight.sum()
    if sampling.top_p < 1:
        keep = np.cumsum(weight) - weight < sampling.top_p  # mass before a token: the first is always kept
        order, weight = order[keep], weight[keep] / weight[keep].sum()
    drawn = np.searchsorted(np.cumsum(weight), random.random(), side="right")
    return int(order[min(int(drawn), len(order) - 1)])


class Spout:
    """Lets text out as tokens arrive: whole characters only, nothing that may yet become a stop string."""

    def __init__(self, to_bytes: Callable[[list[int]], bytes], stop: tuple[str, ...]) -> None:
        self._to_bytes, self._stop = to_bytes, stop
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """What `token` adds. Once a stop string is complete: only what is before it, and `stopped` is set."""
        self._held += self._characters.decode(self._to_bytes([token]))
        found = [i for s in self._stop if (i := self._held.find(s)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        waiting = max((_overlap(self._held, s) for s in self._stop), default=0)
        return self._release(len(self._held) - waiting)

    def close(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return ""
        self._held += self._characters.decode(b"", final=True)
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        self.text += out
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
