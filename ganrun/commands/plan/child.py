"""The process of a trial: starts as `ganrun` does, and ends after a few steps.

A process of its own has a peak of memory of its own, and takes with it whatever it made. `python -m` this module with a
folder that holds request.json; it writes found.json there, and everything else below run/.
"""

import json
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ganrun.commands import train
from ganrun.config.groups import add_modules, config_dirs_of
from ganrun.config.hydra_main import refuse_flags, run_hydra
from ganrun.errors import Failure, UserError
from ganrun.files.run_dir import RunDir

if TYPE_CHECKING:
    from ganrun.training.build import Parts

COMPILE = "compile=true"  # the last of the ways: it takes tens of seconds


def end_with_parent(folder: Path) -> None:
    """From now on this process ends, and its folder goes, as soon as nobody holds the other end of its input."""

    def wait() -> None:
        os.read(0, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def work(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """request: words, when it began, seconds, events. Returns what was found, or the error to tell."""
    words, found = request["words"], []
    try:
        add_modules(config_dirs_of(words))
        refuse_flags(words)
        run_hydra("train", words, lambda cfg: found.append(try_out(cfg, request, RunDir(folder / "run"))))
    except Failure as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return found[0]


def try_out(cfg: DictConfig, request: dict[str, Any], run: RunDir) -> dict[str, Any]:
    from ganrun.training.trainer import make_trainer, sizes_of
    from ganrun.training.trial import measure  # and with it all that a run imports

    imported = time.time() - request["began"], time.process_time()
    notes, parts, _ = train._build(cfg, train._typed())
    if make_trainer(cfg, logger=False).world_size > 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: a plan measures one process; leave out trainer=ddp")
    cached = caches(cfg)
    left_out = [f"logger {name}" for name in cfg.logger]
    parts.loggers.clear()  # they may write elsewhere
    run.path.mkdir()
    train._save_hydra(cfg, run)
    found = measure(parts, run, seconds=request["seconds"], events=request["events"])
    start = found["start"]
    return found | {
        "config": {key: cfg[key] for key in ("steps", "batch_size", "precision")} | {"keep": cfg.checkpoint.keep},
        "sizes": sizes_of(cfg) | ({"micro_batch": cfg.micro_batch} if cfg.micro_batch else {}),
        "ways": ways(cfg, parts),
        "start": {"seconds": start["at"] - request["began"], "cpu": start["cpu"]},
        "imports": {"seconds": imported[0], "cpu": imported[1]},
        "caches": cached,
        "left_out": left_out,
        "notes": notes,
    }


def ways(cfg: DictConfig, parts: "Parts") -> list[str]:
    """Overrides that might make the steps faster on this machine, without other mathematics than rounding."""
    from ganrun.training.hardware import COMPILERS, device_type, multiplies_bf16

    found = []
    if cfg.precision == "bf16-mixed":
        found.append("precision=32-true")
    elif parts.data.depth == 8 and len(parts.data.shape) == 3 and multiplies_bf16(device_type(cfg.trainer.accelerator)):
        found.append("precision=bf16-mixed")
    if cfg.micro_batch:
        found.append("micro_batch=null")
    if not parts.data.is_resident:
        workers, cores = cfg.dataset.num_workers, os.cpu_count() or 1
        found.append(f"dataset.num_workers={cores if workers != cores else max(0, cores // 2)}")
    if cfg.compile is False and any(map(shutil.which, filter(None, COMPILERS))):
        found.append(COMPILE)
    return found


def caches(cfg: DictConfig) -> list[str]:
    """The folders of prepared data and scores that a run uses and that are there now."""
    named = {cfg.cache_dir, cfg.dataset.get("cache")} - {None}
    return sorted(str(path) for path in (Path(name).expanduser() for name in named) if path.is_dir())


def main() -> None:
    folder = Path(sys.argv[1])
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # were memory to run out, then nothing else dies of it
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    end_with_parent(folder)
    (folder / "found.json").write_text(json.dumps(work(request, folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
