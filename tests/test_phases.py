"""How StyleGAN2 is trained: path length, style mixing, lazy moves with Adam's correction."""

import copy
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forked import run
from test_configs import SMALL, composed
from test_golden import in_double
from test_module import fitted
from test_optim import make
from test_processes import both_to_the_end
from test_runs import assert_same_state, state
from tiny_styles import WORDS, tiny
from torch import nn
from torch.nn.functional import softplus

from ganrun.adversary import Adversary
from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir
from ganrun.game import Now
from ganrun.losses import Hinge
from ganrun.path_length import PathLength, path_lengths
from ganrun.ramps import Linear
from ganrun.recipes.gan import GAN
from ganrun.schedule import Schedule
from ganrun.seeding import derive, seed_default_generators
from ganrun.training.build import build
from ganrun.training.report import corrected
from ganrun.training.run import announce

STYLES = [*WORDS, "dataset.resolution=8", "dataset.limit=40", "on_collapse=null", "metric=[]"]


class TestPathLength:
    def test_of_a_linear_synthesis(self):
        """The gradient with respect to style l is A_l^T y / sqrt(H W), whatever the style."""
        generator, y = tiny(depth=3), torch.randn(6, 1, 4, 4)
        styles = generator.styles(torch.randn(6, 5))
        found = path_lengths(styles, generator.synthesis(styles), y)
        for row, noise in zip(found, y, strict=True):
            squares = [((a @ noise.flatten() / 4) ** 2).sum().item() for a in generator.maps]
            assert row.item() == pytest.approx(math.sqrt(sum(squares) / 3), rel=1e-5)

    def test_by_hand_with_its_running_mean_and_gradient(self):
        generator, term = tiny(depth=2), PathLength(weight=3.0, decay=0.25, every=4)
        recipe = GAN(generator, Adversary(nn.Identity(), Hinge()), terms={"path-length": term})
        z, mean = torch.randn(7, 5), 0.0
        for _ in range(2):
            torch.manual_seed(1)
            value = term(recipe, None, {"z": z}, {})
            torch.manual_seed(1)
            y = torch.randn(3, 1, 4, 4)  # half of the batch
            lengths = (torch.einsum("bp,lwp->blw", y.flatten(1), generator.maps) / 4).square().sum(2).mean(1).sqrt()
            mean = 0.75 * mean + 0.25 * lengths.mean()
            expected = 3 * 4 * (lengths - mean).square().mean()
            assert value.item() == pytest.approx(expected.item(), rel=1e-5)
            (gradient,) = torch.autograd.grad(expected, generator.maps)
            generator.maps.grad = None
            value.backward()
            torch.testing.assert_close(generator.maps.grad, gradient)
            mean = mean.item()
            assert term.mean.item() == pytest.approx(mean)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ([], "term.path-length: it needs a style-based generator, such as StyleGAN2's, and this is "
                 "dcgan.Generator; leave it out"),
            ([*STYLES, "term.path-length.share=0"], "share=0; expected more than 0 and at most 1"),
            ([*STYLES, "term.path-length.decay=2"], "decay=2; expected more than 0 and at most 1"),
            ([*STYLES, "+generator.mixing=2"], "mixing=2; expected 0 to 1"),
        ],
    )  # fmt: skip
    def test_mistakes_are_one_line(self, words, told):
        with pytest.raises(UserError) as refused:
            build(composed("term=[path-length]", *words)[0])
        assert told in str(refused.value) and "\n" not in str(refused.value)


