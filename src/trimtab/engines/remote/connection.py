"""The line to a server: key, time limits, how many calls at once, what is asked again, and errors in words."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from trimtab import errors
from trimtab.errors import InputError, MissingDependency, TrimtabError, Unsupported

#: Seconds before the first repetition, the longest pause, and the longest that a server may ask for.
FIRST, LONGEST, PATIENCE = 0.25, 8.0, 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Unanswered(TrimtabError):
    """A server went away, or has no room: another one of the same model may answer. `began` says that this one may have
    begun to; `full` that it is there."""

    def __init__(self, message: str, *, began: bool = True, full: bool = False) -> None:
        super().__init__(message)
        self.began, self.full = began, full


class Connection:
    """Calls to one server. `retries` repetitions of a call that never reached it or that it had no room for, and of
    any broken call that is safe to repeat; `concurrency` calls at once; `timeout` seconds without a byte end a call."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 300.0,
        retries: int = 4,
        concurrency: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependency.of("httpx", "serve", "the remote engine") from error
        if timeout <= 0 or retries < 0 or concurrency < 1:
            raise InputError("timeout is more than 0 seconds, retries at least 0 and concurrency at least 1")
        self.url, self.retries, self.concurrency = _address(url), retries, concurrency
        self._httpx, self._sleep = httpx, sleep
        self._room = threading.BoundedSemaphore(concurrency)
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=10.0, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency),
            trust_env=urlsplit(self.url).hostname
            not in _LOOPBACK,  # no proxy reaches this machine's own ports
        )

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def well(self) -> bool:
        """Whether the server is there and says that it takes requests."""
        try:
            return self._client.get("/health", timeout=10.0).status_code == 200
        except self._httpx.TransportError:
            return False

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object of a GET."""
        return self._json(lambda: self._client.get(path))

    def post(self, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """A JSON object for another, of a route that changes nothing."""
        return self._json(lambda: self._client.post(path, json=data))

    def exchange(self, path: str, body: bytes, media: str) -> bytes:
        """A body for a body, of a route that changes nothing."""
        with self._room:
            answer = self._asked(
                lambda: self._client.post(path, content=body, headers={"Content-Type": media}), repeat=True
            )
        if answer.headers.get("content-type") != media:
            raise self._stranger(path)
        return answer.content

    @contextlib.contextmanager
    def stream(self, path: str, body: bytes, media: str, back: str) -> Iterator[Iterator[bytes]]:
        """The pieces of a streamed answer. Once it has begun nothing is repeated: a break is an error."""
        client, headers = self._client, {"Content-Type": media}
        answer = self._asked(
            lambda: client.send(
                client.build_request("POST", path, content=body, headers=headers), stream=True
            ),
            repeat=False,
        )
        try:
            if answer.headers.get("content-type") != back:
                raise self._stranger(path)
            yield self._pieces(answer)
        finally:
            answer.close()

    def _pieces(self, answer: Any) -> Iterator[bytes]:
        try:
            yield from answer.iter_bytes()
        except self._httpx.TransportError as error:
            raise Unanswered(f"the answer of {self.url} broke off: {_words(error)}") from error

    def _json(self, call: Callable[[], Any]) -> dict[str, Any]:
        with self._room:
            answer = self._asked(call, repeat=True)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._stranger(str(answer.request.url.path))
        return found

    def _asked(self, call: Callable[[], Any], *, repeat: bool) -> Any:
        """A good answer, or what is wrong in words. Only with `repeat` is a call sent again that may have arrived."""
        http = self._httpx
        never_arrived = (http.ConnectError, http.ConnectTimeout)
        broken = (*never_arrived, http.RemoteProtocolError, http.NetworkError) if repeat else never_arrived
        for attempt in range(self.retries + 1):
            pause = min(LONGEST, FIRST * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                answer = call()
            except http.TransportError as error:
                if not isinstance(error, broken) or attempt == self.retries:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    began = not isinstance(error, never_arrived)
                    raise Unanswered(
                        f"no answer from {self.url}{tries}: {_words(error)}", began=began
                    ) from error
            else:
                if answer.status_code != 503 or attempt == self.retries:
                    return self._good(answer)
                pause = max(pause, _wanted(answer.headers.get("retry-after")))
                answer.close()
            self._sleep(pause)
        raise AssertionError("unreachable")

    def _good(self, answer: Any) -> Any:
        if answer.status_code == 200:
            return answer
        try:
            answer.read()
            told = answer.json()["error"]
            message, kind = str(told["message"]), told.get("kind")
        except (self._httpx.TransportError, LookupError, TypeError, ValueError):
            message, kind = f"HTTP {answer.status_code}", None
        finally:
            answer.close()
        error = self.error(answer.status_code, message, kind)
        if isinstance(error, Unanswered):
            error.began = False
        raise error

    def error(self, status: int, message: str, kind: str | None) -> TrimtabError:
        """The error that the server named, or the one that its status stands for."""
        found = getattr(errors, str(kind), None)
        if isinstance(found, type) and issubclass(found, TrimtabError):
            return found(message)
        if status == 503:
            return Unanswered(f"{self.url}: {message}", full=True)
        if status in (401, 403):
            return InputError(
                f"{self.url} refuses the key: {message}; set TRIMTAB_API_KEY to the server's key"
            )
        if status in (404, 405):
            return self._stranger("/v1/engine")
        if 300 <= status < 400:
            return InputError(
                f"{self.url} sends elsewhere (HTTP {status}): give the address of the server itself"
            )
        return InputError(message) if status in (400, 413, 422) else TrimtabError(f"{self.url}: {message}")

    def _stranger(self, path: str) -> Unsupported:
        return Unsupported(
            f"{self.url} has no route {path} of trimtab's engines: serve the model with `trimtab serve MODEL`, or "
            "start vLLM with VLLM_PLUGINS=trimtab; a vLLM that is not told to load our routes does not offer them"
        )


def _address(url: str) -> str:
    """The server's address without /v1."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"the remote engine's model is a server's address, http://HOST:PORT, got {url!r}")
    if parts.username or parts.password:
        raise InputError("the address holds a name or a password: give the key as TRIMTAB_API_KEY instead")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _wanted(text: str | None) -> float:
    """Seconds of a Retry-After header; 0 for none, and for a date."""
    try:
        return min(PATIENCE, max(0.0, float(text or 0)))
    except ValueError:
        return 0.0


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
