"""What a checkpoint must match: reading it safely, starting from its weights, and the data it was trained on."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from ganrun.callbacks.checkpoint import FORMAT
from ganrun.errors import UserError
from ganrun.experiment.build import Parts, innermost
from ganrun.run_dir import RunDir, find_run


def load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU; nothing in it can run code."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own on a damaged file
        raise UserError(f"{checkpoint}: cannot be read as a checkpoint: {innermost(error)[:200]}") from error
    got = content.get("ganrun", {}).get("format")
    if got != FORMAT:
        raise UserError(f"{checkpoint}: checkpoint format {got}; this ganrun reads format {FORMAT}")
    return content


def init_from(parts: Parts, source: str) -> None:
    """Starts from another run's weights, averages included; optimizers and step start anew."""
    state = load(find_run(source, "init_from")[1])["state_dict"]
    own = any(key.startswith("ema.") for key in state)
    if not parts.module.ema:
        state = {key: value for key, value in state.items() if not key.startswith("ema.")}
    try:
        parts.module.load_state_dict(state, strict=own or not parts.module.ema)
        if parts.module.ema and not own:  # that run kept no average: it starts from the weights
            parts.module.ema.restart()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"init_from={source}: its networks differ from these: {lines[0]}") from error


def fingerprint(parts: Parts) -> dict[str, Any]:
    """What the data must still be on a resume."""
    data = parts.data
    sample = data.read(torch.arange(min(8, len(data))))["real"].contiguous()
    digest = hashlib.blake2b(sample.numpy().tobytes(), digest_size=8).hexdigest()
    return {"num": len(data), "shape": list(data.shape), "classes": list(data.classes), "first_samples": digest}


def check_same_data(parts: Parts, content: dict[str, Any], run: RunDir) -> None:
    got, had = fingerprint(parts), content["ganrun"]["data"]
    if got != had:
        raise UserError(f"resume={run.path}: the data set has changed: got {got}, had {had}")
