"""Layers beside the discriminator's last one, and the loss of all against all: by hand, and with every network."""

import math
from functools import partial

import pytest
import torch
from test_module import fitted
from torch import nn

from ganrun.adversary import Adversary
from ganrun.errors import UserError
from ganrun.losses import DualContrastive, Hinge, LeastSquares, Minimax, NonSaturating, Wasserstein, dual_contrastive
from ganrun.networks.heads import Head
from ganrun.networks.minibatch import MinibatchDiscrimination, closeness
from ganrun.networks.mlp import Discriminator
from ganrun.networks.r3gan import Projection
from ganrun.networks.slicing import Slicing
from ganrun.networks.stylegan2_blocks import Projection as MappedProjection
from ganrun.penalties import R1

LABEL = torch.tensor([1, 0, 2, 1])
HEADS = {
    "logit": lambda: Head(5),
    "no bias": lambda: Head(5, bias=False),
    "projection": lambda: Head(5, "projection", 3),
    "classes": lambda: Head(5, "classes", 3),
    "embedding": lambda: Head(5, "embedding", 3),
    "r3gan": lambda: Projection(5, 3),
    "stylegan2": lambda: MappedProjection(5, 3, layers=2),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_closeness_against_a_loop():
    m = torch.randn(4, 3, 2, dtype=torch.float64)
    found = closeness(m)
    for i in range(4):
        for b in range(3):
            distances = [sum(abs(m[i, b, c].item() - m[j, b, c].item()) for c in range(2)) for j in range(4)]
            assert found[i, b].item() == pytest.approx(sum(math.exp(-d) for d in distances))


def beside(head, kernels=3):
    """Minibatch discrimination whose sum is not 0."""
    made = MinibatchDiscrimination(head, kernels=kernels, dimensions=2)
    nn.init.normal_(made.sum.weight)
    return made


@pytest.mark.parametrize("name", HEADS)
def test_minibatch_discrimination_adds_to_any_head(name):
    head, features = HEADS[name](), torch.randn(4, 5)
    plain, at_first = head(features, LABEL), MinibatchDiscrimination(head)(features, LABEL)
    assert torch.equal(plain.logits, at_first.logits)  # it starts as the network without it
    changed = beside(head)
    o = closeness((features @ changed.project.weight.T).unflatten(1, (3, 2)))
    torch.testing.assert_close(changed(features, LABEL).logits, plain.logits + o @ changed.sum.weight[0])
    assert plain.classes is None or torch.equal(changed(features, LABEL).classes, plain.classes)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("inner", [lambda head: head, beside], ids=["alone", "minibatch"])
def test_a_sliced_head_has_the_same_logits_and_other_gradients(name, inner):
    head, features = inner(HEADS[name]()), torch.randn(4, 5, requires_grad=True)
    plain, sliced = head(features, LABEL), Slicing(head)(features, LABEL)
    torch.testing.assert_close(sliced.logits, plain.logits)
    bias = head.affine(features, LABEL).bias
    torch.testing.assert_close(sliced.direction, (plain.logits - bias).detach(), rtol=1e-4, atol=1e-5)
    assert torch.autograd.grad(sliced.direction.sum(), features, retain_graph=True, allow_unused=True)[0] is None
    torch.testing.assert_close(
        *(torch.autograd.grad(v.logits.sum(), features, retain_graph=True) for v in (plain, sliced))
    )


def test_what_teaches_the_direction_by_hand():
    """Of a = 2 w and features h: the hinge moves |a| alone, the Wasserstein terms move w alone."""
    head = Head(2, bias=False)
    head.weight.data = torch.tensor([[0.0, 2.0]])
    real, fake = torch.tensor([[1.0, 0.1], [3.0, 0.2]]), torch.tensor([[0.0, -0.3]])
    critic = nn.Module()
    critic.head, critic.forward = head, lambda x, _: critic.head(x)
    adversary = Adversary(critic, Hinge(), heads={"san": Slicing})
    losses = adversary.discriminator_losses(adversary.judge(), real, fake)
    assert losses.terms["adversarial"].item() == pytest.approx((0.8 + 0.6) / 2 + 0.4)
    assert losses.terms["direction"].item() == pytest.approx(-0.6 - 0.3)
    losses.total().backward()
    # length: each logit is |a| h_2; direction: |a| (h_1 of fakes - h_1 of reals) / |a|, in the first coordinate
    assert head.weight.grad[0].tolist() == pytest.approx([0.0 - 2.0, -0.15 - 0.3])


@pytest.mark.parametrize(
    "loss", [Hinge(), Wasserstein(), NonSaturating(), Minimax()], ids=lambda one: type(one).__name__
)
def test_the_slope_is_that_of_what_the_generator_maximises(loss):
    logits = torch.randn(6, requires_grad=True)
    (slope,) = torch.autograd.grad(-loss.generator(None, logits) * 6, logits)
    torch.testing.assert_close(loss.slope(logits.detach()), slope)


def test_the_weights_of_the_direction_by_hand():
    real, fake = torch.tensor([0.0, math.log(3)]), torch.tensor([math.log(3), 0.0])
    rd, fd = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 7.0])
    found = NonSaturating(discriminator_factor=0.5).direction(real, fake, rd, fd)  # weights 1/2 and 1/4, 1/4 and 1/2
    assert found.item() == pytest.approx(0.5 * ((5 + 14) / 3 - (2 + 2) / 3))


