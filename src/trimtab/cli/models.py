"""The MODEL argument: what can be refused before anything heavy is imported, and the engine that runs it."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.engines import DEFAULT, ENGINES, engine_class, load_engine
from trimtab.errors import FormatError, InputError

from .frame import Desk
from .output import children_on_stderr
from .servers import is_url

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.engines.base import Engine

#: Where configurations keep the number of blocks, the width and the context.
_DEPTH = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Glance:
    """What a model's configuration says without loading it; None where it does not (a hub id, say). `name` is what the
    model is called where it lies: MODEL itself, or what a server calls the model that it serves."""

    name: str
    n_layers: int | None = None
    hidden_size: int | None = None
    context_length: int | None = None
    folder: Path | None = None

    @property
    def chat_template(self) -> bool | None:
        """Whether the folder has a chat template; None where only the loaded model can tell."""
        if self.folder is None:
            return None
        if any((self.folder / n).exists() for n in ("chat_template.jinja", "chat_template.json")):
            return True
        file = self.folder / "tokenizer_config.json"
        try:
            return bool(json.loads(file.read_text(encoding="utf-8")).get("chat_template"))
        except (OSError, ValueError, AttributeError):
            return False

    def count_tokens(self, texts: list[str]) -> int | None:
        """Tokens of bare texts with the folder's own tokenizer; None where there is none to be had."""
        tokenizer = self._tokenizer()
        return None if tokenizer is None else sum(len(e.ids) for e in tokenizer.encode_batch(texts))

    def token_prefixes(self) -> Callable[[str], list[str]] | None:
        """What `data.load(prefixes=…)` takes, by the folder's own tokenizer; None where there is none."""
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return None

        def cut(text: str) -> list[str]:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            found = [tokenizer.decode(ids[:n]) for n in range(1, len(ids))]
            return [f for f in found if not f.endswith("\ufffd")]  # a prefix that ends inside a character

        return cut

    def check_lengths(self, contrasts: Sequence[Contrast]) -> None:
        """Refuse a bare text that is longer than the context, where the folder says both; chats are left to the
        engine, which has the template."""
        from trimtab.data.contrast import SIDES, shown

        tokenizer, limit = self._tokenizer(), self.context_length
        if tokenizer is None or limit is None:
            return
        for contrast in (c for c in contrasts if not c.messages):
            for side in SIDES:
                texts = list(getattr(contrast, side))
                for i, found in enumerate(tokenizer.encode_batch(texts), 1):
                    if len(found.ids) > limit:
                        raise InputError(
                            f"{side} text {i} of {contrast.concept!r} has {len(found.ids)} tokens, but the context of "
                            f"{self.folder} is {limit}; shorten it (truncation would cut off exactly the token that "
                            f"is read): {shown(texts[i - 1])}"
                        )

    def _tokenizer(self) -> Any:
        file = None if self.folder is None else self.folder / "tokenizer.json"
        if file is None or not file.exists():
            return None
        try:
            from tokenizers import Tokenizer  # type: ignore[import-not-found]
        except ImportError:
            return None
        found = Tokenizer.from_file(str(file))
        found.no_truncation()  # some files ask for one
        found.no_padding()
        return found


@dataclass(frozen=True)
class Served(Glance):
    """What a server says of its model; its texts are cut into tokens there."""

    address: str = ""
    templated: bool = False

    @classmethod
    def of(cls, address: str) -> Served:
        """Ask it."""
        with load_engine(address, "remote") as found:
            info = found.info
        size = (info.n_layers, info.hidden_size, info.context_length)
        return cls(info.id, *size, address=address, templated=info.template_hash is not None)

    @property
    def chat_template(self) -> bool:
        """Whether the served model has a chat template."""
        return self.templated

    def token_prefixes(self) -> Callable[[str], list[str]]:
        """As of a folder, by the server's tokenizer."""
        from trimtab.recipes.reading import token_prefixes

        def cut(text: str) -> list[str]:
            with load_engine(self.address, "remote") as engine:
                return token_prefixes(engine)(text)

        return cut


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--engine`, `--dtype` and `--device`, passed on as keywords."""
    for option in (
        click.option(
            "--device", default=None, help="Device to run on, e.g. cpu or cuda (the engine's choice)."
        ),
        click.option(
            "--dtype", default=None, help="Weights as float32, bfloat16 or float16 (the engine's choice)."
        ),
        click.option(
            "--engine", type=click.Choice(list(ENGINES)), default=DEFAULT, help="What runs the model."
        ),
    ):
        function = option(function)
    return function


def glance(model: str, engine: str) -> Glance:
    """Check that a model folder is one, and read its size, or ask the server; weights are checked by the engine, as
    it loads.
    """
    if engine == "remote":
        return Served.of(model)
    if is_url(model):
        raise InputError(f"{model} is a server: add --engine remote, which works on the model that it serves")
    if engine == "reference":  # built in
        return Glance(model)
    if model == "embedded":
        from trimtab import embedded

        folder = Path(embedded.MODEL)
    else:
        folder = Path(model).expanduser()
    if not folder.exists():
        if _HUB_ID.fullmatch(model) and ("/" not in model or not Path(model).parent.is_dir()):
            return Glance(model)
        raise FormatError(f"no such model folder: {model}; give a folder with config.json, or a hub id")
    if not folder.is_dir():
        raise FormatError(f"{model} is a file; a model is a folder with config.json and weights")
    config = _config(folder)
    return Glance(model, *(_number(config, names) for names in (_DEPTH, _WIDTH, _CONTEXT)), folder=folder)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise FormatError(f"{folder} is no model folder: it has no config.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{file} is damaged: it does not hold an object")
    text = found.get("text_config")  # vision-language models keep the language tower's numbers here
    return {**found, **text} if isinstance(text, dict) else found


def _number(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[n] for n in names if isinstance(config.get(n), int)), None)


def open_engine(desk: Desk, model: str, engine: str, **options: Any) -> Engine:
    """Load the model; a flag that this engine does not know is refused by name."""
    given = {k: v for k, v in options.items() if v is not None}
    known = inspect.signature(engine_class(engine).load).parameters  # type: ignore[attr-defined]
    others = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for name in given:
        # What vLLM takes beside is vLLM's own, and it chooses its device by how it was built.
        if name not in known and (name == "device" or not others):
            raise InputError(f"the {engine} engine takes no --{name.replace('_', '-')}; leave it out")
    desk.note(f"loading {model} ({engine})")
    return start(model, engine, **given)


def start(model: str, engine: str, **options: Any) -> Engine:
    """Load the model. What the processes of vLLM print does not stand among results."""
    with children_on_stderr() if engine == "vllm" else nullcontext():
        return load_engine(model, engine, **options)


@contextmanager
def spoken_warnings(desk: Desk) -> Iterator[list[str]]:
    """Python warnings become `warning: …` lines, each text once; the list fills with them."""
    said: list[str] = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in said:
            said.append(text)
            desk.warn(text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield said


def layer_words(layer: int, n_layers: int | None) -> str:
    """ "layer 18 of 36 (50 %)"; the count alone where the depth is unknown."""
    return (
        f"layer {layer}" if not n_layers else f"layer {layer} of {n_layers} ({100 * layer / n_layers:.0f} %)"
    )
