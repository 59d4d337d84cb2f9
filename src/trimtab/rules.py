"""Rules: when a reading passes a threshold for some tokens, do something. Values: no engine, no clock, no text.

A rule looks at one coordinate of the readings, token by token: when it (or its moving mean) lies above or below a
number for k tokens in a row, the rule fires, and its actions are what the host of the generation should do: `tag` or
`log` the reply, `abort` it, or `steer` it from the next token on. The state that was read has emitted its token
already, so a plan that a rule switches on acts first on the state after it.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError, UnknownName
from trimtab.plans import SteeringPlan

UNITS = ("z", "raw")
ACTIONS = ("tag", "log", "abort", "steer")
_TEXT = re.compile(
    r"""^\s*(?P<concept>[^<>@]+?)(?:@(?P<layer>\d+))?\s+(?P<unit>z|raw)(?:\s+mean\s+(?P<mean>\d+))?
    \s*(?P<side>[<>])\s*(?P<value>[-+]?[\d.]+(?:e[-+]?\d+)?)
    (?:\s+for\s+(?P<tokens>\d+)(?:\s+tokens?)?)?\s*(?:->|→)\s*(?P<then>.+?)\s*$""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Condition:
    """One reading against one number.

    `layer` may be left out where one layer is read. `unit` must be the unit of the readings. `mean` is the length, in
    tokens, of a moving mean, judged only once it is full; `tokens` is how many tokens in a row must pass. A reading
    that is missing (NaN) passes nothing and empties the mean.
    """

    concept: str
    above: float | None = None
    below: float | None = None
    layer: int | None = None
    unit: str = "z"
    mean: int = 1
    tokens: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.concept, str) or not self.concept:
            raise InputError(f"a condition names a concept, got {self.concept!r}")
        if (self.above is None) == (self.below is None):
            raise InputError(f"the condition on {self.concept!r} needs one of 'above' and 'below'")
        if self.unit not in UNITS:
            raise UnknownName.of("unit", self.unit, UNITS)
        for name in ("above", "below"):
            value = getattr(self, name)
            if value is not None and not (_number(value) and math.isfinite(value)):
                raise InputError(f"{name!r} of the condition on {self.concept!r} is a number, got {value!r}")
        for name, least in (("mean", 1), ("tokens", 1), ("layer", 0)):
            value = getattr(self, name)
            if value is None and name == "layer":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(
                    f"{name!r} of the condition on {self.concept!r} is a whole number from {least} on, got {value!r}"
                )

    def passes(self, value: float) -> bool:
        """Whether one (mean) reading lies on the named side; equality does not."""
        return value > self.above if self.above is not None else value < (self.below or 0.0)


@dataclass(frozen=True, eq=False)
class Action:
    """What a firing asks for. `label` is a tag's text; `plan` what `steer` switches on (a plan, or a name that the
    host knows)."""

    kind: str
    label: str | None = None
    plan: SteeringPlan | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ACTIONS:
            raise UnknownName.of("action", self.kind, ACTIONS)
        if (self.kind == "tag") != bool(self.label):
            raise InputError(
                f"the action 'tag' has a text, and no other action has one: got {self.to_json()!r}"
            )
        if (self.kind == "steer") != (self.plan is not None):
            raise InputError("the action 'steer' has a plan or its name, and no other action has one")

    @classmethod
    def from_json(cls, given: Any) -> Action:
        """From `"log"`, `"abort"`, `{"tag": text}` or `{"steer": plan or name}`."""
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, Mapping) or len(given) != 1:
            raise InputError(f'an action is "log", "abort", {{"tag": …}} or {{"steer": …}}, got {given!r}')
        ((kind, value),) = given.items()
        if kind == "tag" and isinstance(value, str):
            return cls(kind, label=value)
        if kind == "steer":
            return cls(kind, plan=value if isinstance(value, str) else SteeringPlan.from_json(value))
        raise InputError(f'an action is "log", "abort", {{"tag": …}} or {{"steer": …}}, got {given!r}')

    def to_json(self) -> Any:
        """The form that `from_json` reads."""
        if self.kind == "tag":
            return {"tag": self.label}
        if self.kind == "steer":
            return {
                "steer": self.plan if isinstance(self.plan, str) or self.plan is None else self.plan.to_json()
            }
        return self.kind


