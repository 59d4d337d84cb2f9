"""A vLLM that lacks an extension point serves plain requests and refuses those with plans."""

import pytest

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from vllm import SamplingParams
from vllm.v1.engine.input_processor import InputProcessor

from trimtab.engines.vllm import extension_points, plugin, refusal
from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import Unsupported
from trimtab.server.vllm import plugin as entry

pytestmark = pytest.mark.engine


@pytest.fixture
def lacking(monkeypatch):
    monkeypatch.setattr(extension_points, "missing", lambda: ["vllm:Nothing (to hang on)"])
    monkeypatch.setattr(InputProcessor, "_validate_params", lambda self, params, tasks: "taken")
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)


def test_requests_with_plans_are_refused_and_plain_ones_taken(lacking):
    for _ in range(2):  # every process loads plugins, some of them twice
        entry.register()
    taken = InputProcessor._validate_params(None, SamplingParams(), ("generate",))
    assert taken == "taken"
    assert InputProcessor._validate_params(None, SamplingParams(extra_args={"other": 1}), ()) == "taken"
    with pytest.raises(ValueError, match="carries a plan.*lacks.*Nothing"):
        InputProcessor._validate_params(None, SamplingParams(extra_args={KEY: "{}"}), ())


def test_a_server_told_to_load_the_plugin_does_not_start_without_it(lacking, monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "trimtab")
    with pytest.raises(Unsupported, match="names trimtab"):
        entry.register()


def test_a_vllm_that_cannot_even_refuse_is_refused(lacking, monkeypatch):
    monkeypatch.setattr(refusal, "DOORS", (("vllm.nowhere", "Processor", "process_inputs"),))
    with pytest.raises(Unsupported, match="uninstall trimtab"):
        plugin.register()
