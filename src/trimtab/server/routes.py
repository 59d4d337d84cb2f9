"""The routes beside OpenAI's: vectors, the default plan, a plan's preview, the readout's manifest, captures.

Whatever serves them sets `app.state.trimtab`, which has a `counter` and an `encoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from trimtab.engines.surface import check_messages
from trimtab.errors import InputError, TrimtabError
from trimtab.formats import native
from trimtab.prompts import Prompt
from trimtab.server import answers, schemas
from trimtab.server.busy import status_of
from trimtab.server.document import ok, other
from trimtab.server.library import describe
from trimtab.server.receipts import preview
from trimtab.server.wire import FIELDS, Fields, plan_of


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class LoadBody(_Body):
    """`file` is relative to the allowed folder; `name` is what plans call it, by default the file's own name."""

    file: str = Field(min_length=1, max_length=1024)
    name: str | None = Field(None, min_length=1, max_length=256, pattern=r"^[\w.@+-]+$")


class UnloadBody(_Body):
    """`name` as in `GET /v1/vectors`."""

    name: str


class PlanBody(_Body):
    """`steering` is a plan, or null for none."""

    steering: Annotated[dict[str, Any] | None, WithJsonSchema(schemas.nullable(schemas.PLAN))]


class PreviewBody(_Body):
    """A plan, and the prompt or the messages that it would meet (without them, a prompt of one token)."""

    steering: Annotated[dict[str, Any], WithJsonSchema(schemas.PLAN)]
    prompt: str | list[int] | None = None
    messages: Annotated[
        list[dict[str, Any]] | None, WithJsonSchema(schemas.nullable(schemas.PLAIN_MESSAGES))
    ] = None


def told(error: TrimtabError) -> dict[str, Any]:
    """OpenAI's error form of an error of ours."""
    code, kind = status_of(error)
    param = next((f for f in FIELDS if str(error).startswith(f)), None)
    return {"message": str(error), "type": kind, "param": param, "code": code}


def failed(error: TrimtabError, form: Callable[[TrimtabError], dict[str, Any]] = told) -> Any:
    """An error as an answer; a full server says when to come again."""
    found = form(error)
    headers = {"Retry-After": "1"} if found["code"] == 503 else None
    return JSONResponse({"error": found}, status_code=found["code"], headers=headers)


