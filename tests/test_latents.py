"""InfoGAN's code and LOGAN's steps: by hand, in runs that are resumed, and in what is sampled."""

import math

import pytest
import torch
from conftest import TINY, ganrun
from test_configs import composed
from torch import nn

import ganrun as ganrun_package
from ganrun.adversary import Adversary
from ganrun.errors import UserError
from ganrun.files.checkpoint import load_checkpoint
from ganrun.game import Verdict
from ganrun.latents import InfoGAN, Transport, gaussian
from ganrun.losses import NonSaturating
from ganrun.networks.code import Code
from ganrun.networks.heads import Head
from ganrun.noise import Codes
from ganrun.recipes.gan import GAN
from ganrun.recipes.logan import LOGAN, natural_step
from ganrun.sampling.codes import asked, headings, put
from ganrun.training.build import build

NOISE = Codes(12, categorical=[3, 2], continuous=2)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_codes():
    drawn = NOISE(4000, rng())
    z, code = drawn["z"], drawn["code"]
    assert torch.equal(code, z[:, 5:]) and torch.equal(z, NOISE(4000, rng())["z"])
    for block, num in ((code[:, :3], 3), (code[:, 3:5], 2)):
        assert set(block.unique().tolist()) == {0, 1} and (block.sum(1) == 1).all()
        assert block.mean(0).tolist() == pytest.approx([1 / num] * num, abs=0.03)
    assert code[:, 5:].abs().max() <= 1 and code[:, 5:].std().item() == pytest.approx(3**-0.5, rel=0.03)
    assert z[:, :5].std().item() == pytest.approx(1, rel=0.03)
    truncated = NOISE(100, rng(), truncation=0.1)["z"]
    assert truncated[:, :5].abs().max() <= 0.1 and truncated[:, 5:].abs().max() == 1
    middle = NOISE.between(z[0], z[1], 0.25)
    torch.testing.assert_close(middle[5:], 0.75 * code[0] + 0.25 * code[1])


def test_the_information_term_by_hand():
    code = torch.tensor([[0.0, 1, 0, 0.5, -1.0], [1, 0, 0, 0.2, 0.0]])
    logits, mean, std = [[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]], [[0.1, -0.5], [0.2, 1.0]], [[2.0, 0.5], [1.0, 1.0]]
    told = torch.cat([torch.tensor(logits), torch.tensor(mean), torch.tensor(std).log()], 1)
    ce = sum(-row[y] + math.log(sum(map(math.exp, row))) for row, y in zip(logits, (1, 0), strict=True)) / 2
    nll = 0.0
    for c, m, s in zip(code[:, 3:].tolist(), mean, std, strict=True):
        nll -= (
            sum(
                math.log(math.exp(-(((a - b) / d) ** 2) / 2) / (d * math.sqrt(2 * math.pi)))
                for a, b, d in zip(c, m, s, strict=True)
            )
            / 2
        )
    assert gaussian(code[:, 3:], torch.tensor(mean), torch.tensor(std).log()).item() == pytest.approx(nll)
    term = InfoGAN(categorical=[3], weight=2.0, continuous_weight=0.1, every=4)
    fake, told = torch.zeros(2), told.to(torch.float64)
    found = term(None, lambda x: Verdict(x, x, code=told), {"code": code.double()}, {"fake": fake})
    assert found.item() == pytest.approx(4 * (2 * ce + 0.1 * nll))
    with pytest.raises(UserError, match="the discriminator tells no code"):
        term(None, lambda x: Verdict(x, x), {"code": code}, {"fake": fake})


@pytest.mark.parametrize("learn_std", [False, True])
def test_the_head_that_tells_the_code(learn_std):
    head = Code(Head(6, "classes", 4), categorical=[3, 2], continuous=2, hidden=5, learn_std=learn_std)
    verdict = head(torch.randn(7, 6), torch.zeros(7, dtype=torch.int64))
    assert verdict.code.shape == (7, 9) and verdict.classes.shape == (7, 4)
    assert bool(verdict.code[:, 7:].any()) == learn_std  # logarithms of deviations, which are 1 if not learnt


def test_a_natural_step_by_hand():
    g = torch.randn(3, 4, dtype=torch.float64)
    for one, step in zip(g, natural_step(g, 0.9, 0.1), strict=True):
        damped = one[:, None] * one + 0.1 * torch.eye(4, dtype=torch.float64)
        torch.testing.assert_close(step, 0.9 * torch.linalg.solve(damped, one))


class Line(nn.Module):
    """As a generator z -> z A, as a discriminator a logit x . a + x.square() . b."""

    def __init__(self, *shape):
        super().__init__()
        self.a = nn.Parameter(torch.randn(*shape, dtype=torch.float64) / 2)

    def forward(self, x, label=None):
        if self.a.dim() == 2:
            return x @ self.a
        return Verdict((x @ self.a).tanh(), x)


def game(**settings):
    torch.manual_seed(0)
    adversary = Adversary(Line(3), NonSaturating())
    return LOGAN(Line(4, 3), adversary, terms={"logan": Transport(0.1)}, **settings).double()