def test_dual_contrastive_by_hand():
    real, fake = [0.5, -1.0, 2.0], [0.0, 1.5]

    def half(one, others):
        return -sum(math.log(math.exp(a) / (math.exp(a) + sum(map(math.exp, others)))) for a in one) / len(one)

    expected = half(real, fake) + half([-x for x in fake], [-x for x in real])
    logits = torch.tensor(real), torch.tensor(fake)
    assert dual_contrastive(*logits).item() == pytest.approx(expected)
    assert DualContrastive(discriminator_factor=0.5).discriminator(*logits).item() == pytest.approx(expected / 2)
    assert DualContrastive().generator(*logits).item() == pytest.approx(-expected)
    other = DualContrastive(saturating=False).generator(*logits)
    assert other.item() == pytest.approx(half(fake, real) + half([-x for x in real], [-x for x in fake]))
    sure = torch.tensor([500.0]), torch.tensor([-500.0])
    assert dual_contrastive(*sure).item() == 0 and dual_contrastive(*reversed(sure)).item() == pytest.approx(2000)
    patches = torch.zeros(2, 3, 4)
    assert dual_contrastive(patches, patches).item() == pytest.approx(2 * math.log(25))


def test_bfloat16_and_penalties():
    """Exponentials and directions are computed in float32; R1 reaches every weight through both."""
    critic = Discriminator(channels=2, resolution=None, width=8, depth=1)
    Adversary(critic, Hinge(), heads={"san": Slicing, "minibatch": partial(beside, kernels=4)})
    assert isinstance(critic.head, Slicing) and isinstance(critic.head.head, MinibatchDiscrimination)
    x = torch.randn(6, 2)
    with torch.autocast("cpu", torch.bfloat16):
        verdict = critic(x)
    assert verdict.logits.dtype == verdict.direction.dtype == torch.float32
    torch.testing.assert_close(verdict.logits, critic(x).logits, rtol=0.1, atol=0.1)
    R1(1.0)(lambda x: critic(x).logits, x, x).backward()
    missing = {name for name, p in critic.named_parameters() if p.grad is None or not p.grad.any()}
    assert missing <= {"hidden.0.bias", "head.head.head.bias"}


TINY = ["dataset.resolution=16", "dataset.limit=32", "batch_size=8", "steps=3", "metric=[]", "metric/features=none",
        "generator.width=4", "discriminator.width=4", "on_collapse=null", "precision=32-true"]  # fmt: skip
RUNS = [
    "model=dcgan head=[minibatch,san] loss=hinge conditional=projection",
    "model=resnet head=[minibatch] loss=dual-contrastive conditional=auxiliary penalty=[r1]",
    "model=resnet head=[san] loss=wgan-gp schedule.discriminator=1 conditional=d2d-ce",
    "model=r3gan head=[san] loss=non-saturating-r1 conditional=projection term=[infogan]",
    "model=mlp head=[minibatch,san] loss=minimax term=[logan] conditional=label",
    "model=deep-conv term=[infogan] loss=hinge micro_batch=4 conditional=multi-hinge",
    "model=dcgan term=[logan,feature-matching] loss=relativistic-average augment=[ada] augment.ada.p=0.5 micro_batch=4",
    "model=dcgan term=[infogan] conditional=semi-supervised labelled=10 presentation=[apa] head=[minibatch]",
    "model=resnet term=[logan] loss=dual-contrastive loss.saturating=false recipe.to_discriminator=false "
    "precision=bf16-mixed head=[minibatch]",
]


@pytest.mark.parametrize("words", RUNS, ids=lambda words: words.split()[0])
def test_they_compose(words):
    before = {}
    module = fitted(
        *TINY, *words.split(), probe=lambda m: before.update({n: p.clone() for n, p in m.named_parameters()})
    )
    left = {name for name, p in module.recipe.named_parameters() if torch.equal(before[f"recipe.{name}"], p)}
    assert all(name.endswith("head.bias") for name in left), left  # which some losses do not see
    assert all(p.isfinite().all() for p in module.recipe.parameters())
    assert ("discriminator/direction" in module.terms) == ("san" in words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("head=[san] loss=r3gan", "head.san: it is not defined for RelativisticPairing"),
        ("head=[san] loss=lsgan", "head.san: it is not defined for LeastSquares"),
        ("head=[san] loss=dual-contrastive", "head.san: it is not defined for DualContrastive"),
        ("head=[san] conditional=semi-supervised labelled=10", "the logit follows from those of classes"),
        ("head=[minibatch] conditional=multi-hinge", "no loss looks at the logit that it adds to"),
        ("head=[minibatch] discriminator=patchgan discriminator.layers=1", "patchgan has no single last layer"),
        ("head=[minibatch] head.minibatch.kernels=0", "kernels=0; expected at least 1"),
        ("term=[infogan] noise=normal", "this noise has no code; expected noise=codes"),
        ("term=[infogan] generator.z_dim=12", "z_dim=12: the code has 12 of these numbers; expected 1 to 11"),
        ("term=[infogan] noise.categorical=[1]", "noise.categorical=[1]; expected numbers of values, each at least 2"),
        ("term=[infogan,logan] noise=codes", "recipe=logan moves z, and with it the code"),
        ("term=[logan] recipe=gan", "term.logan: GAN does not move latents; expected recipe=logan"),
        ("term=[logan] recipe.rate=2", "recipe.rate=2; expected more than 0 and at most 1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words, told):
    with pytest.raises(UserError) as refused:
        fitted(*TINY, *words.split())
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_slopes_that_do_not_exist():
    assert LeastSquares().slope(torch.zeros(1)) is None and DualContrastive().slope(torch.zeros(1)) is None
