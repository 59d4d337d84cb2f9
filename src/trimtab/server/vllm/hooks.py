"""The few methods of vLLM's front end that are wrapped, so that extra fields are obeyed or refused, never dropped.

vLLM's request models keep unknown fields and ignore them: a plan sent to a server without this plugin is lost in
silence. With it, each route either admits the request (chat and completions) or refuses it by name (every other).
A request without our fields, on a server without a default plan and rules, and that nobody watches, runs through
vLLM's own code alone.
"""

from __future__ import annotations

import functools
import os
import sys
from http import HTTPStatus
from typing import Any

from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import InputError, TrimtabError, Unsupported
from trimtab.server import metrics, wire
from trimtab.server.busy import status_of
from trimtab.server.vllm import answers, guard, judging, watching
from trimtab.server.vllm.admission import CURRENT, Admission
from trimtab.server.vllm.door import Door
from trimtab.server.vllm.guard import ADMITTING
from trimtab.server.vllm.plugin import told


def install() -> None:
    """Wrap, once in a process."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.v1.engine.async_llm import AsyncLLM

    if hasattr(AsyncLLM.generate, "trimtab"):
        return
    _wrap(OpenAIServingCompletion, "create_completion", _admitting)
    _wrap(OpenAIServingChat, "create_chat_completion", _admitting)
    _wrap(OpenAIServingCompletion, "render_completion_request", _preparing)
    _wrap(OpenAIServingChat, "render_chat_request", _preparing)
    for request in (CompletionRequest, ChatCompletionRequest, ResponsesRequest):
        _wrap(request, "to_sampling_params", _boarding)
        if hasattr(request, "to_beam_search_params"):
            _wrap(request, "to_beam_search_params", _no_beams)
    _wrap(AsyncLLM, "__init__", _guarding)
    _wrap(AsyncLLM, "generate", _following)
    _wrap(AsyncLLM, "shutdown", _closing)


def _wrap(owner: Any, name: str, wrapper: Any) -> None:
    original = getattr(owner, name)
    wrapped: Any = functools.wraps(original)(wrapper(original))
    wrapped.trimtab = True
    setattr(owner, name, wrapped)


def _admitting(original: Any) -> Any:
    """The handler of a route: admit, run, and put readings and receipt into the answer."""

    async def create(self: Any, request: Any, raw_request: Any = None) -> Any:
        door = Door.of(self.engine_client)
        try:
            found = _fields_of(request)
            if not found and not door.binds:
                return await original(self, request, raw_request)
            await door.open()
            fields = door.counter.parse(found)
            _check(self, request, fields, door)
            admission = Admission(door, fields)
            metrics.count("admitted")
        except TrimtabError as error:
            return _refusal(self, error, "steering")
        token = CURRENT.set(admission)
        streams = False
        try:
            result = await original(self, request, raw_request)
            if hasattr(result, "error"):
                return result
            if raw_request is not None:
                raw_request.state.trimtab_fingerprint = admission.fingerprints()
            if hasattr(result, "choices"):
                return answers.complete(admission, result)
            streams = True
            options = request.stream_options
            return answers.Chunks(admission, result, bool(options and options.include_usage) or _forced(self))
        except TrimtabError as error:
            return _refusal(self, error, "steering")
        finally:
            CURRENT.reset(token)
            if not streams:
                admission.close()

    return create


def _forced(handler: Any) -> bool:
    return bool(getattr(handler, "enable_force_include_usage", False))


def _fields_of(request: Any) -> dict[str, Any]:
    xargs = request.vllm_xargs
    if xargs and KEY in xargs:
        raise InputError(f"vllm_xargs.{KEY} is not for clients; send steering, readout or capture")
    found = wire.take(request.model_extra, xargs)
    if xargs is not None and not xargs:
        request.vllm_xargs = None
    return found


def _check(handler: Any, request: Any, fields: wire.Fields, door: Door) -> None:
    """Refuse what cannot be done with this request, or has not been proven."""
    if getattr(request, "use_beam_search", False):
        raise Unsupported("beam search cannot be steered or read; sample instead (use_beam_search: false)")
    if fields.capture is not None and not door.routes:
        raise Unsupported(
            "captures are fetched from a route that this server does not have: start it with VLLM_PLUGINS=trimtab"
        )
    judging.check(fields.rules, door.inexact)
    prompts = getattr(request, "prompt", None)
    several = isinstance(prompts, list) and len(prompts) > 1 and not isinstance(prompts[0], int)
    if several and request.stream and fields.readout is not None:
        raise Unsupported("a stream of readings has one prompt; send a request for each")
    if getattr(request, "echo", False) and fields.readout is not None:
        raise Unsupported("readings do not go together with echo; ask for readout.prompt instead")


def _refusal(handler: Any, error: TrimtabError, field: str) -> Any:
    """OpenAI's error form. A lost request is counted where it is lost."""
    code, kind = status_of(error)
    if code != 500:
        metrics.count("refused")
    param = next((f for f in wire.FIELDS if str(error).startswith(f)), field if code == 400 else None)
    return handler.create_error_response(str(error), err_type=kind, status_code=HTTPStatus(code), param=param)


