"""Terms: what a player also minimises that is neither a loss on logits nor a penalty on the critic.

A term is called as (recipe, judge, batch, generated) -> scalar. `players` names those whose loss it joins; of their
losses it takes the place of those that `replaces` names, which are then only logged. It acts in steps where it is
`due`.
"""

from torch import Tensor

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe, at_least_float32
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp


def feature_distance(real: Tensor, fake: Tensor) -> Tensor:
    """|E f(x) - E f(G(z))|^2 of features (batch, F): Salimans et al. 2016, arXiv 1606.03498, eq. in section 3.1."""
    return (real.mean(0) - fake.mean(0)).square().sum()


class FeatureMatching(Lazy):
    """The generator matches the mean features of the layer before the discriminator's last one.

    key: the generated output that is compared with batch["real"]. replace: it is the generator's whole objective, in
    place of the adversarial loss, as in Salimans et al. 2016; False = it is added.
    """

    players = ("generator",)

    def __init__(self, weight: float | Ramp = 1.0, key: str = "fake", replace: bool = False, every: int = 1):
        super().__init__(weight, every)
        if replace and every > 1:
            raise UserError(f"every={every}: replace=true leaves no other loss between its acts; expected every=1")
        self.replaces = ("adversarial",) if replace else ()
        self.key = key

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        real, fake = judge(batch["real"]).features, judge(generated[self.key]).features
        return self.strength * feature_distance(at_least_float32(real), at_least_float32(fake))
