"""The two loops for StyleGAN2, whose generator moves first and whose R1 and path length are moves of their own."""

import torch
from loops import Loop, Peer, Plain, update
from torch import Tensor

from ganrun.path_length import path_lengths
from ganrun.penalties import zero_centred


class Styles(Loop):
    """Path length and R1, each with its interval: Karras et al. 2020, arXiv 1912.04958, appendix B."""

    def __init__(self, parts, device):
        super().__init__(parts, device)
        self.path, self.r1 = parts.cfg.term["path-length"], parts.cfg.penalty.r1
        self.path_mean = torch.zeros((), device=device)
        self.period = max(self.path.every, self.r1.every)
        self.steps = 0

    def path_length(self) -> Tensor:
        rows = int(self.batch_size * self.path.share)
        styles = self.generator.styles(torch.randn(rows, self.z_dim, device=self.device)).float()
        images = self.generator.synthesis(styles).float()
        lengths = path_lengths(styles, images, torch.randn_like(images))
        mean = self.path_mean.lerp(lengths.mean(), self.path.decay)
        self.path_mean = mean.detach()
        return self.path.every * self.path.weight * (lengths - mean).square().mean()

    def at_reals(self, real: Tensor) -> Tensor:
        """R1."""
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(real, None).sum(), real, create_graph=True)
        return self.r1.every * self.r1.weight * zero_centred(gradient.flatten(1))


class PlainStyles(Styles, Plain):
    def play(self) -> None:
        self.discriminator.requires_grad_(False)
        update(self.generator_adam, self.for_generator(None, self.fakes(None), None))
        if self.steps % self.path.every == 0:
            update(self.generator_adam, self.path_length())
        self.discriminator.requires_grad_(True)
        real, _ = next(self.reals)
        with torch.no_grad():
            fake = self.fakes(None)
        update(self.discriminator_adam, self.against(real, fake, None))
        if self.steps % self.r1.every == 0:
            update(self.discriminator_adam, self.at_reals(real))
        self.follow()
        self.steps += 1


class PeerStyles(Styles, Peer):
    def step(self) -> None:
        self.move(self.generator_adam, self.for_generator(None, self.fakes(None), None))
        if self.steps % self.path.every == 0:
            self.move(self.generator_adam, self.path_length())
        real, _ = next(self.reals)
        self.move(self.discriminator_adam, self.against(real, self.fakes(None).detach(), None))
        if self.steps % self.r1.every == 0:
            self.move(self.discriminator_adam, self.at_reals(real))
        self.follow()
        self.steps += 1
