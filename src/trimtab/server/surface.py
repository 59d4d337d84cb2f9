"""The routes of the remote engine: what an engine of ours does, over HTTP (`trimtab.engines.remote` is the client)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from trimtab.engines.base import Engine
from trimtab.engines.remote.engine import SCHEMA
from trimtab.engines.remote.forms import event_form, identity, info_form, prompt_form
from trimtab.engines.remote.packing import MEDIA, STREAM, Tensors, frame, pack, unpack
from trimtab.engines.requests import Event
from trimtab.engines.requests import Request as Generation
from trimtab.engines.surface import check_messages
from trimtab.errors import InputError, TrimtabError, Unsupported
from trimtab.resolved import ResolvedPlan
from trimtab.server import answers, metrics, schemas
from trimtab.server.batching import GROUP, Batcher
from trimtab.server.busy import Busy
from trimtab.server.counter import Counter
from trimtab.server.document import ok, other
from trimtab.server.orders import BODY_BYTES, Orders, in_words, run_capture, run_score
from trimtab.server.routes import answering, failed, told

#: Calls that wait for the engine outside the queue of generations, before the next one is told to come again.
WAITING = 64
_BINARY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {MEDIA: {"schema": {"type": "string", "format": "binary"}}}}
}


class EncodeBody(BaseModel):
    """One of text, messages and continuation (text that follows a prompt)."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: str | None = None
    continuation: str | None = None
    messages: Annotated[
        list[dict[str, Any]] | None, WithJsonSchema(schemas.nullable(schemas.PLAIN_MESSAGES))
    ] = None
    generation_prompt: bool = True
    prefill: str | None = None
    thinking: bool | None = None


class DecodeBody(BaseModel):
    """Token ids; `special` keeps special tokens."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tokens: list[int] = Field(max_length=1 << 20)
    special: bool = False


class Surface:
    """One engine's routes. What is no generation waits in a line of its own for the engine."""

    def __init__(self, engine: Engine, batcher: Batcher, counter: Counter) -> None:
        self.engine, self.batcher, self.counter = engine, batcher, counter
        self.orders = Orders(engine, counter.library, counter.settings)
        self.identity = identity(engine.info)
        self._hand = ThreadPoolExecutor(1, thread_name_prefix="trimtab-surface")
        self._waiting = 0

    def about(self) -> dict[str, Any]:
        """What a remote engine must know."""
        return {
            "schema": SCHEMA,
            "engine": self.engine.name,
            "model": info_form(self.engine.info),
            "modules": {s.key: n for s, n in self.engine.module_names().items()},
            "inline": self.counter.settings.inline,
            "group": min(GROUP, self.counter.settings.max_waiting),
            "body_bytes": BODY_BYTES,
            "answer_bytes": self.counter.settings.max_capture_bytes,
        }

    async def alone(self, work: Callable[[], Any]) -> Any:
        """Run work one at a time, off the event loop."""
        if self._waiting >= WAITING:
            raise Busy("too many requests wait; try again later")
        if not self.batcher.alive:
            raise Busy("the server is shutting down")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._hand, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what runs."""
        self._hand.shutdown(wait=False, cancel_futures=True)

    async def body(self, raw: Request) -> tuple[dict[str, Any], Tensors]:
        """The body, no longer than the limit."""
        held = bytearray()
        async for piece in raw.stream():
            held += piece
            if len(held) > BODY_BYTES:
                raise InputError(f"the body is longer than {BODY_BYTES} bytes; send fewer requests at once")
        return unpack(bytes(held))

    def head(self, plans: Sequence[Any]) -> dict[str, Any]:
        """What every answer says of itself: the model, and the plans as they were read here."""
        return {
            "model": self.identity,
            "applied": [p.fingerprint for p in plans if isinstance(p, ResolvedPlan)],
        }

    def encode(self, body: EncodeBody) -> dict[str, Any]:
        """Tokens, spans, special positions and rendered text; of a continuation only its tokens."""
        given = [n for n in ("text", "continuation", "messages") if getattr(body, n) is not None]
        if len(given) != 1:
            raise InputError("give one of text, messages and continuation")
        with in_words():
            if body.continuation is not None:
                return {"tokens": [int(t) for t in self.engine._encode_continuation(body.continuation)]}
            if body.messages is not None:
                found = self.engine.encode(
                    check_messages(body.messages),
                    generation_prompt=body.generation_prompt,
                    prefill=body.prefill,
                    thinking=body.thinking,
                )
            else:
                found = self.engine.encode(body.text or "", bare=True)
            return prompt_form(found)

    def decode(self, body: DecodeBody) -> dict[str, Any]:
        """Text of tokens."""
        if body.tokens:
            size = self.engine.info.vocab_size
            for token in body.tokens:
                if token < 0 or (size is not None and token >= size):
                    raise InputError(f"token {token} does not exist: the vocabulary has {size}")
        with in_words():
            return {"text": self.engine.decode(body.tokens, special=body.special)}

    async def frames(self, requests: Sequence[Generation], first: Event, rest: Any) -> AsyncIterator[bytes]:
        """The answer of a generation: what it is, its events as they come, and its end. An error ends it."""
        yield frame(self.head([r.plan for r in requests]))
        try:
            yield frame(*event_form(first))
            async for event in rest:
                yield frame(*event_form(event))
        except Exception as error:  # the answer has begun: the client is told in its stream
            known = (
                error if isinstance(error, TrimtabError) else TrimtabError(f"{type(error).__name__}: {error}")
            )
            metrics.count("lost")
            yield frame({"error": _told(known)})
            return
        finally:
            await rest.aclose()
        yield frame({"done": True})


async def merged(batcher: Batcher, requests: Sequence[Generation]) -> AsyncGenerator[Event, None]:
    """Events of several requests, numbered by their place; the first error ends all."""
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def follow(place: int, request: Generation) -> None:
        try:
            async with contextlib.aclosing(batcher.stream(request)) as stream:  # type: ignore[type-var]
                async for event in stream:
                    told.put_nowait(type(event)(**{**vars(event), "request": place}))
        except Exception as error:
            told.put_nowait(error)
        else:
            told.put_nowait(None)

    tasks = [asyncio.create_task(follow(i, r)) for i, r in enumerate(requests)]
    try:
        left = len(tasks)
        while left:
            found = await told.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _told(error: TrimtabError) -> dict[str, Any]:
    return {**told(error), "param": None, "kind": type(error).__name__}


def _refused(error: TrimtabError) -> Any:
    metrics.count("refused" if error.exit_code == 2 else "lost")
    return failed(error, _told)


_in_words = answering(_refused)


def routes(surface: Surface) -> APIRouter:
    """A FastAPI router with all of them."""
    found = APIRouter(prefix="/v1/engine", tags=["engine"])
    _describing(found, surface)
    _running(found, surface)
    return found


def _describing(found: APIRouter, surface: Surface) -> None:
    @found.get("", responses=ok(answers.EngineForm, "What a remote engine must know."))
    async def about_engine() -> Any:
        """The model's sites and widths, its context, and the limits of the other routes."""
        return surface.about()

    @found.post("/encode", responses=ok(answers.Encoded, "The tokens."))
    @_in_words
    async def encode(body: EncodeBody) -> Any:
        return await asyncio.to_thread(surface.encode, body)

    @found.post("/decode", responses=ok(answers.Decoded, "The text."))
    @_in_words
    async def decode(body: DecodeBody) -> Any:
        return await asyncio.to_thread(surface.decode, body)


