"""`trimtab convert`, `trimtab ls` and the library: both names of a layer are said, nothing is overwritten unasked."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import worlds
from trimtab import formats
from trimtab.directions import ConceptVectors
from trimtab.sites import Site


@pytest.fixture
def moods(tmp_path):
    """Joy and calm at layers 2, 5 and 6 of a model of 10."""
    path = tmp_path / "moods.safetensors"
    worlds.vectors(origin=worlds.origin(method="mean_diff")).save(path)
    return path


@pytest.fixture
def library(tmp_path):
    """The default library of these tests."""
    return tmp_path / "data" / "trimtab" / "vectors"


def raw(path, concept, layer):
    return ConceptVectors.load(path).direction(concept, Site(layer)).raw


def test_to_a_control_vector_and_back(trimtab, moods, tmp_path):
    pytest.importorskip("gguf", reason="needs gguf: pip install 'trimtab[gguf]'")
    there, back = tmp_path / "joy.gguf", tmp_path / "back.safetensors"
    record = trimtab("convert", moods, there, "--concept", "joy", "--layers", "5-6", "--json").record
    assert (record["concepts"], record["file"]) == (["joy"], str(there))
    assert [(r["site"], r["written_as"], r["read_as"]) for r in record["layers"]] == [
        ("layer_5", "direction.5", []),
        ("layer_6", "direction.6", []),
    ]
    done = trimtab("convert", there, back)
    assert done.code == 0 and "layer_5" in done.out and "read as direction.5 of joy.gguf" in done.out
    assert np.allclose(raw(back, "joy", 5), raw(moods, "joy", 5), rtol=1e-6)
    page = trimtab("inspect", back).out
    assert (
        "direction.5 of joy.gguf" in page and "{" not in page
    )  # a column of its own, no dump of a dictionary


def test_what_gguf_cannot_hold(trimtab, refused, moods, tmp_path):
    pytest.importorskip("gguf", reason="needs gguf: pip install 'trimtab[gguf]'")
    assert "pick one with --concept (joy, calm)" in refused("convert", moods, tmp_path / "x.gguf")
    worlds.vectors(("joy",), layers=(0, 1, 2)).save(tmp_path / "low.safetensors")
    assert "--layers 1-2" in refused("convert", tmp_path / "low.safetensors", tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_sums_names_and_merging(trimtab, refused, moods, tmp_path):
    fear, out = tmp_path / "fear.safetensors", tmp_path / "out.safetensors"
    worlds.vectors(("fear",), origin=worlds.origin()).save(fear)
    flags = ("--expr", "mood = joy - 0.5*fear", "--expr", "calm", "--rename", "calm=peace", "--json")
    assert trimtab("convert", moods, fear, "-o", out, *flags).record["concepts"] == ["mood", "peace"]
    assert np.allclose(raw(out, "mood", 5), raw(moods, "joy", 5) - 0.5 * raw(fear, "fear", 5), atol=1e-4)
    worlds.vectors(("joy",), origin=worlds.origin()).save(fear)
    assert "'joy' is in more than one file" in refused(
        "convert", moods, fear, "-o", tmp_path / "b.safetensors"
    )
    done = trimtab("convert", moods, fear, "-o", tmp_path / "b.safetensors", "--prefix", "--json")
    assert done.record["concepts"] == ["moods.joy", "moods.calm", "fear.joy"]


def test_orthogonal(trimtab, refused, moods, tmp_path):
    out = tmp_path / "joy.safetensors"
    line = ("convert", f"{moods}:joy", "--orthogonal-to", f"{moods}:calm", "-o", out)
    assert trimtab(*line).code == 0
    assert abs(raw(out, "joy", 2) @ raw(moods, "calm", 2)) < 1e-4
    worlds.vectors(("hope", "fear"), layers=(2, 5)).save(tmp_path / "fear.safetensors")
    fear = ("--orthogonal-to", f"{tmp_path / 'fear.safetensors'}:fear", "--replace")
    assert "no rows at layer_6: keep other --layers" in refused("convert", f"{moods}:joy", out, *fear)
    assert trimtab("convert", f"{moods}:joy", out, *fear, "--layers", "2,5").code == 0
    assert "lies in the span" in refused(*line[:3], f"{moods}:joy", *line[4:], "--replace")


def test_nothing_is_overwritten_unasked(trimtab, refused, moods, tmp_path):
    out = tmp_path / "out.safetensors"
    assert "name the file to write" in refused("convert", moods)
    assert trimtab("convert", moods, out).code == 0
    before = out.read_bytes()
    assert "add --replace" in refused("convert", moods, out, "--concept", "joy")
    assert "add --replace" in refused("convert", moods, "-o", out, "--concept", "joy")
    assert out.read_bytes() == before
    assert trimtab("convert", moods, out, "--concept", "joy", "--replace").code == 0
    assert ConceptVectors.load(out).concepts == ("joy",)
    (tmp_path / "corpus.json").write_text("[1]")
    assert "not its manifest" in refused("convert", moods, tmp_path / "corpus.safetensors")
    assert "either -o or --to-library" in refused("convert", moods, "-o", out, "--to-library", "x")
    assert "NAME.gguf" in refused("convert", moods, tmp_path / "x.pt")


def test_layers(trimtab, refused, moods, tmp_path):
    out = tmp_path / "out.safetensors"
    assert "has no layers [3]; it has [2, 5, 6]" in refused("convert", moods, out, "--layers", "2-3,5")
    assert trimtab("convert", moods, out, "--layers", "-4,50%").code == 0
    assert ConceptVectors.load(out).layers() == (5, 6)
    worlds.vectors().save(tmp_path / "foreign.safetensors")  # says no depth
    line = ("convert", tmp_path / "foreign.safetensors", out, "--replace", "--layers")
    assert "how many blocks" in refused(*line, "50%") and "how many blocks" in refused(*line, "-1")
    assert trimtab(*line, "2,6").code == 0


@pytest.mark.engine
def test_a_torch_file_and_what_it_does_not_say(trimtab, refused, tmp_path):
    torch = pytest.importorskip("torch")
    path, out = tmp_path / "refusal.pt", tmp_path / "out.safetensors"
    torch.save(torch.arange(1.0, 6.0), path)
    assert "does not say where it lives" in refused("convert", path, out)
    done = trimtab("convert", path, out, "--layer", "10", "--convention", "input")
    assert done.code == 0 and "read as layer 10 (input) of refusal.pt" in done.out
    assert ConceptVectors.load(out).layers() == (9,)
    picked = (
        "convert",
        f"{path}:refusal",
        out,
        "--layer",
        "10",
        "--convention",
        "output",
        "--replace",
        "--json",
    )
    assert trimtab(*picked).record["layers"][0]["site"] == "layer_10"
    torch.save(torch.randn(4, 5), tmp_path / "evil_prompt_avg_diff.pt")
    done = trimtab("convert", tmp_path / "evil_prompt_avg_diff.pt", out, "--replace", "--json")
    assert done.code == 0 and done.record["concepts"] == ["evil"]
    warning = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(warning) == 1 and "dropped row 0" in warning[0]
    assert "take no layer=" in refused("convert", out, tmp_path / "y.safetensors", "--layer", "3")


def test_model_hint_is_for_gguf(refused, moods, tmp_path):
    assert "--model-hint" in refused("convert", moods, tmp_path / "x.safetensors", "--model-hint", "llama")


# --- the library -------------------------------------------------------------------------------------------------

STEER = (
    "generate",
    "tiny",
    "--engine",
    "reference",
    "--prompt",
    "I feel",
    "--max-tokens",
    "3",
    "--dose",
    "1",
)


def test_a_name_is_enough(trimtab, refused, joy, moods, library):
    assert trimtab("convert", joy, "--to-library", "happy").code == 0
    assert ConceptVectors.load(library / "happy.safetensors").hash == ConceptVectors.load(joy).hash
    by_name, by_file = (
        trimtab(*STEER, "--steer", s, "--json").record["steering_applied"] for s in ("happy", joy)
    )
    assert by_name["fingerprint"] == by_file["fingerprint"] != "plain"
    assert trimtab("inspect", "happy:joy", "--json").record["hash"] == ConceptVectors.load(joy).hash
    assert "the library" in refused(*STEER, "--steer", "hapy") and "it has: happy" in refused(
        *STEER, "--steer", "hapy"
    )
    assert "add --replace" in refused("convert", moods, "--to-library", "happy")
    assert "plain word" in refused("convert", moods, "--to-library", "a/b")


def test_a_plan_may_use_names(trimtab, joy, tmp_path):
    assert trimtab("convert", joy, "--to-library", "happy").code == 0
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"placements": [{"op": "add", "dose": 1.0, "vector": "happy"}]}))
    done = trimtab(*STEER[:-2], "--plan", plan, "--json")
    assert done.code == 0 and done.record["steering_applied"]["fingerprint"] != "plain", done.err


def test_another_library(trimtab, refused, joy, tmp_path, monkeypatch):
    other = tmp_path / "other"
    assert trimtab("convert", joy, "--to-library", "happy", "--library", other).code == 0
    assert "it has: nothing" in refused("inspect", "happy")
    assert trimtab("inspect", "happy", "--library", other).code == 0
    config = tmp_path / "settings.yaml"
    config.write_text(f"library: {other}\n")
    assert trimtab("inspect", "happy", "--config", config).code == 0


def test_the_library_of_the_environment(trimtab, joy, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_LIBRARY", str(tmp_path / "other"))
    done = trimtab("convert", joy, "--to-library", "happy")
    assert done.code == 0 and (tmp_path / "other" / "happy.safetensors").exists()
    assert "warning" not in done.err and trimtab("inspect", "happy").code == 0


def test_ambiguous_names(refused, trimtab, joy, library):
    assert trimtab("convert", joy, "--to-library", "happy").code == 0
    (library / "happy.gguf").write_bytes(b"")
    assert "2 files in the library" in refused("inspect", "happy")


def test_a_file_stands_before_a_name(trimtab, joy, moods, library, tmp_path, monkeypatch):
    assert trimtab("convert", joy, "--to-library", "happy").code == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "happy").mkdir()  # a folder of that name is no vector file
    assert trimtab("inspect", "happy").code == 0
    ConceptVectors.load(joy).save(
        library / "moods.safetensors.safetensors"
    )  # a name that looks like the file's
    assert trimtab("inspect", "moods.safetensors", "--json").record["concepts"] == ["joy", "calm"]


# --- ls ----------------------------------------------------------------------------------------------------------


def test_ls(trimtab, refused, joy, moods, tmp_path, monkeypatch):
    assert trimtab("convert", joy, "--to-library", "happy").code == 0
    monkeypatch.chdir(tmp_path)
    save_file(
        {"weight": np.eye(2, dtype=np.float32)}, tmp_path / "model.safetensors"
    )  # a model is no vector file
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    (tmp_path / "a.pt").write_bytes(b"x")
    done = trimtab("ls", "--json")
    files = {f["path"]: f for f in done.record["files"]}
    assert len(files) == 4 and {f["name"] for f in files.values()} == {None, "happy"}
    assert "damaged" in files["broken.safetensors"]["problem"]
    found = files["moods.safetensors"]
    assert (found["concepts"], found["sites"]) == (["joy", "calm"], ["layer_2", "layer_5", "layer_6"])
    assert (found["model"], found["method"], found["format"]) == ("paper", "mean_diff", "native")
    assert found["hash"] == ConceptVectors.load(moods).hash and done.record["torch_files"] == 1
    page = trimtab("ls")
    assert "resid_post 2,5-6" in page.out and "happy" in page.out and "1 .pt files not opened" in page.err
    (tmp_path / "deep").mkdir()
    moods.rename(tmp_path / "deep" / "moods.safetensors")
    assert [f["path"] for f in trimtab("ls", "deep", "--json").record["files"]] == ["deep/moods.safetensors"]
    assert len(trimtab("ls", ".", "-r", "--json").record["files"]) == 4
    assert "no such folder" in refused("ls", "nowhere")


def test_ls_of_nothing(trimtab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        trimtab("ls").out.startswith("no vector files in . or ")
        and trimtab("ls", "--json").record["files"] == []
    )


def test_ls_of_control_vectors(trimtab, moods, tmp_path):
    pytest.importorskip("gguf", reason="needs gguf: pip install 'trimtab[gguf]'")
    formats.save(ConceptVectors.load(moods).only(["joy"]), tmp_path / "g" / "joy.gguf", model_hint="llama")
    (tmp_path / "g" / "broken.gguf").write_bytes(b"no")
    broken, joy = trimtab("ls", tmp_path / "g", "--json").record["files"]
    assert joy["concepts"] == ["joy"] and joy["model"] == "paper" and joy["format"] == "gguf"
    assert "damaged" in broken["problem"] and "damaged" in trimtab("ls", tmp_path / "g").out.replace(
        "\n", " "
    )


def test_an_adapter(trimtab, refused, moods, tmp_path):
    config = {"model_type": "llama", "num_hidden_layers": 10, "hidden_size": 24, "intermediate_size": 40}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    line = (
        "convert",
        f"{moods}:joy",
        "-o",
        tmp_path / "adapter",
        "--peft",
        tmp_path / "model",
        "--scale",
        "2",
    )
    record = trimtab(*line, "--json").record
    assert record["format"] == "peft" and record["layers"][0]["written_as"].startswith(
        "model.layers.2.mlp.down_proj"
    )
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert "add --replace" in refused(*line)
    assert "--scale is for peft only" in refused("convert", moods, tmp_path / "x.safetensors", "--scale", "2")
    assert "is a folder" in refused("convert", moods, tmp_path / "x.gguf", "--peft", tmp_path / "model")