@dataclass(frozen=True, eq=False)
class Rule:
    """`name`, `when` and what `then`. It fires once in a reply; with `again`, each time the condition holds anew."""

    name: str
    when: Condition
    then: tuple[Action, ...]
    again: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a rule needs a name, got {self.name!r}")
        if not self.then:
            raise InputError(
                f"the rule {self.name!r} does nothing: name an action, one of {', '.join(ACTIONS)}"
            )

    @classmethod
    def from_json(cls, given: Any) -> Rule:
        """From `{"name", "when": {concept, above | below, …}, "then": action or list, "again"}`; unknown keys are
        refused. A text is read by `parse`."""
        if isinstance(given, str):
            return cls.parse(given)
        if not isinstance(given, Mapping):
            raise InputError(f"a rule is an object with 'name', 'when' and 'then', or a text, got {given!r}")
        known = {"name", "when", "then", "again"}
        for key in given:
            if key not in known:
                raise UnknownName.of("key of a rule", str(key), sorted(known))
        missing = {"name", "when", "then"} - set(given)
        if missing:
            raise InputError(f"the rule {given.get('name', '')!r} lacks {', '.join(sorted(missing))}")
        when = given["when"]
        if not isinstance(when, Mapping):
            raise InputError(f"'when' of the rule {given['name']!r} is an object, got {when!r}")
        fields = set(Condition.__dataclass_fields__)
        for key in when:
            if key not in fields:
                raise UnknownName.of("key of a condition", str(key), sorted(fields))
        if "concept" not in when:
            raise InputError(f"'when' of the rule {given['name']!r} lacks 'concept'")
        again = given.get("again", False)
        if not isinstance(again, bool):
            raise InputError(f"'again' of the rule {given['name']!r} is true or false, got {again!r}")
        then = given["then"] if isinstance(given["then"], list | tuple) else [given["then"]]
        return cls(given["name"], Condition(**when), tuple(map(Action.from_json, then)), again)

    @classmethod
    def parse(cls, text: str) -> Rule:
        """From a line such as `anger@12 z mean 4 > 2.5 for 3 tokens -> tag angry, log`; the line is its name.

        Actions: `tag TEXT`, `log`, `abort`, `steer NAME`.
        """
        found = _TEXT.match(text)
        if found is None:
            raise InputError(
                f"cannot read the rule {text!r}; write it as: anger z > 2.5 for 3 tokens -> abort"
            )
        part = found.groupdict()
        side = "above" if part["side"] == ">" else "below"
        try:
            value = float(part["value"])
        except ValueError:
            raise InputError(f"{part['value']!r} in the rule {text!r} is not a number") from None
        when = Condition(
            part["concept"].strip(), **{side: value}, layer=None if part["layer"] is None else int(part["layer"]),
            unit=part["unit"].lower(), mean=int(part["mean"] or 1), tokens=int(part["tokens"] or 1),
        )  # fmt: skip
        return cls(" ".join(text.split()), when, tuple(map(_action, part["then"].split(","))))

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads; defaults are left out."""
        usual = {n: f.default for n, f in Condition.__dataclass_fields__.items()}
        when = {n: v for n in usual if (v := getattr(self.when, n)) != usual[n] or n in ("concept", "unit")}
        then = [a.to_json() for a in self.then]
        return {"name": self.name, "when": when, "then": then[0] if len(then) == 1 else then} | (
            {"again": True} if self.again else {}
        )


def load_rules(text: str) -> tuple[Rule, ...]:
    """Rules from the text of a file: a JSON list of rules, or one line per rule, `#` starting a comment line."""
    if text.lstrip().startswith("["):
        try:
            given = json.loads(text)
        except ValueError as error:
            raise InputError(f"the rules are not JSON: {error}") from error
        rules = tuple(map(Rule.from_json, given))
    else:
        lines = (line.strip() for line in text.splitlines())
        rules = tuple(Rule.parse(line) for line in lines if line and not line.startswith("#"))
    names = [r.name for r in rules]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"two rules are called {twice!r}")
    if not rules:
        raise InputError("there are no rules; write one as: anger z > 2.5 for 3 tokens -> abort")
    return rules


@dataclass(frozen=True, eq=False)
class Firing:
    """A rule that fired: at the absolute `position` of the state that was read, with the (mean) reading `value`."""

    rule: Rule
    position: int
    value: float

    def to_json(self) -> dict[str, Any]:
        """`{rule, position, value, then}`, for a log or a chunk."""
        return {
            "rule": self.rule.name,
            "position": self.position,
            "value": self.value,
            "then": [a.to_json() for a in self.rule.then],
        }


class Watch:
    """Rules over one reply. `layers` and `concepts` name the axes of every row [L, C] that `see` is shown."""

    def __init__(
        self, rules: Sequence[Rule], layers: Sequence[int], concepts: Sequence[str], unit: str
    ) -> None:
        self._tracks = [_Track(r, *_place(r, layers, concepts, unit)) for r in rules]

    def see(self, position: int, row: Any) -> list[Firing]:
        """What fires on the readings [L, C] of the state at `position`; states come in order, one at a time."""
        fired = []
        for track in self._tracks:
            value = track.see(float(row[track.layer][track.concept]))
            if value is not None:
                fired.append(Firing(track.rule, int(position), value))
        return fired

    def see_all(self, positions: Iterable[int], rows: Iterable[Any]) -> list[Firing]:
        """What fires on several states [T, L, C], in order."""
        return [f for p, row in zip(positions, rows, strict=True) for f in self.see(p, row)]


class _Track:
    def __init__(self, rule: Rule, layer: int, concept: int) -> None:
        self.rule, self.layer, self.concept = rule, layer, concept
        self._last: deque[float] = deque(maxlen=rule.when.mean)
        self._run = 0
        self._over = False

    def see(self, value: float) -> float | None:
        """The mean reading, where it makes the rule fire."""
        when = self.rule.when
        if math.isnan(value):
            self._last.clear()
            self._run = 0
            return None
        self._last.append(value)
        if len(self._last) < when.mean:
            return None
        mean = math.fsum(self._last) / when.mean
        if not when.passes(mean):
            self._run = 0
            return None
        self._run += 1
        if self._run != when.tokens or self._over:
            return None
        self._over = not self.rule.again
        return mean


def _place(rule: Rule, layers: Sequence[int], concepts: Sequence[str], unit: str) -> tuple[int, int]:
    when = rule.when
    if when.unit != unit:
        raise InputError(f"the rule {rule.name!r} is about {when.unit} readings, and these are {unit}")
    if when.concept not in concepts:
        raise UnknownName.of(f"concept of the rule {rule.name!r}", when.concept, concepts)
    if when.layer is None:
        if len(layers) != 1:
            raise InputError(
                f"the rule {rule.name!r} must name one of the layers read: {', '.join(map(str, layers))}"
            )
        return 0, list(concepts).index(when.concept)
    if when.layer not in layers:
        raise UnknownName.of(f"layer of the rule {rule.name!r}", str(when.layer), list(map(str, layers)))
    return list(layers).index(when.layer), list(concepts).index(when.concept)


def _action(text: str) -> Action:
    kind, _, rest = text.strip().partition(" ")
    if kind == "tag":
        return Action(kind, label=rest.strip())
    if kind == "steer":
        return Action(kind, plan=rest.strip() or None)
    if rest:
        raise InputError(
            f"the action {text.strip()!r} is not known; actions: tag TEXT, log, abort, steer NAME"
        )
    return Action(kind)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
