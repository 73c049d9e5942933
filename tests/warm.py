"""What the server of forked.py does once, so that its commands need not: slow imports, and a config composed.

Nothing here starts a thread, which a fork would lose.
"""

import io
import os
from contextlib import redirect_stdout, suppress
from importlib import import_module

from ganrun import cli

_, _, before = os.environ.pop("PYTHONPATH").partition(os.pathsep)  # this folder, by which the server has found it
if before:
    os.environ["PYTHONPATH"] = before
ROOMS = ("commands.train", "training.fit", "training.resume", "commands.sample.draw")
LATE = ("metrics.sliced_wasserstein", "networks.dcgan", "recipes.gan", "data.images")
FOREIGN = ("sklearn.datasets", "sklearn.preprocessing", "torch.utils.tensorboard", "google.protobuf.message", "runpy")
LAUNCHERS = ("hydra_plugins.hydra_joblib_launcher._core", "submitit.core._submit")

for name in (*(f"ganrun.{room}" for room in ROOMS + LATE), *FOREIGN, *LAUNCHERS):
    import_module(name)
with redirect_stdout(io.StringIO()), suppress(SystemExit):
    cli.run(["--cfg", "job", "seed=1"])  # fills the caches of the parsers
