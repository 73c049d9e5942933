"""What the server of forked.py does once, so that its commands need not: slow imports, and a config composed.

Nothing here starts a thread, which a fork would lose.
"""

import gc
import os
from importlib import import_module

import quick
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from sklearn import datasets

from ganrun.config.check import check
from ganrun.config.groups import config_dir

_, _, before = os.environ.pop("PYTHONPATH").partition(os.pathsep)  # this folder, by which the server has found it
if before:
    os.environ["PYTHONPATH"] = before
ROOMS = ("commands.train", "training.fit", "training.resume", "commands.sample.draw")
LATE = ("metrics.sliced_wasserstein", "networks.dcgan", "recipes.gan", "data.images")
FOREIGN = ("sklearn.datasets", "sklearn.preprocessing", "torch.utils.tensorboard", "google.protobuf.message", "runpy")
LAUNCHERS = ("hydra_plugins.hydra_joblib_launcher._core", "submitit.core._submit")

for name in (*(f"ganrun.{room}" for room in ROOMS + LATE), *FOREIGN, *LAUNCHERS):
    import_module(name)
quick.start()
datasets.load_digits()
with initialize_config_dir(str(config_dir()), version_base="1.3"):  # fills the caches of the parsers
    for name in ("sample", "evaluate"):
        compose(name)
    cfg = compose("train", ["seed=1", "run_dir=run"])
check(cfg)
OmegaConf.to_container(cfg, resolve=True)
GlobalHydra.instance().clear()
gc.freeze()  # collections need not look at a million objects of packages, nor forks copy their pages
