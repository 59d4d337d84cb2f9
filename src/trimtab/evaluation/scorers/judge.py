"""A model as judge: a rubric, a mark with its expectation over the judge's own probabilities, and no default mark.

Two rubrics ask for 0 to 100, whether the answer shows a trait and whether it is coherent; one asks for 0 to 3, whether
a role is played. With log-probabilities the mark is Σ n p(n) ÷ Σ p(n) over the whole numbers among the likeliest first
tokens, where they hold at least a quarter of the mass. A judge that writes a number in several tokens ("8", "5") is
read from its text instead: the first digit alone would be taken for the mark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.scorers.endpoint import Answer, Endpoint, Estimate
from trimtab.evaluation.scorers.scorer import Answered, Mark, TextScorer

#: Whole numbers must hold this much of the probability, or their expectation is of something else.
MIN_NUMERIC = 0.25
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_END = (
    "If the answer refuses to answer the question, write REFUSAL. Otherwise write one whole number from {low} to "
    "{high} and nothing else.\n\n[Question]\n{question}\n\n[Answer]\n{answer}\n"
)


@dataclass(frozen=True)
class Rubric:
    """A template with {question} and {answer}, and the range of the mark."""

    name: str
    template: str
    low: int = 0
    high: int = 100

    def __post_init__(self) -> None:
        missing = [f for f in ("{question}", "{answer}") if f not in self.template]
        if missing or self.low >= self.high:
            raise InputError(
                f"rubric {self.name!r} needs {{question}}, {{answer}} and low < high; lacks {missing}"
            )

    def messages(self, row: Answered) -> list[dict[str, str]]:
        """What the judge reads: never the condition. Braces in a text are text."""
        parts = {"question": row.question, "answer": row.answer, "low": str(self.low), "high": str(self.high)}
        text = re.sub(r"\{(question|answer|low|high)\}", lambda m: parts[m[1]], self.template)
        return [{"role": "user", "content": text}]


def trait(name: str, description: str = "") -> Rubric:
    """How much an answer shows a trait, 0 (not at all) to 100 (strongly)."""
    told = f"{name}: {description}" if description else name
    opening = (
        f"Judge how strongly the answer below shows this trait.\n\n[Trait]\n{told}\n\n"
        "{low} means that the trait is absent, {high} that it is as strong as it can be. Judge the trait alone, not "
        "whether the answer is good.\n"
    )
    return Rubric(f"trait {name}", opening + _END)


COHERENCE = Rubric(
    "coherence",
    "Judge how coherent the answer below is: whether it is fluent language, makes sense, and does not repeat itself. "
    "{low} means word salad, {high} faultless text. Do not judge whether it is right or kind.\n" + _END,
)


def role(name: str) -> Rubric:
    """How much an answer plays a role: 0 not at all, 1 names it, 2 partly, 3 fully."""
    opening = f"Judge how far the answer below is given in the role of: {name}.\n\n"
    return Rubric(
        f"role {name}", opening + "0 is not at all, 1 names the role, 2 partly, 3 fully.\n" + _END, 0, 3
    )


@dataclass(frozen=True, eq=False)
class Judge(TextScorer):
    """One rubric on one endpoint. Rows are asked in an order that `seed` shuffles, `workers` at a time."""

    name = "judge"
    endpoint: Endpoint
    rubric: Rubric
    seed: int = 0
    workers: int = 4
    advance: Callable[[int], None] | None = None

    @property
    def identity(self) -> str:
        """Model, rubric, and whether marks are expectations."""
        how = "expected" if self.endpoint.logprobs else "written"
        return f"judge {self.endpoint.model}, {self.rubric.name}, {how} mark"

    def estimate(
        self, rows: Sequence[Answered], price_in: float | None = None, price_out: float | None = None
    ) -> Estimate:
        """Calls, tokens and cost, before anything is sent."""
        asked = {(r.question, r.answer): self.rubric.messages(r) for r in rows if r.answer.strip()}
        return self.endpoint.estimate(list(asked.values()), price_in, price_out)

    def score(self, rows: Sequence[Answered]) -> list[Mark]:
        """One mark per row; equal rows of several conditions are asked once."""
        distinct = list(dict.fromkeys((r.question, r.answer) for r in rows if r.answer.strip()))
        order = np.random.default_rng(self.seed).permutation(len(distinct))
        asked = [distinct[i] for i in order]

        def one(pair: tuple[str, str]) -> Mark:
            mark = read_mark(self.endpoint.ask(self.rubric.messages(Answered(*pair))), self.rubric)
            if self.advance is not None:
                self.advance(1)
            return mark

        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            try:
                found = dict(zip(asked, pool.map(one, asked)))
            except BaseException:  # a dead endpoint: do not wait for the retries of all that has not begun
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        empty = Mark(None, "empty answer")
        return [found.get((r.question, r.answer), empty) for r in rows]


def read_mark(answer: Answer, rubric: Rubric) -> Mark:
    """The mark in a judge's answer, or why there is none."""
    detail = {"raw": answer.text}
    if re.match(r"\W*refusal\b", answer.text, re.IGNORECASE):
        return Mark(None, "refusal", detail)
    written = _NUMBER.search(answer.text)
    if answer.tokens and not _in_pieces(answer, written):
        numbers = _numbers(answer, rubric)
        mass = math.fsum(numbers.values())
        detail = {**detail, "mass": mass, "by": "expectation"}
        if mass < MIN_NUMERIC:
            return Mark(None, "no number likely", detail)
        return Mark(math.fsum(n * p for n, p in numbers.items()) / mass, detail=detail)
    if written is None:
        return Mark(None, "no number written", detail)
    value = float(written[0])
    if not rubric.low <= value <= rubric.high:
        return Mark(None, "number out of range", detail)
    return Mark(value, detail={**detail, "by": "text"})


def _in_pieces(answer: Answer, written: re.Match[str] | None) -> bool:
    """Whether the number goes on after its first token."""
    first = str(answer.tokens[0].get("token", ""))
    return written is not None and first.strip().isdigit() and written[0] != first.strip()


def _numbers(answer: Answer, rubric: Rubric) -> dict[int, float]:
    """Probability of each whole number in range among the alternatives to the first token."""
    found: dict[int, float] = {}
    listed = answer.tokens[0].get("top_logprobs") or [answer.tokens[0]]
    for each in listed:
        text = str(each.get("token", "")).strip()
        if text.isascii() and text.isdigit() and rubric.low <= int(text) <= rubric.high:
            found[int(text)] = found.get(int(text), 0.0) + math.exp(float(each["logprob"]))
    return found


def rubric_of(kind: str, name: str = "", description: str = "") -> Rubric:
    """ "trait", "coherence" or "role", by name."""
    makers: dict[str, Callable[[], Rubric]] = {
        "trait": lambda: trait(name, description),
        "coherence": lambda: COHERENCE,
        "role": lambda: role(name),
    }
    if kind not in makers:
        raise UnknownName.of("rubric", kind, makers)
    if kind != "coherence" and not name:
        raise InputError(f"a {kind} rubric needs a name, for example --about honesty")
    return makers[kind]()
