"""Sums of concepts as a person writes them: "calm joy = happy - 0.5*angry". No code is run: a small parser over
names, numbers, + − * and brackets.
"""

from __future__ import annotations

import re

from trimtab.algebra.arithmetic import weighted_sum
from trimtab.directions import ConceptVectors
from trimtab.errors import InputError


def evaluate(expression: str, vectors: ConceptVectors) -> ConceptVectors:
    """One concept from "[name =] happy - 0.5*sad": names, numbers, + − * and brackets, nothing else.

    Names with other characters than letters, digits, "_", "." are written in quotes. Without `name =` the result is
    called as the expression.
    """
    head, equals, body = expression.partition("=")
    name = _unquoted(head.strip()) if equals else expression.strip()
    if not name:
        raise InputError(f"{expression!r} gives its result no name")
    total = _Parser(body if equals else expression).whole()
    if None in total or not total:
        raise InputError(f"{expression!r} is a number, not a vector")
    return weighted_sum(vectors, {str(c): w for c, w in total.items()}, name)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([^\W\d][\w.]*)|'([^']+)'|\"([^\"]+)\"|([-+*()−×]))"
)
_SAME = {"−": "-", "×": "*"}


class _Parser:
    """Recursive descent over sums of products; a value is {concept: weight}, with None for a plain number."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, at = text, [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise InputError(f"{text!r}: cannot read {text[at:].strip()!r}; write e.g. happy - 0.5*sad")
            number, *names, sign = match.groups()
            name = next((n for n in names if n is not None), None)
            self.tokens.append(
                float(number) if number else ("name", name) if name is not None else _SAME.get(sign, sign)
            )
            at = match.end()

    def whole(self) -> dict[str | None, float]:
        total = self.sum()
        if self.tokens:
            raise InputError(f"{self.text!r}: {_shown(self.tokens[0])} stands where + − * was expected")
        return total

    def sum(self) -> dict[str | None, float]:
        total: dict[str | None, float] = {}
        sign = self.sign()
        while True:
            for concept, weight in self.product().items():
                total[concept] = total.get(concept, 0.0) + sign * weight
            if not self.tokens or self.tokens[0] not in ("+", "-"):
                break
            sign = self.sign()
        if None in total and len(total) > 1:
            raise InputError(f"{self.text!r} adds a number to a vector")
        return total

    def sign(self) -> float:
        sign = 1.0
        while self.tokens and self.tokens[0] in ("+", "-"):
            sign = -sign if self.tokens.pop(0) == "-" else sign
        return sign

    def product(self) -> dict[str | None, float]:
        value = self.atom()
        while self.tokens and self.tokens[0] == "*":
            self.tokens.pop(0)
            sign, other = self.sign(), self.atom()
            if None not in value and None not in other:
                raise InputError(f"{self.text!r} multiplies two vectors; only a number times a vector is one")
            factor, rest = (value[None], other) if None in value else (other[None], value)
            value = {c: sign * factor * w for c, w in rest.items()}
        return value

    def atom(self) -> dict[str | None, float]:
        token = self.tokens.pop(0) if self.tokens else None
        if isinstance(token, float):
            return {None: token}
        if isinstance(token, tuple):
            return {token[1]: 1.0}
        if token == "(":
            inside = self.sum()
            if not self.tokens or self.tokens.pop(0) != ")":
                raise InputError(f"{self.text!r}: a bracket is not closed")
            return inside
        raise InputError(f"{self.text!r}: a name or a number is missing")


def _shown(token: object) -> str:
    return repr(token[1] if isinstance(token, tuple) else token)
