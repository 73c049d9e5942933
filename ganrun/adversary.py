"""The discriminator and everything that acts through it; the only place that evaluates it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganrun.errors import UserError
from ganrun.game import Losses, Timed, Verdict, at_least_float32
from ganrun.gradient_norm import with_gradient_norm
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
            self._verdicts[id(x)] = x, self._evaluate(x)
        return self._verdicts[id(x)][1]

    def critic(self, x: Tensor) -> Tensor:
        """Logits for penalties: through `forward` itself, since a compiled call cannot be differentiated twice."""
        if x.is_leaf and x.requires_grad and id(x) in self._verdicts:
            return self._verdicts[id(x)][1].logits
        return self._evaluate(x, eager=True).logits

    def differentiable(self, x: Tensor) -> Tensor:
        """`x` as a leaf in float32, for a gradient there: one pass serves the verdict on either and `critic`."""
        leaf = at_least_float32(x.detach()).requires_grad_()
        verdict = self._evaluate(leaf, eager=True)
        self._verdicts |= {id(x): (x, verdict), id(leaf): (leaf, verdict)}
        return leaf

    def pair(self, x: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of x (rows, ...), whose conditions are those of the batch's first rows, and of x moved by a little.

        In one pass, without autocast and with the same draws of the augmentations: the move alone makes the difference.
        """
        condition = None if self._condition is None else self._condition[: len(x)]
        with torch.autocast(x.device.type, enabled=False):
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                first = self._augmented(x, condition)
            second = self._augmented(moved, condition)
            both = (None if one is None else torch.cat([one, other]) for one, other in zip(first, second, strict=True))
            return self._judged(*both).logits.chunk(2)

    def _evaluate(self, x: Tensor, *, eager: bool = False) -> Verdict:
        return self._judged(*self.seen(x), eager=eager)

    def seen(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the discriminator is given for x: x and the condition, after the augmentations."""
        return self._augmented(x, self._condition)

    def _judged(self, *given: Tensor | None, eager: bool = False) -> Verdict:
        """What is left after the augmentations, x and the condition first -> the verdict, its logits in float32."""
        network: Callable[..., Verdict] = self._adversary.discriminator
        if self._adversary.gradient_norm:
            return with_gradient_norm(network.forward, *given)
        verdict = (network.forward if eager else network)(*given)
        return verdict._replace(logits=at_least_float32(verdict.logits))

    def _augmented(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """An image that is the condition goes through the same pass, so that both change alike."""
        for augment in self._adversary.augment.values():
            if condition is None or condition.dim() != 4:
                x = augment(x)
            else:
                condition, x = augment(torch.cat([condition, x], 1)).tensor_split([condition.shape[1]], 1)
        return x, condition


class Adversary(Timed):
    """Turns a discriminator, a loss, penalties and augmentations into the two players' adversarial losses.

    In a lazy move there is no adversarial loss: only the lazy penalties that are due.

    augment: modules with forward(x).
    presentations: callables (real, fake) -> (real, fake) that choose what the discriminator is shown.
    Either may have observe(real_logits), which is told them in the discriminator's moves, 0 = undecided, and may return
    numbers to log.
    gradient_norm: every logit is divided by the length of its gradient plus its size, see gradient_norm.py.
    heads: callables from the discriminator's head to one with something beside it, see networks/heads.py.

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
        gradient_norm: bool = False,
        heads: dict[str, Callable[[nn.Module], nn.Module]] | None = None,
    ):
        super().__init__()
        check_heads(heads or {}, loss, gradient_norm)
        self.discriminator = with_heads(discriminator, heads or {})
        self.loss = loss
        self.penalties = nn.ModuleDict(penalties or {})
        self.augment = nn.ModuleDict(augment or {})
        self.presentations = nn.ModuleDict(presentations or {})
        self.gradient_norm = gradient_norm
        self._check_signs()
        self._check_discriminator()
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

    def _check_discriminator(self) -> None:
        if self.gradient_norm and any(isinstance(module, _BatchNorm) for module in self.discriminator.modules()):
            raise UserError(
                "critic.gradient_norm=true looks at single samples, which the discriminator's batch norm mixes; "
                "add critic.norm=none where the network has this choice, or leave it out"
            )
        for penalty in self.penalties.values():
            if hasattr(penalty, "check"):
                penalty.check(self.discriminator)

    def judge(self, condition: Tensor | None = None) -> Judge:
        return Judge(self, condition)

    def discriminator_losses(self, judge: Judge, real: Tensor, fake: Tensor) -> Losses:
        for presentation in self.presentations.values():
            real, fake = presentation(real, fake)
        due = {name: penalty for name, penalty in self.penalties.items() if penalty.due}
        at = {where for penalty in due.values() for where in getattr(penalty, "at", ())}
        real, fake = (judge.differentiable(x) if where in at else x for where, x in (("real", real), ("fake", fake)))
        losses = Losses({}) if self.now.lazy else self._adversarial(judge, real, fake)
        given = {name: judge if getattr(penalty, "judged", False) else judge.critic for name, penalty in due.items()}
        return Losses(
            losses.terms | {name: penalty(given[name], real, fake) for name, penalty in due.items()}, losses.stats
        )

    def _adversarial(self, judge: Judge, real: Tensor, fake: Tensor) -> Losses:
        of_real, of_fake = judge(real), judge(fake)
        real_logits, fake_logits = of_real.logits, of_fake.logits
        terms = {"adversarial": self.loss.discriminator(real_logits, fake_logits)}
        self.latest = terms["adversarial"].detach()
        if of_real.direction is not None:
            terms["direction"] = self.loss.direction(real_logits, fake_logits, of_real.direction, of_fake.direction)
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
        if self.now.lazy:
            return Losses({})
        real_logits = judge(real).logits if self.loss.needs_real else None
        return Losses({"adversarial": self.loss.generator(real_logits, judge(fake).logits)})


def with_heads(discriminator: nn.Module, heads: dict[str, Callable[[nn.Module], nn.Module]]) -> nn.Module:
    """The discriminator, its head replaced by what `heads` make of it, one around the other, the `outer` ones last.

    Raises UserError for a discriminator whose head cannot be changed.
    """
    for name in sorted(heads, key=lambda name: is_outer(heads[name])):
        if not hasattr(getattr(discriminator, "head", None), "affine"):
            kind = type(discriminator).__module__.rpartition(".")[2]
            raise UserError(f"head.{name}: {kind} has no single last layer that it could change; try model=dcgan")
        try:
            discriminator.head = heads[name](discriminator.head)
        except UserError as error:
            text = str(error)
            raise UserError(text if text.startswith("head.") else f"head.{name}.{text}") from error
    return discriminator


def check_heads(heads: dict[str, Callable[[nn.Module], nn.Module]], loss: AdversarialLoss, gradient_norm: bool) -> None:
    """Raises UserError for a loss that does not go with one of them, or for gradient normalisation that does not."""
    for name in [name for name, change in heads.items() if is_outer(change)]:
        if gradient_norm:
            raise UserError(f"head.{name}: critic.gradient_norm=true makes logits of its own; leave one of them out")
        if loss.slope(torch.zeros(1)) is None:
            raise UserError(
                f"head.{name}: it is not defined for {type(loss).__name__}, whose generator maximises no rising "
                "function of each logit; expected loss=hinge, non-saturating, minimax or wgan, or one built on them"
            )


def is_outer(change: Callable[[nn.Module], nn.Module]) -> bool:
    """Does it go around all other changes of the head?"""
    return getattr(getattr(change, "func", change), "outer", False)
