"""What is normal at a site: the typical norm of a state, and mean and std of coordinates for z-scores.

The two are measured on different tokens. Norms: the tokens of the neutral texts, bare, without the first and
special ones. Mean and std: single tokens of neutral *replies*, each at the state that emits it (position p for
the token at p + 1), because that is the state which a server reads while it writes. A model with a chat template
gets the texts in the assistant's turn, after the question that each answers; one without gets them bare.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from trimtab.data.neutral import neutral_questions, neutral_texts
from trimtab.engines.base import Engine, Progress
from trimtab.errors import InputError
from trimtab.prompts import Prompt
from trimtab.recipes.reading import ReadingWarning
from trimtab.sites import Site

#: Float32 numbers captured per round (200 MB).
ROUND_NUMBERS = 50_000_000
NORMS_OF = "tokens of the neutral texts, tokenised bare, without first and special tokens"
IN_A_CHAT = "tokens of neutral replies in the chat template, each read from the state that emits it"
BARE = "tokens of the neutral texts, bare, each read from the state that emits it, without the first state"

T = TypeVar("T", bound=Sized)


@dataclass(frozen=True, eq=False)
class NeutralStates:
    """Per site: the median norm of a state (over `tokens` of `texts`), and mean and std [C] of its coordinate along
    each unit row (over `reply_tokens` of `replies`; `reply_rule` says which tokens and states they are)."""

    typical_norms: Mapping[Site, float]
    mean: Mapping[Site, np.ndarray]
    std: Mapping[Site, np.ndarray]
    tokens: int
    texts: int
    reply_tokens: int = 0
    replies: int = 0
    reply_rule: str = ""


def typical_norms(engine: Engine, sites: Iterable[Site | int] | None = None) -> dict[Site, float]:
    """Median ||h|| over the tokens of the neutral texts at each site (an int is that layer's resid_post;
    None: all).

    The median, and without the first token, because that is an attention sink 10 to 1000 times longer than
    the rest.
    """
    found = range(engine.info.n_layers) if sites is None else sites
    chosen = sorted({Site(s) if isinstance(s, int) else s for s in found})
    return dict(measure(engine, {s: np.zeros((0, engine.info.width(s))) for s in chosen}).typical_norms)


def measure(
    engine: Engine, rows: Mapping[Site, np.ndarray], progress: Progress | None = None
) -> NeutralStates:
    """Run the neutral texts, and the replies made of them, once; `rows[site]` [C, width] are the unit rows to
    describe (no rows: no replies are run)."""
    texts = _texts(engine)
    replies, rule = neutral_replies(engine) if any(len(r) for r in rows.values()) else ([], BARE)
    if not replies:
        texts = [NeutralPrompt(t.prompt, t.norms, emitting(t.prompt, _lead(t.prompt) + 1)) for t in texts]
    prompts, done = [*texts, *replies], 0
    tables = {s: _Table() for s in rows}
    for batch in rounds(prompts, sum(r.shape[1] for r in rows.values())):
        for reading, capture in zip(batch, engine.capture([r.prompt for r in batch], rows), strict=True):
            for site, units in rows.items():
                tables[site].add(capture[site], reading, units)
        done += len(batch)
        if progress is not None:
            progress(done, len(prompts))
    return _summary(engine, tables, len(texts), replies, rule)


@dataclass(frozen=True)
class NeutralPrompt:
    """A prompt, the positions whose norms count, and those of states that emit a token of the reply."""

    prompt: Prompt
    norms: tuple[int, ...] = ()
    emit: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass
class _Table:
    """What is kept of one site: norms, and coordinates [n, C], in float64."""

    norms: list[np.ndarray] = field(default_factory=list)
    coordinates: list[np.ndarray] = field(default_factory=list)

    def add(self, states: np.ndarray, reading: NeutralPrompt, units: np.ndarray) -> None:
        wide = states.astype(np.float64)
        self.norms.append(np.linalg.norm(wide[list(reading.norms)], axis=1))
        self.coordinates.append(wide[list(reading.emit)] @ units.T.astype(np.float64))


def emitting(prompt: Prompt, first: int) -> tuple[int, ...]:
    """States that emit the tokens from position `first` on; the first state of all, a sink, is never among them."""
    return tuple(range(max(first - 1, 1), len(prompt) - 1))


def _lead(prompt: Prompt) -> int:
    """Position of the first state after the sink and the special tokens in front."""
    return next((i for i in range(1, len(prompt)) if i not in prompt.special), len(prompt))


def neutral_replies(engine: Engine) -> tuple[list[NeutralPrompt], str]:
    """The neutral texts as replies to their questions, and the rule by which they are read; none for a model
    without a chat template, or whose template or context refuses them (which is warned of)."""
    if engine.info.template_hash is None:
        return [], BARE
    found, why = [], f"no neutral reply fits its context of {engine.info.context_length} tokens"
    for question, text in zip(neutral_questions(), neutral_texts()):
        asked = [{"role": "user", "content": question}]
        try:
            start, whole = engine.encode(asked), engine.encode(asked, prefill=text)
        except InputError as error:
            why = str(error)
            continue
        if fits(engine, whole):
            found.append(NeutralPrompt(whole, emit=emitting(whole, _shared(start, whole))))
    if not found:
        warnings.warn(
            f"mean and std for z-scores of {engine.info.id} are measured on bare texts, not on replies: {why}",
            ReadingWarning,
            stacklevel=3,
        )
        return [], BARE
    return found, IN_A_CHAT


def _shared(start: Prompt, whole: Prompt) -> int:
    """How many tokens two prompts begin alike with: where a reply begins, whatever the tokenizer joins there."""
    pairs = enumerate(zip(start.tokens, whole.tokens))
    return next((i for i, (a, b) in pairs if a != b), min(len(start), len(whole)))


def fits(engine: Engine, prompt: Prompt) -> bool:
    """Whether the context takes a prompt whole."""
    return engine.info.context_length is None or len(prompt) <= engine.info.context_length


def _texts(engine: Engine) -> list[NeutralPrompt]:
    """The texts that fit the context whole: a character-level model with a short context may take only some."""
    prompts = [engine.encode(t, bare=True) for t in neutral_texts()]
    fitting = [p for p in prompts if fits(engine, p)]
    if not fitting:
        raise InputError(
            f"no neutral text fits the context of {engine.info.id} ({engine.info.context_length} tokens; the "
            f"shortest text has {min(map(len, prompts))}): its typical norms cannot be measured"
        )
    return [NeutralPrompt(p, tuple(i for i in range(1, len(p)) if i not in p.special)) for p in fitting]


def _summary(
    engine: Engine, tables: Mapping[Site, _Table], texts: int, replies: Sequence[NeutralPrompt], rule: str
) -> NeutralStates:
    lengths = {s: np.concatenate(t.norms) for s, t in tables.items()}
    along = {s: np.concatenate(t.coordinates) for s, t in tables.items()}
    for site, length in lengths.items():
        if not len(length) or not np.isfinite(length).all() or not np.isfinite(along[site]).all():
            what = "NaN or infinite numbers" if len(length) else "no token to read"
            raise InputError(
                f"{engine.info.id} has {what} at {site} on neutral text; try --dtype float32 or another "
                "engine"
            )
    return NeutralStates(
        {s: float(np.median(n)) for s, n in lengths.items()},
        {s: c.mean(0) for s, c in along.items()},
        {s: c.std(0) for s, c in along.items()},
        len(next(iter(lengths.values()))),
        texts,
        len(next(iter(along.values()))),
        len(replies) or texts,
        rule,
    )


def rounds(prompts: Sequence[T], width: int) -> Iterator[list[T]]:
    """Batches whose captured states fit the budget; at least one prompt each."""
    batch: list[T] = []
    for prompt in prompts:
        if batch and (sum(map(len, batch)) + len(prompt)) * width > ROUND_NUMBERS:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch
