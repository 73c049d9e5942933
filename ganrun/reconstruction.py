"""The discriminator as an encoder: what it has seen of real images can be decoded again."""

from torch import Tensor, nn

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe, at_least_float32
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp


class Reconstruction(Lazy):
    """The discriminator decodes reals from its own maps: FastGAN, Liu et al. 2021, arXiv 2101.04775, eq. 2.

    Needs a discriminator with `rebuilt(verdict.maps)` -> pairs of a target and its reconstruction; its decoders are
    trained with it. Targets are the images as the discriminator has seen them, after augmentations.

    distance: module (target, reconstruction) -> scalar, such as networks.frozen.Perceptual. The authors take LPIPS of
    VGG16, whose weights must be downloaded, and sum it over their batch of 8, which the mean times 8 equals.
    """

    players = ("discriminator",)

    def __init__(self, distance: nn.Module, weight: float | Ramp = 8.0, every: int = 1):
        super().__init__(weight, every)
        self.distance = distance

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        discriminator = getattr(getattr(recipe, "adversary", None), "discriminator", None)
        if not hasattr(discriminator, "rebuilt"):
            raise UserError("term.reconstruction: it needs a discriminator with decoders, discriminator=fastgan")
        pairs = discriminator.rebuilt(judge(batch["real"]).maps)
        return self.strength * sum(self.distance(x.detach(), at_least_float32(y)) for x, y in pairs)
