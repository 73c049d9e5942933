"""The adversary: how often the discriminator is evaluated, through which door, and on what."""

import pytest
import torch
from torch import nn

from ganrun.adversary import Adversary
from ganrun.augment.instance_noise import InstanceNoise
from ganrun.game import Now
from ganrun.losses import Hinge, NonSaturating, RelativisticAverage, RelativisticPairing, Wasserstein
from ganrun.networks import mlp
from ganrun.penalties import R1, R2, GradientPenalty
from ganrun.recipes.gan import GAN
from ganrun.terms import FeatureMatching, feature_distance

BATCH = {
    key: torch.randn(4, size, generator=torch.Generator().manual_seed(size))
    for key, size in {"real": 2, "z": 3}.items()
}


def make(loss=NonSaturating, *, num_classes=0, **parts) -> Adversary:
    torch.manual_seed(0)
    return Adversary(
        mlp.Discriminator(channels=2, resolution=None, width=8, depth=1, num_classes=num_classes), loss(), **parts
    )


def watch(adversary: Adversary) -> list[torch.Tensor]:
    """Collects the input of each evaluation of the discriminator, by whichever door it came."""
    seen: list[torch.Tensor] = []
    adversary.discriminator.hidden.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    return seen


def passes(adversary: Adversary, player: str, condition=None, **terms) -> int:
    generator = mlp.Generator(z_dim=3, channels=2, resolution=None, width=8, depth=1)
    seen, recipe = watch(adversary), GAN(generator, adversary, terms=terms)
    generated = recipe.generate(BATCH)
    recipe.players()[player].losses(BATCH, generated).total().backward()
    return len(seen)


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator"),
    [
        (NonSaturating, 2, 1),
        (Hinge, 2, 1),
        (Wasserstein, 2, 1),
        (RelativisticPairing, 2, 2),
        (RelativisticAverage, 2, 2),
    ],
)
def test_passes(loss, discriminator, generator):
    assert passes(make(loss), "discriminator") == discriminator
    assert passes(make(loss), "generator") == generator


@pytest.mark.parametrize(("loss", "generator"), [(NonSaturating, 2), (RelativisticPairing, 2)])
def test_feature_matching_shares_passes(loss, generator):
    assert passes(make(loss), "generator", matching=FeatureMatching()) == generator
    assert passes(make(loss), "discriminator", matching=FeatureMatching()) == 2


def test_penalties_between_samples_add_a_pass_and_those_at_samples_share_the_losss():
    adversary = make(Wasserstein, penalties={"gradient": GradientPenalty(10.0), "r1": R1(1.0), "r2": R2(1.0)})
    assert passes(adversary, "discriminator") == 2 + 1
    assert passes(adversary, "discriminator", matching=FeatureMatching()) == 2 + 1
    assert passes(adversary, "generator") == 1


def test_a_shared_pass_has_the_gradients_of_one_of_its_own():
    penalties = {"r1": R1(2.0), "r2": R2(3.0)}
    adversary = make(penalties=penalties).double()
    discriminator, real = adversary.discriminator, BATCH["real"].double()
    adversary.discriminator_losses(adversary.judge(), real, -real).total().backward()
    shared = [p.grad for p in discriminator.parameters()]
    discriminator.zero_grad()
    plain = Adversary(discriminator, adversary.loss)
    loss = plain.discriminator_losses(plain.judge(), real, -real).total()
    (loss + sum(each(lambda x: discriminator(x).logits, real, -real) for each in penalties.values())).backward()
    torch.testing.assert_close(shared, [p.grad for p in discriminator.parameters()])


def test_judge_remembers_each_tensor_object():
    adversary = make()
    seen, judge, x = watch(adversary), adversary.judge(), BATCH["real"]
    assert judge(x) is judge(x)
    assert len(seen) == 1
    judge(x.clone())  # equal values, another object
    assert len(seen) == 2
    adversary.judge()(x)  # another move
    assert len(seen) == 3


@torch.no_grad()
def test_judge_holds_its_tensors():
    adversary = make()
    judge = adversary.judge()
    for i in range(20):  # each x would be freed, and its id given away, if the judge did not hold it
        x = torch.full((2, 2), float(i))
        torch.testing.assert_close(judge(x).logits, adversary.discriminator(x).logits)
        del x


def test_critic_bypasses_call_and_memory():
    adversary, calls = make(), []
    adversary.discriminator.register_forward_hook(lambda *_: calls.append(1))
    seen, judge, x = watch(adversary), adversary.judge(), BATCH["real"]
    logits = judge(x).logits
    assert torch.equal(judge.critic(x), logits) and torch.equal(judge.critic(x), logits)
    assert (len(calls), len(seen)) == (1, 3)


def test_penalties_go_through_the_critic():
    adversary, calls = make(penalties={"r1": R1(1.0), "gradient": GradientPenalty(1.0)}), []
    adversary.discriminator.register_forward_hook(lambda *_: calls.append(1))
    seen = watch(adversary)
    adversary.discriminator_losses(adversary.judge(), BATCH["real"], -BATCH["real"])
    assert (len(calls), len(seen)) == (1, 3)


@pytest.mark.parametrize("step", range(5))
def test_penalties_that_are_not_due_are_absent(step):
    penalties = {"r1": R1(1.0, every=2), "r2": R2(1.0, every=3)}
    adversary = make(penalties=penalties)
    for penalty in penalties.values():
        penalty.now = Now(step, 0, 0)
    terms = adversary.discriminator_losses(adversary.judge(), BATCH["real"], -BATCH["real"]).terms
    assert list(terms) == ["adversarial"] + ["r1"] * (step % 2 == 0) + ["r2"] * (step % 3 == 0)