def _running(found: APIRouter, surface: Surface) -> None:
    @found.post(
        "/generate",
        response_class=Response,
        openapi_extra=_BINARY,
        responses=other(STREAM, "Events, as they come."),
    )
    @_in_words
    async def generate(raw: Request) -> Any:
        """A stream of events, as `trimtab.engines.remote.packing` writes it."""
        if surface.counter.rules:  # what comes this way is read by its client, and not by the server's rules
            raise Unsupported(
                "this server judges rules on all that is generated, and a remote engine's requests would pass them by: "
                "send them to /v1/chat/completions, or let the operator serve without --rules"
            )
        head, tensors = await surface.body(raw)
        requests = await asyncio.to_thread(surface.orders.generation, head, tensors)
        events = merged(surface.batcher, requests)
        first = await anext(events)  # what is wrong raises here, while an error can still be an answer
        metrics.count("admitted")
        return StreamingResponse(surface.frames(requests, first, events), media_type=STREAM)

    @found.post(
        "/capture", response_class=Response, openapi_extra=_BINARY, responses=other(MEDIA, "The states.")
    )
    @_in_words
    async def capture(raw: Request) -> Any:
        """States of prompts at sites, as arrays `<item>:<site>`."""
        order = await asyncio.to_thread(surface.orders.capture, *await surface.body(raw))
        tensors = await surface.alone(lambda: run_capture(surface.engine, order))
        metrics.count("admitted")
        return Response(pack(surface.head([i.plan for i in order.items]), tensors), media_type=MEDIA)

    @found.post(
        "/score",
        response_class=Response,
        openapi_extra=_BINARY,
        responses=other(MEDIA, "The log-probabilities."),
    )
    @_in_words
    async def score(raw: Request) -> Any:
        """Log-probabilities of tokens under plans, as arrays `<item>:logprobs` and `<item>:distribution`."""
        items = await asyncio.to_thread(surface.orders.score, *await surface.body(raw))
        tensors = await surface.alone(lambda: run_score(surface.engine, items))
        metrics.count("admitted")
        return Response(pack(surface.head([i[2] for i in items]), tensors), media_type=MEDIA)
