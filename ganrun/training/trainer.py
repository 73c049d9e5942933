"""Lightning's trainer for a config."""

import logging
import math
import os
import re
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from ganrun.errors import UserError, one_of
from ganrun.training.hardware import device_type, precision_of, tune
from ganrun.training.refusing import refusing
from ganrun.training.strategy import STRATEGIES
from ganrun.training.train_log import LIGHTNING

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
OURS = {  # what the trainer's config may not hold, and what to use instead
    "max_steps": "use steps=",
    "max_epochs": "use steps=",
    "deterministic": "use deterministic=",
    "precision": "use precision=",
    "benchmark": "use deterministic=false",
    "gradient_clip_val": "use optimizer.clip_gradients=",
    "accumulate_grad_batches": "use micro_batch=",
    "logger": "use logger=",
    "callbacks": "use callbacks=",
    "plugins": "",
    "default_root_dir": "use run_dir=",
    "use_distributed_sampler": "",
    "enable_progress_bar": "",
    "enable_checkpointing": "use checkpoint.every=",
    "enable_model_summary": "",
}


def make_trainer(cfg: DictConfig, **settings: Any) -> pl.Trainer:
    """Lightning's trainer for a config. Raises UserError for devices or a precision that are unavailable."""
    for name in LIGHTNING:
        logging.getLogger(name).setLevel(logging.WARNING)
    chosen = chosen_settings(cfg)
    tune(cfg)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GPU available but not used")  # as the user has asked for
        trainer = refusing("trainer", pl.Trainer)(
            precision=precision_of(cfg),
            benchmark=not cfg.deterministic,
            max_steps=cfg.steps,
            max_epochs=-1,
            deterministic=cfg.deterministic,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            **settings,
            **chosen,
        )
    rank_zero_only.rank = trainer.global_rank  # Lightning took it from variables that need not be about this run
    check_rows(cfg, trainer.world_size)
    return trainer


def chosen_settings(cfg: DictConfig) -> dict[str, Any]:
    """The user's settings for Lightning's trainer. Raises UserError for what is unavailable or not theirs to set."""
    chosen = OmegaConf.to_container(cfg.trainer, resolve=True)
    for name in sorted(chosen.keys() & OURS.keys()):
        raise UserError(f"trainer.{name}: ganrun sets it; {OURS[name] or 'it cannot be changed'}")
    check_accelerator(chosen["accelerator"])
    device = device_type(chosen["accelerator"])
    check_devices(chosen["devices"], device)
    if chosen.get("sync_batchnorm") and device != "cuda":
        raise UserError(f"trainer.sync_batchnorm=true: torch has it for GPUs alone, and this run is on the {device}")
    if "strategy" in chosen:
        check_launch(chosen)
        chosen["strategy"] = STRATEGIES[chosen["strategy"]]()
    elif num_devices(chosen["devices"]) not in (0, 1):
        what = "several devices need" if num_devices(chosen["devices"]) else "all devices that there are need"
        raise UserError(f"trainer.devices={chosen['devices']}: {what} trainer=ddp; without it expected 1")
    return chosen


def check_rows(cfg: DictConfig, processes: int) -> None:
    """Raises UserError for a batch that cannot be divided among processes and passes."""
    for key, size in sizes_of(cfg).items():
        if size % processes:
            raise UserError(f"{key}={size} is over all devices; expected a multiple of {processes}")
        rows = size // processes
        if cfg.micro_batch and rows % cfg.micro_batch:
            raise UserError(f"micro_batch={cfg.micro_batch}: {rows} images a move and device are no multiple of it")


def sizes_of(cfg: DictConfig) -> dict[str, int]:
    """Images a move over all devices, by the key that says so."""
    sizes = {"batch_size": cfg.batch_size, "schedule.generator_batch": cfg.schedule.get("generator_batch")}
    return {key: size for key, size in sizes.items() if size}


def rows_a_pass(cfg: DictConfig, processes: int) -> int:
    """The most images that a device has in a pass."""
    return cfg.micro_batch or max(sizes_of(cfg).values()) // processes


def smaller_micro_batch(cfg: DictConfig, processes: int) -> int | None:
    """The next smaller number of images a pass than that of `cfg`; None if that is already one image."""
    rows = math.gcd(*sizes_of(cfg).values()) // processes
    return next((n for n in range(rows_a_pass(cfg, processes) - 1, 0, -1) if rows % n == 0), None)


def no_memory(cfg: DictConfig, trainer: pl.Trainer) -> str:
    """What to say when a step runs out of memory."""
    rows = rows_a_pass(cfg, trainer.world_size)
    smaller = smaller_micro_batch(cfg, trainer.world_size)
    way_out = (
        f"micro_batch={smaller}, which makes a step of smaller passes" if smaller else "smaller networks or images"
    )
    step = trainer.global_step + 1
    return f"out of memory in step {step}, with {rows} images a pass on {trainer.strategy.root_device}; give {way_out}"


def picked(devices: Any) -> list[int] | None:
    """GPUs given by number, as Lightning reads [1], "1," and "0,1"; None if only a count is given."""
    if isinstance(devices, str) and re.fullmatch(r"\d+(,\d+)*,?", devices) and "," in devices:
        return [int(number) for number in devices.split(",") if number]
    return list(devices) if isinstance(devices, list) else None


def num_devices(devices: Any) -> int | None:
    """The number of devices; None = all there are (-1, auto)."""
    if (numbers := picked(devices)) is not None:
        return len(numbers)
    return int(devices) if re.fullmatch(r"\d+", str(devices)) else None


def check_accelerator(name: str) -> None:
    """Raises UserError for one that is unknown or that this machine does not have."""
    if name not in ACCELERATORS:
        raise UserError(f"trainer.accelerator={name}; {one_of(ACCELERATORS, str(name))}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, True) or (name == "gpu" and not any(there.values())):
        raise UserError(f"trainer.accelerator={name}: torch can use none on this machine; expected auto or cpu")


def check_devices(devices: Any, device: str) -> None:
    """Raises UserError for GPUs that do not exist. device: the kind of the accelerator, such as cuda."""
    numbers = picked(devices)
    if numbers is None:
        return
    there = torch.cuda.device_count() if device == "cuda" else 1
    if device == "cpu":
        have = f"and this run is on the cpu; expected their number, as in trainer.devices={len(numbers) or 1}"
    elif any(not isinstance(number, int) or number >= there for number in numbers) or not numbers:
        have = f"and this machine has {there}, numbered from 0"
    else:
        return
    raise UserError(f"trainer.devices={devices}: it picks GPUs by number, {have}")


def check_launch(chosen: dict[str, Any]) -> None:
    """Raises UserError for an unknown strategy, and if Lightning would wait for processes that nobody starts."""
    if chosen["strategy"] not in STRATEGIES:
        raise UserError(f"trainer.strategy={chosen['strategy']}; {one_of(STRATEGIES, str(chosen['strategy']))}")
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ
    if chosen.get("num_nodes", 1) != 1 and not launched:
        raise UserError(f"trainer.num_nodes={chosen['num_nodes']}: start it by torchrun or srun on all machines")
    if "LOCAL_RANK" in os.environ and "MASTER_PORT" not in os.environ:
        raise UserError("LOCAL_RANK is set, but not MASTER_PORT, where the processes meet; unset it or use torchrun")
