"""The same door before any engine of ours: a FastAPI app with OpenAI's routes, our fields, and our routes.

On vLLM the door hangs in vLLM's own server (`trimtab.server.vllm`) and this is not used.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from trimtab.engines.base import Engine
from trimtab.errors import InputError, TrimtabError, Unsupported
from trimtab.server import answers, metrics, wire
from trimtab.server.batching import Batcher
from trimtab.server.bodies import Body, ChatBody, CompletionBody
from trimtab.server.counter import Counter
from trimtab.server.document import finish, ok, other, streamed
from trimtab.server.journal import Entry, Journal
from trimtab.server.limits import Limits, error_body
from trimtab.server.receipts import HEADER
from trimtab.server.routes import failed, router
from trimtab.server.running import Run
from trimtab.server.settings import Settings
from trimtab.server.surface import Surface, routes


class Desk:
    """What the routes share: the engine behind its queue, and the counter."""

    def __init__(self, engine: Engine, settings: Settings | None) -> None:
        self.engine, self.counter = engine, Counter(engine.info, settings)
        if self.counter.rules and not engine.monitors:
            raise Unsupported(f"TRIMTAB_RULES is set, and the {engine.name} engine judges no rules; unset it")
        self.batcher = Batcher(engine, self.counter.settings.max_rows, self.counter.settings.max_waiting)
        self.encoder = Encoder(engine)


class Encoder:
    """Prompts as the engine encodes them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def text(self, text: str) -> Any:
        return self.engine.encode(text, bare=True)

    def messages(self, messages: Any) -> Any:
        return self.engine.encode(messages)


def build(engine: Engine, settings: Settings | None = None, key: str | None = None) -> FastAPI:
    """The app. With `key`, every route under /v1 wants it as a bearer token."""
    desk = Desk(engine, settings)
    surface = Surface(engine, desk.batcher, desk.counter)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        # Not in the loop, in which requests that were ended tell their clients so, and leave the queue.
        await asyncio.to_thread(desk.batcher.close)
        surface.close()

    app = FastAPI(title="trimtab", lifespan=lifespan)
    app.state.trimtab = desk
    app.include_router(router())
    app.include_router(routes(surface))
    _openai(app, desk)
    _plain(app, desk)
    _errors(app)
    finish(app, lambda path: True, bool(key))
    app.add_middleware(Limits, **Limits.of(desk.counter.settings))
    if key:
        app.add_middleware(Locked, key=key)
    app.add_middleware(Journal)  # added last, it stands in front: what the others refuse has its line, too
    metrics.watch(
        lambda: desk.batcher.running + desk.batcher.waiting,
        lambda: desk.counter.captures.held,
        lambda: len(desk.counter.library),
    )
    return app


