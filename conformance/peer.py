"""An engine of trimtab's face over stock vLLM with somebody else's plugin: a black box that the kit can drive."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trimtab.conformance.stands import Answer, Direct, VllmStand
from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.exactness import rows_of
from trimtab.engines.requests import Capture, Event, Receipt, Request, Sample, Score
from trimtab.engines.tokenized import Tokenized
from trimtab.engines.tokens import PromptEncoder
from trimtab.engines.vllm.loop import Loop
from trimtab.errors import Unsupported
from trimtab.prompts import Prompt, resolve_positions
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import ModelInfo, Site


class Dialect(ABC):
    """How a peer is told what to do."""

    name: str
    #: What VLLM_PLUGINS must hold, so that this plugin is loaded and no other.
    plugin: str
    version: str
    captures = False

    def check(self, plan: ResolvedPlan) -> None:
        """Refuse (`Unsupported`) what the peer's format cannot say."""
        for p in plan.effective:
            if p.site.stream != "resid_post":
                raise Unsupported(f"{self.name} steers resid_post only")
            if p.gate is not None or p.table_start is not None or p.renormalise or not p.coefficients.adds:
                raise Unsupported(f"{self.name} has no gates, tables, renormalising, ablation, caps or pins")
            self.check_placement(p)

    @abstractmethod
    def check_placement(self, p: ResolvedPlacement) -> None:
        """The same of an `Add`."""

    @abstractmethod
    def extra(self, plan: ResolvedPlan, capture: Sequence[Site]) -> dict[str, Any]:
        """`SamplingParams.extra_args` of a request."""

    def states(self, output: Any, sites: Sequence[Site]) -> dict[Site, np.ndarray]:
        """Captured states [T, width] of a finished request at sites that were asked for, in their order."""
        raise Unsupported(f"{self.name} captures nothing")

    def register(self) -> None:
        """The plugin's entry point."""
        raise Unsupported(f"{self.name} has no entry point that could be called again")


