"""Makes the output of `ganrun directions`."""

import numpy as np
import torch

from ganrun.commands.directions.request import Request
from ganrun.errors import NotFinite, UserError
from ganrun.files.storage import replacing
from ganrun.pictures import grid
from ganrun.sampling import codes
from ganrun.sampling.directions import find, walks
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.latents import Latents, load, write_npz
from ganrun.training.hardware import device_named
from ganrun.training.of_checkpoint import open_generator


def draw(request: Request) -> None:
    """Writes the picture and the directions. Raises UserError, CannotWrite, NotFinite."""
    device = device_named(request.device)
    sampling = open_generator(request.file, request.run, trust=request.trust)
    if not isinstance(sampling, SamplingGenerator) or sampling.value_range is None:
        raise UserError(f"from={request.file}: expected a generator that makes images from noise")
    sampling.to(device)
    found = find(sampling, request.num, request.layers)
    base = base_of(request, sampling)
    if found.space == "z" and base.space != "z":
        raise UserError(f"latents={request.latents}: they are {base.space}, and this generator's directions are of z")
    steps = torch.linspace(-request.reach, request.reach, request.columns).tolist()
    images = walks(sampling, base, found, steps)
    if not images.isfinite().all():
        raise NotFinite(f"{request.file}: this generator makes NaN or infinity; give a smaller reach=")
    heads = [f"{step:.2g}" for step in steps]
    picture = grid(images.flatten(0, 1) / 2 + 0.5, columns=len(steps), names=heads, shown=sampling.shown)
    write_npz(
        request.out.with_suffix(".npz"),
        {"directions": found.vectors.numpy(), "eigenvalues": found.eigenvalues.numpy(),
         "space": np.array(found.space), "layers": np.array(found.layers)},
    )  # fmt: skip
    with replacing(request.out) as file:
        picture.save(file, format="PNG")


def base_of(request: Request, sampling: SamplingGenerator) -> Latents:
    """The latent that is moved, one row."""
    if request.latents is not None:
        where = f"latents={request.latents}"
        given = load(request.latents, where)
        given.check(sampling, where)
        return given[:1]
    turn = sampling.turn(request.label)
    z = sampling.draw([0], request.seed)
    if sampling.codes and turn is not None:
        z, turn = codes.put(z, turn[:1]), None
    return Latents(z, "z", None if turn is None else turn[:1])
