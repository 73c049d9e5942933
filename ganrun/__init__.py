"""ganrun: config-driven GAN experiments, on the command line and from Python.

    run = ganrun.train("model=dcgan", "loss=wgan-gp", steps=500)   # as `ganrun model=dcgan loss=wgan-gp steps=500`
    run.scores, run.metrics(), run.grid(), run.sample(16)          # a Run; a notebook shows its samples and scores

`train` explains how overrides are written in Python. `sweep` trains combinations, `compose` shows a config without
training, `Run` opens a run directory, and `runs` finds all in a folder. Errors are of class `Error`, mistakes of its
subclass `UserError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganrun.api.calls import Interrupted, compose, runs, sweep, train
    from ganrun.api.run import Run
    from ganrun.errors import Failure as Error
    from ganrun.errors import UserError
    from ganrun.sampling.discriminator_file import load_discriminator
    from ganrun.sampling.generator_file import load_generator

__version__ = "0.1.0"
__all__ = ["Error", "Interrupted", "Run", "UserError", "__version__", "compose", "load_discriminator", "load_generator",
           "runs", "sweep", "train"]  # fmt: skip
_PLACES = {  # of what is imported only when it is asked for
    **dict.fromkeys(("Interrupted", "compose", "runs", "sweep", "train"), "api.calls"),
    "Run": "api.run",
    "UserError": "errors",
    "load_discriminator": "sampling.discriminator_file",
    "load_generator": "sampling.generator_file",
}


def __getattr__(name: str) -> Any:
    if name == "Error":
        name, place = "Failure", "errors"
    elif name in _PLACES:
        place = _PLACES[name]
    else:
        raise AttributeError(f"module 'ganrun' has no attribute {name!r}")
    return getattr(import_module(f"ganrun.{place}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
