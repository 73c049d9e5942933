"""From a run's snapshots of averages to a generator with an average of another length."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ganrun.config.typed import check_known, check_place, check_types
from ganrun.ema import settle
from ganrun.errors import UserError, one_of
from ganrun.files.run_dir import RunDir, find_run
from ganrun.power_ema import gamma_of, misfit, weights_for
from ganrun.sampling.generator_file import assemble, reading, save_generator
from ganrun.standing import batch_norms

KEYS = {"of": str, "std": float | list[float], "at": int | None, "out": str | None, "overwrite": bool,
        "trust": str | list[str]}  # fmt: skip
FAR = 0.1  # relative error of a profile that is worth a warning


class Request(NamedTuple):
    """outs: the file of each std. snapshots: those up to the step at which the average ends, by step."""

    run: RunDir
    outs: dict[float, Path]
    snapshots: dict[int, Path]
    trust: Any

    @property
    def step(self) -> int:
        return max(self.snapshots)


def check(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    OmegaConf.set_struct(cfg, False)
    check_known(cfg, KEYS)
    check_types(cfg, KEYS)
    run, named = find_run(cfg.of, "of")
    snapshots = run.ema_snapshots()
    if named or not snapshots:
        what = "a checkpoint" if named else "the run has no snapshots of averages"
        raise UserError(f"of={cfg.of}: {what}; expected a run that was trained with callbacks=[posthoc-ema]")
    if cfg.at not in (None, *snapshots):
        raise UserError(f"at={cfg.at}: no snapshot is of this step; {one_of(map(str, snapshots), str(cfg.at))}")
    stds = list(cfg.std) if OmegaConf.is_list(cfg.std) else [cfg.std]
    for std in stds:
        gamma_of(std)
    if not stds or (cfg.out and len(stds) > 1):
        raise UserError(f"std={stds} out={cfg.out}; expected one length for one file, or several and no out=")
    ending = "" if cfg.at is None else f"-{cfg.at:06d}"
    outs = {std: named_out(cfg) or run.path / f"ema-{std:g}{ending}.safetensors" for std in stds}
    for path in outs.values():
        if path.exists() and not cfg.overwrite:
            raise UserError(f"out={path} exists; overwrite=true writes over it, or name another place")
    until = max(snapshots) if cfg.at is None else cfg.at
    return Request(run, outs, {step: path for step, path in snapshots.items() if step <= until}, cfg.trust)


def named_out(cfg: DictConfig) -> Path | None:
    """The file that the user names, if any."""
    if cfg.out is None:
        return None
    check_place("out", cfg.out)
    path = Path(cfg.out).expanduser()
    if path.suffix != ".safetensors" or path.is_dir() or not path.parent.is_dir():
        raise UserError(f"out={cfg.out}; expected the name of a .safetensors file in a folder that exists")
    return path


def reconstruct(request: Request, std: float) -> Path:
    """Writes the generator with the average of this length; returns its path."""
    file, step = request.run.generator, request.step
    with reading(file):
        header = yaml.safe_load(file.with_suffix(".yaml").read_text(encoding="utf-8"))
        rest = {key: value for key, value in load_file(file).items() if key.startswith("noise.")}
        tensors, error = averaged(request.snapshots, step, std)
        made = assemble(header, rest | tensors, request.trust, str(file.with_suffix(".yaml")))
    if error > FAR:
        told = f"the closest average that {len(request.snapshots)} snapshots give is {error:.0%} off its profile"
        print(f"note: std={std}: {told}", file=sys.stderr)
    if batch_norms([made]):
        told = f"batch norm's statistics are those of the weights at step {step:,}; standing=16 measures them anew"
        print(f"note: {told}, in ganrun sample and evaluate", file=sys.stderr)
    settle(made)
    trained = {key: value for key, value in header["trained"].items() if key != "standing"}
    trained |= {"steps": step, "ema": f"power function, std {std:g}"}
    save_generator(request.outs[std], made.state_dict(), header | {"trained": trained})
    return request.outs[std]


def averaged(snapshots: dict[int, Path], step: int, std: float) -> tuple[dict[str, Tensor], float]:
    """The generators' tensors with the average of this length up to `step`, and the relative error of its profile.

    Buffers are those of the last snapshot. snapshots: paths by step.
    """
    profiles = [(at, gamma_of(each)) for at, path in snapshots.items() for each in stds_of(path)]
    weights = weights_for(profiles, step, std)
    sums: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    left = iter(weights.tolist())
    for path in snapshots.values():
        factors = list(islice(left, len(stds_of(path))))
        for name, value, track in tensors_of(path, range(len(factors))):
            sums[name] = sums.get(name, 0) + factors[track] * value.double()
            kinds[name] = torch.promote_types(value.dtype, torch.float32)
    made = {name: value.to(kinds[name]) for name, value in sums.items()}
    buffers = {name: value for name, value, _ in tensors_of(snapshots[step], ["buffers"])}
    return made | buffers, misfit(profiles, weights, step, std)


def stds_of(path: Path) -> list[float]:
    with reading(path, "snapshot of averages"), safe_open(path, "pt") as file:
        return json.loads(file.metadata()["stds"])


def tensors_of(path: Path, tracks: Iterable[Any]) -> Iterator[tuple[str, Tensor, Any]]:
    """The tensors of these tracks, one after the other, each with its name and track."""
    known = {str(track): track for track in tracks}
    with reading(path, "snapshot of averages"), safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            track, _, name = key.partition(".")
            if track in known:
                yield name, file.get_tensor(key), known[track]