def _preparing(original: Any) -> Any:
    """Between rendering and sampling parameters: tokens and messages are both known here, and only here."""

    async def render(self: Any, request: Any) -> Any:
        result = await original(self, request)
        admission = CURRENT.get()
        if admission is not None and not hasattr(result, "error"):
            inputs = result[1] if isinstance(result, tuple) else result
            tokens = [self._extract_prompt_components(i).token_ids for i in inputs]
            await admission.prepare(tokens, getattr(request, "messages", None))
        return result

    return render


def _boarding(original: Any) -> Any:
    """Sampling parameters carry the ticket; a route that admits nothing refuses our fields here."""

    def to_sampling_params(self: Any, *args: Any, **kwargs: Any) -> Any:
        params = original(self, *args, **kwargs)
        admission = CURRENT.get()
        if admission is not None:
            admission.board(params)
        else:
            _refuse_elsewhere(self)
        return params

    return to_sampling_params


def _no_beams(original: Any) -> Any:
    def to_beam_search_params(self: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_elsewhere(self)
        return original(self, *args, **kwargs)

    return to_beam_search_params


def _refuse_elsewhere(request: Any) -> None:
    sent = {*(request.model_extra or {}), *(request.vllm_xargs or {})}
    ours = sorted(sent & {*wire.FIELDS, KEY})
    if ours:
        raise _invalid(f"{', '.join(ours)}: taken on {' and '.join(ADMITTING)} only")


def _following(original: Any) -> Any:
    """An admitted request is followed, and so is every other one while somebody watches; else it is vLLM's own
    generator."""

    def generate(
        self: Any, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        admission, door = CURRENT.get(), Door.known(self)

        def outputs(params: Any) -> Any:
            return original(self, prompt, params, request_id, *args, **kwargs)

        if admission is not None:
            return admission.follow(outputs(sampling_params), request_id)
        if door is not None:
            # Engines of the Python face have no door, and write their own tickets.
            if KEY in (getattr(sampling_params, "extra_args", None) or {}):
                raise _invalid(f"extra_args.{KEY} is not for clients; send steering, readout or capture")
            if door.binds:
                raise _invalid(f"this server {door.binds}, and can do so on {' and '.join(ADMITTING)} only")
            if door.watched and kwargs.get("lora_request") is None:
                tokens = watching.tokens_of(prompt)
                if tokens is not None:
                    return watching.watched(door, tokens, sampling_params, request_id, outputs)
        return outputs(sampling_params)

    return generate


def _closing(original: Any) -> Any:
    """The engine client shuts down: who watches is sent home first, and what we hold is let go after."""

    def shutdown(self: Any, *args: Any, **kwargs: Any) -> Any:
        door = Door.known(self)
        if door is None:
            return original(self, *args, **kwargs)
        door.dismiss()
        try:
            return original(self, *args, **kwargs)
        finally:
            door.close()

    return shutdown


def _guarding(original: Any) -> Any:
    """An engine client was made: in an API server its app comes next, and gets the guard."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        module: Any = sys.modules.get("vllm.entrypoints.launchers.app")
        if module is not None:
            if not hasattr(module.attach_endpoint_plugins, "trimtab"):
                _wrap(module, "attach_endpoint_plugins", _attaching)
            for name in ("TRIMTAB_RULES", "TRIMTAB_FEED"):
                if os.environ.get(name) and not told():
                    raise Unsupported(
                        f"{name} is set, and holds only where vLLM loads our routes: name trimtab in VLLM_PLUGINS, or "
                        "unset it"
                    )
        original(self, *args, **kwargs)

    return __init__


def _attaching(original: Any) -> Any:
    def attach_endpoint_plugins(app: Any, *args: Any, **kwargs: Any) -> Any:
        guard.attach(app)
        return original(app, *args, **kwargs)

    return attach_endpoint_plugins


def _invalid(message: str) -> Exception:
    from vllm.exceptions import VLLMValidationError

    return VLLMValidationError(message)