@pytest.mark.parametrize(("training", "steps"), [(True, 2), (False, 10)])
def test_the_steps_by_hand(training, steps):
    recipe = game(rate=1.0, bound=0.8).train(training)
    z = torch.rand(5, 4, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        made = recipe.generate({"z": z})
        w, cost = recipe.generator.a @ recipe.adversary.discriminator.a, torch.zeros(5, dtype=torch.float64)
        for _ in range(steps):
            g = (1 - (z @ w).tanh().square())[:, None] * w
            step = 0.9 * g / (0.1 + g.square().sum(1, keepdim=True))
            z, cost = (z + step).clamp(-0.8, 0.8), cost + step.square().sum(1)
    torch.testing.assert_close(made["fake"], z @ recipe.generator.a)
    torch.testing.assert_close(made["transport"], cost)


def test_a_share_of_the_batch_moves_in_training_alone():
    recipe, z = game(rate=0.8, train_steps=1), torch.zeros(2000, 4, dtype=torch.float64)
    torch.manual_seed(1)
    share = (recipe.generate({"z": z})["transport"] > 0).double().mean().item()
    assert share == pytest.approx(0.8, abs=0.03)
    assert (recipe.eval().generate({"z": z})["transport"] > 0).all()


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_gradients_go_through_the_steps(player):
    """Those of both players, by a finite difference."""
    recipe, z = game(rate=1.0, bound=None), torch.randn(6, 4, dtype=torch.float64) / 4
    batch = {"z": z, "real": torch.randn(6, 3, dtype=torch.float64)}
    weight = recipe.players()[player].networks[0].a

    def loss():
        generated = recipe.generate(batch)
        if player == "discriminator":
            generated = {key: value.detach() for key, value in generated.items()}
        return recipe.players()[player].losses(batch, generated).total()

    (gradient,) = torch.autograd.grad(loss(), weight)
    for i in range(3):
        values = []
        for step in (1e-6, -2e-6):
            weight.data.view(-1)[i] += step
            values.append(loss().item())
        weight.data.view(-1)[i] += 1e-6
        assert gradient.flatten()[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_without_them_the_discriminator_takes_fakes_as_given():
    recipe = game(to_discriminator=False)
    batch = {"z": torch.zeros(4, 4, dtype=torch.float64), "real": torch.randn(4, 3, dtype=torch.float64)}
    generated = {key: value.detach() for key, value in recipe.generate(batch).items()}
    terms = recipe.players()["discriminator"].losses(batch, generated).terms
    plain = GAN._discriminator_losses(recipe, batch, generated).terms
    assert {k: v.item() for k, v in terms.items()} == {k: v.item() for k, v in plain.items()}
    assert not terms["logan"].requires_grad


def test_codes_that_are_asked_for():
    rows = asked("c1=2,c4=-0.5", NOISE)
    assert rows.nan_to_num(9).tolist() == [[0, 0, 1, 9, 9, 9, -0.5]]
    assert asked(None, NOISE) is None and len(asked("c1", NOISE)) == 3 and len(asked(["c1=0,c3=1", "c2"], NOISE)) == 3
    assert headings(asked("c1,c2=1", NOISE), NOISE) == ["0", "1", "2"] and headings(rows, NOISE) == [""]
    assert headings(asked("c3", NOISE), NOISE)[0] == "-1"
    z = torch.arange(12.0)[None]
    assert put(z, rows)[0].tolist() == [*range(5), 0, 0, 1, 8, 9, 10, -0.5]
    for wrong, told in (
        ("c1=3", "expected one of its values, 0 to 2"),
        ("c5=1", "no attribute 'c5'"),
        ("c1,c2", "at most"),
    ):
        with pytest.raises(UserError, match=told):
            asked(wrong, NOISE)


SMALL = [*TINY, "dataset.limit=64", "metric=[]", "on_collapse=null", "sample_every=0", "checkpoint.every=2"]


def test_each_move_generates_with_the_discriminator_as_it_is():
    module = build(composed(*SMALL, "term=[logan]", "loss=wgan", "schedule.discriminator=1")[0]).module
    assert [(move.generate, move.graph) for move in module.moves] == [(True, False), (True, True)]


def test_resume_is_exact(tmp_path):
    run = ["term=[logan]", "head=[minibatch,san]", "critic.norm=spectral", "loss=hinge", "conditional=label", *SMALL]
    ganrun(*run, "steps=4", "run_dir=whole", cwd=tmp_path)
    ganrun(*run, "steps=2", "run_dir=part", cwd=tmp_path)
    ganrun("resume=part", "steps=4", cwd=tmp_path)
    whole, part = (
        load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"] for run in ("whole", "part")
    )
    assert whole.keys() == part.keys() and all(torch.equal(value, part[key]) for key, value in whole.items())


def test_samples_follow_the_code(tmp_path):
    ganrun(
        "term=[infogan]", "generator.z_dim=20", "precision=bf16-mixed", *SMALL, "steps=2", "run_dir=run", cwd=tmp_path
    )
    generator = ganrun_package.load_generator(tmp_path / "run" / "generator.safetensors")
    asked_for, swept = generator.sample(4, label="c1=1,c2=0"), generator.sample(10, label=["c1=1,c2=0"] * 10)
    assert torch.equal(swept[:4], asked_for) and not torch.equal(generator.sample(4), asked_for)
    turn = generator.turn("c1")
    images = torch.cat([images for images, labels in generator.batches(10, turn=turn) if labels is None])
    assert torch.equal(images[1], generator.sample(2, label="c1=1")[1])
    done = ganrun("sample", "from=run", "num=20", "out=grid.png", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "grid.png").stat().st_size > 0