class TestMixing:
    def test_styles_come_from_a_second_z_from_the_crossover_on(self):
        generator = tiny(depth=4, mixing=0.9).train()
        z = torch.randn(4000, 5)
        styles, own = generator.styles(z), generator.mapping(z)
        first = (styles == own[:, None]).all(2)  # (batch, 4)
        assert (first[:, :-1] >= first[:, 1:]).all() and first[:, 0].all()
        share = first.sum(1).bincount(minlength=5)[1:] / 4000
        assert share.tolist() == pytest.approx([0.3, 0.3, 0.3, 0.1], abs=0.03)
        second = styles[~first[:, 3], 3]
        torch.testing.assert_close(second.mean(0), own.mean(0), rtol=0, atol=0.1)  # as likely as the first
        assert len(second.unique(dim=0)) == len(second)

    def test_only_in_training_and_by_the_seed(self):
        generator, z, label = tiny(depth=4, mixing=0.9, classes=3), torch.randn(9, 5), torch.arange(9) % 3
        drawn = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            drawn.append(generator.train()(z, label))
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
        generator.eval()
        plain = generator.synthesis(generator.mapping(z, label)[:, None].expand(-1, 4, -1))
        assert torch.equal(generator(z, label), plain)

    def test_in_both_players_moves_and_never_where_samples_are_shown(self):
        seen = []

        def probe(module):
            first = module.recipe.generator._first
            module.recipe.generator._first = lambda *args: (seen.append(torch.is_grad_enabled()), first(*args))[1]

        module = fitted(*STYLES, "+generator.mixing=0.9", "schedule.share=false", "steps=1", probe=probe)
        assert seen == [False, True]
        module.show({"z": torch.randn(2, 5)})
        assert len(seen) == 2 and module.recipe.generator.training

    def test_the_mean_of_w(self):
        generator, z = tiny(), torch.randn(8, 5)
        w = generator.mapping(z).mean(0)
        generator(z), generator(z)
        torch.testing.assert_close(generator.w_mean, w * (1 - 0.995**2), rtol=1e-3, atol=1e-7)
        before = generator.w_mean.clone()
        generator.eval()(z)
        assert torch.equal(generator.w_mean, before)

    def test_the_average_copies_the_mean_of_w(self):
        module = fitted(*STYLES, "ema.decay=0.9", "steps=2")
        mean = module.recipe.generator.w_mean
        assert mean.abs().sum() > 0 and torch.equal(mean, module.ema.average[0].w_mean)


LAZY_R1 = ["schedule.lazy_moves=true", "penalty=[r1]", "penalty.r1.every=2", "optimizer.discriminator.lazy=2"]
LAZY = [*LAZY_R1, "term=[path-length]", "term.path-length.every=3", "optimizer.generator.lazy=3"]


