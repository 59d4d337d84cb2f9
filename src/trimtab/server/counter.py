"""The counter behind the door: one model with its library, its default plan and its limits, whatever serves it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError, TrimtabError
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt, Range, resolve_positions
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.server import wire
from trimtab.server.captures import Captures
from trimtab.server.feed import Feed
from trimtab.server.joint import Joint
from trimtab.server.library import Library
from trimtab.server.ruling import Ruling, grouped, operator_rules, switched
from trimtab.server.selection import Selection, model_layers, select
from trimtab.server.settings import Settings
from trimtab.sites import ModelInfo


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be done with one prompt: the plan, the reading, and the states to keep."""

    prompt: Prompt
    plan: ResolvedPlan
    selection: Selection | None = None
    layers: tuple[int, ...] = ()
    ranges: tuple[Range, ...] = ()
    at: str = "after"
    ruling: Ruling | None = None

    @property
    def tells(self) -> bool:
        """Whether the model's worker has anything to do with it."""
        return bool(self.plan.effective or self.selection or self.layers or self.ruling)

    def joint(self, *more: Readout) -> Joint | None:
        """All that is read of this prompt in one pass: for the answer, then for the rules, then `more`."""
        parts = [] if self.selection is None else [self.selection.readout]
        first, ruling = len(parts), self.ruling
        parts += [*([] if ruling is None else [g.readout for g in ruling.groups]), *more]
        if not parts:
            return None
        joint = Joint.of(parts)
        if ruling is not None:
            ruling.bind(joint, first)
        return joint

    def rows(self, length: int) -> int:
        """How many of the first `length` positions are captured."""
        return sum(max(0, (length if b is None else min(b, length)) - a) for a, b in self.ranges)


@contextlib.contextmanager
def _named(field: str) -> Iterator[None]:
    """What is wrong says in which field."""
    try:
        yield
    except TrimtabError as error:
        text = str(error)
        raise InputError(text if field in text else f"{field}: {text}") from error


class Counter:
    """Takes the fields of a request apart, and says in words what is wrong with them."""

    def __init__(self, info: ModelInfo, settings: Settings | None = None) -> None:
        self.info = info
        self.settings = settings or Settings.from_environment()
        self.library = Library(info, self.settings)
        self.captures = Captures(self.settings)
        self.default: SteeringPlan | None = None
        self.rules = () if self.settings.rules is None else operator_rules(self.settings.rules)
        default = self.library.get(self.library.default or "")
        self.feed = Feed(default, info) if self.settings.feed else None
        # What cannot hold for any request stops the server, and not its first request.
        grouped(self.rules, default, info)
        switched(self.rules, self.resolve, Prompt((0,)))

    def parse(self, found: Mapping[str, Any]) -> wire.Fields:
        """The fields of a request (`wire.take`), checked as far as they can be without its prompt."""
        return wire.parse(found, self.settings)

    def order(self, fields: wire.Fields, prompt: Prompt) -> Order:
        """Everything resolved for one prompt."""
        plan = fields.steering if fields.steering is not None else self.default
        resolved = EMPTY if plan is None else self.resolve(plan, prompt)
        selection = None
        if fields.readout is not None:
            with _named("readout"):
                selection = select(fields.readout, self.library, self.library.default, self.info)
        layers: tuple[int, ...] = ()
        ranges: tuple[Range, ...] = ()
        if fields.capture is not None:
            with _named("capture"):
                layers = model_layers(fields.capture.layers, self.info)
                ranges = resolve_positions(fields.capture.positions, prompt)
        at = "after" if fields.capture is None else fields.capture.at
        ruling = self._ruling(fields, prompt, resolved, selection)
        return Order(prompt, resolved, selection, layers, ranges, at, ruling)

    def _ruling(
        self, fields: wire.Fields, prompt: Prompt, plan: ResolvedPlan, selection: Selection | None
    ) -> Ruling | None:
        """The operator's rules read with the default vectors, a request's with those of its own readout."""
        if not self.rules and not fields.rules:
            return None
        with _named("rules"):
            twice = {r.name for r in self.rules} & {r.name for r in fields.rules}
            if twice:
                raise InputError(
                    f"the operator has a rule that is called {min(twice)!r}; choose another name"
                )
            field, layer = fields.readout, None
            name = (field and field.vectors) or self.library.default
            if selection is not None and len(selection.layers) == 1:
                layer = selection.layers[0]
            groups = [
                *grouped(self.rules, self.library.get(self.library.default or ""), self.info),
                *grouped(fields.rules, self.library.get(name or ""), self.info, layer),
            ]
            if selection is not None and selection.readout.at != "after":
                raise InputError("rules are judged after the edits: readout.at is 'after' with them")
            steer = switched((*self.rules, *fields.rules), self.resolve, prompt)
        return Ruling(secrets.token_hex(8), plan, groups, steer)

    def resolve(self, plan: SteeringPlan, prompt: Prompt) -> ResolvedPlan:
        """A plan's names, layers and positions as numbers; what is wrong says which placement it is."""
        try:
            return plan.resolve(prompt, self.library, self.info)
        except (TrimtabError, *wire.MALFORMED):
            for i, placement in enumerate(plan.placements):
                try:
                    SteeringPlan((placement,)).resolve(prompt, self.library, self.info)
                except TrimtabError as error:
                    raise InputError(f"steering.placements[{i}]: {error}") from error
                except wire.MALFORMED as error:
                    kind = type(error).__name__
                    raise InputError(f"steering.placements[{i}] is malformed: {kind}: {error}") from error
            raise

    def needs_roles(self, fields: wire.Fields) -> bool:
        """Whether anything is placed by a message's role."""
        plan = fields.steering if fields.steering is not None else self.default
        places = [p.positions for p in plan.placements] if plan is not None else []
        if fields.capture is not None:
            places.append(fields.capture.positions)
        return any(isinstance(p, Mapping) and "role" in p for p in places)

    def set_default(self, data: Any) -> None:
        """The plan of requests that name none; None for no plan. Every name in it must be known, and stay."""
        if data is None:
            self.default = None
            return
        plan = wire.plan_of(data, self.settings)
        if any(isinstance(p.positions, Mapping) and "role" in p.positions for p in plan.placements):
            raise InputError(
                "the default plan meets prompts without messages, so it cannot be placed by role"
            )
        self.resolve(plan, Prompt((0,)))
        self.default = plan

    def unload(self, name: str) -> None:
        """Forget a vector file, unless the default plan needs it."""
        kept = self.library.get(name)
        self.library.unload(name)
        if self.default is None or kept is None:
            return
        try:
            self.resolve(self.default, Prompt((0,)))
        except TrimtabError as error:
            self.library[name] = kept
            raise InputError(f"the server's default plan needs {name!r}; change it first: {error}") from error
