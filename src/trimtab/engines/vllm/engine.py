"""The vLLM engine: the contract of every engine, on continuous batching with a prefix cache and compiled graphs."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.checkpoint import revision_of
from trimtab.engines.requests import CaptureSpec, Event, PlanLike, PromptLike, Request, Sampling, Score
from trimtab.engines.tokenized import Tokenized
from trimtab.engines.tokens import PromptEncoder
from trimtab.engines.vllm import generation, passenger, scoring
from trimtab.engines.vllm.channel import Receiver
from trimtab.engines.vllm.ledger import Ledger
from trimtab.engines.vllm.loop import Borrowed, Called, Loop
from trimtab.engines.vllm.passenger import Passenger
from trimtab.engines.vllm.shelf import Shelf
from trimtab.engines.vllm.ticket import new_keys
from trimtab.engines.vllm.worker import BANK, OPTION
from trimtab.errors import InputError, MissingDependency, TrimtabError, Unsupported
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site

#: The highest temperature that vLLM takes.
HOTTEST = 2.0


class VllmEngine(Tokenized, Engine):
    """A model served by vLLM in this machine's processes. Calls from many threads run in one batch, without locks.

    `resid_post` of every layer can be steered, captured and read. `loop.llm` is the plain `AsyncLLM`.
    """

    name = "vllm"

    def __init__(self, loop: Loop, tokenizer: Any, *, id: str) -> None:
        self.loop, self.tokenizer = loop, tokenizer
        self.encoder = PromptEncoder(tokenizer, id)
        self.ledger = Ledger()
        self.new_key = new_keys()
        #: Names of arrays that passengers do not need any more.
        self.parted: deque[tuple[str, ...]] = deque()
        self.found = self._attach()
        super().__init__(describe(loop.llm.vllm_config, self.encoder, self.found, id))
        # Requests find their own results, and vLLM batches whatever comes: there is nothing to lock.
        self._lock = contextlib.nullcontext()  # type: ignore[assignment]
        self.ends = _end_tokens(loop.llm.vllm_config.model_config, tokenizer)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        id: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer: Any = None,
        trust_remote_code: bool = False,
        bank: int = BANK,
        **options: Any,
    ) -> VllmEngine:
        """Start vLLM on a local directory or a hub id. On a CPU `dtype` "auto" computes in float32; `bank` is how many
        different vectors requests in flight may use; any other option is one of vLLM's own."""
        if find_spec("vllm") is None:
            raise MissingDependency.of("vllm", "vllm", "the vllm engine")
        from transformers import AutoTokenizer

        from trimtab.engines.vllm import extension_points, plugin

        extension_points.check_version()
        plugin.register()
        name = os.fspath(model)
        shared = {"revision": revision, "trust_remote_code": trust_remote_code}
        if tokenizer is None or isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer or name, **shared)
        options.setdefault("max_logprobs", -1)
        options.setdefault("disable_log_stats", True)
        extra = {**options.pop("additional_config", {}), OPTION: {"bank": bank}}
        loop = Loop()
        try:
            loop.start(
                {"model": name, "dtype": _dtype(dtype), "additional_config": extra, **shared, **options},
                extension_points.check,
            )
            return cls(loop, tokenizer, id=id or name)
        except BaseException as error:
            loop.close()
            # vLLM's words for a model class that could not be imported; the reason is in its log alone.
            if "failed to be inspected" in str(error) and find_spec("torchvision") is None:
                raise MissingDependency(
                    f"vLLM cannot load {name}: models that see images need torchvision, which is not installed. "
                    "Install the torchvision that belongs to your torch"
                ) from error
            raise

    @classmethod
    def attach(
        cls, llm: Any, loop: asyncio.AbstractEventLoop | None = None, *, tokenizer: Any = None
    ) -> VllmEngine:
        """The engine on a vLLM that runs already: an `LLM`, or an `AsyncLLM` of the event loop `loop`, which another
        thread runs (`aattach` from inside of it). Its workers hold the plugin if trimtab was installed when they
        started; they tell one engine at a time. Closing the engine leaves vLLM as it is. With an `LLM`, only `board`
        generates."""
        if loop is None and not hasattr(llm, "llm_engine"):
            raise InputError(f"a {type(llm).__name__} runs in an event loop: await VllmEngine.aattach(llm)")
        borrowed = Called(llm) if loop is None else Borrowed(loop, llm)
        model = borrowed.llm.model_config
        name = model.served_model_name or model.model
        # A fast tokenizer must not be used by two threads at once, and vLLM's own is in use.
        tokenizer = tokenizer or copy.deepcopy(borrowed.llm.renderer.tokenizer)
        name = name[0] if isinstance(name, list) else name
        return cls(borrowed, tokenizer, id=name)

    @classmethod
    async def aattach(cls, llm: Any, *, tokenizer: Any = None) -> VllmEngine:
        """`attach` to an `AsyncLLM` of the event loop that runs this."""
        return await asyncio.to_thread(cls.attach, llm, asyncio.get_running_loop(), tokenizer=tokenizer)

    def _attach(self) -> dict[str, Any]:
        """Let the workers speak to this engine; what they found of the model."""
        self.epoch, self.shelf = 0, Shelf(self.loop.call)
        self.receiver = Receiver(self.ledger.take)
        try:
            found = self.loop.call("trimtab_attach", self.receiver.address)
        except Exception as error:
            self.receiver.close()
            raise Unsupported(
                "vLLM's worker does not hold trimtab's plugin. Install trimtab in vLLM's environment (pip install "
                "'trimtab[vllm]'), and name it in VLLM_PLUGINS where that variable is set"
            ) from error
        refused = next((f["refused"] for f in found if "refused" in f), "")
        if refused:
            self.receiver.close()
            raise Unsupported(refused)
        if not self.receiver.settle():
            self.receiver.close()
            raise Unsupported(
                "vLLM's workers are not all heard: they have to run on this machine, as this user"
            )
        return found[0]

    def sampling(self, **options: Any) -> Any:
        """vLLM's sampling parameters."""
        from vllm import SamplingParams

        return SamplingParams(**options)

    # --- checks ------------------------------------------------------------------------------------------------

    def _check_room(self, prompt: Prompt) -> None:
        """vLLM reads a prompt only together with a token that it generates."""
        self._check_length(len(prompt), 1)

    def prepare(self, request: Request) -> Request:
        """As for every engine; temperatures that vLLM does not take are refused too."""
        if request.sampling.temperature > HOTTEST:
            raise Unsupported(
                f"vLLM samples at temperatures up to {HOTTEST}, not {request.sampling.temperature}"
            )
        return super().prepare(request)

    # --- running -----------------------------------------------------------------------------------------------

    def board(
        self,
        prompt: PromptLike,
        params: Any,
        *,
        plan: PlanLike = None,
        capture: CaptureSpec | None = None,
        readout: Readout | None = None,
    ) -> Passenger:
        """A plan, a capture and a readout for a request that you hand to vLLM yourself, with sampling parameters of
        vLLM's: what `prepare` refuses is refused, the workers get what they need, and the passenger's `prompt` and
        `params` go to `generate` of `LLM` or `AsyncLLM`."""
        tokens = self.encode(prompt)
        most = passenger.check(params, self.info.context_length, len(tokens), self.loop.whole)
        sampling = Sampling(max_tokens=most, n=params.n)
        request = self.prepare(Request(tokens, plan, sampling, capture, readout))
        while self.parted:
            self.shelf.release(self.parted.popleft())
        return passenger.Passenger(self, request, params)

    async def aboard(self, prompt: PromptLike, params: Any, **wants: Any) -> Passenger:
        """`board` without blocking the event loop."""
        return await asyncio.to_thread(lambda: self.board(prompt, params, **wants))

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        return generation.generate(self, requests, stream=True)

    def _finished(self, requests: Sequence[Request]) -> Iterator[Event]:
        return generation.generate(self, requests, stream=False)

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        for item in items:
            self._check_room(item.prompt)
        return generation.capture(self, [(i.prompt, i.positions, i.plan) for i in items], sites, at)

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        for prompt, *_ in items:
            self._check_room(prompt)
        return scoring.score(self, items)

    def close(self) -> None:
        """Shut vLLM down."""
        self.loop.close()
        self.receiver.close()


