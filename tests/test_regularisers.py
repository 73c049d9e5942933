"""Regularisers: formulas by hand and against critics whose gradient is known, refusals, every network, exact resume."""

import copy

import pytest
import torch
import yaml
from conftest import TINY, ganrun
from hydra.utils import get_object
from test_configs import composed
from test_module import fitted
from test_processes import TWO, both_to_the_end, state
from torch import nn

from ganrun.adversary import Adversary
from ganrun.augment.ada import ADA
from ganrun.config.groups import config_dir, options
from ganrun.errors import UserError
from ganrun.game import Now, Player, Recipe, Verdict
from ganrun.gradient_norm import gradient_normalised, with_gradient_norm
from ganrun.losses import Hinge, NonSaturating, RelativisticAverage, RelativisticPairing
from ganrun.networks import dcgan, mlp
from ganrun.penalties import R1, R2, MaxGradient, ZeroCentred
from ganrun.ramps import Linear
from ganrun.recipes.gan import GAN
from ganrun.regularisers import consistency
from ganrun.regularisers.consistency import BalancedConsistency, Consistency, LatentConsistency, flipped_and_shifted
from ganrun.regularisers.finite_difference import FiniteR1, FiniteR2
from ganrun.regularisers.history import HistoricalAveraging
from ganrun.regularisers.lecam import LeCam
from ganrun.regularisers.top_k import TopK
from ganrun.terms import FeatureMatching
from ganrun.training.build import build

W = torch.tensor([3.0, 0.0, 4.0, 0.0])  # |w| = 5
X = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.6, 0.8]])  # of length 5, 1, 1


def quadratic(x):
    """Its gradient at x is x."""
    return x.flatten(1).square().sum(1) / 2


class Sum:
    """A judge whose logits (batch,), or (batch, 2) of patches that add up to them, are the sums of values."""

    def __init__(self, patches=False):
        self.share = torch.tensor([0.25, 0.75]) if patches else torch.tensor(1.0)

    def __call__(self, x):
        logits = x.flatten(1).sum(1)
        return Verdict(logits[:, None] * self.share if self.share.dim() else logits, x)

    def pair(self, x, moved):
        return self(x).logits, self(moved).logits


def test_zero_centred_and_max_gradient():
    assert ZeroCentred(2.0)(quadratic, X, X).item() == pytest.approx(2 * (25 + 1 + 1) / 3)
    assert MaxGradient(2.0)(quadratic, X, X).item() == pytest.approx(2 * 25)
    for penalty in (ZeroCentred(10.0), MaxGradient(10.0)):
        w, seen = W.clone().requires_grad_(), []
        real, fake = torch.ones(64, 4), torch.zeros(64, 4)
        value = penalty(lambda x: seen.append(x.detach()) or x @ w, real, fake)  # noqa: B023
        value.backward()
        assert value.item() == pytest.approx(10 * 25) and penalty.per_sample
        torch.testing.assert_close(w.grad, 2 * 10 * W)
        assert torch.equal(seen[0], seen[0][:, :1].expand(64, 4)) and len(seen[0][:, 0].unique()) == 64


@pytest.mark.parametrize("patches", [False, True])
def test_finite_difference_of_a_linear_critic(patches):
    """(w.n)^2 / 2 exactly, whose mean is |w|^2 / 2; here w = (1, 1, 1, 1)."""
    real, fake = torch.randn(2, 40_000, 4, dtype=torch.float64)
    for penalty, x in ((FiniteR1(2.0, share=0.5, every=3), real), (FiniteR2(2.0, share=0.5, every=3), fake)):
        torch.manual_seed(3)
        n = torch.randn(20_000, 4, dtype=torch.float64)
        torch.manual_seed(3)
        value = penalty(Sum(patches), real, fake)
        torch.testing.assert_close(value, 2 * 3 * n.sum(1).square().mean() / 2, rtol=1e-9, atol=0)
        assert value.item() == pytest.approx(2 * 3 * 4 / 2, rel=0.05)
        exact = (R1 if x is real else R2)(2.0, every=3)(lambda x: x.sum(1), real, fake)
        assert value.item() == pytest.approx(exact.item(), rel=0.05)