def by_hand(generator, critic, rounds):
    """The four moves of StyleGAN2's round, each with its own step of an optimizer with corrected settings."""
    settings = {}
    for name, every in (("generator", 3), ("critic", 2)):
        c = every / (every + 1)
        settings[name] = {"lr": 0.002 * c, "betas": (0.5**c, 0.9**c)}
    moves_g = torch.optim.Adam(generator.parameters(), **settings["generator"])
    moves_d = torch.optim.Adam(critic.parameters(), **settings["critic"])

    def move(optimizer, loss):
        for p in [*generator.parameters(), *critic.parameters()]:
            p.grad = None
        loss.backward()
        optimizer.step()

    mean = 0.0
    for step, batch in enumerate(rounds):
        seed_default_generators(derive(0, "step", step, 0, 0))
        real, z = batch["real"], batch["z"]
        fake = generator(z)
        move(moves_d, softplus(-critic(real).logits).mean() + softplus(critic(fake.detach()).logits).mean())
        if step % 2 == 0:
            x = real.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(critic(x).logits.sum(), x, create_graph=True)
            move(moves_d, 2 * 10 / 2 * gradient.square().sum((1, 2, 3)).mean())
        move(moves_g, softplus(-critic(fake).logits).mean())
        if step % 3 == 0:
            styles = generator.styles(z[:3])
            images = generator.synthesis(styles)
            y = torch.randn_like(images) / 8
            (gradient,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
            lengths = gradient.square().sum(2).mean(1).sqrt()
            mean = mean + 0.01 * (lengths.mean() - mean)
            move(moves_g, 3 * 2 * (lengths - mean).square().mean())
            mean = mean.detach()
    return mean


class TestLazyMoves:
    def test_equal_a_loop_written_by_hand(self):
        words = ["loss=non-saturating", "batch_size=6", "optimizer.lr=0.002", "optimizer.betas=[0.5,0.9]"]
        parts = build(composed(*STYLES, *LAZY, *words, "+generator.mixing=0.9")[0])
        recipe = parts.module.recipe
        generator, critic = (copy.deepcopy(n).double() for n in (recipe.generator, recipe.adversary.discriminator))
        module, rounds = in_double(parts, steps=4)
        torch.set_default_dtype(torch.float64)  # in which numbers are drawn
        try:
            mean = by_hand(generator, critic, rounds)
        finally:
            torch.set_default_dtype(torch.float32)
        for mine, theirs in ((recipe.generator, generator), (recipe.adversary.discriminator, critic)):
            for key, value in theirs.state_dict().items():
                torch.testing.assert_close(mine.state_dict()[key], value, rtol=0, atol=1e-10, msg=key)
        assert recipe.terms["path-length"].mean.item() == pytest.approx(mean.item(), rel=1e-9)
        assert {"discriminator/r1", "generator/path-length", "generator/lazy_gradient_norm"} <= module.terms.keys()

    @pytest.mark.parametrize("separate", [True, False])
    def test_steps_and_terms_of_each_move(self, separate):
        """What acts each step stays in the move; five moves of the discriminator have five lazy ones."""
        seen = []

        def probe(module):
            add = module._add_gradients

            def watched(move, batch):
                losses = add(move, batch)
                seen.append((move.player[0], *losses.terms))
                return losses

            module._add_gradients = watched

        words = ["penalty=[r1,r2]", "penalty.r2.every=2", "term=[orthogonal,feature-matching]", "steps=2"]
        words += ["term.feature-matching.every=2", "schedule.discriminator=2", f"schedule.lazy_moves={separate}"]
        module = fitted(*STYLES, *words, probe=probe)
        d, g = ("d", "adversarial", "r1"), ("g", "adversarial", "orthogonal")
        lazy = [d, ("d", "r2")] * 2 + [g, ("g", "feature-matching")]
        joint = [(*d, "r2")] * 2 + [(*g, "feature-matching")]
        assert seen == (lazy if separate else joint) + [d, d, g]
        steps = [next(iter(o.optimizer.state.values()))["step"].item() for o in module.player_optimizers.values()]
        assert steps == ([6, 3] if separate else [4, 2])

    def test_nothing_changes_where_nothing_is_lazy(self):
        one, other = (fitted(*STYLES, "penalty=[r1]", f"schedule.lazy_moves={flag}") for flag in (True, False))
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())

    def test_generates_anew_only_where_it_is_looked_at(self):
        passes = []

        def probe(module):
            generate = module.recipe.generate
            module.recipe.generate = lambda batch: (passes.append(torch.is_grad_enabled()), generate(batch))[1]

        fitted(*STYLES, *LAZY, "steps=1", probe=probe)
        assert passes == [True]
        passes.clear()
        looks = ["term=[feature-matching]", "term.feature-matching.every=2"]
        fitted(*STYLES, *LAZY_R1, *looks, "steps=1", probe=probe)
        assert passes == [True, True]

    def test_micro_batches_add_up_to_the_batch(self):
        case = [*STYLES, "schedule.lazy_moves=true", "penalty=[r1,r2]", "penalty.r1.every=2", "penalty.r2.every=3"]
        case += ["term=[orthogonal]", "term.orthogonal.every=2", "batch_size=8", "steps=4", "precision=32-true"]
        whole, parts = (fitted(*case, f"micro_batch={rows}") for rows in ("null", 2))
        for key, value in whole.recipe.state_dict().items():
            if not key.endswith("w_mean"):  # it takes a step a pass
                assert torch.allclose(value, parts.recipe.state_dict()[key], rtol=0, atol=2e-6), key
        fitted(*STYLES, *LAZY, "micro_batch=2")

    def test_resume_is_exact(self, tmp_path):
        words = [*STYLES, *LAZY, "+generator.mixing=0.9", "batch_size=8", "steps=4", "checkpoint.every=2", "debug=true"]
        run(*words, "checkpoint.keep=2", "run_dir=whole", cwd=tmp_path)
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        run("resume=run/checkpoints/step-000002.ckpt", "trust=[tiny_styles]", cwd=tmp_path)
        assert_same_state(tmp_path / "whole", tmp_path / "run")
        kept = state(tmp_path / "run")["state_dict"]
        assert kept["recipe.terms.path-length.mean"] > 0 and kept["ema.average.0.w_mean"].abs().sum() > 0

    def test_two_processes(self, tmp_path):
        """They agree to the bit; where nothing is drawn in a move, they equal one."""
        (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
        both_to_the_end(cwd=tmp_path, script=tmp_path / "script.py")
        for name, words in PROCESSES.items():
            two = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)]
            one = fitted(*words).state_dict() if name == "plain" else two[1]
            for key, value in two[0].items():
                assert torch.equal(value, two[1][key]), (name, key)
                assert torch.allclose(value, one[key], rtol=0, atol=1e-6), (name, key)


