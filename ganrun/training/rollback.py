"""Returns to the best checkpoint after a collapse, on another path with lower learning rates; resumes stay exact."""

from ganrun.collapse.callback import Collapse
from ganrun.files.checkpoint import damage, load_checkpoint, save_checkpoint
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import link
from ganrun.training.build import Parts
from ganrun.training.state import Start


def best_step(run: RunDir, now: int) -> int | None:
    """The step of best.ckpt; None if it is missing, damaged or from after step `now`, as it may be after a resume."""
    if not run.best.exists() or damage(run.best):
        return None
    step = load_checkpoint(run.best)["global_step"]
    return step if step <= now else None


def set_attempt(parts: Parts, attempt: int) -> None:
    """Sets data order and learning rates for this number of rollbacks. The noise follows from the checkpoint."""
    parts.datamodule.attempt = attempt
    for optimizer in parts.module.player_optimizers.values():
        optimizer.factor = parts.cfg.collapse.lr_factor**attempt


def save_rolled_back(run: RunDir, collapse: Collapse, *, attempt: int, seconds: float) -> None:
    """Makes last.ckpt the best state, ready for attempt number `attempt`; best.ckpt stays as it is.

    Until this single write, a killed run resumes from before the collapse and gets here again; after it, from the best
    state.
    """
    content = load_checkpoint(run.best)
    content["ganrun"] |= {"attempt": attempt, "seconds": seconds}
    states = content["callbacks"]
    states[collapse.state_key] = collapse.after_rollback(states[collapse.state_key])
    save_checkpoint(content, run.last)
    for suffix in (".safetensors", ".yaml"):  # the generator file must not be that of the discarded state
        if run.best_generator.with_suffix(suffix).exists():
            link(run.best_generator.with_suffix(suffix), run.generator.with_suffix(suffix))


def rolled_back(run: RunDir) -> Start:
    return Start(run.last, load_checkpoint(run.last))


def why(run: RunDir, collapse: Collapse, best: int | None) -> str:
    """Why a collapse ended a run, where its best state is, and what a resume may choose."""
    seen = collapse.findings[-1]["text"]
    if best is None:
        return f"{seen}; on_collapse=warn goes on as it is"
    more = "a larger collapse.rollbacks" if collapse.action == "rollback" else "on_collapse=rollback"
    return (
        f"{seen}; the best state, step {best:,}, is in {run.best}: {more} goes back to it when this is seen again, "
        "on_collapse=warn goes on as it is"
    )
