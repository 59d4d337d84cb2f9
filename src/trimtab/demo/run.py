"""The order of things: load, extract, steer, learn, read, report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from trimtab import embedded
from trimtab.demo import feelings, honesty, readings
from trimtab.demo.feelings import Feelings
from trimtab.demo.materials import Materials
from trimtab.demo.results import DemoResult, Shown
from trimtab.demo.sampling import Samples
from trimtab.demo.settings import DemoSettings
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.engines.base import Engine
from trimtab.errors import InputError
from trimtab.evaluation.classifier import TextClassifier
from trimtab.recipes import extract


class Bar(Protocol):
    """A progress bar that counts units."""

    def advance(self, n: int = 1) -> None: ...


class Voice(Protocol):
    """Who hears how far the demo is; the command line's desk is one."""

    def note(self, message: str) -> None: ...
    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[Bar]: ...


def _default_engine() -> Engine:
    return load_engine("embedded")


def run(
    settings: DemoSettings, folder: Path, voice: Voice, load: Callable[[], Engine] = _default_engine
) -> DemoResult:
    """Run the whole demo and write its folder; on an error or an interrupt the folder is left as it was."""
    clock = _Clock()
    materials = Materials.read(embedded.data("pairs.jsonl").parent, settings)
    with _staged(folder) as stage:
        voice.note("loading the embedded model")
        with clock("load"):
            engine = load()
        with clock("classifier"):
            texts, labels = zip(*materials.labelled, strict=True)
            classifier = TextClassifier.fit(texts, labels, seed=settings.seed)
        with clock("extract"), voice.progress("extract", None):
            vectors = extract(engine, list(materials.feelings), method="mean_diff", layers="all")
            honest = extract(
                engine, [materials.honesty], method="mean_diff", layers="all", pooling="mean_user"
            )
        with clock("steer"), voice.progress("steer (samples)", _count(settings)) as bar:
            felt = feelings.measure(engine, vectors, materials, classifier, settings, bar.advance)
        with (
            clock("honesty"),
            voice.progress("honesty (samples)", _count_honesty(settings, materials)) as bar,
        ):
            told = honesty.study(engine, honest, materials, settings, bar.advance)
        with clock("read"):
            voice.note("reading stories token by token")
            read = readings.study(engine, vectors, materials.stories, settings)
            shown = show(felt, read, materials, settings)
        result = DemoResult(
            info=engine.info,
            settings=settings,
            materials=materials,
            feelings=felt,
            honesty=told,
            readings=read,
            shown=shown,
            folder=folder,
            wall_s=clock.total,
            timings=clock.parts,
            engine=engine.name,
        )
        result = _write(result, vectors, honest, stage, clock)
    return result


def show(felt: Feelings, read: readings.Readings, materials: Materials, settings: DemoSettings) -> Shown:
    """The first sample of some prompts at every dose, read token by token by the unsteered model."""
    single = [i for i, m in enumerate(materials.evaluate) if len(m) == 1]
    items = (single or list(range(len(materials.evaluate))))[: settings.shown_prompts]
    chosen: list[tuple[str, float | None, int, str]] = []
    for n, item in enumerate(items):
        for e in settings.emotions:
            chosen += [(e, d, n, _of(felt, e, d).texts[item][0]) for d in settings.doses]
            chosen.append((e, None, n, felt.personas[e].texts[item][0]))
    chats = [materials.evaluate[items[n]] for _, _, n, _ in chosen]
    texts = [t or "…" for *_, t in chosen]
    strips = read.reader.answers(chats, texts)
    posterior = felt.classifier.posterior(texts)
    steered, told, score, told_score = {}, {}, {}, {}
    for (e, d, n, _), strip, p in zip(chosen, strips, posterior, strict=True):
        value = float(p[felt.classifier.column(e)])
        if d is None:
            told[e, n], told_score[e, n] = strip, value
        else:
            steered[e, d, n], score[e, d, n] = strip, value
    return Shown(tuple(materials.evaluate[i] for i in items), steered, told, score, told_score)


def _of(felt: Feelings, emotion: str, dose: float) -> Samples:
    return felt.steered[emotion, dose] if dose else felt.unsteered


def _count(s: DemoSettings) -> int:
    """Samples of the steering part."""
    doses = sum(d != 0 for d in s.doses)
    null = s.random_directions * len(feelings.sizes(s)) * s.random_samples
    per_prompt = s.samples * (1 + len(s.emotions) * (doses + 1)) + null
    choose = 0
    if len(s.layer_sets) > 1:
        choose = s.samples + len(s.layer_sets) * len(s.select_doses) * len(s.emotions)
    return s.prompts * per_prompt + s.select_prompts * choose


def _count_honesty(s: DemoSettings, materials: Materials) -> int:
    """Free-text samples of the honesty part."""
    return (len(s.honesty_doses) + 5) * len(materials.open_questions) * s.open_samples


# --- files ---------------------------------------------------------------------------------------


def _write(
    result: DemoResult, vectors: ConceptVectors, honest: ConceptVectors, stage: Path, clock: _Clock
) -> DemoResult:
    """Vector files, samples, numbers and the report, into the stage."""
    from trimtab.demo.report import page

    f = result.feelings
    calibration = {
        "layer": f.layers[len(f.layers) // 2],
        "layers": list(f.layers),
        "best_dose": {c: v.best.dose for c, v in f.curves.items()},
    }
    replace(vectors, calibration={**vectors.calibration, **calibration}).save(stage / "feelings.safetensors")
    layer = {"layer": result.settings.honesty_layer}
    replace(honest, calibration={**honest.calibration, **layer}).save(stage / "honest.safetensors")
    learned = ConceptVectors.from_directions([result.honesty.learned.direction], origin=honest.origin)
    learned = replace(
        learned,
        origin=replace(
            learned.origin, method="learned", parameters=result.honesty.learned.direction.provenance
        ),
    )
    learned.save(stage / "honest-learned.safetensors")
    _lines(stage / "samples.jsonl", _records(result))
    result = replace(result, wall_s=clock.total, timings=clock.parts)
    (stage / "report.html").write_text(page(result), encoding="utf-8")
    result = replace(result, wall_s=clock.total)
    (stage / "metrics.json").write_text(
        json.dumps(_plain(result.to_json()), indent=1) + "\n", encoding="utf-8"
    )
    return result


def _records(result: DemoResult) -> Iterator[dict[str, Any]]:
    """One record per sampled text: enough to score it again without a model."""
    f, h = result.feelings, result.honesty
    groups = [
        ("feelings", [f.unsteered, *f.steered.values(), *f.personas.values()]),
        ("honesty", h.texts.values()),
    ]
    for study, runs in groups:
        for run in runs:
            c = run.condition
            for item, texts in enumerate(run.texts):
                for j, text in enumerate(texts):
                    yield {
                        "study": study, "condition": c.name, "concept": c.concept, "dose": c.dose,
                        "system": c.system, "fingerprint": run.fingerprint, "item": item, "sample": j,
                        "text": text,
                    }  # fmt: skip


def _lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


def _plain(value: Any) -> Any:
    """JSON types only, with null for what is not finite."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder beside the target whose files move into it only when everything is written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose another folder with -o") from error
    try:
        yield stage
        folder.mkdir(exist_ok=True)
        for path in sorted(stage.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


class _Clock:
    """Seconds of each part, and of the whole."""

    def __init__(self) -> None:
        self.start, self.parts = time.perf_counter(), {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.parts[name] = round(time.perf_counter() - before, 2)

    @property
    def total(self) -> float:
        return round(time.perf_counter() - self.start, 2)
