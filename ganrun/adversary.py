"""The discriminator and everything that acts through it; the only place that evaluates it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganrun.errors import UserError
from ganrun.game import Losses, Verdict, at_least_float32
from ganrun.losses import AdversarialLoss


class Judge:
    """Maps x (batch, ...) to the discriminator's verdict under one condition and the augmentations.

    Lives for one move and remembers its verdicts per tensor object, so that losses, terms and penalties share passes.
    """

    def __init__(self, adversary: "Adversary", condition: Tensor | None):
        self._adversary = adversary
        self._condition = condition
        self._verdicts: dict[int, tuple[Tensor, Verdict]] = {}  # the tensor is kept so that its id stays its own

    def __call__(self, x: Tensor) -> Verdict:
        if id(x) not in self._verdicts:
            self._verdicts[id(x)] = x, self._evaluate(self._adversary.discriminator, x)
        return self._verdicts[id(x)][1]

    def critic(self, x: Tensor) -> Tensor:
        """Logits for penalties: through `forward` itself, since a compiled call cannot be differentiated twice."""
        return self._evaluate(self._adversary.discriminator.forward, x).logits

    def _evaluate(self, discriminator: Callable[..., Verdict], x: Tensor) -> Verdict:
        verdict = discriminator(*self.seen(x))
        return verdict._replace(logits=at_least_float32(verdict.logits))

    def seen(self, x: Tensor) -> tuple[Tensor | None, ...]:
        """What the discriminator is given for x: x and the condition, after the augmentations."""
        condition = self._condition
        for augment in self._adversary.augment.values():
            x, condition = self._augmented(augment, x, condition)
        return x, condition

    @staticmethod
    def _augmented(augment: Callable[[Tensor], Tensor], x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """An image that is the condition goes through the same pass, so that both change alike."""
        if condition is None or condition.dim() != 4:
            return augment(x), condition
        return augment(torch.cat([condition, x], 1)).tensor_split([condition.shape[1]], 1)[::-1]


class Adversary(nn.Module):
    """Turns a discriminator, a loss, penalties and augmentations into the two players' adversarial losses.

    augment: modules with forward(x).
    presentations: callables (real, fake) -> (real, fake) that choose what the discriminator is shown.
    Either may have observe(real_logits), which is told them in the discriminator's moves, 0 = undecided, and may return
    numbers to log.

    Example:
        adversary = Adversary(discriminator, Hinge(), penalties={"r1": R1(10.0)})
        losses = adversary.discriminator_losses(adversary.judge(), real, fake)  # terms: adversarial, r1
    """

    def __init__(
        self,
        discriminator: nn.Module,
        loss: AdversarialLoss,
        *,
        penalties: dict[str, nn.Module] | None = None,
        augment: dict[str, nn.Module] | None = None,
        presentations: dict[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.discriminator = discriminator
        self.loss = loss
        self.penalties = nn.ModuleDict(penalties or {})
        self.augment = nn.ModuleDict(augment or {})
        self.presentations = nn.ModuleDict(presentations or {})
        self._check_signs()
        self.latest: Tensor | None = None  # the discriminator's last adversarial loss, watched for a collapse

    def _check_signs(self) -> None:
        parts = {f"augment.{name}": part for name, part in self.augment.items()}
        parts |= {f"presentation.{name}": part for name, part in self.presentations.items()}
        for name, part in parts.items():
            if getattr(part, "adapts", False) and self.loss.undecided is None:
                raise UserError(
                    f"{name}: p follows the sign of the discriminator's logits, but {type(self.loss).__name__} knows "
                    f"only their differences; give {name}.p a number or a ramp, or choose another loss"
                )

    def judge(self, condition: Tensor | None = None) -> Judge:
        return Judge(self, condition)

    def discriminator_losses(self, judge: Judge, real: Tensor, fake: Tensor) -> Losses:
        for presentation in self.presentations.values():
            real, fake = presentation(real, fake)
        real_logits, fake_logits = judge(real).logits, judge(fake).logits
        terms = {"adversarial": self.loss.discriminator(real_logits, fake_logits)}
        self.latest = terms["adversarial"].detach()
        for name, penalty in self.penalties.items():
            if penalty.due:
                terms[name] = penalty(judge.critic, real, fake)
        stats = {"real_logits": real_logits.detach().mean(), "fake_logits": fake_logits.detach().mean()}
        return Losses(terms, stats | self._observed(real_logits.detach()))

    def _observed(self, real_logits: Tensor) -> dict[str, Tensor]:
        """Tells the real logits to what observes them; returns what that logs, as <name>_<number>."""
        stats = {}
        for name, part in [*self.augment.items(), *self.presentations.items()]:
            if hasattr(part, "observe"):
                seen = part.observe(real_logits - (self.loss.undecided or 0.0)) or {}
                stats |= {f"{name}_{number}": value for number, value in seen.items()}
        return stats

    def generator_losses(self, judge: Judge, real: Tensor, fake: Tensor) -> Losses:
        real_logits = judge(real).logits if self.loss.needs_real else None
        return Losses({"adversarial": self.loss.generator(real_logits, judge(fake).logits)})
