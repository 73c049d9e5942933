"""Terms: further losses of a player, other than those on logits and the penalties on the critic.

A term is called as (recipe, judge, batch, generated) -> scalar, with the player's name as a fifth argument if it has
`by_player = True`. `players` names the players whose loss it joins.
`replaces` names the losses that it replaces; those are then only logged. It acts in steps in which it is `due`.
`attach(recipe)`, if it has that, is called once when the game is complete, before any state is loaded.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from ganrun.adversary import Judge
from ganrun.errors import UserError, one_of
from ganrun.game import Batch, Recipe, at_least_float32
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp


def feature_distance(real: Tensor, fake: Tensor) -> Tensor:
    """|E f(x) - E f(G(z))|^2 of features (batch, F): Salimans et al. 2016, arXiv 1606.03498, eq. in section 3.1."""
    return (real.mean(0) - fake.mean(0)).square().sum()


class FeatureMatching(Lazy):
    """The generator matches the mean features of the layer before the discriminator's last one.

    key: the generated output that is compared with batch["real"]. replace: True = it replaces the adversarial loss as
    the generator's whole objective, as in Salimans et al. 2016; False = it is added.

    Example:
        recipe = GAN(generator, adversary, terms={"feature-matching": FeatureMatching(weight=1.0)})
        recipe.players()["generator"].losses(batch, recipe.generate(batch)).terms  # adversarial, feature-matching
    """

    players = ("generator",)

    def __init__(self, weight: float | Ramp = 1.0, key: str = "fake", replace: bool = False, every: int = 1):
        super().__init__(weight, every)
        if replace and every > 1:
            raise UserError(f"every={every}: replace=true leaves no other loss between its acts; expected every=1")
        self.replaces = ("adversarial",) if replace else ()
        self.key = key

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        if isinstance(judge, dict):
            raise UserError(f"term.feature-matching: it needs one discriminator; this recipe has {', '.join(judge)}")
        fake = named(generated, "term.feature-matching.key", self.key)
        real, fake = judge(batch["real"]).features, judge(fake).features
        return self.strength * feature_distance(at_least_float32(real), at_least_float32(fake))


def absolute_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference over all entries, in units of the value range."""
    return (at_least_float32(x) - at_least_float32(y)).abs().mean()


class L1(Lazy):
    """Distance of an output from its true counterpart: Isola et al. 2017, arXiv 1611.07004, eq. 3.

    weight: the paper's lambda. key: the generated output. target: the key of the data that the output should equal.
    """

    players = ("generator",)

    def __init__(self, weight: float | Ramp = 100.0, key: str = "fake", target: str = "real", every: int = 1):
        super().__init__(weight, every)
        self.key, self.target = key, target

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        if recipe.unpaired:
            raise UserError(f"term.l1: outputs of {type(recipe).__name__} have no true counterparts; leave l1 out")
        output, target = named(generated, "term.l1.key", self.key), named(batch, "term.l1.target", self.target)
        return self.strength * absolute_error(output, target)


class Cycle(Lazy):
    """Translating there and back gives the same image, in both directions: Zhu et al. 2017, arXiv 1703.10593, eq. 2.

    weight: the paper's lambda. Needs a CycleGAN recipe.
    """

    players = ("generator",)

    def __init__(self, weight: float | Ramp = 10.0, every: int = 1):
        super().__init__(weight, every)

    def forward(self, recipe: Recipe, judge: dict[str, Judge], batch: Batch, generated: Batch) -> Tensor:
        a2b, b2a = both_ways(recipe, "cycle")
        a = absolute_error(b2a(generated["fake_b"]), batch["source"])
        return self.strength * (a + absolute_error(a2b(generated["fake_a"]), batch["real"]))


class Identity(Lazy):
    """A generator leaves images of its target domain as they are: Zhu et al. 2017, arXiv 1703.10593, section 5.2.

    weight: in the paper half of the cycle's. Both domains need the same number of channels. Needs a CycleGAN recipe.
    """

    players = ("generator",)

    def __init__(self, weight: float | Ramp = 5.0, every: int = 1):
        super().__init__(weight, every)

    def forward(self, recipe: Recipe, judge: dict[str, Judge], batch: Batch, generated: Batch) -> Tensor:
        a2b, b2a = both_ways(recipe, "identity")
        if batch["source"].shape[1] != batch["real"].shape[1]:
            raise UserError("term.identity: both domains need the same number of channels; leave identity out")
        a = absolute_error(b2a(batch["source"]), batch["source"])
        return self.strength * (a + absolute_error(a2b(batch["real"]), batch["real"]))


def overlap(filters: Tensor) -> Tensor:
    """|W W^T o (1 - I)|_F^2 of filters W (num, F): Brock et al. 2019, arXiv 1809.11096, eq. 3 (columns there)."""
    lengths = filters.square().sum(1)
    if len(filters) > filters.shape[1]:  # |W W^T| = |W^T W|, which is the smaller matrix
        return (filters.T @ filters).square().sum() - lengths.square().sum()
    return (filters @ filters.T - lengths.diag()).square().sum()


class Orthogonal(Lazy):
    """Modified orthogonal regularisation of the generator: filters of a layer are orthogonal, their lengths free.

    weight: beta of Brock et al. 2019, arXiv 1809.11096, eq. 3, 1e-4 in section 3.1. Its gradient is 4 beta (W W^T o
    (1 - I)) W. The authors' code adds half of that: its 1e-4 is a weight of 5e-5 here. Biases, scales of norms and
    embeddings of classes are left out. Of weights under spectral norm the undivided ones count, since these are moved.
    """

    players = ("generator",)
    needs_generated = False

    def __init__(self, weight: float | Ramp = 1e-4, every: int = 1):
        super().__init__(weight, every)

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        networks = [net for player in recipe.players().values() if player.generates for net in player.networks]
        weights = [w for network in networks for w in filters_of(network)]
        if not weights:
            raise UserError("term.orthogonal: the generator has no linear or convolutional layer; leave it out")
        with torch.autocast(weights[0].device.type, enabled=False):  # three digits would be too few
            return self.strength * sum(overlap(w) for w in weights)


def filters_of(network: nn.Module) -> list[Tensor]:
    """The weights (filters, F) of all linear and convolutional layers, but for a network's `embeddings`."""
    left_out = {id(layer) for module in network.modules() for layer in getattr(module, "embeddings", ())}
    found = []
    for module in network.modules():
        if isinstance(module, nn.Linear | _ConvNd) and id(module) not in left_out:
            weight = module.parametrizations.weight.original if is_parametrized(module, "weight") else module.weight
            found.append((weight.transpose(0, 1) if isinstance(module, _ConvTransposeNd) else weight).flatten(1))
    return found


def named(tensors: Batch, setting: str, key: str) -> Tensor:
    """tensors[key]. Raises UserError if there is no such key. setting: the config key that named it."""
    if key not in tensors:
        raise UserError(f"{setting}={key}: there is no such key; {one_of(tensors, key)}")
    return tensors[key]


def both_ways(recipe: Recipe, term: str) -> tuple[nn.Module, nn.Module]:
    """A CycleGAN's two generators. Raises UserError for any other recipe."""
    if not (hasattr(recipe, "a2b") and hasattr(recipe, "b2a")):
        raise UserError(f"term.{term}: it needs two generators a2b and b2a, as in model=cyclegan; leave {term} out")
    return recipe.a2b, recipe.b2a
