"""Say what a run or a sweep will take, before it starts: time, memory, disk, and what would make it faster.

  ganrun plan model=dcgan loss=wgan-gp steps=20000     all words are those of training
  ganrun plan experiment=sngan json=true               for scripts
  ganrun plan -m loss=wgan-gp,hinge 'seed=range(0,5)'  the sum over jobs; seeds share a trial

A trial trains for a few steps in a process of its own, with the data, networks and callbacks of the run. It times
steps, logs, pictures, scores, looks for a collapse, checkpoints, start and end; each counts as often as the run will do
it. Nothing of a trial stays but caches, which the run then finds: prepared data, weights and statistics of scores.
"""

from typing import NamedTuple

from ganrun.config.choices import chosen
from ganrun.config.hydra_main import composed, parsed, refuse_flags, run_hydra
from ganrun.config.places import key_of
from ganrun.config.typed import check_minimum, check_types
from ganrun.errors import UserError
from ganrun.signals import terminated

KEYS = {"json": bool, "seconds": int | float, "budget": int | float, "tries": bool}


class Request(NamedTuple):
    """See configs/plan.yaml."""

    json: bool
    seconds: float
    budget: float
    tries: bool


def run(args: list[str]) -> int:
    """Prints what it will take and returns the exit code."""
    own = [word for word in args if key_of(word) in KEYS]
    words = chosen([word for word in args if word not in own])
    for word in words:
        if word.startswith("resume=") and word not in ("resume=", "resume=null"):
            raise UserError(f"{word}: a plan is that of a new run; a run that goes on says how long it has left")
    multirun = bool({"-m", "--multirun"} & set(words))
    for word in words:
        if word.startswith(("sweep=", "sweep.")) and not multirun:
            raise UserError(f"{word}: it acts in sweeps; add -m, or leave it out")
    refuse_flags(words)
    flags = parsed(words)
    if flags.cfg or flags.info or flags.shell_completion or flags.hydra_help:
        run_hydra("train", words, lambda cfg: None)  # Hydra itself answers
        return 0
    cfg = composed("plan", own)
    check_types(cfg, KEYS)
    check_minimum(cfg, {"seconds": 0, "budget": 0})
    request = Request(**{key: cfg[key] for key in KEYS})
    from ganrun.commands.plan.planning import plan_run, plan_sweep

    with terminated():
        (plan_sweep if multirun else plan_run)(words, request)
    return 0