def critic(**settings) -> Adversary:
    torch.manual_seed(0)
    network = {"channels": 1, "resolution": 8, "width": 4, "norm": "none", **settings.pop("network", {})}
    return Adversary(dcgan.Discriminator(**network), NonSaturating(), **settings)


def test_finite_differences_come_close_to_r1_and_so_do_their_gradients():
    """Where the critic is smooth."""
    torch.manual_seed(0)
    network = mlp.Discriminator(channels=2, resolution=None, width=8, depth=2)
    network.hidden = nn.Sequential(*(layer if isinstance(layer, nn.Linear) else nn.Tanh() for layer in network.hidden))
    adversary, real = Adversary(network, Hinge()), torch.randn(256, 2)
    many, weight = real.repeat(200, 1), adversary.discriminator.hidden[0].weight
    found, exact = FiniteR1(1.0, share=1.0), R1(1.0)
    values = [found(adversary.judge(), many, many), exact(adversary.judge().critic, real, real)]
    assert values[0].item() == pytest.approx(values[1].item(), rel=0.05)
    gradients = [torch.autograd.grad(value, weight)[0] for value in values]
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


def test_a_pair_differs_by_nothing_but_the_move():
    """One pass: the same draws of the augmentations, one step of spectral norm, no autocast; rows keep conditions."""
    network = {"norm": "spectral", "num_classes": 3, "condition": "projection"}
    adversary = critic(network=network, augment={"ada": ADA(p=0.9)})
    label, x = torch.tensor([0, 1, 2, 2, 1, 0]), torch.randn(6, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        for first, second in (adversary.judge(label).pair(x[:4], x[:4]) for _ in range(3)):
            assert first.dtype == torch.float32 and torch.equal(first, second)
    torch.manual_seed(1)
    one = adversary.judge(label).pair(x[:4], x[:4])[0]
    after = torch.rand(1)
    adversary.eval()
    torch.manual_seed(1)
    assert not torch.equal(adversary.judge((label + 1) % 3).pair(x[:4], x[:4])[0], one)
    assert torch.equal(torch.rand(1), after)


def test_gradient_normalisation_of_a_linear_critic():
    x, w = torch.randn(5, 4), W.clone().requires_grad_()
    verdict = with_gradient_norm(lambda x, condition: Verdict(x @ w + 2, x), x, None)
    torch.testing.assert_close(verdict.logits, (x @ W + 2) / (5 + (x @ W + 2).abs()))
    assert torch.autograd.grad(verdict.logits.sum(), w)[0].isfinite().all() and verdict.features.shape == x.shape
    patches = gradient_normalised(torch.tensor([[[3.0, -5.0]]]), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(patches, torch.tensor([[[3 / 8, -0.5]]]))
    flat = with_gradient_norm(lambda x, condition: Verdict(x @ w * 0, x), x, None)
    flat.logits.sum().backward()
    assert flat.logits.abs().max() == 0 and w.grad.isfinite().all()


def test_gradient_normalisation_bounds_the_gradient_of_a_network():
    adversary, x = critic(gradient_norm=True), torch.randn(32, 1, 8, 8, requires_grad=True)
    for p in adversary.discriminator.parameters():
        nn.init.normal_(p)
    logits = adversary.judge()(x).logits
    assert torch.equal(logits, adversary.judge().critic(x)) and logits.abs().max() < 1
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert 0 < gradient.flatten(1).norm(dim=1).max() <= 1 + 1e-5
    plain = adversary.discriminator(x).logits
    torch.testing.assert_close(logits.sign(), plain.sign())
    with pytest.raises(UserError, match=r"batch norm mixes; add critic\.norm=none"):
        critic(gradient_norm=True, network={"norm": "batch", "resolution": 16})


def test_lecam_by_hand():
    """Means by hand, then the formula with logits (2, -1) of reals and (0.5, -3) of fakes."""
    penalty, judge = LeCam(weight=2.0, decay=0.9), Sum()
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0]])
    penalty(judge, torch.tensor([[4.0]]), torch.tensor([[-4.0]]))
    assert (penalty.means / penalty.filled).tolist() == pytest.approx([4, -4])
    value = penalty(judge, real, fake)
    m_real, m_fake = ((0.09 * 4 + 0.1 * 0.5) / 0.19, (-0.09 * 4 - 0.1 * 1.25) / 0.19)
    assert (penalty.means / penalty.filled).tolist() == pytest.approx([m_real, m_fake])
    expected = ((2 - m_fake) ** 2 + (-1 - m_fake) ** 2) / 2 + ((m_real - 0.5) ** 2 + (m_real + 3) ** 2) / 2
    assert value.item() == pytest.approx(2 * expected, rel=1e-5)
    far = LeCam(decay=0.0)(judge, torch.tensor([[-1.0]]), torch.tensor([[1.0]]))  # fakes above reals: relu
    assert far.item() == 0


