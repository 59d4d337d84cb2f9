"""One real vLLM server on loopback, stock but for the installed plugin, for all files that ask one."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    from server.asking import FLAGS
    from server.stock import Server, vectors

    folder = tmp_path_factory.mktemp("server")
    (folder / "vectors").mkdir()
    vectors().save(folder / "vectors" / "feelings.safetensors")
    vectors(7, concepts=("brave",)).save(folder / "vectors" / "more.safetensors")
    vectors(9).save(folder / "secret.safetensors")
    environment = {
        "VLLM_READOUT_VECTORS": str(folder / "vectors" / "feelings.safetensors"),
        "TRIMTAB_VECTOR_DIR": str(folder / "vectors"),
        "TRIMTAB_CAPTURE_SECONDS": "60",
        "TRIMTAB_FEED": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # a route to ask the worker what it holds
    }
    with Server(folder, environment, FLAGS) as found:
        yield found


@pytest.fixture(scope="session")
def http(server):
    import httpx

    with httpx.Client(base_url=server.url, timeout=600) as client:
        yield client


@pytest.fixture(scope="session")
def official(server):
    openai = pytest.importorskip("openai", reason="the official client, to see that it needs no change")
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none")


@pytest.fixture(scope="session")
def truth():
    """The same model on another engine."""
    import trimtab
    from server.stock import vectors

    engine: Any = trimtab.load_engine("embedded", "transformers", dtype="float32")
    engine.library["feelings"] = vectors()
    yield engine
    engine.close()
