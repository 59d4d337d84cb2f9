"""A server that is told to end: what runs is finished or told so, nothing new is taken, and the log says it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the server needs httpx: pip install 'trimtab[serve]'")
pytest.importorskip("uvicorn", reason="the server needs uvicorn: pip install 'trimtab[serve]'")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
START = "import sys; from trimtab.cli import main; sys.exit(main(sys.argv[1:]))"
BODY = {
    "prompt": "I feel",
    "max_tokens": 400,
    "temperature": 1,
    "seed": 3,
    "ignore_eos": True,
    "stream": True,
}


def stopped_while_it_streams(
    folder: Path, *flags: str, n: int = 1
) -> tuple[list[str], bool, list[dict[str, Any]], int]:
    """(events of one stream of n samples, whether a second client was refused, lines of the log, exit code)."""
    from server.stock import Port

    port = Port()
    url, log = f"http://127.0.0.1:{port.number}", folder / "log"
    words = ["serve", "tiny", "--engine", "reference", "--port", str(port.number), "--quiet", *flags]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *words], stderr=out,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        for _ in range(1200):
            try:
                httpx.get(url + "/health")
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        events, refused = [], False
        with httpx.stream("POST", url + "/v1/completions", json={**BODY, "n": n}, timeout=120) as answer:
            for line in answer.iter_lines():
                if line:
                    events.append(line)
                if len(events) == 1:
                    process.send_signal(signal.SIGTERM)
                if len(events) > 2 and not refused:
                    try:
                        httpx.get(url + "/health", timeout=5)
                    except httpx.ConnectError:
                        refused = True
                    except httpx.TransportError:
                        pass  # it came while the door was being closed
        code = process.wait(60)
    finally:
        process.kill()
        process.wait(60)
        port.free()
    return events, refused, [json.loads(x) for x in log.read_text().splitlines()], code


def test_what_runs_is_finished_and_nothing_new_is_taken(tmp_path):
    events, refused, lines, code = stopped_while_it_streams(tmp_path)
    assert events[-1] == "data: [DONE]" and len(events) == 402 and refused
    assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert code in (0, -signal.SIGTERM)
    told = next(x for x in lines if x.get("path") == "/v1/completions")
    assert told["status"] == 200 and told["completion_tokens"] == 400


def test_what_does_not_end_in_time_is_told_so(tmp_path):
    # Many samples, so that it does not end by itself before the signal is heard.
    events, _, lines, _ = stopped_while_it_streams(tmp_path, "--grace", "0", n=8)
    assert events[-1] == "data: [DONE]" and len(events) < 8 * 400
    error = json.loads(events[-2].removeprefix("data: "))["error"]
    assert error["code"] == 503 and "shutting down" in error["message"]
    assert any(x.get("path") == "/v1/completions" and x.get("broke") == "CancelledError" for x in lines)
