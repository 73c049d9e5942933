"""Path length regularisation: a step of fixed length in w changes the image by a fixed amount."""

import math

import torch
from torch import Tensor

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe, at_least_float32
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp
from ganrun.styles import StyleBased, style_based


def path_lengths(styles: Tensor, images: Tensor, noise: Tensor) -> Tensor:
    """|J^T y| of each sample, (batch,), differentiable in the weights: Karras et al. 2020, arXiv 1912.04958, eq. 4.

    styles: (batch, L, W), from which images (batch, C, H, W) were made. noise: y ~ N(0, I), like the images, here over
    sqrt(H W). As in the authors' code, the squares of the L gradients with respect to a layer's style are averaged.
    """
    changes = (images * noise).sum() / math.sqrt(images[0, 0].numel())
    (gradient,) = torch.autograd.grad(changes, styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


class PathLength(Lazy):
    """E (|J^T y| - a)^2, where a is the running mean of |J^T y|: Karras et al. 2020, arXiv 1912.04958, eq. 4.

    weight: gamma_pl, 2 in the authors' code. decay: the share of the current mean length that enters `a` before each
    use, as there. share: of the batch, that is made anew for it, from the noise of its first rows; the authors draw
    other noise. `a` is taken from each process's rows and each pass of a micro_batch, then averaged over the processes.

    Example:
        recipe = GAN(generator, adversary, terms={"path-length": PathLength()})
        recipe.players()["generator"].losses(batch, recipe.generate(batch)).terms  # adversarial, path-length
    """

    players = ("generator",)
    needs_generated = False

    def __init__(self, weight: float | Ramp = 2.0, decay: float = 0.01, share: float = 0.5, every: int = 4):
        super().__init__(weight, every)
        for name, value in {"decay": decay, "share": share}.items():
            if not 0 < value <= 1:
                raise UserError(f"{name}={value}; expected more than 0 and at most 1")
        self.decay, self.share = decay, share
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        generator = generator_of(recipe)
        condition = batch.get(getattr(recipe, "condition", None))
        rows = max(1, int(len(batch["z"]) * self.share))
        styles = at_least_float32(generator.styles(batch["z"][:rows], None if condition is None else condition[:rows]))
        images = at_least_float32(generator.synthesis(styles))
        lengths = path_lengths(styles, images, torch.randn_like(images))
        mean = self.mean.lerp(lengths.mean().to(self.mean.dtype), self.decay)
        self.mean.copy_(mean.detach())
        return self.strength * (lengths - mean).square().mean()


def generator_of(recipe: Recipe) -> StyleBased:
    """The recipe's generator. Raises UserError for several, or if it is not style-based."""
    networks = [net for player in recipe.players().values() if player.generates for net in player.networks]
    if len(networks) > 1:
        raise UserError(f"term.path-length: it needs one generator; this recipe has {len(networks)}; leave it out")
    return style_based(networks[0], "term.path-length", "leave it out")