def test_lecam_only_averages_before_it_starts():
    penalty = LeCam(start=5)
    for step, acts in ((4, False), (5, True)):
        penalty.now = Now(step, 0, 0)
        assert (penalty(Sum(), X, -X).item() > 0) == acts and penalty.filled > 0
    assert not penalty.per_sample


def candidates(image):
    """An 8x8 image, mirrored or not, moved by -1 to 1 pixels along both sides, with reflection."""
    for flipped in (image, image.flip(2)):
        padded = nn.functional.pad(flipped, (1, 1, 1, 1), mode="reflect")
        yield from (padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3))


def test_copies_are_flipped_and_shifted_with_reflection():
    torch.manual_seed(0)
    image = torch.randn(3, 8, 8)
    copies, valid = flipped_and_shifted(image.expand(400, 3, 8, 8)), list(candidates(image))
    found = [[torch.equal(copy, one) for one in valid] for copy in copies]
    assert all(sum(row) == 1 for row in found)
    counts = torch.tensor(found).sum(0)
    assert counts.min() > 5 and counts.max() < 50  # 22 of each are expected
    wide = flipped_and_shifted(torch.arange(32.0).expand(50, 1, 4, 32))
    assert wide[:, 0, 0, 1:].diff().abs().amax() <= 2 and (wide == wide[:, :, :1]).all()  # 4 pixels: no shift
    with pytest.raises(UserError, match="these samples are 2"):
        flipped_and_shifted(torch.zeros(4, 2))


def test_consistency_by_hand(monkeypatch):
    monkeypatch.setattr(consistency, "flipped_and_shifted", lambda x: x + x.flatten(1)[:, 0, None, None, None])
    real, fake = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([3.0, 0.0]).view(2, 1, 1, 1)
    assert Consistency(10.0)(Sum(), real, fake).item() == 10 * (1 + 4) / 2
    balanced = BalancedConsistency(10.0, fake_weight=Linear(0.0, 4.0, over=4), every=2)
    balanced.now = Now(2, 0, 0)
    assert balanced(Sum(), real, fake).item() == 2 * (10 * (1 + 4) / 2 + 2 * 9 / 2)


PASSES = [(Consistency(), 3), (BalancedConsistency(), 4), (LeCam(), 2), (FiniteR1(), 3), (R1(1.0), 1)]


@pytest.mark.parametrize(("penalty", "passes"), PASSES)
def test_passes_are_shared_and_go_through_a_compiled_call(penalty, passes):
    """All but R1's pass over reals, which is differentiated twice."""
    adversary, calls = critic(penalties={"p": penalty}), []
    adversary.discriminator.register_forward_hook(lambda *_: calls.append(1))
    losses = adversary.discriminator_losses(adversary.judge(), *torch.randn(2, 4, 1, 8, 8))
    assert len(calls) == passes and losses.terms["p"] > 0


