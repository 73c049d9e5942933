"""sampler= and its settings, which `ganrun sample` and `ganrun evaluate` share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganrun.errors import UserError, one_of

if TYPE_CHECKING:
    from ganrun.files.run_dir import RunDir
    from ganrun.sampling.generator import SamplingGenerator

KEYS = {"sampler": str | None, "discriminator_file": str | None, "percentile": float | None, "gamma": float | None,
        "burn_in": int | None, "langevin_steps": int | None, "step_size": float | None}  # fmt: skip
SETTINGS = {  # of each sampler: its keys, and their names in its class
    "drs": {"percentile": "percentile", "gamma": "gamma", "burn_in": "burn_in"},
    "ddls": {"langevin_steps": "steps", "step_size": "step_size"},
}
CALIBRATED = ("ganrun.losses.NonSaturating", "ganrun.losses.Minimax")  # their logits are logarithms of a ratio


def check_sampler(keys: dict[str, Any]) -> None:
    """Raises UserError for an unknown sampler, and for settings that do not act with it. keys: of the command."""
    name = keys["sampler"]
    if name not in (None, *SETTINGS):
        raise UserError(f"sampler={name}; {one_of(SETTINGS, name)}")
    for key in KEYS.keys() - {"sampler"}:
        owner = next((sampler for sampler, settings in SETTINGS.items() if key in settings), None)
        if keys[key] is not None and (name is None or owner not in (None, name)):
            raise UserError(f"{key}={keys[key]}: it acts with sampler={owner or 'drs or ddls'} only; leave {key}= out")
    if keys["percentile"] is not None and keys["gamma"] is not None:
        raise UserError(f"percentile={keys['percentile']} gamma={keys['gamma']}: give one of them")
    if name and keys["truncation"] is not None:
        raise UserError(f"truncation={keys['truncation']}: sampler={name} chooses the noise; leave one of them out")
    if name and keys.get("interpolate") is not None:
        raise UserError(f"sampler={name}: it chooses samples, and interpolate= moves between them; leave one out")


def give_sampler(
    sampling: "SamplingGenerator", keys: dict[str, Any], file: Path, run: "RunDir | None", trust: Any
) -> None:
    """Gives a generator, which is on its device, the sampler that was asked for. Raises UserError."""
    if keys["sampler"] is None:
        return
    from ganrun.sampling.samplers import DDLS, DRS, judged
    from ganrun.seeding import rng_for
    from ganrun.training.of_discriminator import open_discriminator

    steps, device = sampling.trained.get("steps"), next(sampling.generator.parameters()).device
    found = open_discriminator(file, run, steps, named=keys["discriminator_file"], trust=trust).to(device)
    loss, name = found.trained.get("loss"), keys["sampler"]
    if loss not in CALIBRATED:
        told = "its logits are taken for logarithms of a ratio of densities, as those of loss=non-saturating are"
        print(f"note: the discriminator was trained by {loss}; {told}", file=sys.stderr)
    given = {own: keys[key] for key, own in SETTINGS[name].items() if keys[key] is not None}
    if name == "drs":
        given["labels"] = lambda num: sampling.any_labels(num, rng_for("drs labels"))
    logits = judged(sampling.generator, found, device)
    sampling.sampler = {"drs": DRS, "ddls": DDLS}[name](logits, sampling.noise, **given)
