"""The loops that scripts/benchmark compares, and the experiments on which it does."""

import copy
from contextlib import nullcontext
from functools import partial

import torch
from omegaconf import DictConfig
from own_trainer import decode, png
from torch import Tensor
from torch.utils.data import DataLoader

from ganrun.callbacks.watch import Watch, send
from ganrun.losses import (
    Hinge,
    NonSaturating,
    RelativisticPairing,
    Wasserstein,
    cross_entropy,
    hinge,
    logistic,
    relativistic_pairing,
    wasserstein,
)
from ganrun.module import GANModule
from ganrun.optim import total_norm
from ganrun.penalties import input_gradient, per_sample_uniform, unit_norm, zero_centred
from ganrun.signals import Signals
from ganrun.training.build import Parts

TINY = [f"{net}.{key}" for net in ("generator", "discriminator") for key in ("width=128", "depth=2", "growth=1")]
LOSSES = {  # the discriminator's and the generator's, the latter of the logits of fakes, or of their lead over reals
    NonSaturating: (logistic, partial(cross_entropy, target=1.0)),
    Wasserstein: (wasserstein, lambda fake: -fake.mean()),
    Hinge: (hinge, lambda fake: -fake.mean()),
    RelativisticPairing: (relativistic_pairing, partial(cross_entropy, target=1.0)),
}
CIFAR = ["dataset=digits", "dataset.resolution=32", "dataset.channels=3", "optimizer.betas=[0.0,0.9]"]
QUARTER = ["generator.width=16", "discriminator.width=16", "schedule.discriminator=5"]  # of SNGAN's width
NARROW = ["generator.width=48", "discriminator.width=48", "batch_size=16"]  # 1/16 of R3GAN's width
STYLES = [
    *("experiment=base/stylegan2", "ema=average", "term=[path-length]", "dataset=digits", "dataset.resolution=64"),
    *("dataset.channels=3", "batch_size=16", "generator.mixing=0.9", "penalty.r1.weight=0.05"),
    *(f"{net}.{key}" for net in ("generator", "discriminator") for key in ("width=32", "fmaps=0.5")),
    *("generator.z_dim=64", "generator.w_dim=64"),
]
MODELS = {  # overrides, and steps a round with each loss
    "dcgan-32": (["model=dcgan", "dataset=digits", "dataset.resolution=32"], {"non-saturating": 10, "wgan-gp": 4}),
    "dcgan-64": (
        ["model=dcgan", "dataset=digits", "dataset.resolution=64", "dataset.channels=3"],
        {"non-saturating": 4, "wgan-gp": 2},
    ),
    "mlp-ring": (["model=mlp", "dataset=ring", "generator.z_dim=16", *TINY], {"non-saturating": 300, "wgan-gp": 60}),
    "resnet-32": (["model=resnet", *CIFAR, *QUARTER], {"hinge": 1}),
    "r3gan-32": (["model=r3gan", *CIFAR, *NARROW], {"r3gan": 2}),
    "stylegan2-64": (STYLES, {"non-saturating": 16}),  # the period of R1
    "biggan-32": (["model=biggan", "conditional=projection", *CIFAR, *QUARTER, "generator.z_dim=80"], {"hinge": 1}),
}
ROWS = {
    f"{model}-{loss}": ([*overrides, f"loss={loss}"], steps)
    for model, (overrides, losses) in MODELS.items()
    for loss, steps in losses.items()
}