class Double(nn.Module):
    """z -> 2 z, without parameters that matter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, z, label=None):
        return self.scale * z


def double_game(loss=Hinge, **terms):
    critic = mlp.Discriminator(channels=3, resolution=None, width=4, depth=1)
    return GAN(Double(), Adversary(critic, loss()), terms=terms)


def test_latent_consistency_by_hand():
    term, z = LatentConsistency(weight=20.0, generator_weight=0.5, std=0.05), torch.randn(6, 3)
    recipe = double_game(zcr=term)
    generated, noises = recipe.generate({"z": z}), []
    for player in ("discriminator", "generator"):
        torch.manual_seed(5)
        noises.append(torch.randn(6, 3))
        torch.manual_seed(5)
        value = term(recipe, Sum(), {"z": z}, generated, player)
        moved = 2 * 0.05 * noises[0]
        squares = moved.sum(1).square().mean() * 20 if player == "discriminator" else -0.5 * moved.square().mean()
        torch.testing.assert_close(value, squares, rtol=1e-4, atol=1e-6)
        if player == "generator":  # both images are moved: d/ds of -0.5 mean (s 0.05 n)^2
            (slope,) = torch.autograd.grad(value, recipe.generator.scale)
            torch.testing.assert_close(slope, -0.5 * 2 * 2 * (0.05 * noises[0]).square().mean(), rtol=1e-3, atol=0)
    with pytest.raises(UserError, match="it moves the noise, and GAN takes none"):
        term(recipe, Sum(), {}, generated, "generator")


@pytest.mark.parametrize(("share", "k"), [(1.0, 4), (0.5, 2), (0.01, 1), (Linear(1.0, 0.5, over=2), 3)])
def test_top_k(share, k):
    """Fakes of logits 1, -2, 4, 3: the generator sees the k largest alone."""
    term = TopK(share)
    term.now = Now(1, 0, 0)
    fake = torch.tensor([[1.0], [-2.0], [4.0], [3.0]], requires_grad=True)
    value = term(double_game(top=term), Sum(patches=True), {}, {"fake": fake})
    value.backward()
    best = sorted([1.0, -2.0, 4.0, 3.0])[-k:]
    assert value.item() == pytest.approx(-sum(best) / k / 2)  # the mean of patches, of hinge's -logits
    assert (fake.grad != 0).sum() == k


def test_top_k_takes_the_place_of_any_mean_over_samples():
    torch.manual_seed(0)
    game = double_game(loss=RelativisticPairing, top=TopK(0.5))
    batch = {"z": torch.randn(4, 3), "real": torch.randn(4, 3)}
    losses = game.players()["generator"].losses(batch, game.generate(batch))
    real, fake = (game.adversary.discriminator(x).logits for x in (batch["real"], game.generate(batch)["fake"]))
    chosen = fake.topk(2).indices
    torch.testing.assert_close(losses.terms["top"], nn.functional.softplus(real[chosen] - fake[chosen]).mean())
    assert losses.terms.keys() == {"top"} and "adversarial" in losses.stats
    for loss, terms, message in (
        (RelativisticAverage, {}, "RelativisticAverage is no mean over samples"),
        (Hinge, {"matching": FeatureMatching(replace=True)}, "matching replaces the adversarial loss too"),
    ):
        game = double_game(loss=loss, top=TopK(0.5), **terms)
        with pytest.raises(UserError, match=message):
            game.players()["generator"].losses(batch, game.generate(batch))
    with pytest.raises(UserError, match="it needs one discriminator; this recipe has a, b"):
        TopK(0.5)(None, {"a": 1, "b": 2}, {}, {})


class One(Recipe):
    """A game of one parameter."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(1, 1, bias=False)

    def players(self):
        return {"one": Player((self.network,), None)}

    def generate(self, batch):
        return {}


