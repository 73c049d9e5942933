"""Consistency: the discriminator says the same of an image and of its changed copy."""

import torch
from torch import Tensor

from ganrun.adversary import Judge
from ganrun.augment.drawing import Draw, over
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe, at_least_float32
from ganrun.lazy import Lazy
from ganrun.penalties import Penalty
from ganrun.ramps import Ramp, at, bounds

SHIFT = 1 / 8  # largest shift, as a share of the side


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference over all entries."""
    return (at_least_float32(x) - at_least_float32(y)).square().mean()


def flipped_and_shifted(images: Tensor) -> Tensor:
    """Each image (batch, C, H, W) mirrored with probability 1/2, then moved by whole pixels, up to 1/8 of each side.

    What comes in is the image's reflection. Zhang et al. 2020, arXiv 1910.12027.
    """
    if images.dim() != 4:
        shape = "x".join(map(str, images.shape[1:]))
        raise UserError(f"penalty: consistency is of images, channels x height x width; these samples are {shape}")
    draw = Draw.like(images)
    images = torch.where(over(draw.happens(0.5)), images.flip(3), images)
    for dim in (2, 3):
        side = images.shape[dim]
        reach = int(side * SHIFT)
        shifts = draw.below(2 * reach + 1).long() - reach
        source = (torch.arange(side, device=images.device) - shifts[:, None]).abs()
        source = side - 1 - (side - 1 - source).abs()  # reflected at the far side as at the near one
        images = images.gather(dim, source.view(-1, 1, *((side, 1) if dim == 2 else (1, side))).expand_as(images))
    return images


class Consistency(Penalty):
    """CR: lambda E (D(x) - D(T(x)))^2 at reals, T flips and shifts: Zhang et al. 2020, arXiv 1910.12027.

    T comes before the augmentations: both x and T(x) then go through them, each with draws of its own. x is what the
    discriminator is shown anyway, so that this costs one pass.
    """

    per_sample = False
    judged = True

    def __init__(self, weight: float | Ramp = 10.0, every: int = 1):
        super().__init__(weight, every)

    def penalty(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
        return self.between_copies(judge, real)

    def between_copies(self, judge: Judge, x: Tensor) -> Tensor:
        return squared_distance(judge(x).logits, judge(flipped_and_shifted(x)).logits)


class BalancedConsistency(Consistency):
    """bCR: the same at fakes too, with a weight of their own: Zhao et al. 2021, arXiv 2002.04724."""

    def __init__(self, weight: float | Ramp = 10.0, fake_weight: float | Ramp = 10.0, every: int = 1):
        super().__init__(weight, every)
        self.fake_weight = not_negative("fake_weight", fake_weight)

    def forward(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
        fakes = at(self.fake_weight, self.now) * self.every * self.between_copies(judge, fake)
        return super().forward(judge, real, fake) + fakes


class LatentConsistency(Lazy):
    """zCR: fakes of z and of z + noise look alike to the discriminator, but differ: Zhao et al. 2021.

    The discriminator loses weight * (D(G(z)) - D(G(z + n)))^2, the generator - generator_weight * |G(z) - G(z + n)|^2,
    both means over entries. With bCR this is ICR.

    std: of n. key: the generated output.
    """

    players = ("discriminator", "generator")
    by_player = True

    def __init__(
        self,
        weight: float | Ramp = 20.0,
        generator_weight: float | Ramp = 0.5,
        std: float = 0.05,
        key: str = "fake",
        every: int = 1,
    ):
        super().__init__(weight, every)
        self.generator_weight = not_negative("generator_weight", generator_weight)
        if std <= 0:
            raise UserError(f"std={std}; expected more than 0, in units of z")
        self.std, self.key = std, key

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch, player: str) -> Tensor:
        if "z" not in batch:
            raise UserError(f"term.zcr: it moves the noise, and {type(recipe).__name__} takes none; leave zcr out")
        fake, z = generated[self.key], batch["z"]
        with torch.set_grad_enabled(player == "generator"):
            other = recipe.generate(batch | {"z": z + self.std * torch.randn_like(z)})[self.key]
        if player == "generator":
            return -at(self.generator_weight, self.now) * self.every * squared_distance(fake, other)
        return self.strength * squared_distance(judge(fake).logits, judge(other).logits)


def not_negative(name: str, weight: float | Ramp) -> float | Ramp:
    """The weight. Raises UserError if it is ever less than 0."""
    if bounds(weight)[0] < 0:
        raise UserError(f"{name}={weight}; expected at least 0 (0 = off)")
    return weight