def answering(answer: Callable[[TrimtabError], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a route's errors of ours the answers that `answer` gives."""

    def around(route: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(route)
        async def answered(*args: Any, **kwargs: Any) -> Any:
            try:
                return await route(*args, **kwargs)
            except TrimtabError as error:
                return answer(error)

        return answered

    return around


_in_words = answering(failed)


def missing(what: str) -> Any:
    """404 in OpenAI's form."""
    error = {"message": what, "type": "NotFoundError", "param": None, "code": 404}
    return JSONResponse({"error": error}, status_code=404)


def router() -> APIRouter:
    """A FastAPI router with all of them."""
    found = APIRouter(tags=["trimtab"])
    _vectors(found)
    _steering(found)
    _reading(found)
    return found


def _vectors(routes: APIRouter) -> None:
    @routes.get("/v1/vectors", responses=ok(answers.VectorFiles, "What is loaded, and what may be."))
    async def list_vectors(raw: Request) -> Any:
        library = raw.app.state.trimtab.counter.library
        return {
            "object": "list",
            "data": [describe(n, v) for n, v in library.items()],
            "default": library.default,
            "available": library.available(),
        }

    @routes.post("/v1/vectors/load", responses=ok(answers.VectorFile, "It is loaded."))
    @_in_words
    async def load_vectors(body: LoadBody, raw: Request) -> Any:
        library = raw.app.state.trimtab.counter.library
        name = library.load(body.file, body.name)
        return describe(name, library[name])

    @routes.post("/v1/vectors/unload", responses=ok(answers.Unloaded))
    @_in_words
    async def unload_vectors(body: UnloadBody, raw: Request) -> Any:
        raw.app.state.trimtab.counter.unload(body.name)
        return {"name": body.name, "unloaded": True}


def _steering(routes: APIRouter) -> None:
    @routes.get("/v1/steering", responses=ok(answers.DefaultPlan, "The plan, or null."))
    async def get_default(raw: Request) -> Any:
        default = raw.app.state.trimtab.counter.default
        return {"steering": None if default is None else default.to_json()}

    @routes.put("/v1/steering", responses=ok(answers.DefaultPlan, "The plan that holds from now on."))
    @_in_words
    async def put_default(body: PlanBody, raw: Request) -> Any:
        counter = raw.app.state.trimtab.counter
        counter.set_default(body.steering)
        return {"steering": None if counter.default is None else counter.default.to_json()}

    @routes.post("/v1/steering/preview", responses=ok(answers.Preview, "What the plan would do."))
    @_in_words
    async def preview_plan(body: PreviewBody, raw: Request) -> Any:
        state = raw.app.state.trimtab
        if body.prompt is not None and body.messages is not None:
            raise InputError("give a prompt or messages, not both")
        prompt = Prompt((0,))
        if body.messages is not None:
            prompt = state.encoder.messages(check_messages(body.messages))
        elif isinstance(body.prompt, str):
            prompt = state.encoder.text(body.prompt)
        elif body.prompt is not None:
            prompt = Prompt(tuple(body.prompt))
        plan = plan_of(body.steering, state.counter.settings)
        order = state.counter.order(Fields(steering=plan), prompt)
        return {
            **preview(order.plan),
            "prompt_tokens": len(prompt),
            "tokens_steered": order.plan.tokens_steered(len(prompt)),
        }


def _reading(routes: APIRouter) -> None:
    @routes.get("/v1/readout/manifest", responses={**ok(answers.Manifest, "What can be read."), 404: {}})
    async def readout_manifest(raw: Request, vectors: str | None = None) -> Any:
        counter = raw.app.state.trimtab.counter
        name = vectors or counter.library.default
        if name is None or name not in counter.library:
            return missing(
                "this server reads nothing by default (TRIMTAB_READOUT_VECTORS)"
                if name is None
                else f"no vector file {name!r} is loaded"
            )
        found = counter.library[name]
        known = native.manifest(found)
        return {
            **{k: known[k] for k in ("concepts", "layers", "hidden_size", "dtype", "content_hash")},
            "vectors": name,
            "default_layers": [found.read_site(counter.info.n_layers).layer],
            "z": all(t.mean is not None and t.std is not None for t in found.tables.values()),
            "align": ["emitting", "own"],
            "encodings": ["json", "float16"],
        }

    @routes.get(
        "/v1/readings",
        response_class=StreamingResponse,
        responses={**other("text/event-stream", "The readings, as they come."), 404: {}},
    )
    async def feed(raw: Request) -> Any:
        """Server-sent events: the readings of all traffic from now on, without any text."""
        feed = raw.app.state.trimtab.counter.feed
        if feed is None:
            return missing("this server has no feed of readings: the operator has to set TRIMTAB_FEED=1")
        try:
            return StreamingResponse(feed.join(), media_type="text/event-stream")
        except TrimtabError as error:
            return failed(error)

    @routes.get(
        "/v1/captures/{handle}",
        response_class=Response,
        responses={**other("application/octet-stream", "The states, as safetensors."), 404: {}},
    )
    async def fetch_capture(handle: str, raw: Request) -> Any:
        """The states as safetensors, once: `layer_<i>.states` [n, width] float32 and `positions` [n] int64. Several
        handles, with commas between them, bring one file, in which each name stands after its handle and a dot."""
        captures = raw.app.state.trimtab.counter.captures
        body = captures.fetch_all(handle.split(",")) if "," in handle else captures.fetch(handle)
        if body is None:
            return missing("no such capture: it was fetched before, it has expired, or it never was")
        return Response(body, media_type="application/octet-stream")
