"""A PEFT adapter (LoRA and its kin) merged into a model's weights: what comes out is a plain model."""

from __future__ import annotations

from typing import Any

from trimtab.errors import InputError, Mismatch, Unsupported


def merged(model: Any, folder: str) -> Any:
    """The model with the adapter's change in its weights. An adapter of another model is refused: PEFT itself would
    leave out what does not fit, and the model would run unchanged."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        wrapped = PeftModel.from_pretrained(model, folder)
        kept, given = get_peft_model_state_dict(wrapped), load_peft_weights(folder, device="cpu")
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise Mismatch(
            f"the adapter {folder} does not fit the model: {str(error).strip().splitlines()[0]}"
        ) from error
    if kept.keys() != given.keys():
        stray = ", ".join(sorted(kept.keys() ^ given.keys())[:3])
        raise Mismatch(f"the adapter {folder} does not fit the model: one of them has no {stray}")
    if wrapped.peft_config["default"].is_prompt_learning:
        raise Unsupported(
            f"{folder} learns a prompt, which cannot be merged into weights; give a LoRA adapter"
        )
    try:
        return wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the adapter {folder} cannot be merged: {str(error).strip().splitlines()[0]}"
        ) from error
