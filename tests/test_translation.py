"""Translation, from the command line to the weights: pix2pix and CycleGAN beside loops written by hand."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import ganrun
from PIL import Image
from test_configs import composed
from test_golden import in_double
from test_runs import state
from torch.nn.functional import binary_cross_entropy_with_logits

import ganrun as package
from ganrun.adversary import Adversary
from ganrun.files.checkpoint import load_checkpoint
from ganrun.game import Verdict
from ganrun.losses import NonSaturating
from ganrun.presentations import ImagePool
from ganrun.seeding import derive, seed_default_generators
from ganrun.training.build import build

STEPS = 4
NETWORKS = ["generator.width=4", "discriminator.width=4", "discriminator.layers=1"]
SMALL = [*NETWORKS, "dataset.limit=24", f"steps={STEPS}"]
PIX2PIX = ["model=pix2pix", "pairs=edges", *NETWORKS]
CYCLEGAN = ["model=cyclegan", "pairs=invert", "generator.blocks=1", *NETWORKS]
RUN = ["dataset.limit=40", "batch_size=4", "num_samples=18", "log_every=4", "sample_every=8", "checkpoint.every=8"]
RUN += ["evaluate.every=8", "evaluate.num_samples=20", "collapse.every=4"]
MODELS = {"pix2pix": PIX2PIX, "cyclegan": CYCLEGAN}


def cross_entropy(logits, target):
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def adam(*networks):
    return torch.optim.Adam([p for net in networks for p in net.parameters()], lr=2e-4, betas=(0.5, 0.999))


def play_pix2pix(recipe, rounds):
    generator, critic = recipe.generator, recipe.adversary.discriminator
    generator_step, critic_step = adam(generator), adam(critic)
    for step, batch in enumerate(rounds):
        seed_default_generators(derive(0, "step", step, 0, 0))  # of the dropout
        source, real = batch["source"], batch["real"]
        fake = generator(source)
        critic_step.zero_grad()
        seen = critic(torch.cat([source, real], 1)[:, 1:], source), critic(fake.detach(), source)
        ((cross_entropy(seen[0].logits, 1.0) + cross_entropy(seen[1].logits, 0.0)) / 2).backward()
        critic_step.step()
        generator_step.zero_grad()
        (cross_entropy(critic(fake, source).logits, 1.0) + 100 * (fake - real).abs().mean()).backward()
        generator_step.step()


def play_cyclegan(recipe, rounds):
    a2b, b2a = recipe.a2b, recipe.b2a
    critic_a, critic_b = recipe.adversary_a.discriminator, recipe.adversary_b.discriminator
    generators, critics = adam(a2b, b2a), adam(critic_a, critic_b)
    for step, batch in enumerate(rounds):
        for optimizer in (generators, critics):
            optimizer.param_groups[0]["lr"] = 2e-4 * (1.0 if step <= STEPS / 2 else 2 - 2 * step / STEPS)
        a, b = batch["source"], batch["real"]
        fake_a, fake_b = b2a(b), a2b(a)
        fooled = (critic_a(fake_a).logits - 1).square().mean() + (critic_b(fake_b).logits - 1).square().mean()
        cycle = (b2a(fake_b) - a).abs().mean() + (a2b(fake_a) - b).abs().mean()
        identity = (b2a(a) - a).abs().mean() + (a2b(b) - b).abs().mean()
        generators.zero_grad()
        (fooled + 10 * cycle + 5 * identity).backward()
        generators.step()
        critics.zero_grad()
        for critic, real, fake in ((critic_a, a, fake_a), (critic_b, b, fake_b)):  # those from before the move
            (((critic(real).logits - 1).square().mean() + critic(fake.detach()).logits.square().mean()) / 2).backward()
        critics.step()


@pytest.mark.parametrize(("words", "loop"), [(PIX2PIX, play_pix2pix), (CYCLEGAN, play_cyclegan)])
def test_a_preset_equals_a_loop_written_by_hand(words, loop):
    parts = build(composed(*words, *SMALL, "batch_size=3", "dataset.resolution=16")[0])
    by_hand = copy.deepcopy(parts.module.recipe).double().train()
    before = copy.deepcopy(by_hand.state_dict())
    module, rounds = in_double(parts, steps=STEPS)
    loop(by_hand, rounds)
    for key, value in by_hand.state_dict().items():
        if key.split(".")[-1] in ("weight", "bias") and "presentations" not in key:
            assert not torch.equal(value, before[key]), f"{key} never moved"
        if "presentations" not in key:
            torch.testing.assert_close(module.recipe.state_dict()[key], value, rtol=0, atol=1e-10, msg=key)


def test_the_discriminator_sees_the_source_and_noise_falls_on_both():
    class Critic(torch.nn.Module):
        def forward(self, x, condition):
            seen.append((x, condition))
            return Verdict(x.mean((1, 2, 3)), x.flatten(1))

    seen = []
    adversary = Adversary(Critic(), NonSaturating(), augment={"shift": torch.nn.Flatten(0, 0)})
    adversary.augment["shift"].forward = lambda x: x + 1
    image, source = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    adversary.judge(source)(image)
    assert torch.equal(seen[0][0], image + 1) and torch.equal(seen[0][1], source + 1)
    label = torch.tensor([0, 1])
    adversary.judge(label)(image)
    assert torch.equal(seen[1][0], image + 1) and seen[1][1] is label


def shown_by(pool, numbers):
    """Fakes with these values go through; the values that are shown."""
    fake = torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    real = torch.zeros(1)
    kept, shown = pool(real, fake)
    assert kept is real and shown.shape == fake.shape
    return shown[:, 0, 0, 0].tolist()


def test_a_pool_shows_what_cyclegans_pool_shows():
    torch.manual_seed(0)
    pool, held, swapped = ImagePool(1, 2, size=4), [], 0
    assert shown_by(pool, [1, 2, 3]) == [1, 2, 3] and shown_by(pool, [4]) == [4]
    held = [1, 2, 3, 4]
    for number in range(5, 405):
        (shown,) = shown_by(pool, [number])
        if shown != number:  # an earlier one, whose place the new one has taken
            held[held.index(shown)] = number
            swapped += 1
        assert pool.images[:, 0, 0, 0].tolist() == held
    assert 160 <= swapped <= 240  # half of 400, four standard deviations
    again = ImagePool(1, 2, size=4)
    again.load_state_dict(pool.state_dict())
    torch.manual_seed(1)
    expected = shown_by(pool, [500, 501, 502])
    torch.manual_seed(1)
    assert shown_by(again, [500, 501, 502]) == expected


@pytest.fixture(scope="module", params=MODELS)
def finished(request, tmp_path_factory):
    """A run of 16 steps without a stop, and the words that made it."""
    words = [*MODELS[request.param], *RUN]
    path = tmp_path_factory.mktemp(request.param)
    ganrun(*words, "steps=16", "run_dir=run", cwd=path)
    return request.param, words, path


def test_a_resumed_run_ends_with_the_same_bits(finished, tmp_path):
    model, words, path = finished
    schedule = ["optimizer.decay_steps=16"]
    ganrun(*words, *schedule, "steps=8", "run_dir=half", cwd=tmp_path)
    ganrun("resume=half", "steps=16", cwd=tmp_path)
    one, other = (load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (path / "run", tmp_path / "half"))
    assert one["global_step"] == other["global_step"] == 16
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    pools = [key for key in one["state_dict"] if key.endswith("image-pool.num")]
    assert len(pools) == (2 if model == "cyclegan" else 0) and all(one["state_dict"][key].item() == 50 for key in pools)


def test_a_run_leaves_pictures_scores_and_a_translator(finished):
    model, _, path = finished
    run = path / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished" and result["scores"] and result["collapse"] == []
    with Image.open(run / "samples" / "final.png") as picture:
        assert picture.width > 100 and np.ptp(np.asarray(picture)) > 200
    translator = package.load_generator(run / "generator.safetensors")
    directions = ["a2b", "b2a"] if model == "cyclegan" else ["generator"]
    assert list(translator.channels) == directions and translator.trained["steps"] == 16
    source = torch.rand(3, 1, 32, 32) * 2 - 1
    weights = state(run)["state_dict"]
    for name in directions:
        out = translator.translate(source, name)
        assert out.shape == (3, 1, 32, 32) and out.abs().max() <= 1
        own = getattr(translator, name).state_dict()
        assert own and all(torch.equal(value, weights[f"recipe.{name}.{key}"]) for key, value in own.items())
    with pytest.raises(ValueError, match="takes images of shape"):
        translator.translate(torch.rand(1, 3, 32, 32))
