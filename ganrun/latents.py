"""Terms on latents: InfoGAN's code, and what moving them costs LOGAN."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe, at_least_float32
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp

NO_CODE = "this noise has no code; expected noise=codes"


def gaussian(code: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean over the batch of -log N(code; mean, std), summed over codes; all (batch, num)."""
    deviation = (code - mean) * (-log_std).exp()
    return (deviation.square() / 2 + log_std + math.log(2 * math.pi) / 2).sum(1).mean()


class InfoGAN(Lazy):
    """-log Q(c | G(z, c)) of both players: Chen et al. 2016, arXiv 1606.03657, eq. 5 and 6, without H(c), a constant.

    The generator and Q, a head of the discriminator, maximise this bound on the mutual information; the layers that Q
    shares with the discriminator follow it too, as in the authors' code.

    categorical: values of each categorical code; weight: of their cross-entropies
    continuous_weight: of the Gaussian likelihood of the continuous codes. key: the generated output
    """

    players = ("discriminator", "generator")

    def __init__(
        self,
        categorical: Sequence[int] | None = (10,),
        weight: float | Ramp = 1.0,
        continuous_weight: float = 0.1,
        key: str = "fake",
        every: int = 1,
    ):
        super().__init__(weight, every)
        if categorical is None:
            raise UserError(f"term.infogan: {NO_CODE}")
        self.categorical, self.continuous_weight, self.key = list(categorical), continuous_weight, key

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        if isinstance(judge, dict):
            raise UserError(f"term.infogan: it needs one discriminator; this recipe has {', '.join(judge)}")
        if "code" not in batch:
            raise UserError(f"term.infogan: {NO_CODE}")
        told = judge(generated[self.key]).code
        if told is None:
            raise UserError("term.infogan: the discriminator tells no code; leave the head that term=[infogan] brings")
        return self._unlikely(batch["code"], at_least_float32(told))

    def _unlikely(self, code: Tensor, told: Tensor) -> Tensor:
        num = sum(self.categorical)
        loss = told.new_zeros(())
        pairs = zip(code[:, :num].split(self.categorical, 1), told[:, :num].split(self.categorical, 1), strict=True)
        for value, logits in pairs:
            loss = loss + self.strength * cross_entropy(logits, value.argmax(1))
        mean, log_std = told[:, num:].chunk(2, 1)
        return loss + self.every * self.continuous_weight * gaussian(code[:, num:], mean, log_std)


class Transport(Lazy):
    """The mean squared length of the steps of the latents, of both players: Wu et al. 2019, arXiv 1912.00953, sec. 4.

    Needs a LOGAN recipe.
    """

    players = ("discriminator", "generator")

    def __init__(self, weight: float | Ramp = 0.1, every: int = 1):
        super().__init__(weight, every)

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        if "transport" not in generated:
            raise UserError(f"term.logan: {type(recipe).__name__} does not move latents; expected recipe=logan")
        return self.strength * generated["transport"].mean()
