"""R3GAN's own networks and `AdversarialTraining`, from a checkout of github.com/brownvc/R3GAN, for the benchmark."""

import copy
import sys
from functools import partial

import torch
from own_trainer import OwnTrainer
from packaging.version import parse
from torch import Tensor, nn


class R3GAN(OwnTrainer):
    """`AdversarialTraining` on R3GAN's own networks and operators; the discriminator moves first."""

    requires = ("R3GAN/Trainer.py", "R3GAN/Networks.py")
    imports = ("", "R3GAN.Trainer", "R3GAN.Networks")
    stand_ins = {"pkg_resources": {"parse_version": parse}}  # noqa: RUF012 - an older setuptools has it
    shared = ("torch_utils", "dnnlib")
    rows = ("r3gan",)
    WORKERS = 3  # as its train.py has it

    def start(self) -> None:
        networks = [each.to(self.device) for each in r3gan_networks(self.generator, self.discriminator)]
        kept, optimizer = copy.deepcopy(networks[0]), self.cfg.optimizer
        play = self.module.AdversarialTraining(*networks)
        adam = partial(torch.optim.Adam, lr=optimizer.lr, betas=tuple(optimizer.betas))
        adams = [adam(network.parameters()) for network in networks]
        reals = self.reals(self.WORKERS)
        gamma = self.cfg.penalty.r1.weight
        moves = [partial(play.AccumulateDiscriminatorGradients, Gamma=gamma), play.AccumulateGeneratorGradients]
        while True:
            for network in networks:
                network.requires_grad_(False)
            for network, own_adam, move in zip(reversed(networks), reversed(adams), moves, strict=True):
                noise = torch.randn(self.cfg.batch_size, self.cfg.noise.z_dim, device=self.device)
                own_adam.zero_grad(set_to_none=True)
                network.requires_grad_(True)
                move(noise, next(reals), None)
                network.requires_grad_(False)
                own_adam.step()
            self.average(kept, networks[0])
            self.hand_over()


def r3gan_networks(generator: nn.Module, discriminator: nn.Module) -> list[nn.Module]:
    """R3GAN's generator and discriminator, of the sizes and with the weights of ganrun's."""
    theirs, embed = sys.modules["R3GAN.Networks"], generator.embed
    first = next(m for m in generator.modules() if type(m).__name__ == "Block").convs[1]
    stages = [generator.stem, *generator.stages]
    widths = [stage[-1].convs[2].out_channels for stage in stages]
    group = first.out_channels // first.groups
    blocks = [sum(type(m).__name__ == "Block" for m in stage) for stage in stages]
    expansion = first.out_channels // widths[0]
    classes = {} if embed is None else dict(ConditionDimension=embed.in_features)
    sizes = (widths, [expansion * width // group for width in widths], blocks)
    inputs = generator.basis.scale.in_features - (0 if embed is None else embed.out_features)
    condition = {} if embed is None else dict(ConditionEmbeddingDimension=embed.out_features)
    made = [theirs.Generator(inputs, *sizes, expansion, **classes, **condition)]
    condition = {} if embed is None else dict(ConditionEmbeddingDimension=widths[0])
    made += [theirs.Discriminator(*(each[::-1] for each in sizes), expansion, **classes, **condition)]
    for network, own in zip(made, (generator, discriminator), strict=True):
        copy_by_order(network, own)
    return made


@torch.no_grad()
def copy_by_order(theirs: nn.Module, own: nn.Module) -> None:
    """Copies all parameters: of equal shapes, the first to the first."""
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in own.parameters():
        by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
    for parameter in theirs.parameters():
        parameter.copy_(by_shape[tuple(parameter.shape)].pop(0))
    assert not any(by_shape.values())