def _openai(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/models", responses=ok(answers.Models, "The model that is served."))
    async def models() -> Any:
        return {"object": "list", "data": [_model(desk)]}

    @app.get("/v1/models/{model:path}", responses={**ok(answers.Model, "The model."), 404: {}})
    async def one_model(model: str) -> Any:
        return _model(desk) if model == desk.engine.info.id else _no_model(desk, model)

    @app.post(
        "/v1/chat/completions",
        responses={**streamed(answers.ChatCompletion, answers.ChatCompletionChunk), 404: {}},
    )
    async def chat(body: ChatBody, raw: Request) -> Any:
        return await _answer(desk, body, raw)

    @app.post(
        "/v1/completions",
        responses={**streamed(answers.TextCompletion, answers.TextCompletionChunk), 404: {}},
    )
    async def completions(body: CompletionBody, raw: Request) -> Any:
        return await _answer(desk, body, raw)


def _model(desk: Desk) -> dict[str, Any]:
    return {"id": desk.engine.info.id, "object": "model", "owned_by": "trimtab"}


def _no_model(desk: Desk, name: str) -> Response:
    text = f"The model `{name}` does not exist; there is `{desk.engine.info.id}`."
    error = {"message": text, "type": "NotFoundError", "param": "model", "code": 404}
    return JSONResponse({"error": error}, status_code=404)


async def _answer(desk: Desk, body: Body, raw: Request) -> Any:
    """Admit, run, answer; whatever is wrong is said before anything runs."""
    if body.model is not None and body.model != desk.engine.info.id:
        return _no_model(desk, body.model)
    try:
        found = wire.take(body.model_extra, body.vllm_xargs)
        if body.vllm_xargs:
            raise InputError(
                f"vllm_xargs.{next(iter(body.vllm_xargs))} is not something that this server knows"
            )
        body.check()
        fields = desk.counter.parse(found)
        prompt = await asyncio.to_thread(desk.engine.encode, _given(body), bare=True)
        order = desk.counter.order(fields, prompt)
        run = Run(
            desk.engine,
            desk.batcher,
            desk.counter,
            body,
            order,
            bool(found) or desk.counter.default is not None,
        )
        headers = {HEADER: order.plan.fingerprint} if run.states else {}
        _note(Entry.of(raw), body, run, desk.counter.settings.log_prompts)
        if not body.stream:
            answer = await _while_there(raw, run.whole())
            metrics.count("admitted")
            return JSONResponse(answer, headers=headers)
        events = run.chunks()
        # What is wrong raises here, while an error can still be an answer.
        first = await _while_there(raw, anext(events))
        metrics.count("admitted")
        return StreamingResponse(_sse(first, events), media_type="text/event-stream", headers=headers)
    except HungUp:
        return Response(status_code=499)  # nobody reads it
    except TrimtabError as error:
        metrics.count("refused" if error.exit_code == 2 else "lost")
        return failed(error)


class HungUp(Exception):
    """The client went away before its answer began."""


async def _while_there(raw: Request, work: Awaitable[Any]) -> Any:
    """The result of `work`, which is stopped when the client goes away."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hangs_up(raw))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HungUp
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hangs_up(raw: Request) -> None:
    """Until the connection is closed; the body has been read."""
    while (await raw.receive())["type"] != "http.disconnect":
        pass


def _note(entry: Entry, body: Body, run: Run, prompts: bool) -> None:
    """What the log tells of a request: never its text, unless the operator wants that."""
    entry |= {"id": run.form.id, "stream": bool(body.stream), "prompt_tokens": len(run.order.prompt)}
    entry["fingerprint"] = run.order.plan.fingerprint if run.states else None
    if prompts:
        entry["prompt"] = _given(body)

    def later() -> dict[str, Any]:
        done = [p.sample for p in run.samples]
        told = {
            "completion_tokens": sum(len(p.events) for p in run.samples),
            "finish": [None if s is None else s.finish for s in done],
        }
        return told | ({"answers": [None if s is None else s.text for s in done]} if prompts else {})

    entry.later = later


def _given(body: Body) -> Any:
    return body.conversation() if isinstance(body, ChatBody) else body.one_prompt()  # type: ignore[attr-defined]


async def _sse(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        yield _event(first)
        async for chunk in rest:
            yield _event(chunk)
    except Exception as error:  # the answer has begun: the client is told in its stream
        metrics.count("lost")
        told = {"message": str(error), "type": "InternalServerError", "param": None, "code": 500}
        yield _event({"error": told})
    finally:
        await rest.aclose()  # type: ignore[attr-defined]
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _plain(app: FastAPI, desk: Desk) -> None:
    @app.get(
        "/health",
        response_model=answers.Health,
        responses={503: {"model": answers.Health}},
    )
    async def health() -> Response:
        """200 while requests are taken; how they are batched, and why not better."""
        batcher = desk.batcher
        said = {"status": "ok" if batcher.alive else "closed", "batching": "continuous"}
        if batcher.fixed is not None:
            said |= {"batching": "fixed groups", "why": batcher.fixed}
        return JSONResponse(said, status_code=200 if batcher.alive else 503)

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=other("text/plain", "Figures, as Prometheus reads them."),
    )
    async def figures() -> Response:
        from prometheus_client import generate_latest

        return PlainTextResponse(generate_latest().decode())


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"][1:])
        told = {"message": f"{place}: {first['msg']}" if place else first["msg"], "type": "BadRequestError"}
        return JSONResponse({"error": {**told, "param": place or None, "code": 400}}, status_code=400)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        """A path or a method that is not there."""
        kind = "NotFoundError" if error.status_code == 404 else "BadRequestError"
        told = error_body(error.status_code, kind, f"{request.method} {request.url.path}: {error.detail}")
        return Response(told, error.status_code, error.headers, "application/json")


class Locked:
    """ASGI middleware: routes under /v1 want the key."""

    def __init__(self, app: Any, key: str) -> None:
        self.app, self._expected = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                error = {
                    "message": "wrong or missing API key",
                    "type": "AuthenticationError",
                    "param": None,
                    "code": 401,
                }
                await JSONResponse({"error": error}, status_code=401)(scope, receive, send)
                return
        await self.app(scope, receive, send)
