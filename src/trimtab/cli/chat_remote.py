"""A chat with a server: the plan and the readout travel with every turn, and vectors are names that the server has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.errors import SteeringLost, TrimtabError, UnknownName
from trimtab.interventions import Add
from trimtab.plans import Placement, SteeringPlan

from . import steering
from .chat_local import Piece, plan_lines, unit_words
from .models import layer_words
from .servers import asked, server_error

if TYPE_CHECKING:
    import httpx

    from trimtab.engines.requests import Message, Sampling


class Remote:
    """The other side is a server of `trimtab serve`, or vLLM's with our plugin."""

    def __init__(self, client: httpx.Client) -> None:
        self.client, self.name = client, str(client.base_url)
        models = asked(client, "GET", "/v1/models")["data"]
        self.model = str(models[0]["id"])
        self._readout: dict[str, Any] | None = None

    def placement(self, reference: str, dose: float, layers: str | None) -> Placement:
        """An addition of a vector that the server has loaded."""
        found = Placement(Add(dose=dose), reference, layers=layers)
        self.check(SteeringPlan((found,)))
        return found

    def load(self, path: str) -> SteeringPlan:
        """A plan from a file of this machine; its vectors are the server's."""
        plan = steering.read_plan(path)
        self.check(plan)
        return plan

    def check(self, plan: SteeringPlan) -> list[str]:
        """The server's own preview of the plan."""
        messages = [{"role": r, "content": "."} for r in ("user", "assistant", "user")]
        body = {"steering": plan.to_json(), "messages": messages}
        found = asked(self.client, "POST", "/v1/steering/preview", json=body)
        return plan_lines(found["placements"], None)

    def read(self, names: Sequence[str]) -> str:
        """Concepts of what the server reads by default."""
        self._readout = None
        if not names:
            return "reading nothing"
        known = asked(self.client, "GET", "/v1/readout/manifest")
        for name in names:
            if name not in known["concepts"]:
                raise UnknownName.of("concept", name, known["concepts"])
        self._readout = {"concepts": list(names), "layers": known["default_layers"], "z": known["z"]}
        where = layer_words(known["default_layers"][0], None)
        return f"reading {', '.join(names)} at {where}, {unit_words(known['z'])}"

    def reply(self, messages: Sequence[Message], plan: SteeringPlan, sampling: Sampling) -> Iterator[Piece]:
        """The chunks of a stream. A server that does not say what it applied did not know the plan."""
        import httpx

        body: dict[str, Any] = {
            "model": self.model, "messages": list(messages), "stream": True, "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed,
            "steering": plan.to_json(),
        }  # fmt: skip
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self._readout is not None:
            body["readout"] = self._readout
        applied, finish, rules = None, None, []
        try:
            with self.client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise server_error(answer.status_code, answer.text, "/v1/chat/completions")
                for line in answer.iter_lines():
                    chunk = _chunk(line)
                    if chunk is None:
                        continue
                    applied, rules = chunk.get("steering_applied", applied), chunk.get("rules", rules)
                    for choice in chunk.get("choices", []):
                        finish = choice.get("finish_reason") or finish
                        yield from self._pieces(choice)
        except httpx.HTTPError as error:
            raise TrimtabError(f"{self.name} broke off: {type(error).__name__}: {error}") from error
        if applied is None:
            raise SteeringLost(f"{self.name} does not say what it applied: is trimtab part of it?")
        yield Piece("", applied=applied, receipt=tuple(receipt_lines(applied, rules)), finish=finish)

    def _pieces(self, choice: dict[str, Any]) -> Iterator[Piece]:
        """A chunk's text with the reading of its last token, after those of the others in it."""
        text = choice.get("delta", {}).get("content") or ""
        values = choice.get("readout", {}).get("values")
        if self._readout is None or not values:
            yield Piece(text)
            return
        for i, table in enumerate(values):
            row = [] if table is None else [math.nan if v is None else float(v) for v in table[0]]
            reading = dict(zip(self._readout["concepts"], row, strict=False))
            yield Piece(text if i == len(values) - 1 else "", reading, bool(self._readout["z"]))


def _chunk(line: str) -> dict[str, Any] | None:
    if not line.startswith("data: ") or line == "data: [DONE]":
        return None
    chunk = json.loads(line[len("data: ") :])
    if "error" in chunk:
        raise SteeringLost(f"the server ended the reply: {chunk['error'].get('message', chunk['error'])}")
    return chunk


def receipt_lines(applied: dict[str, Any], rules: Sequence[dict[str, Any]] = ()) -> list[str]:
    """`steering_applied` of an answer, and the rules that fired, for a reader."""
    lines = []
    if applied["vectors"]:
        doses = {k: "" if v is None else f" dose {v:+.3g}" for k, v in applied["dose"].items()}
        said = ", ".join(f"{v}{doses.get(v, '')}" for v in applied["vectors"])
        lines = [
            f"{said} at {', '.join(layer_words(n, None) for n in applied['layers'])}",
            f"{applied['tokens_steered']} tokens steered, fingerprint {applied['fingerprint']}",
        ]
    for r in rules:
        done = ", ".join(a if isinstance(a, str) else " ".join([*a][:1]) for a in r["then"])
        lines.append(f"rule {r['rule']} fired at position {r['position']} ({r['value']:+.2f}): {done}")
    return lines or ["not steered"]