class PeerEngine(Tokenized, Engine):
    """Requests go to vLLM as a client would send them: native n, ids of the client where it chose one.

    They carry no seeds: stock vLLM 0.32 on a CPU dies of a seeded request whose prompt is read in chunks.
    """

    name = "vllm"

    def __init__(self, loop: Loop, dialect: Dialect, tokenizer: Any, id: str) -> None:
        config = loop.llm.vllm_config
        self.loop, self.dialect = loop, dialect
        self.encoder = PromptEncoder(tokenizer, id)
        model = config.model_config
        layers, width = model.hf_text_config.num_hidden_layers, model.get_hidden_size()
        super().__init__(
            ModelInfo(
                id=id, n_layers=layers, hidden_size=width, widths={Site(n): width for n in range(layers)},
                context_length=model.max_model_len, vocab_size=model.get_vocab_size(),
                dtype=str(model.dtype).removeprefix("torch."), template_hash=self.encoder.template_hash,
            )
        )  # fmt: skip

    @classmethod
    def load(
        cls, model: str, dialect: Dialect, *, bank: int = 0, dtype: str = "float32", **options: Any
    ) -> PeerEngine:
        """Start vLLM; `bank` means nothing to a peer."""
        from transformers import AutoTokenizer

        loop = Loop()
        try:
            loop.start({"model": model, "dtype": dtype, "max_logprobs": -1, **options})
            return cls(loop, dialect, AutoTokenizer.from_pretrained(model), model)
        except BaseException:
            loop.close()
            raise

    def close(self) -> None:
        self.loop.close()

    # --- running -----------------------------------------------------------------------------------------------

    def _check_plan(self, plan: ResolvedPlan) -> None:
        self.dialect.check(plan)

    def prepare(self, request: Request) -> Request:
        prepared = super().prepare(request)
        if request.readout is not None:
            raise Unsupported(f"{self.dialect.name} has no readings")
        if request.capture is not None and (request.capture.at != "after" or not self.dialect.captures):
            raise Unsupported(f"{self.dialect.name} does not capture {request.capture.at} the edits")
        return prepared

    def outputs(self, orders: Sequence[tuple[str, Sequence[int], dict[str, Any]]]) -> list[Any]:
        """Finished outputs of (id, tokens, SamplingParams' fields), all under way together."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        async def one(id: str, tokens: Sequence[int], fields: dict[str, Any]) -> Any:
            params = SamplingParams(**fields, output_kind=RequestOutputKind.FINAL_ONLY)
            last = None
            async for output in self.loop.llm.generate({"prompt_token_ids": list(tokens)}, params, id):
                last = output
            return last

        async def together() -> list[Any]:
            return await asyncio.gather(*(one(*o) for o in orders))

        return self.loop.submit(together()).result(timeout=600)

    def _fields(self, request: Request) -> dict[str, Any]:
        s = request.sampling
        assert isinstance(request.plan, ResolvedPlan)
        sites = () if request.capture is None else request.capture.sites
        return {
            "n": s.n, "temperature": s.temperature, "top_p": s.top_p, "top_k": s.top_k,
            "max_tokens": s.max_tokens, "ignore_eos": s.ignore_eos, "logprobs": 0, "stop": list(s.stop) or None,
            "extra_args": self.dialect.extra(request.plan, sites) or None,
        }  # fmt: skip

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        orders = [(r.id or uuid.uuid4().hex, r.prompt.tokens, self._fields(r)) for r in requests]  # type: ignore[union-attr]
        for i, (request, output) in enumerate(zip(requests, self.outputs(orders), strict=True)):
            for j, done in enumerate(output.outputs):
                sample = self._sample(request, output, done)
                for token, value in zip(sample.tokens, sample.logprobs, strict=True):
                    yield Event(i, j, token, "", float(value))
                yield Event(i, j, sample=sample)

    def _sample(self, request: Request, output: Any, done: Any) -> Sample:
        assert isinstance(request.prompt, Prompt) and isinstance(request.plan, ResolvedPlan)
        tokens = tuple(int(t) for t in done.token_ids)
        chosen = [row[t].logprob for t, row in zip(tokens, done.logprobs, strict=True)]
        processed, capture = len(request.prompt) + len(tokens) - 1, None
        if request.capture is not None:
            rows = rows_of(resolve_positions(request.capture.positions, request.prompt), processed)
            states = self.dialect.states(output, request.capture.sites)
            capture = Capture({s: states[s][rows] for s in request.capture.sites}, rows)
        receipt = Receipt.of(request.plan, processed)  # the peer gives none: this is what was asked for
        return Sample(tokens, done.text, np.array(chosen), done.finish_reason, receipt, capture)

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        if (at != "after" and any(i.plan.effective for i in items)) or not self.dialect.captures:
            raise Unsupported(f"{self.dialect.name} does not capture {at} the edits")
        fields = {"max_tokens": 1, "temperature": 0.0}
        orders = [
            (uuid.uuid4().hex, i.prompt.tokens, {**fields, "extra_args": self.dialect.extra(i.plan, sites)})
            for i in items
        ]
        found = [self.dialect.states(o, sites) for o in self.outputs(orders)]
        return [{s: f[s][i.positions] for s in sites} for i, f in zip(items, found, strict=True)]

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        orders = []
        for prompt, _, plan, mode in items:
            fields = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": -1 if mode == "all" else 0}
            fields |= {
                "logprobs": None if mode == "none" else -1,
                "extra_args": self.dialect.extra(plan, ()) or None,
            }
            orders.append((uuid.uuid4().hex, prompt.tokens, fields))
        return [_scored(output, *item) for output, item in zip(self.outputs(orders), items, strict=True)]


def _scored(output: Any, prompt: Prompt, first: int, plan: ResolvedPlan, mode: str) -> Score:
    tables, tokens = output.prompt_logprobs, prompt.tokens[first:]
    chosen = np.array([tables[first + i][t].logprob for i, t in enumerate(tokens)])
    if mode == "none":
        return Score(tokens, chosen)
    last = _row(output.outputs[0].logprobs[0])
    return Score(tokens, chosen, np.stack([*(_row(t) for t in tables[1:]), last]) if mode == "all" else last)


def _row(table: Any) -> np.ndarray:
    return np.array([table[t].logprob for t in range(len(table))], dtype=np.float32)


class PeerStand(VllmStand):
    """vLLM's settings and counters; what only trimtab's workers tell is not asked for."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self.dialect = dialect

    def held(self, engine: Any) -> int:
        """Nobody says."""
        return 0

    def forget(self, engine: Any, plan: ResolvedPlan) -> None:
        raise Unsupported(f"{self.dialect.name} has no workers that could be told to forget")

    def register_again(self) -> None:
        self.dialect.register()

    def send(self, engine: Any, requests: Sequence[Direct]) -> list[list[Answer]]:
        orders = []
        for r in requests:
            engine.dialect.check(r.plan)
            fields = {"n": r.n, "temperature": r.temperature}
            fields |= {"max_tokens": r.new, "ignore_eos": True, "logprobs": 0}
            orders.append(
                (r.id, r.tokens, {**fields, "extra_args": engine.dialect.extra(r.plan, ()) or None})
            )
        found = []
        for output in engine.outputs(orders):
            answers = []
            for done in output.outputs:
                tokens = tuple(int(t) for t in done.token_ids)
                chosen = np.array([row[t].logprob for t, row in zip(tokens, done.logprobs, strict=True)])
                answers.append(Answer(tokens, chosen, output.num_cached_tokens or 0))
            found.append(answers)
        return found