def _dtype(name: str) -> str:
    """vLLM's dtype; "auto" on a CPU is float32, as everywhere in trimtab."""
    if name != "auto":
        return {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(name, name)
    from vllm.platforms import current_platform

    return "float32" if current_platform.is_cpu() else "auto"


def describe(config: Any, encoder: PromptEncoder, found: dict[str, Any], id: str) -> ModelInfo:
    """The model that vLLM runs, from its configuration and from what its worker found."""
    model, text = config.model_config, config.model_config.hf_text_config
    heads = getattr(text, "num_attention_heads", None)
    width = model.get_hidden_size()
    return ModelInfo(
        id=id,
        n_layers=text.num_hidden_layers,
        hidden_size=width,
        widths={Site(layer): width for layer in range(text.num_hidden_layers)},
        revision=revision_of(str(model.model), getattr(model.hf_config, "_commit_hash", None)),
        architecture=found["architecture"],
        context_length=model.max_model_len,
        vocab_size=model.get_vocab_size(),
        n_heads=heads,
        head_dim=model.get_head_size(),
        dtype=str(model.dtype).removeprefix("torch."),
        template_hash=encoder.template_hash,
    )


def _end_tokens(model_config: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a sequence: the generation config's (one or several), else the tokenizer's."""
    given = model_config.try_get_generation_config().get("eos_token_id")
    if given is None:
        given = getattr(tokenizer, "eos_token_id", None)
    if given is None:
        return frozenset()
    found = frozenset([given] if isinstance(given, int) else [int(t) for t in given])
    if not found:
        raise TrimtabError("the model names an empty list of end tokens")
    return found
