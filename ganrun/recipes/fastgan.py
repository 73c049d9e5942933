"""FastGAN: the discriminator also sees a smaller version of each image, which the generator makes by itself."""

from torch import Tensor, nn

from ganrun.adversary import Adversary, Judge
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.recipes.gan import GAN


class FastGAN(GAN):
    """The classic game with fakes of two sizes: Liu et al. 2021, arXiv 2101.04775.

    Takes a generator with generator(z, label, both=True) -> (images, smaller images), and a discriminator with
    discriminator(x, condition, small). The smaller version of anything but fakes, such as reals and the points at which
    penalties look, is what the discriminator makes of it. Augmentations change both sizes independently, as in the
    authors' code.

    Example:
        recipe = FastGAN(generator, Adversary(discriminator, Hinge(margin=(0.8, 1.0))))
        recipe.generate({"z": torch.randn(8, 256)})  # fake (8, C, 256, 256), small (8, C, 128, 128)
    """

    def __init__(
        self,
        generator: nn.Module,
        adversary: Adversary,
        *,
        condition: str | None = None,
        terms: dict[str, nn.Module] | None = None,
        conditioning: dict[str, nn.Module] | None = None,
    ):
        super().__init__(generator, adversary, condition=condition, terms=terms, conditioning=conditioning)
        if getattr(generator, "to_small", None) is None or not hasattr(adversary.discriminator, "small"):
            raise UserError(
                "recipe=fastgan: it needs networks for two sizes, generator=fastgan with generator.small=true and "
                "discriminator=fastgan; with others expected recipe=gan"
            )

    def generate(self, batch: Batch) -> Batch:
        fake, small = self.generator(batch["z"], batch.get(self.condition), both=True)
        return {"fake": fake, "small": small}

    def judge(self, batch: Batch, generated: Batch) -> Judge:
        return JudgeOfTwoSizes(self.adversary, batch.get(self.condition), generated["fake"], generated["small"])


class JudgeOfTwoSizes(Judge):
    """Shows the discriminator the generator's own smaller version beside a fake."""

    def __init__(self, adversary: Adversary, condition: Tensor | None, fake: Tensor, small: Tensor):
        super().__init__(adversary, condition)
        self._fake, self._small = fake, small

    def differentiable(self, x: Tensor) -> Tensor:
        """Fakes stay as they are: a penalty's pass makes the smaller version from them, the loss's pass must not."""
        return x if x is self._fake else super().differentiable(x)

    def seen(self, x: Tensor) -> tuple[Tensor | None, ...]:
        given = super().seen(x)
        return (*given, super().seen(self._small)[0]) if x is self._fake else given