class Loop:
    """What the two loops share: networks that start as ganrun's, its formulas and its settings."""

    memory_format: torch.memory_format
    fused: bool
    period = 1  # steps until the moves are the same again

    def __init__(self, parts: Parts, device: torch.device):
        cfg, recipe = parts.cfg, parts.module.recipe
        self.discriminator_loss, self.generator_loss = LOSSES[type(recipe.adversary.loss)]
        self.penalty_weight = cfg.penalty.gradient.weight if "gradient" in cfg.penalty else 0.0
        self.gamma = cfg.penalty.r1.weight if "r2" in cfg.penalty else 0.0  # of R1 and R2
        self.relative = isinstance(recipe.adversary.loss, RelativisticPairing)
        self.label = cfg.conditional.key  # None = both networks are given none
        self.critic_moves, self.batch_size, self.z_dim = cfg.schedule.discriminator, cfg.batch_size, cfg.noise.z_dim
        self.average_weight = 1 - cfg.ema.decay
        self.device = device
        self.generator = copy.deepcopy(recipe.generator).to(memory_format=self.memory_format)
        self.discriminator = copy.deepcopy(recipe.adversary.discriminator).to(memory_format=self.memory_format)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator_adam = self.adam(self.generator, cfg.optimizer.generator)
        self.discriminator_adam = self.adam(self.discriminator, cfg.optimizer.discriminator)
        self.reals = self.batches(parts.data)

    def adam(self, network: torch.nn.Module, cfg: DictConfig) -> torch.optim.Adam:
        """Corrected for lazy moves, of which there is one each `cfg.lazy` steps; None = there are none."""
        share = 1.0 if cfg.lazy is None else cfg.lazy / (cfg.lazy + 1)
        betas = tuple(beta**share for beta in cfg.betas)
        return torch.optim.Adam(network.parameters(), lr=share * cfg.lr, betas=betas, fused=self.fused)

    def fakes(self, label: Tensor | None) -> Tensor:
        return self.generator(torch.randn(self.batch_size, self.z_dim, device=self.device), label)

    def critic(self, x: Tensor, label: Tensor | None) -> Tensor:
        return self.discriminator(x, label).logits.float()

    def against(self, real: Tensor, fake: Tensor, label: Tensor | None) -> Tensor:
        """The discriminator's loss on detached fakes."""
        if self.gamma:
            return self.against_with_gradients(real, fake, label)
        loss = self.discriminator_loss(self.critic(real, label), self.critic(fake, label))
        if not self.penalty_weight:
            return loss
        epsilon = per_sample_uniform(real)
        gradient = input_gradient(partial(self.critic, label=label), epsilon * real + (1 - epsilon) * fake)
        return loss + self.penalty_weight * unit_norm(gradient)

    def against_with_gradients(self, real: Tensor, fake: Tensor, label: Tensor | None) -> Tensor:
        """R1 and R2 in the passes that the loss makes."""
        samples = [x.detach().float().requires_grad_() for x in (real, fake)]
        logits = [self.critic(x, label) for x in samples]
        gradients = [torch.autograd.grad(of.sum(), at, create_graph=True)[0].flatten(1)
                     for of, at in zip(logits, samples, strict=True)]  # fmt: skip
        return self.discriminator_loss(*logits) + self.gamma * sum(map(zero_centred, gradients))

    def for_generator(self, real: Tensor, fake: Tensor, label: Tensor | None) -> Tensor:
        """The generator's loss."""
        logits = self.critic(fake, label)
        return self.generator_loss(logits - self.critic(real, label) if self.relative else logits)

    def copy_buffers(self) -> None:
        for kept, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(buffer)


def update(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()


class Plain(Loop):
    memory_format = torch.channels_last
    fused = True

    def __init__(self, parts, device):
        super().__init__(parts, device)
        self.bf16 = parts.cfg.precision == "bf16-mixed"

    def batches(self, data):
        stored = {key: value.to(self.device) for key, value in data.read(torch.arange(len(data))).items()}
        whole = len(data) // self.batch_size * self.batch_size
        while True:
            for indices in torch.randperm(len(data), device=self.device)[:whole].split(self.batch_size):
                real, label = data.to_range(stored["real"][indices]), self.label and stored[self.label][indices]
                yield real.contiguous(memory_format=self.memory_format) if real.dim() == 4 else real, label

    def step(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False) if self.bf16 else nullcontext():
            self.play()

    def play(self) -> None:
        for move in range(1, self.critic_moves + 1):
            real, label = next(self.reals)
            with torch.set_grad_enabled(move == self.critic_moves):  # the last move's fakes serve the generator too
                fake = self.fakes(label)
            update(self.discriminator_adam, self.against(real, fake.detach(), label))
        self.discriminator.requires_grad_(False)
        update(self.generator_adam, self.for_generator(real, fake, label))
        self.discriminator.requires_grad_(True)
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """The average follows the generator."""
        torch._foreach_lerp_([*self.average.parameters()], [*self.generator.parameters()], self.average_weight)
        self.copy_buffers()


class Peer(Loop):
    memory_format = torch.contiguous_format
    fused = False

    def batches(self, data):
        stored = data.read(torch.arange(len(data)))
        reals, labels = stored["real"], stored.get(self.label, torch.zeros(len(data)))
        samples = [png(real) for real in reals] if reals.dim() == 4 else list(reals)
        pairs = list(zip(samples, labels, strict=True))
        loader = DataLoader(pairs, self.batch_size, shuffle=True, drop_last=True, collate_fn=collate)
        while True:
            for real, label in loader:
                yield real.to(self.device), label.to(self.device) if self.label else None

    def step(self) -> None:
        for _ in range(self.critic_moves):
            real, label = next(self.reals)
            self.move(self.discriminator_adam, self.against(real, self.fakes(label).detach(), label))
        self.move(self.generator_adam, self.for_generator(real, self.fakes(label), label))
        self.follow()

    def move(self, adam: torch.optim.Optimizer, loss: Tensor) -> None:
        update(adam, loss)
        loss.item()

    def follow(self) -> None:
        """The average follows the generator."""
        for average, live in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.data.mul_(1 - self.average_weight).add_(live.data, alpha=self.average_weight)
        self.copy_buffers()


def collate(pairs: list[tuple[bytes | Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    samples, labels = zip(*pairs, strict=True)
    return decode(samples) if isinstance(samples[0], bytes) else torch.stack(samples), torch.stack(labels)


class FiniteCheck:
    """What a step of ganrun that does not log does to notice NaN and infinity, and nothing else."""

    def __init__(self, module: GANModule):
        self.module, self.watch = module, Watch(Signals(), ())

    def step(self) -> None:
        numbers = {}
        for i, move in enumerate(self.module.moves):
            parameters = self.module.player_optimizers[move.player].parameters
            numbers[f"gradient {i}"] = total_norm([p.grad for p in parameters if p.grad is not None])
        self.watch.sent.append(send(0, numbers))
        self.watch.look(wait=False)