PROCESSES = {"whole": [*STYLES, *LAZY, "+generator.mixing=0.9", "batch_size=8", "precision=32-true", "steps=4"]}
PROCESSES["plain"] = [*STYLES, *LAZY_R1, "batch_size=8", "precision=32-true", "steps=4"]
SCRIPT = """
import os, sys
sys.path.insert(0, {folder!r})
import torch
import test_phases as tests
from test_processes import TWO

for name, words in tests.PROCESSES.items():
    torch.save(tests.fitted(*words, *TWO).state_dict(), name + "-" + os.environ["RANK"] + ".pt")
"""


class TestCorrection:
    @pytest.mark.parametrize(("every", "lr"), [(4, 0.0020), (16, 0.002353)])  # cifar's, of G and D
    def test_of_adam(self, every, lr):
        settings = {"optimizer": "torch.optim.Adam", "lr": 0.0025, "betas": [0.0, 0.99], "lazy": every}
        player, parameters = make(1.0, **settings)
        parameters[0].grad = torch.ones(1)
        player.before_step(Now(5, 0, 0))
        (group,) = player.optimizer.param_groups
        assert group["lr"] == pytest.approx(lr, rel=1e-3)
        assert group["betas"] == pytest.approx((0, 0.99 ** (every / (every + 1))))
        assert corrected(player).startswith(f": lr {lr:.4g} and betas 0, 0.99")
        assert corrected(make(1.0)[0]) == ""

    def test_of_ramps(self):
        ramp = Linear(start=0.9, end=0.99, over=10)
        player, parameters = make(1.0, optimizer="torch.optim.Adam", betas=[0.0, ramp], lazy=1)
        parameters[0].grad = torch.ones(1)
        player.before_step(Now(5, 0, 0))
        assert player.optimizer.param_groups[0]["betas"] == pytest.approx((0, 0.945**0.5))

    def test_mistakes(self):
        with pytest.raises(UserError, match="lazy=0; expected at least 1"):
            make(1.0, optimizer="torch.optim.Adam", betas=[0.0, 0.99], lazy=0)
        with pytest.raises(UserError, match=r"lazy=4: it corrects Adam's betas, but torch\.optim\.SGD is given none"):
            make(1.0, lazy=4)
        with pytest.raises(UserError, match=r"^optimizer\.generator\.lazy=4: it corrects for lazy moves; add"):
            build(composed(*STYLES, "optimizer.generator.lazy=4")[0])
        with pytest.raises(UserError, match=r"schedule\.lazy_moves=1; expected true or false"):
            Schedule({"generator": 1}, lazy_moves=1)


@pytest.mark.parametrize("every", [1, 2])
def test_lazy_moves_without_anything_lazy_are_told(every, tmp_path, capsys):
    words = ["schedule.lazy_moves=true", "penalty=[r1]", f"penalty.r1.every={every}"]
    parts = build(composed(*SMALL, *words)[0])
    probe = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"), world_size=1)
    announce(parts, RunDir(tmp_path), None, [], probe)
    assert ("so that no move is lazy" in " ".join(capsys.readouterr()[0].split())) == (every == 1)
