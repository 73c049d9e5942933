"""What result.json says of a fit that has ended."""

import platform
import resource
import sys
from importlib.metadata import version
from typing import Any, Protocol

import pytorch_lightning as pl
import torch

import ganrun
from ganrun.callbacks.checkpoint import Checkpoints
from ganrun.callbacks.log import Log
from ganrun.callbacks.scores import Evaluate
from ganrun.collapse.callback import Collapse
from ganrun.files.run_dir import RunDir
from ganrun.module import GANModule
from ganrun.signals import Signals, name
from ganrun.training.build import Parts
from ganrun.training.changes import read_changes
from ganrun.training.of_checkpoint import averages_stand
from ganrun.training.rollback import why


class Ended(Protocol):
    """A fit that has ended, with everything that watched it."""

    module: GANModule
    parts: Parts
    run: RunDir
    signals: Signals
    trainer: pl.Trainer
    scalars: Log
    evaluate: Evaluate
    collapse: Collapse
    checkpoints: Checkpoints

    def best_step(self) -> int | None: ...


def outcome(fit: Ended) -> dict[str, Any]:
    """Status, scores with their protocol, findings of a collapse, costs, versions."""
    return {
        "status": status(fit),
        "ended": fit.evaluate.ended,
        "collapse": fit.collapse.findings,
        **({"reason": why(fit.run, fit.collapse, fit.best_step())} if fit.collapse.ends else {}),
        **({"reason": fit.evaluate.gives_up} if fit.evaluate.gives_up else {}),
        "signal": fit.signals.received,
        "changes": read_changes(fit.run),
        "steps": fit.trainer.global_step,
        "goal": fit.trainer.max_steps,
        "scores": scores(fit),
        "skipped": [{"file": name, "reason": reason} for name, reason in fit.parts.data.skipped],
        "notes": list(fit.parts.data.notes),  # about how the data were read
        "seconds": round(fit.checkpoints.seconds, 2),
        "images_per_second": round(fit.scalars.images_per_second, 1),
        "peak_memory_mib": round(peak_memory(fit.trainer.strategy.root_device) / 2**20),
        "precision": fit.parts.cfg.precision,
        "versions": versions(),
    }


def status(fit: Ended) -> str:
    if fit.collapse.ends == "stop":
        return "collapsed"
    received = fit.signals.received
    if fit.evaluate.gives_up and not received:
        return "pruned"
    whole = fit.trainer.global_step >= fit.trainer.max_steps or (fit.evaluate.ended and not received)
    return "finished" if whole else f"stopped by {name(received) if received else 'a callback'}"


def scores(fit: Ended) -> dict[str, dict[str, Any]]:
    """Each metric's last value, and its value in the step of best.ckpt, if there is one; empty before the first score.

    The entry `every` gives the steps between the scores that the best one was chosen from.
    """
    last, best = fit.evaluate.last, fit.evaluate.best
    if best and fit.best_step() != best["step"]:  # its weights are gone, or will be made again, after a resume
        best = {}
    about = {"seed": fit.module.seed, "versions": versions()}
    averages = {"ema": fit.module.ema is not None, **averages_stand(fit.parts.cfg)}
    metrics = fit.parts.scorer.metrics
    return {
        metric: {
            "final": last[metric],
            "step": last["step"],
            "best": best.get(metric),
            "best_step": best.get("step"),
            "best_by": fit.evaluate.best_by,
            "every": fit.evaluate.found_every,
            "better": "lower" if metrics[metric].lower_is_better else "higher",
            "protocol": protocol | about | ({"ema": False} if metrics[metric].of_discriminator else averages),
        }
        for metric, protocol in fit.parts.scorer.protocols.items()
        if last
    }


def peak_memory(device: torch.device) -> int:
    """Bytes of tensors on a GPU; on a CPU of this whole process, earlier jobs of a sweep included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Versions of everything that may change a number."""
    packages = ("torch", "torchvision", "torch-fidelity", "pytorch-lightning")
    return {"ganrun": ganrun.__version__, **{p: version(p) for p in packages}, "python": platform.python_version()}
