"""The remote engine: plans are resolved here, against the server's description of its model; the rest runs there."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.remote.connection import Connection
from trimtab.engines.remote.forms import identity, info_of, plan_form, prompt_of
from trimtab.engines.remote.packing import MEDIA, Tensors, pack, unpack
from trimtab.engines.remote.receipts import check_answer
from trimtab.engines.remote.streams import Streams
from trimtab.engines.requests import Event, Message, Request, Score
from trimtab.errors import InputError, TrimtabError, Unsupported
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

#: The form of the routes under /v1/engine that this engine speaks.
SCHEMA = 1
#: Prompts in one call that captures or scores, and bytes that its answer should not exceed.
CALL, ANSWER = 64, 64 << 20
T = TypeVar("T")


class RemoteEngine(Engine):
    """A model behind `trimtab serve`. It holds no weights: `weight`, `gradient` and methods that need them raise
    `Unsupported`. Calls may run side by side, from any number of threads."""

    name = "remote"

    def __init__(self, line: Connection) -> None:
        self.line = line
        about = line.get("/v1/engine")
        if about.get("schema") != SCHEMA:
            raise Unsupported(
                f"{line.url} speaks form {about.get('schema')!r} of the engine routes, this trimtab {SCHEMA}: "
                "bring both to the same version"
            )
        try:
            super().__init__(info_of(about["model"]))
            self.served = str(about["engine"])
            self._modules = {Site.from_key(k): str(v) for k, v in about["modules"].items()}
            self._answer_bytes = min(ANSWER, int(about["answer_bytes"]))
            group = int(about["group"])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise TrimtabError(
                f"the description that {line.url} gives of its model is damaged: {error!r}"
            ) from error
        self._lock: Any = contextlib.nullcontext()  # the server has its own queue
        self._identity = identity(self.info)
        self._streams = Streams(line, self._identity, group)
        self._text = functools.lru_cache(4096)(self._encoded)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | Sequence[str],
        *,
        api_key: str | None = None,
        timeout: float = 300.0,
        retries: int = 4,
        concurrency: int = 4,
    ) -> Engine:
        """`model` is the server's address, http://HOST:PORT, or several (a list, or with commas between them) that
        serve the same model (`Mismatch` where they do not): a `Pool` of them. The key is TRIMTAB_API_KEY where none is
        given. The rest, for each server, as in `Connection`."""
        key = api_key or os.environ.get("TRIMTAB_API_KEY")
        with contextlib.ExitStack() as opened:
            servers = []
            for url in _addresses(model):
                line = Connection(url, key, timeout=timeout, retries=retries, concurrency=concurrency)
                opened.callback(line.close)
                servers.append(cls(line))
            if len(servers) == 1:
                found: Engine = servers[0]
            else:
                from trimtab.engines.remote.pool import Pool

                found = Pool(servers)
            opened.pop_all()
        return found

    def close(self) -> None:
        """Hang up; the server stays."""
        self.line.close()

    def module_names(self) -> dict[Site, str]:
        """As the served engine names them."""
        return dict(self._modules)

    # --- text -----------------------------------------------------------------------------------------------

    def _encoded(self, kind: str, text: str) -> Any:
        return self.line.post("/v1/engine/encode", {kind: text})

    def _encode_text(self, text: str) -> Prompt:
        return prompt_of(self._text("text", text))

    def _encode_continuation(self, text: str) -> Sequence[int]:
        return self._text("continuation", text)["tokens"]

    def _encode_messages(
        self, messages: Sequence[Message], generation_prompt: bool, prefill: str | None, thinking: bool | None
    ) -> Prompt:
        body = {"messages": [dict(m) for m in messages], "generation_prompt": generation_prompt}
        return prompt_of(
            self.line.post("/v1/engine/encode", {**body, "prefill": prefill, "thinking": thinking})
        )

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens, by the server's tokenizer."""
        body = {"tokens": [int(t) for t in tokens], "special": special}
        return self.line.post("/v1/engine/decode", body)["text"] if len(body["tokens"]) else ""

    # --- running --------------------------------------------------------------------------------------------

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        return self._streams.events(requests)

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        width = sum(self.info.width(s) for s in sites)
        groups = self._grouped(items, lambda item: 4 * width * len(item.positions))
        found = self._each(lambda group: self._captured(group, sites, at, mean=False), groups)
        return [states for part in found for states in part]

    def _pool(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], advance: Callable[[int], None] | None
    ) -> dict[Site, np.ndarray]:
        """Means are taken there, so that one row for each prompt and site travels."""
        width = sum(self.info.width(s) for s in sites)
        rows: list[dict[Site, np.ndarray]] = []
        groups = self._grouped(items, lambda item: 4 * width * len(item.positions))
        for part in self._each(lambda group: self._captured(group, sites, "before", mean=True), groups):
            rows.extend(part)
            if advance is not None:
                advance(len(rows))
        return {s: np.stack([r[s] for r in rows]) for s in sites}

    def _captured(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str, mean: bool
    ) -> list[dict[Site, np.ndarray]]:
        tensors: Tensors = {}
        told = [
            {
                "tokens": list(i.prompt.tokens),
                "positions": [int(p) for p in i.positions],
                "plan": plan_form(i.plan, tensors),
            }
            for i in items
        ]
        head = {"items": told, "sites": [s.key for s in sites], "at": at, "mean": mean}
        answer = self._exchange("/v1/engine/capture", head, tensors, [i.plan for i in items])
        return [
            {s: _array(answer, f"{i}:{s.key}", (self.info.width(s),) if mean else None) for s in sites}
            for i in range(len(items))
        ]

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        size = self.info.vocab_size or 1

        def cost(item: tuple[Prompt, int, ResolvedPlan, str]) -> int:
            rows = {"none": 0, "last": 1, "all": len(item[0])}[item[3]]
            return 4 * (len(item[0]) + rows * size)

        found = self._each(self._scored, self._grouped(items, cost))
        return [score for part in found for score in part]

    def _scored(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        tensors: Tensors = {}
        told = [
            {"tokens": list(p.tokens), "first": first, "plan": plan_form(plan, tensors), "logprobs": wanted}
            for p, first, plan, wanted in items
        ]
        answer = self._exchange("/v1/engine/score", {"items": told}, tensors, [i[2] for i in items])
        out = []
        for i, (prompt, first, _, wanted) in enumerate(items):
            chosen = _array(answer, f"{i}:logprobs", (len(prompt) - first,))
            full = None if wanted == "none" else _array(answer, f"{i}:distribution")
            if full is not None and full.shape[:-1] != ((len(prompt),) if wanted == "all" else ()):
                raise TrimtabError(
                    f"the server scored {full.shape} where {wanted} of {len(prompt)} was asked"
                )
            out.append(Score(prompt.tokens[first:], chosen, full))
        return out

    # --- calls ----------------------------------------------------------------------------------------------

    def _exchange(self, path: str, head: Any, tensors: Tensors, plans: Sequence[ResolvedPlan]) -> Tensors:
        body = self.line.exchange(path, pack(head, tensors), MEDIA)
        try:
            told, arrays = unpack(body)
        except InputError as error:
            raise TrimtabError(f"the answer of {self.line.url} is damaged: {error}") from error
        check_answer(told, self._identity, plans)
        return arrays

    def _grouped(self, items: Sequence[T], cost: Callable[[T], int]) -> list[list[T]]:
        """Items in calls of a bounded number and a bounded answer."""
        groups: list[list[T]] = []
        size = 0
        for item in items:
            mine = cost(item)
            if not groups or len(groups[-1]) == CALL or size + mine > self._answer_bytes:
                groups.append([])
                size = 0
            groups[-1].append(item)
            size += mine
        return groups

    def _each(self, call: Callable[[list[T]], Any], groups: list[list[T]]) -> Iterator[Any]:
        """Answers in order; several calls are under way at once."""
        if len(groups) < 2:
            yield from map(call, groups)
            return
        with ThreadPoolExecutor(self.line.concurrency, thread_name_prefix="trimtab-remote") as pool:
            found = [pool.submit(call, g) for g in groups]
            try:
                for each in found:
                    yield each.result()
            finally:
                for each in found:
                    each.cancel()


def _addresses(model: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """The addresses that MODEL names."""
    parts = str(model).split(",") if isinstance(model, (str, os.PathLike)) else list(model)
    if not parts:
        raise InputError("the remote engine's model is a server's address, got an empty list")
    return [str(p).strip() for p in parts]


def _array(answer: Tensors, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """One array of an answer, which must be there."""
    found = answer.get(name)
    if found is None or (shape is not None and found.shape != shape):
        got = "nothing" if found is None else f"shape {found.shape}"
        raise TrimtabError(f"the server returned {got} as {name}, expected {shape or 'an array'}")
    return found
