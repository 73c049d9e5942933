"""SeFa: directions of a latent space that change images most, from weights alone: Shen and Zhou 2021, arXiv 2007.06600.

They are the eigenvectors of A^T A with the largest eigenvalues, eq. 6 there, where A are the weights that take the
latent. The authors' code first divides each row of A by its length; here it is as in the paper.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganrun.errors import UserError
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.latents import Latents
from ganrun.styles import StyleBased

TAKING = (nn.Linear, nn.ConvTranspose2d)  # a transposed convolution of one pixel is linear


class Directions(NamedTuple):
    """vectors: (num, dim), of length 1, that with the largest effect first. eigenvalues: (num,), of A^T A.

    space: z or w. layers: first and last of the layers whose weights they are of, and, in w, which they move
    """

    vectors: Tensor
    eigenvalues: Tensor
    space: str
    layers: tuple[int, int]


def sefa(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight A (outputs, dim) -> eigenvectors of A^T A in rows (dim, dim), and eigenvalues (dim,), the largest first.

    The largest number of a vector is positive, so that its sign does not depend on the machine.
    """
    weight = weight.double()
    values, vectors = torch.linalg.eigh(weight.T @ weight)
    vectors = vectors.T.flip(0)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign()).float(), values.flip(0).clamp(min=0).float()


@torch.no_grad()
def find(sampling: SamplingGenerator, num: int, layers: Sequence[int] | None = None) -> Directions:
    """The first `num` directions, in w for a style-based generator, else in z.

    layers: first and last layer that count, from 0; None = all. They are styles for style-based generators, else the
    layers that z enters as it is: one for most, all blocks of BigGAN. Raises UserError.
    """
    network = sampling.generator
    in_w = isinstance(network, StyleBased)
    weights = network.style_weights() if in_w else weights_of_z(sampling)
    first, last = (0, len(weights) - 1) if layers is None else layers
    if not 0 <= first <= last < len(weights):
        told = f"expected [first,last] within 0 to {len(weights) - 1}, the layers that take {'w' if in_w else 'z'}"
        raise UserError(f"layers=[{first},{last}]; {told}")
    vectors, values = sefa(torch.cat(weights[first : last + 1]).cpu())
    if num > len(vectors):
        raise UserError(f"num={num}; expected at most {len(vectors)}, the numbers in {'w' if in_w else 'z'}")
    return Directions(vectors[:num], values[:num], "w" if in_w else "z", (first, last))


def weights_of_z(sampling: SamplingGenerator) -> list[Tensor]:
    """The weights (outputs, z_dim) of each layer that is given z, or a part of it, as it is, in their order.

    They are found by a forward pass: numbers of z are recognised among each layer's inputs. Columns of numbers that a
    layer is not given are 0, and labels beside z do not count. Raises UserError if there is no such layer.
    """
    network, rng = sampling.generator, torch.Generator().manual_seed(0)
    z = torch.randn(1, sampling.noise.z_dim, generator=rng).to(next(network.parameters()).device)
    labels = sampling.any_labels(1, rng)
    found: list[Tensor] = []

    def look(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].numel() != given[0].shape[1]:  # more than one pixel
            return
        weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.flatten(1).T  # (outputs, inputs)
        inputs, numbers = (given[0].reshape(-1, 1) == z).nonzero().T
        if len(inputs):
            found.append(torch.zeros(len(weight), z.shape[1]).to(weight).index_copy(1, numbers, weight[:, inputs]))

    hooks = [layer.register_forward_pre_hook(look) for layer in network.modules() if isinstance(layer, TAKING)]
    try:
        network(z, None if labels is None else labels.to(z.device))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError("directions: no linear layer of this generator takes z as it is, so SeFa has none")
    return found


def walks(sampling: SamplingGenerator, base: Latents, directions: Directions, steps: Sequence[float]) -> Tensor:
    """One latent, moved along each direction by so many units -> images (directions, steps, C, H, W) in [-1, 1]."""
    units = torch.tensor(steps)[:, None] * directions.vectors[:, None]  # (directions, steps, dim)
    move = partial(_moved, base, directions, sampling)
    return torch.stack([move(each).images(sampling) for each in units])


def _moved(base: Latents, directions: Directions, sampling: SamplingGenerator, units: Tensor) -> Latents:
    num = len(units)
    if directions.space == "z":
        labels = None if base.labels is None else base.labels.expand(num, *base.labels.shape[1:])
        return Latents(base.values + units, "z", labels)
    styles = base.styles(sampling).cpu().repeat(num, 1, 1)
    first, last = directions.layers
    styles[:, first : last + 1] += units[:, None]
    return Latents(styles, "w+")
