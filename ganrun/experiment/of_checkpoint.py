"""The generator that a run's checkpoint holds, so that any saved step can be sampled and scored."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ganrun.checkpoint_file import load_checkpoint
from ganrun.errors import UserError
from ganrun.generator_file import assemble, load_generator, reading
from ganrun.run_dir import RunDir
from ganrun.sampling.generator import SamplingGenerator
from ganrun.trust import package_names

LIVE, AVERAGED = "recipe.generator.", "ema.average.0."  # in the names of a checkpoint's state_dict


def open_generator(file: Path, run: RunDir | None, *, trust: str | Iterable[str]) -> SamplingGenerator:
    """From a .safetensors file, or from a checkpoint of `run`; in eval mode on the CPU. Raises UserError."""
    if file.suffix != ".ckpt":
        return load_generator(file, trust=trust)
    from ganrun.experiment.resume import load_config  # with Lightning, which a generator file does without
    from ganrun.experiment.state import check_config

    cfg, _ = load_config(run, list(package_names(trust)))
    content = load_checkpoint(file)
    check_config(file, content, run)
    with reading(file):
        tensors = weights(content["state_dict"])
        return assemble(header(file, cfg, content), tensors, package_names(trust), str(run.config))


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The generator's tensors as its own file names them: the averages, if there are any."""
    prefix = AVERAGED if is_averaged(state) else LIVE
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    noise = {key: value for key, value in state.items() if key.startswith("noise.")}
    return {f"generator.{key}": value for key, value in own.items()} | noise


def is_averaged(state: dict[str, Tensor]) -> bool:
    return any(key.startswith(AVERAGED) for key in state)


def header(file: Path, cfg: DictConfig, content: dict[str, Any]) -> dict[str, Any]:
    """What generator.yaml would say."""
    about = content["ganrun"].get("samples")
    if about is None:
        raise UserError(f"{file}: an older ganrun wrote it, without what samples are; use a .safetensors of the run")
    trained = {"dataset": cfg.dataset.get("name"), "steps": content["global_step"], "seed": cfg.seed}
    trained["ema"] = is_averaged(content["state_dict"])
    parts = {part: OmegaConf.to_container(cfg[part]) for part in ("generator", "noise")}
    return {**parts, "trained": trained, **about}
