"""A conversation with a plan and readings that change between its turns: the commands, and what is kept of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, UnknownName
from trimtab.plans import Placement, SteeringPlan
from trimtab.records import finite

from .chat_local import Piece, Side, number
from .frame import Desk
from .places import check_writable

if TYPE_CHECKING:
    from trimtab.engines.requests import Message, Sampling

HELP = """\
/steer FILE:concept dose [layers]   add a concept (dose 0: take it away again)
/plan [FILE]                        show the plan, or take one from a file
/off                                no plan
/read FILE[:concept] [concept ...]  read every token; the first concept tints; without names: nothing
/undo                               forget the last question and its reply
/seed N                             seed of the next replies
/save FILE                          the conversation with plans, receipts and readings, as JSON
/help, /quit"""


@dataclass(eq=False)
class Session:
    """Messages so far, and one record for every reply."""

    desk: Desk
    side: Side
    sampling: Sampling
    messages: list[Message] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    base: SteeringPlan = field(default_factory=SteeringPlan)
    added: dict[str, Placement] = field(default_factory=dict)
    read: str = "reading nothing"

    @property
    def plan(self) -> SteeringPlan:
        """The file's placements, then what was added."""
        return self.base | SteeringPlan(tuple(self.added.values()))

    def take(self, line: str) -> bool:
        """Do what a line says; False ends the conversation."""
        line = line.strip()
        if not line.startswith("/"):
            if line:
                self.say(line)
            return True
        name, *words = line[1:].split()
        if name in ("quit", "exit"):
            return False
        commands: dict[str, Callable[[list[str]], None]] = {
            "steer": self._steer, "plan": self._plan, "off": self._off, "read": self._read, "undo": self._undo,
            "seed": self._seed, "save": self._save, "help": lambda _: self.desk.note(HELP),
        }  # fmt: skip
        if name not in commands:
            raise UnknownName.of("command", f"/{name}", [f"/{c}" for c in (*commands, "quit")])
        commands[name](words)
        return True

    # --- commands -------------------------------------------------------------------------------------------

    def _steer(self, words: list[str]) -> None:
        if not 2 <= len(words) <= 3:
            raise InputError("write /steer FILE:concept dose [layers], e.g. /steer feelings:happy 0.5 12-16")
        reference, dose = words[0], number(words[1], "the dose")
        if dose == 0:
            if self.added.pop(reference, None) is None:
                raise UnknownName.of("steering", reference, self.added)
        else:
            self.added[reference] = self.side.placement(
                reference, dose, words[2] if len(words) == 3 else None
            )
        self._show_plan()

    def _plan(self, words: list[str]) -> None:
        if words:
            self.base, self.added = self.side.load(" ".join(words)), {}
        self._show_plan()

    def _show_plan(self) -> None:
        for line in self.side.check(self.plan):
            self.desk.note(line)

    def _off(self, words: list[str]) -> None:
        self.base, self.added = SteeringPlan(), {}
        self._show_plan()

    def _read(self, words: list[str]) -> None:
        self.read = self.side.read(words)
        self.desk.note(self.read)

    def _undo(self, words: list[str]) -> None:
        if not self.replies:
            raise InputError("there is nothing to undo")
        self.replies.pop()
        del self.messages[-2:]
        self.desk.note(f"{len(self.replies)} replies are left")

    def _seed(self, words: list[str]) -> None:
        if len(words) != 1 or not words[0].lstrip("-").isdecimal():
            raise InputError("write /seed N, with a whole number")
        self.sampling = replace(self.sampling, seed=int(words[0]))
        self.desk.note(f"seed {self.sampling.seed}")

    def _save(self, words: list[str]) -> None:
        if not words:
            raise InputError("write /save FILE")
        path = check_writable(Path(" ".join(words)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(finite(self.record()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        self.desk.note(f"wrote {path}: {len(self.replies)} replies")

    # --- turns ----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """One turn. What is wrong leaves the conversation as it was; an interrupted reply is kept as far as it came."""
        asked = [*self.messages, {"role": "user", "content": text}]
        pieces: list[Piece] = []
        stream: Any = self.side.reply(asked, self.plan, self.sampling)
        try:
            for piece in stream:
                pieces.append(piece)
                self._show(piece)
        except KeyboardInterrupt:
            self.desk.note("\ninterrupted: the reply ends here")
        finally:
            stream.close()
            if pieces:
                self.desk.print()
        reply = "".join(p.text for p in pieces)
        self.messages = [*asked, {"role": "assistant", "content": reply}]
        self.replies.append(self._kept(text, reply, pieces))
        for line in (*_means(pieces), *(pieces[-1].receipt if pieces else ())):
            self.desk.note(line)

    def _show(self, piece: Piece) -> None:
        from rich.text import Text

        from trimtab.strips.terminal import tint

        first = next(iter(piece.reading.values()), 0.0)
        style = tint(first) if piece.z else ""
        # Only what is tinted goes through a renderer, which would fold lines and trim spaces.
        self.desk.print(Text(piece.text, style=style) if style and piece.text else piece.text, end="")

    def _kept(self, text: str, reply: str, pieces: list[Piece]) -> dict[str, Any]:
        read = [p for p in pieces if p.reading]
        last = pieces[-1] if pieces else Piece("")
        return {
            "question": text,
            "reply": reply,
            "seed": self.sampling.seed,
            "plan": self.plan.to_json(),
            "finish": last.finish or "interrupted",
            "steering_applied": last.applied,
            "readings": {
                "unit": "z" if read[0].z else "raw",
                "tokens": [{"text": p.text, "values": p.reading} for p in read],
            }
            if read
            else None,
        }

    def record(self) -> dict[str, Any]:
        """The conversation, for a file or `--json`."""
        return {"model": self.side.name, "messages": list(self.messages), "replies": self.replies}


def _means(pieces: list[Piece]) -> list[str]:
    """The mean of every concept over a reply, in one line."""
    read = [p for p in pieces if p.reading]
    if not read:
        return []
    known = {c: [v for p in read if math.isfinite(v := p.reading[c])] for c in read[0].reading}
    said = ", ".join(f"{c} {sum(v) / len(v):+.2f}" if v else f"{c} –" for c, v in known.items())
    return [f"mean {'z' if read[0].z else 'raw'}: {said}"]
