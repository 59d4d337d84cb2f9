"""A stock vLLM server on loopback, started through its module, with trimtab as an installed plugin."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx
import numpy as np

from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.server.vllm import starting
from trimtab.sites import Site

ROOT = Path(__file__).parents[2]
WIDTH, LAYERS = 192, 6
CONCEPTS = ("happy", "sad", "calm")


def typical(layer: int) -> float:
    """About the size of the embedded model's states, so that a dose of 1 is felt."""
    return 600.0 + 100.0 * layer


def vectors(
    seed: int = 0, layers: Sequence[int] = range(LAYERS), concepts: Sequence[str] = CONCEPTS
) -> ConceptVectors:
    """Directions of the embedded model's width, with all that plans and readings need."""
    random = np.random.default_rng(seed)
    return ConceptVectors.from_directions(
        [
            Direction.from_raw(
                name,
                Site(layer),
                random.standard_normal(WIDTH),
                typical_norm=typical(layer),
                mean=0.25,
                std=2.0,
            )
            for name in concepts
            for layer in layers
        ],
        origin=Origin(model="embedded", n_layers=LAYERS),
    )


def write_installation(folder: Path) -> None:
    """What an installer writes, so that the entry points are those of this checkout whatever is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


class Port:
    """A free port of this machine, that nobody else is given until `free`: a socket holds it without listening, which
    keeps no server away that may take the address of an old one, as servers do."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":  # elsewhere it would keep the server away
            self.free()

    def free(self) -> None:
        self._socket.close()


class Server:
    """The process; `url` is its root. Inside `with` it is healthy, and afterwards it is gone."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        flags: Sequence[str],
        plugins: bool = True,
        model: str = "embedded",
    ) -> None:
        write_installation(folder / "site")
        self.port = Port()
        self.url = f"http://127.0.0.1:{self.port.number}"
        self.log = folder / "server.log"
        env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", **environment}
        env["PYTHONPATH"] = os.pathsep.join([str(folder / "site"), str(ROOT / "src")])
        if plugins:
            env = starting.environment(env)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                starting.command(model, ["--port", str(self.port.number), *flags]),
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
            )

    def wait(self, seconds: float = 900) -> None:
        """Until it is healthy."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(self.url + "/health", timeout=10).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.25)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-6000:]}")

    def __enter__(self) -> Self:
        try:
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """As an operator ends it; and for good, should it hang."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        self.port.free()


if __name__ == "__main__":  # a server to try things on by hand: python tests/server/stock.py FOLDER SECONDS
    place = Path(sys.argv[1])
    (place / "vectors").mkdir(parents=True)
    vectors().save(place / "vectors" / "feelings.safetensors")
    environment = {
        "TRIMTAB_READOUT_VECTORS": str(place / "vectors" / "feelings.safetensors"),
        "TRIMTAB_VECTOR_DIR": str(place / "vectors"),
    }
    flags = ["--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "16", "--dtype", "float32"]
    with Server(place, environment, flags) as server:
        print(server.url, flush=True)
        time.sleep(float(sys.argv[2]))