def test_historical_averaging_by_hand():
    """theta 1, 3, 8: means 1, 2, 4."""
    recipe, term = One(), HistoricalAveraging(weight=10.0, players=["one"], every=2)
    term.attach(recipe)
    for theta, mean in ((1.0, 1.0), (3.0, 2.0), (8.0, 4.0)):
        nn.init.constant_(recipe.network.weight, theta)
        value = term(recipe, None, {}, {}, "one")
        (gradient,) = torch.autograd.grad(value, recipe.network.weight)
        assert value.item() == pytest.approx(10 * 2 * (theta - mean) ** 2) and term.mean_one.item() == mean
        assert gradient.item() == pytest.approx(10 * 2 * 2 * (theta - mean))
    assert term.num_one.item() == 3
    with pytest.raises(UserError, match=r"players=\[two\]: there is no such player; valid: one"):
        HistoricalAveraging(weight=1.0, players=["two"]).attach(recipe)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: LeCam(decay=1.0), "decay=1.0; expected at least 0 and less than 1"),
        (lambda: LeCam(start=-1), "start=-1; expected at least 0"),
        (lambda: FiniteR1(share=0.0), "share=0.0; expected more than 0 and at most 1"),
        (lambda: FiniteR2(epsilon=0.0), "epsilon=0.0; expected more than 0"),
        (lambda: BalancedConsistency(fake_weight=-1.0), "fake_weight=-1.0; expected at least 0"),
        (lambda: LatentConsistency(generator_weight=-1.0), "generator_weight=-1.0; expected at least 0"),
        (lambda: LatentConsistency(std=0.0), "std=0.0; expected more than 0"),
        (lambda: TopK(Linear(1.0, 0.0, over=5)), "expected more than 0 and at most 1"),
        (lambda: TopK(1.5), "share=1.5; expected more than 0 and at most 1"),
    ],
)
def test_settings_are_checked(made, message):
    with pytest.raises(UserError, match=message):
        made()


