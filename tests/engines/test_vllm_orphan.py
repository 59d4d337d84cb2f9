"""An engine whose server is killed ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]
SCRIPT = """
    import multiprocessing, os, signal, sys, threading, time

    def worker(deaf, name):
        from trimtab.engines.vllm import orphan
        orphan.GRACE = 0.5
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        orphan.watch()
        orphan.watch()
        assert sum(t.name == orphan.THREAD for t in threading.enumerate()) == (name == "EngineCore_DP0")
        print(os.getpid(), flush=True)
        time.sleep(240)

    if __name__ == "__main__":
        deaf, name = sys.argv[1] == "deaf", sys.argv[2]
        multiprocessing.get_context("spawn").Process(target=worker, args=(deaf, name), name=name).start()
        time.sleep(240)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone, or while it is read
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize(
    ("kind", "name"), [("hears", "EngineCore_DP0"), ("deaf", "EngineCore_DP0"), ("hears", "somebody else's")]
)
def test_an_engine_ends_when_its_parent_is_killed(kind, name, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen(
        [sys.executable, str(script), kind, name], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
        until = time.monotonic() + (60 if name.startswith("EngineCore") else 2)
        while lives(pid) and time.monotonic() < until:
            time.sleep(0.05)
        if name.startswith("EngineCore"):
            assert not lives(pid)
        else:  # nobody's business
            assert lives(pid)
            os.kill(pid, signal.SIGKILL)
