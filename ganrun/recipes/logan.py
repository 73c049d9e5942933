"""LOGAN: the classic game on latents that the discriminator has improved."""

import torch
from torch import Tensor, nn

from ganrun.adversary import Adversary
from ganrun.errors import UserError
from ganrun.game import Batch, Losses, at_least_float32
from ganrun.recipes.gan import GAN


def natural_step(gradient: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha g / (beta + |g|^2), g (batch, ...): Wu et al. 2019, arXiv 1912.00953, eq. 13.

    It is alpha (g g^T + beta I)^-1 g: a step of natural gradient with one sample's damped Fisher matrix.
    """
    squared = gradient.square().flatten(1).sum(1)
    return alpha * gradient / (beta + squared).view(-1, *[1] * (gradient.dim() - 1))


class LOGAN(GAN):
    """Before z counts it takes a few steps that raise D(G(z)): Wu et al. 2019, arXiv 1912.00953, algorithm 1.

    Both players' gradients also go through these steps. In training they move a random `rate` of the batch, in
    evaluation all of it. `transport` (batch,) of the output is the sum of their squared lengths. What looks at D(G(z))
    here does so without augmentations. The exported generator has no discriminator and takes z as it is drawn.

    alpha, beta: of natural_step. train_steps, eval_steps: how many steps. bound: largest coordinate of z, None = none.
    to_discriminator: False = the discriminator's gradient takes the moved z as given.
    """

    anew = True

    def __init__(
        self,
        generator: nn.Module,
        adversary: Adversary,
        *,
        alpha: float = 0.9,
        beta: float = 0.1,
        rate: float = 0.8,
        train_steps: int = 2,
        eval_steps: int = 10,
        bound: float | None = 1.0,
        to_discriminator: bool = True,
        condition: str | None = None,
        terms: dict[str, nn.Module] | None = None,
        conditioning: dict[str, nn.Module] | None = None,
    ):
        super().__init__(generator, adversary, condition=condition, terms=terms, conditioning=conditioning)
        for name, value in {"alpha": alpha, "beta": beta, "rate": rate, "bound": bound}.items():
            if value is not None and not 0 < value <= (1 if name == "rate" else value):
                most = " and at most 1" if name == "rate" else ""
                raise UserError(f"recipe.{name}={value}; expected more than 0{most}")
        if train_steps < 1 or eval_steps < 0:
            raise UserError(f"recipe.train_steps={train_steps}, eval_steps={eval_steps}; expected at least 1 and 0")
        self.alpha, self.beta, self.rate, self.bound = alpha, beta, rate, bound
        self.train_steps, self.eval_steps, self.to_discriminator = train_steps, eval_steps, to_discriminator

    def generate(self, batch: Batch) -> Batch:
        if "code" in batch:
            raise UserError("recipe=logan moves z, and with it the code of noise=codes; expected noise=uniform")
        z, transport = self.moved(batch["z"], batch.get(self.condition), graph=torch.is_grad_enabled())
        return {"fake": self.generator(z, batch.get(self.condition)), "transport": transport}

    def moved(self, z: Tensor, label: Tensor | None, *, graph: bool) -> tuple[Tensor, Tensor]:
        """(z after the steps, the sum of their squared lengths (batch,)). graph: can both be differentiated? Then there
        are as many steps as in training.
        """
        transport = z.new_zeros(len(z))
        with torch.enable_grad():
            for _ in range(self.train_steps if self.training or graph else self.eval_steps):
                z = z if graph and z.requires_grad else z.detach().requires_grad_()
                logits = self.adversary.discriminator.forward(self.generator.forward(z, label), label).logits
                (gradient,) = torch.autograd.grad(at_least_float32(logits).sum(), z, create_graph=graph)
                step = natural_step(gradient, self.alpha, self.beta)
                if self.training:
                    step = step * (torch.rand(len(z), *[1] * (z.dim() - 1), device=z.device) < self.rate)
                transport = transport + step.square().flatten(1).sum(1)
                z = z + step if self.bound is None else (z + step).clamp(-self.bound, self.bound)
        return (z, transport) if graph else (z.detach(), transport.detach())

    def _discriminator_losses(self, batch: Batch, generated: Batch) -> Losses:
        return super()._discriminator_losses(batch, self.generate(batch) if self.to_discriminator else generated)
