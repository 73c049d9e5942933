"""p by the sign rule: by hand, over processes and micro-batches, logged, saved, refused where signs mean nothing."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from conftest import TINY, ganrun
from test_configs import composed, run_steps
from test_module import fitted
from test_runs import assert_same_state, state

from ganrun.adaptive import Adaptive
from ganrun.adversary import Adversary
from ganrun.errors import UserError
from ganrun.game import Now
from ganrun.losses import Hinge, LeastSquares, NonSaturating, RelativisticPairing, Wasserstein
from ganrun.networks import mlp
from ganrun.presentations import PseudoAugmentation
from ganrun.ramps import Linear
from ganrun.training.build import build

LEVEL = "recipe.adversary.augment.ada.level"


def rounds(adaptive, *signs, batch=64, first=0):
    """p after each round whose real logits have this mean sign."""
    ps = []
    for step, sign in enumerate(signs, first):
        logits = torch.where(torch.arange(100) < 50 * (1 + sign), 2.5, -0.1)
        adaptive.now = Now(step, 0, step * batch)
        adaptive.observe(logits)
        adaptive.end_round(Now(step + 1, 0, (step + 1) * batch))
        ps.append(adaptive.probability.item())
    return ps


def test_p_follows_the_sign_of_the_mean_of_an_interval():
    adaptive = Adaptive(over=1000)
    up = 64 * 4 / 1000  # Karras et al. 2020: batch * interval / (kimg * 1000)
    assert rounds(adaptive, 1, 1, 1, 1) == pytest.approx([0, 0, 0, up])
    assert rounds(adaptive, 1, 1, 0.2, 0.24, first=4) == pytest.approx([up, up, up, 2 * up])  # mean 0.61
    assert rounds(adaptive, 1, 1, 0.2, 0.16, first=8) == pytest.approx([2 * up, 2 * up, 2 * up, up])  # mean 0.59
    assert rounds(adaptive, *[-1] * 8, first=12)[3::4] == [0, 0]  # not below 0


def test_p_has_no_ceiling_and_its_settings_act():
    adaptive = Adaptive(over=100, every=1, start=0.5, target=0.0)
    assert rounds(adaptive, 0.02, 1, -0.02, batch=40) == pytest.approx([0.9, 1.3, 0.9])
    adaptive.restart()
    assert adaptive.probability.item() == 0.5 and adaptive.signs.tolist() == [0, 0]


def test_equal_parts_of_a_batch_count_like_the_whole():
    whole, parts = Adaptive(over=1000, every=1), Adaptive(over=1000, every=1)
    logits = torch.cat([torch.ones(12), -torch.ones(4)])
    whole.observe(logits)
    for part in logits.split(4):
        parts.observe(part)
    torch.testing.assert_close(whole.signs[0] / whole.signs[1], parts.signs[0] / parts.signs[1])


def test_a_round_without_a_move_of_the_discriminator_changes_nothing():
    adaptive = Adaptive(over=1000, every=1, start=0.5)
    adaptive.end_round(Now(1, 0, 64))
    assert adaptive.probability.item() == 0.5


def test_a_fixed_p_or_a_ramp_holds_no_state():
    for p, expected in ((0.3, 0.3), (Linear(0, 1, over=10), 0.5)):
        adaptive = Adaptive(p)
        adaptive.now = Now(5, 0, 320)
        logged = adaptive.observe(torch.tensor([1.0, -1, 1, 1]))
        adaptive.end_round(Now(8, 0, 512))
        assert not adaptive.adapts and not [*adaptive.buffers()]
        assert {name: value.item() for name, value in logged.items()} == pytest.approx({"p": expected, "sign": 0.5})


@pytest.mark.parametrize(
    ("loss", "undecided"),
    [(NonSaturating(), 0), (Hinge(), 0), (LeastSquares(), 0.5), (LeastSquares(smoothing=0.2), 0.4)],
)
def test_signs_count_from_the_logit_of_an_undecided_discriminator(loss, undecided):
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, x):
            return x

        def observe(self, logits):
            seen.append(logits)

    critic = mlp.Discriminator(channels=2, resolution=None, width=4, depth=1)
    adversary, x = Adversary(critic, loss, augment={"w": Watching()}, presentations={}), torch.randn(8, 2)
    adversary.discriminator_losses(adversary.judge(), x, -x)
    torch.testing.assert_close(seen[0], critic(x).logits.detach() - undecided)


@pytest.mark.parametrize("loss", [Wasserstein, RelativisticPairing])
@pytest.mark.parametrize("where", ["augment", "presentations"])
def test_refused_where_only_differences_of_logits_count(loss, where):
    critic = mlp.Discriminator(channels=2, resolution=None, width=4, depth=1)
    with pytest.raises(UserError, match=rf"x: p follows the sign .* but {loss.__name__} knows only their differences"):
        Adversary(critic, loss(), **{where: {"x": Adaptive()}})
    Adversary(critic, loss(), **{where: {"x": Adaptive(p=0.5)}})
    with pytest.raises(UserError, match=r"give augment\.ada\.p a number or a ramp"):
        build(composed("loss=wgan-gp", "augment=[ada]")[0])


def test_pseudo_augmentation_replaces_reals_by_fakes():
    torch.manual_seed(0)
    real, fake = torch.zeros(4000, 1, 2, 2), torch.ones(4000, 1, 2, 2, requires_grad=True)
    shown, same = PseudoAugmentation(p=0.3)(real, fake)
    assert same is fake and not shown.requires_grad
    assert torch.equal(shown.amax((1, 2, 3)), shown.amin((1, 2, 3)))  # whole images
    assert abs(shown.mean().item() - 0.3) < 0.03
    nothing, _ = PseudoAugmentation()(real, fake)
    assert torch.equal(nothing, real)
    points = PseudoAugmentation(p=1.0)(torch.zeros(4, 2), torch.ones(4, 2))[0]
    assert torch.equal(points, torch.ones(4, 2))


def test_the_module_tells_the_time_and_logs():
    module = fitted("augment=[ada]", "augment.ada.every=2", "augment.ada.target=-0.99", "augment.ada.over=100")
    assert module.recipe.adversary.augment["ada"].probability.item() == pytest.approx(4 * 2 / 100)  # batch 4, 2 steps
    assert module.terms["discriminator/ada_p"] == 0  # as it was in the last step
    assert -1 <= module.terms["discriminator/ada_sign"] <= 1


def test_nothing_observes_in_the_dry_run():
    parts = build(composed("augment=[ada]", "presentation=[apa]")[0])
    buffers = dict(parts.module.recipe.named_buffers())
    found = [value for name, value in buffers.items() if name.endswith(("signs", "level"))]
    assert len(found) == 4 and all(not value.any() for value in found)


RUN = [
    *TINY,
    "dataset.limit=100",
    "log_every=1",
    "sample_every=0",
    "evaluate.every=0",
    "checkpoint.every=6",
    "steps=14",
]
RUN += ["augment=[ada]", "augment.ada.start=0.8", "augment.ada.over=300", "augment.ada.cutout=1", "precision=32-true"]
RUN += ["presentation=[apa]", "presentation.apa.over=300", "presentation.apa.target=-0.9", "checkpoint.keep=null"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    where = tmp_path_factory.mktemp("ada")
    ganrun(*RUN, "run_dir=run", cwd=where)
    return where / "run"


def test_resume_between_two_changes_of_p_is_exact(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    ganrun("resume=run/checkpoints/step-000006.ckpt", cwd=tmp_path)
    assert_same_state(reference, tmp_path / "run")
    lines = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    ps = [line["discriminator/ada_p"] for line in lines if "discriminator/ada_p" in line]
    assert len(ps) == 14 and len(set(ps)) == 4 and len({*ps[:4]}) == len({*ps[4:8]}) == len({*ps[8:12]}) == 1
    assert [abs(b - a) for a, b in pairwise(ps[3:13])][::4] == pytest.approx([64 / 300] * 3)  # batch 16, every 4


def test_fine_tuning_starts_with_p_as_given(reference, tmp_path):
    words = [*RUN, f"init_from={reference}", "steps=1", "augment.ada.start=0.25", "run_dir=tuned"]
    ganrun(*words, cwd=tmp_path)
    assert state(tmp_path / "tuned")["state_dict"][LEVEL].item() == 75 != state(reference)["state_dict"][LEVEL].item()


def test_training_with_several_discriminator_moves_counts_them_all():
    module = run_steps("augment=[ada]", "augment.ada.every=100", "schedule.discriminator=3")
    assert module.recipe.adversary.augment["ada"].signs[1] == 2 * 3
