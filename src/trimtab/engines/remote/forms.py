"""The JSON forms of what an engine takes and gives; client and server read and write them here, and nowhere else.

Vectors of plans travel as arrays named `vector:<content hash>`, once for all requests of a body; every reader checks
that the content is what the name says, and that the plan is what its fingerprint says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.directions import content_hash
from trimtab.engines.remote.packing import Tensors
from trimtab.engines.requests import Capture, Event, Receipt, Sample
from trimtab.errors import InputError
from trimtab.prompts import Prompt, Span
from trimtab.readouts import Readings, Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site

VECTOR = "vector:"


def info_form(info: ModelInfo) -> dict[str, Any]:
    """A model's description, with its sites by key."""
    plain = {f.name: getattr(info, f.name) for f in dataclasses.fields(info) if f.name != "widths"}
    return {**plain, "widths": {site.key: width for site, width in info.widths.items()}}


def info_of(form: Mapping[str, Any]) -> ModelInfo:
    """Read `info_form` back."""
    widths = {Site.from_key(k): int(v) for k, v in form["widths"].items()}
    return ModelInfo(**{**form, "widths": widths})


def identity(info: ModelInfo) -> str:
    """A hash of the description; every answer bears it, so that another model behind the same address is noticed."""
    return hashlib.sha256(json.dumps(info_form(info), sort_keys=True).encode()).hexdigest()[:16]


def prompt_form(prompt: Prompt) -> dict[str, Any]:
    """An encoded prompt."""
    spans = None if prompt.spans is None else [[s.role, s.start, s.end] for s in prompt.spans]
    special = sorted(prompt.special)
    return {"tokens": list(prompt.tokens), "spans": spans, "special": special, "text": prompt.text}


def prompt_of(form: Mapping[str, Any]) -> Prompt:
    """Read `prompt_form` back."""
    spans = None if form["spans"] is None else tuple(Span(*s) for s in form["spans"])
    return Prompt(tuple(form["tokens"]), spans, frozenset(form["special"]), form["text"])


def plan_form(plan: ResolvedPlan, tensors: Tensors) -> dict[str, Any]:
    """A plan; its vectors are put among the arrays."""
    tensors.update({VECTOR + k: v for k, v in plan.vectors.items()})
    form = ResolvedPlan(plan.placements, plan.vectors).to_json()
    return {"fingerprint": form["fingerprint"], "placements": form["placements"]}


def vectors_of(tensors: Tensors) -> dict[str, np.ndarray]:
    """Vectors by content hash, each checked against its name."""
    found = {k.removeprefix(VECTOR): v for k, v in tensors.items() if k.startswith(VECTOR)}
    for name, value in found.items():
        if value.dtype != np.float32 or value.ndim not in (1, 2) or content_hash(value) != name:
            raise InputError(f"vector {name} does not have the content (float32) that its name promises")
        if not np.isfinite(value).all():
            raise InputError(f"vector {name} holds numbers that are not finite")
    return found


def readout_form(readout: Readout, name: str, tensors: Tensors) -> dict[str, Any]:
    """A readout; its rows, offsets and scales are put among the arrays under `name`."""
    for part in ("rows", "offset", "scale"):
        tensors.update({f"{name}.{part}:{s.key}": v for s, v in getattr(readout, part).items()})
    keys = [s.key for s in readout.sites]
    return {"name": name, "concepts": list(readout.concepts), "sites": keys, "z": readout.z, "at": readout.at}


def readout_of(form: Mapping[str, Any], tensors: Tensors) -> Readout:
    """Read `readout_form` back."""
    sites = [Site.from_key(k) for k in form["sites"]]
    parts = {
        part: {s: tensors[f"{form['name']}.{part}:{s.key}"] for s in sites}
        for part in ("rows", "offset", "scale")
    }
    count = len(form["concepts"])
    for s in sites:
        shapes = parts["rows"][s].shape[:-1], parts["offset"][s].shape, parts["scale"][s].shape
        if parts["rows"][s].ndim != 2 or set(shapes) != {(count,)}:
            raise InputError(f"the readout at {s} does not have one row, offset and scale for each concept")
    return Readout(tuple(form["concepts"]), **parts, z=bool(form["z"]), at=form["at"])


def receipt_form(receipt: Receipt) -> dict[str, Any]:
    """What was applied."""
    return {**vars(receipt), "sites": [s.key for s in receipt.sites]}


def receipt_of(form: Mapping[str, Any]) -> Receipt:
    """Read `receipt_form` back."""
    sites = tuple(Site.from_key(k) for k in form["sites"])
    sources = tuple(form["sources"])
    return Receipt(form["fingerprint"], tuple(form["concepts"]), sites, form["tokens_steered"], sources)


def event_form(event: Event) -> tuple[dict[str, Any], Tensors]:
    """One step of a stream, as JSON and arrays."""
    head = {k: getattr(event, k) for k in ("request", "index", "token", "text", "logprob")}
    tensors: Tensors = {} if event.reading is None else {"reading": event.reading}
    sample = event.sample
    if sample is None:
        return head, tensors
    told: dict[str, Any] = {
        "tokens": list(sample.tokens),
        "text": sample.text,
        "finish": sample.finish,
        "applied": receipt_form(sample.applied),
    }
    tensors["logprobs"] = sample.logprobs
    if sample.capture is not None:
        told["capture"] = {"at": sample.capture.at}
        tensors["capture.positions"] = np.asarray(sample.capture.positions, np.int64)
        tensors.update({f"capture:{s.key}": v for s, v in sample.capture.values.items()})
    if sample.readings is not None:
        told["readings"] = True
        tensors["readings"] = sample.readings.values
        tensors["readings.positions"] = np.asarray(sample.readings.positions, np.int64)
    return {**head, "sample": told}, tensors


def event_of(head: Mapping[str, Any], tensors: Tensors, readout: Readout | None) -> Event:
    """Read `event_form` back; `readout` is what the request asked to read."""
    told = head.get("sample")
    step = {k: head[k] for k in ("request", "index", "token", "text", "logprob")}
    if told is None:
        return Event(**step, reading=tensors.get("reading"))
    capture = readings = None
    if told.get("capture") is not None:
        names = [k for k in tensors if k.startswith("capture:")]
        values = {Site.from_key(k.removeprefix("capture:")): tensors[k] for k in names}
        capture = Capture(values, tensors["capture.positions"], told["capture"]["at"])
    if readout is not None and told.get("readings"):
        places = tensors["readings.positions"]
        readings = Readings(tensors["readings"], places, readout.sites, readout.concepts, readout.z)
    sample = Sample(
        tuple(told["tokens"]),
        told["text"],
        tensors["logprobs"],
        told["finish"],
        receipt_of(told["applied"]),
        capture,
        readings,
    )
    return Event(**step, sample=sample)
