"""StyleGAN2's networks and `StyleGAN2Loss`, from a checkout of github.com/NVlabs/stylegan2-ada-pytorch.

On a CPU its operators are its reference ones.
"""

import copy
import sys
from collections.abc import Iterator
from itertools import chain
from types import ModuleType
from unittest import mock

import torch
from omegaconf import DictConfig
from own_trainer import OwnTrainer
from torch import Tensor, nn

Pairs = Iterator[tuple[Tensor, Tensor]]  # what ganrun holds, and the peer's tensor that means the same


class StyleGAN2ADA(OwnTrainer):
    """`StyleGAN2Loss` on the peer's networks in its phases: each player's move, then at its interval the lazy one."""

    requires = ("training/loss.py", "training/networks.py", "torch_utils/persistence.py")
    imports = ("", "training.loss", "training.networks")
    shared = ("training", "torch_utils", "dnnlib")
    rows = ("stylegan2",)
    WORKERS = 3  # as its train.py has it

    def start(self) -> None:
        theirs = self.modules["training.networks"]
        with mock.patch.dict(sys.modules, self.modules):  # its networks pickle themselves as they are made
            networks = stylegan2_networks(theirs, self.cfg, self.generator, self.discriminator)
            generator, discriminator = (network.to(self.device).requires_grad_(False) for network in networks)
            kept = copy.deepcopy(generator).eval()
        phases, loss = [], self.loss(generator, discriminator)
        for name, network, player in (("G", generator, "generator"), ("D", discriminator, "discriminator")):
            interval, optimizer = self.cfg.optimizer[player].lazy, self.cfg.optimizer
            share = interval / (interval + 1)
            betas = tuple(beta**share for beta in optimizer.betas)
            adam = torch.optim.Adam(network.parameters(), lr=share * optimizer.lr, betas=betas)
            phases += [(f"{name}main", network, adam, 1), (f"{name}reg", network, adam, interval)]
        none = torch.zeros(self.cfg.batch_size, 0, device=self.device)  # labels
        for step, real in enumerate(self.reals(self.WORKERS)):
            noise = torch.randn(len(phases), len(real), self.cfg.noise.z_dim, device=self.device)
            for z, (phase, network, adam, interval) in zip(noise, phases, strict=True):
                if step % interval == 0:
                    adam.zero_grad(set_to_none=True)
                    network.requires_grad_(True)
                    loss.accumulate_gradients(phase, real, none, z, none, sync=True, gain=interval)
                    network.requires_grad_(False)
                    finite(network)
                    adam.step()
            self.average(kept, generator)
            self.hand_over()

    def loss(self, generator: nn.Module, discriminator: nn.Module) -> object:
        term = self.cfg.term["path-length"]
        return self.module.StyleGAN2Loss(
            self.device,
            generator.mapping,
            generator.synthesis,
            discriminator,
            style_mixing_prob=self.cfg.generator.mixing,
            r1_gamma=self.cfg.penalty.r1.weight,
            pl_batch_shrink=round(1 / term.share),
            pl_decay=term.decay,
            pl_weight=term.weight,
        )


def finite(network: nn.Module) -> None:
    """What is not finite in a gradient becomes 0 or 1e5, as in the peer's loop."""
    for parameter in network.parameters():
        if parameter.grad is not None:
            torch.nan_to_num(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=parameter.grad)


@torch.no_grad()
def stylegan2_networks(
    theirs: ModuleType, cfg: DictConfig, generator: nn.Module, discriminator: nn.Module
) -> tuple[nn.Module, nn.Module]:
    """The peer's generator and discriminator, unconditional, with the sizes and the weights of ganrun's.

    theirs: its module training.networks.
    """
    sizes = {"c_dim": 0, "img_resolution": cfg.dataset.resolution, "img_channels": cfg.dataset.channels}

    def settings(own: DictConfig) -> dict[str, object]:
        widths = {"channel_base": int(64 * own.fmaps * own.width), "channel_max": own.width}
        return widths | {"architecture": own.architecture, "conv_clamp": own.clamp}

    own, layers = cfg.generator, {"num_layers": cfg.generator.mapping_layers}
    of_g = {"mapping_kwargs": layers, "synthesis_kwargs": settings(own)}
    made = theirs.Generator(own.z_dim, w_dim=own.w_dim, **sizes, **of_g)
    group = {"mbstd_group_size": cfg.discriminator.minibatch_std}
    judge = theirs.Discriminator(**sizes, **settings(cfg.discriminator), epilogue_kwargs=group)
    for mine, other in chain(generator_pairs(generator, made), discriminator_pairs(discriminator, judge)):
        other.copy_(mine)
    return made, judge


def generator_pairs(mine: nn.Module, theirs: nn.Module) -> Pairs:
    yield from mapping_pairs(mine.mapping, theirs.mapping)
    yield mine.constant, theirs.synthesis.b4.const
    for i, block in enumerate(mine.blocks):
        other = getattr(theirs.synthesis, f"b{4 * 2**i}")
        for conv, name in zip(block.convs, ("conv0", "conv1")[i == 0 :], strict=True):
            yield from styled_pairs(conv, getattr(other, name))
        if block.to_image is not None:
            yield from styled_pairs(block.to_image, other.torgb)
        if block.shortcut is not None:
            yield from layer_pairs(block.shortcut[0], other.skip)


def discriminator_pairs(mine: nn.Module, theirs: nn.Module) -> Pairs:
    others = [getattr(theirs, f"b{4 * 2**i}") for i in range(len(mine.blocks), -1, -1)]
    for block, other in zip(mine.blocks, others[:-1], strict=True):
        yield from layer_pairs(block.first, other.conv0)
        yield from layer_pairs(block.second, other.conv1)
        if block.shortcut is not None:
            yield from layer_pairs(block.shortcut[1], other.skip)
    for layer, other in zip(mine.from_image, others, strict=False):
        yield from layer_pairs(layer, other.fromrgb)
    yield from layer_pairs(mine.conv, theirs.b4.conv)
    yield from layer_pairs(mine.dense, theirs.b4.fc)
    yield from layer_pairs(getattr(mine.head, "linear", mine.head), theirs.b4.out)
    if hasattr(mine.head, "mapping"):
        yield from mapping_pairs(mine.head.mapping, theirs.mapping)


def mapping_pairs(mine: nn.Module, theirs: nn.Module) -> Pairs:
    if mine.embed is not None:
        yield from layer_pairs(mine.embed, theirs.embed)
    for i, layer in enumerate(mine.layers):
        yield from layer_pairs(layer, getattr(theirs, f"fc{i}"))


def styled_pairs(mine: nn.Module, theirs: nn.Module) -> Pairs:
    yield from layer_pairs(mine.conv.style, theirs.affine)
    yield mine.conv.parametrizations.weight.original, theirs.weight
    yield mine.bias, theirs.bias
    if hasattr(theirs, "noise_const"):
        yield mine.strength, theirs.noise_strength
        yield mine.noise, theirs.noise_const


def layer_pairs(mine: nn.Module, theirs: nn.Module) -> Pairs:
    for name, other in theirs.named_parameters():
        scaled = name in getattr(mine, "parametrizations", {})
        yield mine.parametrizations[name].original if scaled else getattr(mine, name), other
