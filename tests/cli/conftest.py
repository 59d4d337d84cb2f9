"""Command lines as a person types them, on the reference model."""

import json
import os
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from trimtab.cli import main
from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_texts
from trimtab.engines import load_engine
from trimtab.recipes import extract


@pytest.fixture
def trimtab(capsys, monkeypatch, tmp_path):
    """Run `trimtab …` and return its exit code, stdout, stderr and, with --json, the record."""
    monkeypatch.setenv(
        "XDG_DATA_HOME", str(tmp_path / "data")
    )  # no test sees, or fills, a person's own library
    for name in list(os.environ):
        if name.startswith("TRIMTAB_"):
            monkeypatch.delenv(name)

    def call(*argv):
        capsys.readouterr()
        code = main([str(a) for a in argv])
        out, err = capsys.readouterr()
        record = None
        if code == 0 and "--json" in argv:
            assert out.count("\n") == 1 and out.endswith("\n"), out
            record = json.loads(out, parse_constant=pytest.fail)
        return SimpleNamespace(code=code, out=out, err=err, record=record)

    return call


@pytest.fixture
def unless():
    """`unless(given, {flag: value})`: the flags of a test's common command line that it does not give itself."""
    return lambda given, usual: [p for flag, v in usual.items() if flag not in given for p in (flag, v)]


@pytest.fixture
def refused(trimtab):
    """Run a command line that must end with one message and exit code 2, and nothing on stdout."""

    def call(*argv):
        done = trimtab(*argv)
        errors = [line for line in done.err.splitlines() if line.startswith(("error:", "Error:"))]
        assert (done.code, done.out, len(errors)) == (2, "", 1), done
        assert "Traceback" not in done.err
        return errors[0]

    return call


def patch_neutral(monkeypatch):
    """Three neutral texts instead of all: the reference model spells them byte by byte."""
    few = neutral_texts()[:3]
    monkeypatch.setattr("trimtab.recipes.neutral.neutral_texts", lambda: few)


@pytest.fixture
def few_neutral_texts(monkeypatch):
    patch_neutral(monkeypatch)


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model is loaded: what a test refuses must be refused before."""

    def load(*_, **__):
        pytest.fail("a model was loaded")

    monkeypatch.setattr("trimtab.cli.models.load_engine", load)


JOY = [
    {"positive": f"{s} {v} really {p} today.", "negative": f"{s} {v} really {n} today.", "concept": "joy"}
    for s in ("I", "you", "we", "they")
    for v, p, n in (("feel", "happy", "sad"), ("seem", "glad", "gloomy"), ("look", "merry", "lonely"))
]


@pytest.fixture
def joy_pairs(tmp_path):
    """Twelve pairs about joy in the reference model's language."""
    path = tmp_path / "joy_pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in JOY))
    return path


@pytest.fixture
def continuations(tmp_path):
    """Write beginnings in the reference model's language, each with the words of joy and of its opposite."""

    def write(name, subjects, verbs):
        words = {"joy": [" happy", " glad"], "other": [" sad", " gloomy"]}
        rows = [{"prompt": f"{s} {v} really", "continuations": words} for s in subjects for v in verbs]
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def joy_vectors():
    """Joy on the reference model: one concept, four layers."""
    sides = [[row[side] for row in JOY] for side in ("positive", "negative")]
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch_neutral(monkeypatch)
        return extract(load_engine("tiny", "reference"), Contrast("joy", *sides, paired=True))


@pytest.fixture
def joy(joy_vectors, tmp_path):
    """A vector file for the reference model."""
    path = tmp_path / "joy.safetensors"
    joy_vectors.save(path)
    return path


@contextmanager
def _serving(engine, settings, key=None):
    uvicorn = pytest.importorskip("uvicorn", reason="needs trimtab[serve]")
    from trimtab.server.app import build

    server = uvicorn.Server(
        uvicorn.Config(build(engine, settings, key), port=0, log_level="error", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 120
        while not server.started:
            assert time.monotonic() < until and thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serving():
    """`with serving(engine, settings, key) as url`: our own server on a free port of this machine."""
    return _serving