REFUSED = {
    "penalty=[finite-r1] discriminator.dropout=0.5": "cannot tell the step from dropout",
    "penalty=[cr] dataset=ring model=mlp": "these samples are 2",
    "term=[top-k] conditional=multi-hinge": "top-k: multi-hinge replaces the adversarial loss too",
    "term=[historical-averaging] term.historical-averaging.players=[critic]": "[critic]: there is no such player",
    "critic.gradient_norm=yes_please critic.norm=none": "gradient_norm=yes_please; expected true or false",
    "term=[zcr] model=pix2pix pairs=invert discriminator.layers=1": "it moves the noise, and Pix2Pix takes none",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals_are_one_line(words):
    with pytest.raises(UserError) as refused:
        build(composed("batch_size=4", "dataset.limit=8", *words.split())[0])
    assert REFUSED[words] in str(refused.value) and "\n" not in str(refused.value)


def test_batch_norm_is_left_out_where_single_samples_count():
    for name in options("penalty"):
        option = yaml.safe_load((config_dir() / "penalty" / f"{name}.yaml").read_text())
        penalty = get_object(option["penalty"][name]["_target_"])
        assert (option.get("critic") == {"norm": "none"}) == penalty.per_sample


FEW = ["dataset.resolution=16", "dataset.limit=32", "batch_size=4", "steps=2", "metric=[]", "metric/features=none",
       "generator.width=4", "discriminator.width=4", "on_collapse=null", "precision=32-true"]  # fmt: skip
ADAPTED = ["augment=[ada]", "augment.ada.p=0.7", "augment.ada.cutout=1", "augment.ada.noise=1", "augment.ada.filter=1"]


@pytest.mark.parametrize("network", ["model=dcgan", "model=resnet conditional=projection", "model=r3gan"])
def test_every_penalty_reaches_the_discriminator_through_ada(network):
    built = f"penalty=[{','.join(options('penalty'))}]", *network.split()
    module = build(composed(*FEW, *ADAPTED, *built)[0]).module
    torch.manual_seed(0)
    batch = {"real": torch.rand(4, 1, 16, 16) * 2 - 1, "label": torch.tensor([0, 1, 2, 3])}
    batch["z"] = module.noise(4, torch.Generator())["z"]
    generated = {key: value.detach() for key, value in module.recipe.generate(batch).items()}
    terms = module.recipe.players()["discriminator"].losses(batch, generated).terms
    weights = module._trainable["discriminator"]
    for name in options("penalty"):
        gradients = torch.autograd.grad(terms[name], weights, retain_graph=True, allow_unused=True)
        gradients = [gradient for gradient in gradients if gradient is not None]
        assert terms[name].isfinite() and terms[name] > 0 and gradients, name
        assert all(g.isfinite().all() for g in gradients) and any(g.any() for g in gradients), name


NEW = [name for name in options("penalty") if name not in ("r1", "r2", "gradient", "dragan")]
ALL_TERMS = "term=[zcr,top-k,historical-averaging]"
PATCHES = "model=pix2pix pairs=invert discriminator.layers=1"
RUNS = [
    f"model=dcgan penalty=[{','.join(NEW)}] {ALL_TERMS} conditional=label micro_batch=2",
    f"model=resnet penalty=[{','.join(NEW)}] {ALL_TERMS} conditional=projection precision=bf16-mixed",
    f"model=r3gan penalty=[{','.join(NEW)}] {ALL_TERMS} precision=bf16-mixed schedule.generator_batch=8",
    f"model=deep-conv loss=wgan-gp critic.gradient_norm=true penalty=[finite-r1,lecam] {ALL_TERMS}",
    "model=r3gan critic.gradient_norm=true conditional=auxiliary penalty=[] loss=hinge precision=bf16-mixed",
    "model=mlp dataset=ring dataset.resolution=null critic.gradient_norm=true penalty=[finite-r2,lecam]",
    f"{PATCHES} dataset.resolution=32 penalty=[{','.join(NEW)}] term=[l1,top-k]",
    f"{PATCHES} dataset.resolution=32 critic.gradient_norm=true critic.norm=none",
    "model=cyclegan pairs=classes pairs.a=3 pairs.b=8 generator.blocks=1 discriminator.layers=1 batch_size=1 "
    "penalty=[bcr,lecam,finite-r1] term=[cycle,historical-averaging]",
]


@pytest.mark.parametrize("words", RUNS, ids=lambda words: words.split()[0])
def test_they_go_with_every_network(words):
    few = [word for word in FEW if word.partition("=")[0] not in words]
    few = [word for word in few if not ("dataset.resolution" in word and "ring" in words)]
    module = fitted(*few, *(word for word in words.split() if word != "dataset.resolution=null"))
    assert all(value.isfinite() for value in module.terms.values()), module.terms
    assert all(p.isfinite().all() for p in module.recipe.parameters())
    assert all(value.dtype == torch.float32 for value in module.terms.values())


STATEFUL = [*TINY, "dataset.limit=64", "critic.norm=spectral", "penalty=[lecam,finite-r1,bcr]", ALL_TERMS,
            "metric=[]", "on_collapse=null", "sample_every=0", "precision=32-true"]  # fmt: skip


def test_a_resume_is_exact_to_the_bit(tmp_path):
    ganrun(*STATEFUL, "steps=4", "checkpoint.every=2", "run_dir=whole", cwd=tmp_path)
    whole = copy.deepcopy(state(tmp_path / "whole"))
    ganrun("resume=whole/checkpoints/step-000002.ckpt", cwd=tmp_path)
    again = state(tmp_path / "whole")["state_dict"]
    assert again.keys() == whole["state_dict"].keys()
    assert all(torch.equal(again[key], value) for key, value in whole["state_dict"].items())
    assert again["recipe.terms.historical-averaging.num_generator"] == 4
    filled = again["recipe.adversary.penalties.lecam.filled"].item()
    assert filled == pytest.approx(1 - 0.99**4, rel=1e-5)


def test_lecam_averages_over_processes(tmp_path):
    plain = [*STATEFUL, "generator.norm=none", "steps=1"]
    both_to_the_end(*plain, *TWO, "run_dir=two", cwd=tmp_path)
    ganrun(*plain, "run_dir=one", cwd=tmp_path)
    one, two = (state(tmp_path / name)["state_dict"] for name in ("one", "two"))
    key = "recipe.adversary.penalties.lecam.means"
    torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-7)
    assert two["recipe.terms.historical-averaging.num_generator"] == 1
