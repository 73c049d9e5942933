"""The generators that a run's checkpoint holds, so that any saved step can be sampled and scored."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ganrun.config.trust import package_names
from ganrun.errors import UserError
from ganrun.files.checkpoint import load_checkpoint
from ganrun.files.run_dir import RunDir
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.generator_file import assemble, load_generator, reading
from ganrun.sampling.translator import Translator
from ganrun.standing import said

BEFORE = {"averages": {"generator": 0}}  # what older checkpoints, with a single generator, do not say


def open_generator(file: Path, run: RunDir | None, *, trust: str | Iterable[str]) -> SamplingGenerator | Translator:
    """From a .safetensors file, or from a checkpoint of `run`; in eval mode on the CPU. Raises UserError."""
    if file.suffix != ".ckpt":
        return load_generator(file, trust=trust)
    from ganrun.training.run_config import load_config  # imports what a generator file does not need
    from ganrun.training.state import check_config

    cfg, _ = load_config(run, list(package_names(trust)))
    content = load_checkpoint(file)
    check_config(file, content, run)
    about = content["ganrun"].get("samples")
    if about is None:
        raise UserError(f"{file}: an older ganrun wrote it, without what samples are; use a .safetensors of the run")
    about = BEFORE | about
    with reading(file):
        tensors, averaged = weights(content["state_dict"], about["averages"])
        trained = {"dataset": cfg.dataset.get("name"), "steps": content["global_step"], "seed": cfg.seed}
        trained |= {"ema": averaged, **(averages_stand(cfg) if averaged else {})}
        described = header(cfg, about, trained)
        return assemble(described, tensors, package_names(trust), str(run.config))


def averages_stand(cfg: DictConfig) -> dict[str, str]:
    """How the batch norm statistics of a run's averages were measured, for a protocol; {} if they were copied."""
    passes = cfg.ema.get("standing")
    return {"standing": said(passes, "as in the data" if cfg.conditional.key else None)} if passes else {}


def weights(state: dict[str, Tensor], averages: dict[str, int]) -> tuple[dict[str, Tensor], bool]:
    """The tensors by their names in a generator file, and are they averages? averages: index of each one's."""
    averaged = any(key.startswith("ema.average.") for key in state)
    prefixes = {name: f"ema.average.{i}." if averaged else f"recipe.{name}." for name, i in averages.items()}
    own = {
        f"{name}.{key.removeprefix(prefix)}": value
        for name, prefix in prefixes.items()
        for key, value in state.items()
        if key.startswith(prefix)
    }
    return own | {key: value for key, value in state.items() if key.startswith("noise.")}, averaged


def header(cfg: DictConfig, about: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """The content of generator.yaml. about: from a checkpoint, see Fit.samples_are."""
    networks = {name: OmegaConf.to_container(network_config(cfg, name), resolve=True) for name in about["averages"]}
    noise = OmegaConf.to_container(cfg.noise, resolve=True) if "_target_" in cfg.noise else None
    about = {key: value for key, value in about.items() if key != "averages"}
    return {"networks": networks, "noise": noise, "trained": trained, **about}


def of_discriminators(cfg: DictConfig, about: dict[str, Any], steps: int, paths: Iterable[str]) -> dict[str, Any]:
    """The content of discriminator.yaml. about: from a checkpoint, see Fit.samples_are."""
    paths = list(paths)
    networks = {path: OmegaConf.to_container(network_config(cfg, path), resolve=True) for path in paths}
    heads = {path: OmegaConf.to_container(node, resolve=True) for path in paths if (node := beside(cfg, path, "heads"))}
    normalised = [path for path in paths if beside(cfg, path, "gradient_norm")]
    trained = {"dataset": cfg.dataset.get("name"), "steps": steps, "seed": cfg.seed, "loss": cfg.loss.get("_target_")}
    described = {"networks": networks, "trained": trained, **{key: about[key] for key in ("value_range", "classes")}}
    return described | ({"heads": heads} if heads else {}) | ({"normalised": normalised} if normalised else {})


def beside(cfg: DictConfig, path: str, setting: str) -> Any:
    """A setting of the adversary that a recipe's discriminator is in; None if it has none."""
    return OmegaConf.select(cfg.recipe, f"{path.rpartition('.')[0]}.{setting}")


def network_config(cfg: DictConfig, name: str) -> DictConfig:
    """The config that a recipe's network was built from. Raises UserError for a network that the recipe made itself.

    name: dotted path in the recipe
    """
    node = OmegaConf.select(cfg.recipe, name)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        kind = "generator" if "." not in name else "discriminator"
        raise UserError(
            f"recipe.{name}: the {kind}'s file needs its config; expected recipe.{name} to be a network's, as "
            f"{name.rpartition('.')[2]}: ${{{kind}}}"
        )
    return node