def test_terms_and_stats_by_hand():
    adversary = make(Wasserstein, penalties={"r1": R1(2.0)})
    real, fake = BATCH["real"], -BATCH["real"]
    losses = adversary.discriminator_losses(adversary.judge(), real, fake)
    d_real, d_fake = (adversary.discriminator(x).logits.mean() for x in (real, fake))
    torch.testing.assert_close(losses.terms["adversarial"], d_fake - d_real)
    torch.testing.assert_close(losses.terms["r1"], R1(2.0)(lambda x: adversary.discriminator(x).logits, real, fake))
    torch.testing.assert_close(losses.stats, {"real_logits": d_real.detach(), "fake_logits": d_fake.detach()})
    torch.testing.assert_close(losses.total(), losses.terms["adversarial"] + losses.terms["r1"])
    assert not any(value.requires_grad for value in losses.stats.values())
    assert adversary.generator_losses(adversary.judge(), real, fake).terms.keys() == {"adversarial"}


def test_condition_reaches_every_evaluation():
    adversary = make(num_classes=2, penalties={"gradient": GradientPenalty(1.0)})
    seen = watch(adversary)
    adversary.discriminator_losses(adversary.judge(torch.tensor([0, 1, 1, 0])), BATCH["real"], -BATCH["real"])
    one_hot = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]])
    assert len(seen) == 3
    for x in seen:
        assert torch.equal(x[:, 2:], one_hot)


def test_presentation_acts_on_the_discriminator_alone():
    swap = nn.Identity()
    swap.forward = lambda real, fake: (fake, real)
    real, fake = BATCH["real"], -BATCH["real"]
    plain, swapped = make(Wasserstein), make(Wasserstein, presentations={"swap": swap})
    expected = plain.discriminator_losses(plain.judge(), real, fake).total()
    torch.testing.assert_close(swapped.discriminator_losses(swapped.judge(), real, fake).total(), -expected)
    expected = plain.generator_losses(plain.judge(), real, fake).total()
    torch.testing.assert_close(swapped.generator_losses(swapped.judge(), real, fake).total(), expected)


def test_augment_observes_real_logits_in_the_discriminators_move():
    observed, augment = [], nn.Identity()
    augment.observe = observed.append
    adversary = make(augment={"adaptive": augment})
    adversary.generator_losses(adversary.judge(), BATCH["real"], -BATCH["real"])
    assert observed == []
    adversary.discriminator_losses(adversary.judge(), BATCH["real"], -BATCH["real"])
    assert len(observed) == 1 and not observed[0].requires_grad
    torch.testing.assert_close(observed[0], adversary.discriminator(BATCH["real"]).logits.detach())


def test_instance_noise_reaches_reals_fakes_and_the_critic():
    noise, penalty = InstanceNoise(std=1.0, decay_steps=10), GradientPenalty(1.0)
    adversary = make(augment={"noise": noise}, penalties={"gradient": penalty})
    seen, (real, fake) = watch(adversary), torch.zeros(2, 4000, 2)
    real, fake = real.clone(), fake.clone()
    adversary.discriminator_losses(adversary.judge(), real, fake)
    assert len(seen) == 3
    for x in seen:
        assert x.std() == pytest.approx(1, abs=0.05)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("step", "std"), [(0, 0.4), (5, 0.2), (9, 0.04), (10, 0.0), (50, 0.0)])
def test_instance_noise_fades(step, std):
    noise, x = InstanceNoise(std=0.4, decay_steps=10), torch.linspace(-1, 1, 20_000)
    noise.now = Now(step, 0, 0)
    added = noise(x) - x
    assert added.std() == pytest.approx(std, rel=0.05) and abs(added.mean()) < 0.02
    assert std > 0 or torch.equal(noise(x), x)


@pytest.mark.parametrize("settings", [{"std": 0.0, "decay_steps": 10}, {"std": 1.0, "decay_steps": 0}])
def test_instance_noise_refuses(settings):
    with pytest.raises(ValueError, match="expected std > 0 and at least 1 step"):
        InstanceNoise(**settings)


def test_feature_distance_by_hand():
    real, fake = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert feature_distance(real, fake).item() == 10  # |(2, 3) - (1, 0)|^2


def gradient_of_generator(loss, **terms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    generator = mlp.Generator(z_dim=3, channels=2, resolution=None, width=8, depth=1)
    recipe = GAN(generator, make(loss), terms=terms)
    losses = recipe.players()["generator"].losses(BATCH, recipe.generate(BATCH))
    losses.total().backward()
    return generator.hidden[0].weight.grad, losses.terms | losses.stats


@pytest.mark.parametrize("loss", [NonSaturating, RelativisticPairing])
def test_feature_matching_is_added_or_takes_the_losses_place(loss):
    plain, _ = gradient_of_generator(loss)
    added, _ = gradient_of_generator(loss, matching=FeatureMatching(weight=2.0))
    alone, seen = gradient_of_generator(loss, matching=FeatureMatching(weight=2.0, replace=True))
    torch.testing.assert_close(added, plain + alone)
    assert alone.abs().max() > 1e-3 and plain.abs().max() > 1e-3
    assert seen.keys() == {"matching", "adversarial"} and not seen["adversarial"].requires_grad


def test_feature_matching_is_the_generators_and_weighted():
    adversary = make()
    judge, generated = adversary.judge(), {"fake": -BATCH["real"]}
    features = judge(BATCH["real"]).features, judge(generated["fake"]).features
    got = FeatureMatching(weight=3.0)(None, judge, BATCH, generated)
    torch.testing.assert_close(got, 3 * feature_distance(*features))
    assert FeatureMatching.players == ("generator",)
