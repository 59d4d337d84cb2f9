"""Inspect's provider: `inspect eval TASK --model trimtab/NAME` on a served model, steered and read.

    inspect eval task.py --model trimtab/embedded --model-base-url http://127.0.0.1:8000/v1 \\
        -M steering=plan.json -M readout='{"layers": [4]}'

The key is in `TRIMTAB_API_KEY`, the address in `TRIMTAB_BASE_URL` where no flag gives it. What was applied, and what
was read, is in the metadata of every model output.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import InputError, MissingDependency, SteeringLost

try:
    from inspect_ai.model import GenerateConfig, modelapi
    from inspect_ai.model._providers.openai_compatible import OpenAICompatibleAPI
except ImportError as error:
    raise MissingDependency.of("inspect-ai", "inspect", "the provider of Inspect") from error

ADDRESS = "http://127.0.0.1:8000/v1"
#: Fields of ours that may be given with `-M`.
FIELDS = ("steering", "readout", "rules")


def field(name: str, given: Any) -> Any:
    """A field as a value, as its JSON, or as the name of a file that holds its JSON."""
    if not isinstance(given, str):
        return given
    text = given
    if not given.lstrip().startswith(("{", "[")):
        try:
            text = Path(given).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{name} is JSON or a file with JSON; {given!r} cannot be read") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{name} is not JSON: {error}") from error


class TrimtabAPI(OpenAICompatibleAPI):
    """A server of `trimtab serve` behind Inspect's own OpenAI client."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        **model_args: Any,
    ) -> None:
        given = {name: field(name, model_args.pop(name)) for name in FIELDS if name in model_args}
        self.fields = {name: value for name, value in given.items() if value is not None}
        super().__init__(
            model_name,
            base_url=base_url,
            api_key=api_key or os.environ.get("TRIMTAB_API_KEY") or "none",
            config=config,
            service="trimtab",
            service_base_url=ADDRESS,
            api_key_var="TRIMTAB_API_KEY",
            **model_args,
        )

    def completion_params(self, config: GenerateConfig, tools: bool) -> dict[str, Any]:
        """The request, with our fields beside whatever the caller adds."""
        found = super().completion_params(config, tools)
        return (
            {**found, "extra_body": {**(found.get("extra_body") or {}), **self.fields}}
            if self.fields
            else found
        )

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        """An answer with its receipt; one that does not say that it was steered is not given out."""
        result = await super().generate(*args, **kwargs)
        output, call = result if isinstance(result, tuple) else (result, None)
        if isinstance(output, Exception) or output.error is not None or call is None:
            return result
        answer = call.response or {}
        applied = answer.get("steering_applied")
        if "steering" in self.fields and not isinstance(applied, (Mapping, list)):
            raise SteeringLost("the server did not say what it applied: it does not know the field steering")
        read = [{k: c[k] for k in ("readout", "rules") if c.get(k)} for c in answer.get("choices", ())]
        told = {"steering_applied": applied, "choices": read}
        output.metadata = {**(output.metadata or {}), "trimtab": told}
        return output, call


@modelapi(name="trimtab")
def trimtab() -> type[TrimtabAPI]:
    """Registered with Inspect by the entry point `inspect_ai`."""
    return TrimtabAPI
