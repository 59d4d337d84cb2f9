"""From contrasts to encoded prompts, and the guards on what would be read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from trimtab.activations import pool_positions
from trimtab.data.contrast import Contrast, Item, shown
from trimtab.engines.base import Engine
from trimtab.errors import InputError
from trimtab.prompts import Prompt


class ReadingWarning(UserWarning):
    """What is read is legitimate but unusual."""


@dataclass(frozen=True)
class Reading:
    """One contrast as prompts, and the pooling that reads them."""

    contrast: Contrast
    pooling: str
    positive: tuple[Prompt, ...]
    negative: tuple[Prompt, ...]


def token_prefixes(engine: Engine) -> Callable[[str], list[str]]:
    """What `trimtab.data.load(prefixes=…)` takes: a text's token prefixes, whole text left out, as texts.

    A prefix that ends inside a character is left out: decoded, it would hold a replacement mark that the text
    does not.
    """

    def cut(text: str) -> list[str]:
        prompt = engine.encode(text, bare=True)
        tokens = [t for i, t in enumerate(prompt.tokens) if i not in prompt.special]
        found = [engine.decode(tokens[:n]) for n in range(1, len(tokens))]
        return [f for f in found if not f.endswith("\ufffd")]

    return cut


def read(engine: Engine, contrast: Contrast, pooling: str | None = None) -> Reading:
    """Encode one contrast and check that its texts fit and that their read positions can tell the sides
    apart.
    """
    chosen = pooling or contrast.read_pooling
    sides = [
        tuple(
            _encode(engine, item, f"{side} text {i + 1} of {contrast.concept!r}")
            for i, item in enumerate(items)
        )
        for side, items in (("positive", contrast.positive), ("negative", contrast.negative))
    ]
    reading = Reading(contrast, chosen, *sides)
    check_tokens(reading)
    return reading


def _encode(engine: Engine, item: Item, where: str) -> Prompt:
    if isinstance(item, str):
        prompt = engine.encode(item, bare=True)
    else:
        if engine.info.template_hash is None:
            raise InputError(
                f"{where} is messages, and {engine.info.id} has no chat template: write bare texts instead"
            )
        prompt = engine.encode(item, generation_prompt=item[-1]["role"] != "assistant")
    limit = engine.info.context_length
    if limit is not None and len(prompt) > limit:
        raise InputError(
            f"{where} has {len(prompt)} tokens, but the context of {engine.info.id} is {limit}; shorten it "
            f"(truncation would cut off exactly the token that is read): {shown(item)}"
        )
    return prompt


def check_tokens(reading: Reading) -> None:
    """The chat-template trap: after an assistant turn the last token is the same end-of-turn marker for every
    text, so what is read there is "the turn has ended". Refused; any other shared token (a full stop,
    `prompt_last`) warns.
    """
    prompts = [*reading.positive, *reading.negative]
    where = [pool_positions(reading.pooling, p) for p in prompts]
    read = {tuple(p.tokens[i] for i in at) for p, at in zip(prompts, where, strict=True)}
    if len(read) > 1:
        return
    concept = reading.contrast.concept
    if reading.contrast.answers and any(_markup(p, at[-1], reading.pooling) for p, at in zip(prompts, where)):
        raise InputError(
            f"pooling {reading.pooling!r} reads the same token for every text of {concept!r}: the chat "
            "template ends "
            "each assistant turn with the same marker; use --pooling last_content or mean_assistant"
        )
    warnings.warn(
        f"every text of {concept!r} is read at the same token ({reading.pooling}); that is fine for a "
        "shared full stop "
        "or prompt_last, where what came before makes the difference",
        ReadingWarning,
        stacklevel=3,
    )


def _markup(prompt: Prompt, position: int, pooling: str) -> bool:
    """Whether a position lies outside every message; without spans, whether it is the end."""
    if prompt.spans is None:
        return re.fullmatch(r"last|prompt_last|last_\d+", pooling) is not None
    return prompt.roles()[int(position)] is None
