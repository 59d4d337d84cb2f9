"""An OpenAI-compatible chat endpoint: every answer kept on disk, retries with backoff, clear refusals.

httpx is imported when the first call is made, so that the core installs without it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.errors import InputError, MissingDependency, TrimtabError

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
#: Characters per token of English text, roughly, for estimates.
CHARACTERS = 4


@dataclass(frozen=True)
class Answer:
    """What came back: text, the log-probabilities of its tokens with their alternatives, and whether it was kept."""

    text: str
    tokens: tuple[Mapping[str, Any], ...] = ()
    kept: bool = False
    usage: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """Before anything is sent: calls to make, calls whose answers are kept, tokens in and (at most) out, and the cost
    in the unit of the prices given (None without prices)."""

    calls: int
    kept: int
    tokens_in: int
    tokens_out: int
    cost: float | None


class Endpoint:
    """`ask(messages)` at temperature 0. `cache` is a folder of answers by request (None keeps nothing on disk).

    Waits `backoff`, doubled each time, between `retries` attempts where the server is busy, broken or not reached; the
    server's own `Retry-After` wins. What a retry cannot mend (401, 404, 422 …) is an error at once.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        cache: Path | None = None,
        logprobs: bool = True,
        max_tokens: int = 16,
        retries: int = 5,
        backoff: float = 1.0,
        timeout: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"an endpoint is a URL such as http://localhost:8000/v1, got {url!r}")
        if importlib.util.find_spec("httpx") is None:
            raise MissingDependency.of("httpx", "serve", "the judge")
        self.url, self.model = url.rstrip("/"), model
        self.cache, self.logprobs, self.max_tokens = cache, logprobs, max_tokens
        self.retries, self.backoff, self.timeout = retries, backoff, timeout
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._sleep = sleep
        self._client: Any = None
        self._lock = threading.Lock()
        self.calls = 0

    def body(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """The request, which is also what names its answer on disk."""
        extra = {"logprobs": True, "top_logprobs": 20} if self.logprobs else {}
        fixed = {"temperature": 0, "max_tokens": self.max_tokens, "seed": 0}
        return {"model": self.model, "messages": messages, **fixed, **extra}

    def ask(self, messages: list[dict[str, str]]) -> Answer:
        """One answer, from disk where the same request was answered before."""
        body = self.body(messages)
        file = self._file(body)
        if file is not None and file.is_file():
            return _answer(json.loads(file.read_text(encoding="utf-8"))["response"], kept=True)
        response = self._post(body)
        answer = _answer(response)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.{os.getpid()}.{id(body)}.part")
            record = {"url": self.url, "request": body, "response": response}
            part.write_text(json.dumps(record, ensure_ascii=True), encoding="utf-8")
            os.replace(part, file)
        return answer

    def estimate(
        self, asked: list[list[dict[str, str]]], price_in: float | None = None, price_out: float | None = None
    ) -> Estimate:
        """What asking these would take; prices are per million tokens."""
        new = [m for m in asked if (f := self._file(self.body(m))) is None or not f.is_file()]
        tokens = sum(sum(len(t["content"]) for t in m) for m in new) // CHARACTERS
        out = self.max_tokens * len(new)
        cost = None
        if price_in is not None or price_out is not None:
            cost = (tokens * (price_in or 0.0) + out * (price_out or 0.0)) / 1e6
        return Estimate(len(new), len(asked) - len(new), tokens, out, cost)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _file(self, body: Mapping[str, Any]) -> Path | None:
        if self.cache is None:
            return None
        text = json.dumps([self.url, body], sort_keys=True)
        return self.cache / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.json"

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(headers=self._headers, timeout=self.timeout)
        where = f"{self.url}/chat/completions"
        said = ""
        for attempt in range(self.retries + 1):
            wait = self.backoff * 2**attempt
            try:
                with self._lock:
                    self.calls += 1
                reply = self._client.post(where, json=dict(body))
            except httpx.TransportError as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if reply.status_code == 200:
                    return _checked(reply, where)
                said = f"HTTP {reply.status_code}: {reply.text[:300]}"
                if reply.status_code not in RETRIED:
                    raise TrimtabError(f"{where} refuses the request, {said}{_mend(reply)}")
                wait = _wait(reply.headers.get("retry-after"), wait)
            if attempt < self.retries:
                self._sleep(wait)
        raise TrimtabError(
            f"{where} gave no answer in {self.retries + 1} attempts; the last said {said}. Answers so far are "
            "kept: the same command goes on from them"
        )


def _checked(reply: Any, where: str) -> dict[str, Any]:
    try:
        found = reply.json()
        found["choices"][0]["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise TrimtabError(f"{where} does not answer like a chat endpoint: {reply.text[:200]!r}") from None
    return found


def _mend(reply: Any) -> str:
    if reply.status_code in (401, 403):
        return ". Name the variable that holds the key with --api-key-env"
    if "logprob" in reply.text.lower():
        return ". It gives no log-probabilities: use --no-logprobs, and marks are read from the text"
    return ""


def _wait(header: str | None, otherwise: float) -> float:
    try:
        return float(header) if header else otherwise
    except ValueError:  # a date: wait as planned
        return otherwise


def _answer(response: Mapping[str, Any], kept: bool = False) -> Answer:
    choice = response["choices"][0]
    listed = (choice.get("logprobs") or {}).get("content") or []
    return Answer(choice["message"].get("content") or "", tuple(listed), kept, response.get("usage") or {})
