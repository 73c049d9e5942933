"""Translation, from the command line to the weights: pix2pix and CycleGAN beside loops written by hand."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import ganrun
from forked import Run
from PIL import Image
from test_configs import composed
from test_golden import in_double
from test_processes import both_to_the_end, distance, state
from torch.nn.functional import binary_cross_entropy_with_logits

import ganrun as package
from ganrun.adversary import Adversary
from ganrun.files.checkpoint import load_checkpoint
from ganrun.game import Verdict
from ganrun.losses import NonSaturating
from ganrun.pictures import to_uint8
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
    weights = same_weights(path / "run", tmp_path / "half")
    pools = [key for key in weights if key.endswith("image-pool.num")]
    assert len(pools) == (2 if model == "cyclegan" else 0) and all(weights[key].item() == 50 for key in pools)


def test_a_run_leaves_pictures_scores_and_a_translator(finished):
    model, _, path = finished
    run = path / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished" and result["scores"] and result["collapse"] == []
    assert (run / "best.safetensors").exists()
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


def same_weights(one, other):
    one, other = (load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, other))
    assert one["global_step"] == other["global_step"] and one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    return one["state_dict"]


def test_a_killed_run_ends_with_the_same_bits(finished, tmp_path):
    _, words, path = finished
    going = Run(*words, "steps=16", "run_dir=run", cwd=tmp_path)
    going.wait_for(tmp_path / "run" / "checkpoints" / "step-000008.ckpt")
    going.kill()
    assert going.wait() in (0, 137)  # 0: it was faster
    ganrun("resume=run/checkpoints/step-000008.ckpt", cwd=tmp_path)
    same_weights(path / "run", tmp_path / "run")


def test_an_export_is_what_the_module_shows(finished):
    model, words, path = finished
    parts = build(composed(*words, "steps=16")[0])
    parts.module.load_state_dict(load_checkpoint(path / "run" / "checkpoints" / "last.ckpt")["state_dict"])
    translator = package.load_generator(path / "run" / "generator.safetensors")
    batch = parts.datamodule.reals(6)
    (shown,) = parts.module.look(6, "any", [batch])
    outputs = {"a2b": "fake_b", "b2a": "fake_a"} if model == "cyclegan" else {"generator": "fake"}
    for direction, output in outputs.items():
        made = translator.translate(batch[translator.between[direction][0]], direction)
        torch.testing.assert_close(made, shown[output], rtol=0, atol=1e-6)


def test_scores_are_those_computed_by_hand(finished, tmp_path):
    """Of the translated sources, and of the sources themselves, which they must beat."""
    model, _, path = finished
    words = ["from=run/generator.safetensors", "dataset=digits", "dataset.limit=40", "pairs=invert", "metric=[psnr,l1]"]
    ganrun("evaluate", *words, f"out={tmp_path / 'scores.json'}", cwd=path)
    real = build(composed(*MODELS[model], "dataset.limit=40")[0]).data.read(torch.arange(40))["real"]
    source = 255 - real
    translator = package.load_generator(path / "run" / "generator.safetensors")
    fake = to_uint8(translator.translate(source / 127.5 - 1))
    found = {score["metric"]: score for score in json.loads((tmp_path / "scores.json").read_text())}
    for name, images in (("mean", fake), ("floor", source)):
        error = (images.double() - real.double()).flatten(1)
        psnr = 10 * torch.log10(255**2 / error.square().mean(1)).mean().item()
        assert found["psnr"][name] == pytest.approx(psnr, rel=1e-9)
        assert found["l1"][name] == pytest.approx(error.abs().mean().item() / 255, rel=1e-9)
    assert found["psnr"]["protocol"]["num_fake"] == 40 and found["psnr"]["protocol"]["ema"] is False


def test_any_saved_step_translates_and_sample_says_how(finished, tmp_path):
    _, _, path = finished
    (tmp_path / "images").mkdir()
    Image.effect_noise((30, 17), 60).save(tmp_path / "images" / "a.png")
    going = tmp_path / "going"  # a run that has written no generator yet
    going.mkdir()
    for name in (".hydra", "checkpoints", "metrics.jsonl"):
        (going / name).symlink_to(path / "run" / name)
    for i, where in enumerate([path / "run", path / "run" / "checkpoints" / "last.ckpt", going]):
        ganrun("translate", f"from={where}", "input=images", f"out=made{i}", cwd=tmp_path)
    one, *others = ((tmp_path / f"made{i}" / "a.png").read_bytes() for i in range(3))
    assert others == [one, one]
    with Image.open(tmp_path / "made0" / "a.png") as image:
        assert image.size == (30, 17) and image.mode == "L"
    for words in ([], ["neighbours=2"], ["interpolate=2"]):
        refused = ganrun("sample", f"from={path / 'run'}", *words, cwd=tmp_path, check=2)
        assert refused.stderr.count("\n") == 1 and "turns images into images; use ganrun translate" in refused.stderr


NO_NORM = ["generator.norm=none", "discriminator.norm=none"]  # Adam makes steps of the rounding in biases before one
PLAIN = {  # nothing looks at a whole batch or draws
    "pix2pix": [*PIX2PIX, *NO_NORM, "generator.dropout=0"],
    "cyclegan": [*CYCLEGAN, *NO_NORM, "presentation=[]", "schedule.reuse_stale=false"],
}
FEW = ["dataset.limit=24", "steps=4", "precision=32-true", "batch_size=4", "num_samples=4", "metric=[]"]


@pytest.fixture(scope="module", params=PLAIN)
def plain(request, tmp_path_factory):
    """A run of 4 steps in one process and one pass a batch, and its words."""
    path, words = tmp_path_factory.mktemp("plain"), [*PLAIN[request.param], *FEW]
    ganrun(*words, "run_dir=run", cwd=path)
    return path / "run", words


def test_two_processes_and_several_passes_equal_one(plain, tmp_path):
    one, words = plain
    ganrun(*words, "micro_batch=2", "run_dir=passes", cwd=tmp_path)
    both_to_the_end(*words, "run_dir=two", cwd=tmp_path)
    start = build(composed(*words)[0]).module.state_dict()
    moved = max((value - start[key]).abs().max().item() for key, value in state(one)["state_dict"].items())
    assert moved > 1e-4
    assert distance(one, tmp_path / "passes") < 2e-6 and distance(one, tmp_path / "two") < 2e-6


def test_two_processes_resume_with_a_pool_of_each(tmp_path):
    words = [*CYCLEGAN, *FEW, "presentation.image-pool.size=4"]
    both_to_the_end(*words, "run_dir=whole", cwd=tmp_path)
    both_to_the_end(*words, "steps=2", "optimizer.decay_steps=4", "run_dir=parts", cwd=tmp_path)
    both_to_the_end("resume=parts", "steps=4", cwd=tmp_path)
    assert distance(tmp_path / "whole", tmp_path / "parts") == 0
    whole, parts = (state(tmp_path / run)["per_rank"] for run in ("whole", "parts"))
    pool = "recipe.adversary_a.presentations.image-pool.images"
    assert not torch.equal(whole[0][pool], whole[1][pool]) and whole[1][pool].abs().sum() > 0
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("model", MODELS)
def test_a_sweep_in_bf16_with_averages(model, tmp_path):
    words = [*MODELS[model], *FEW, "ema=average", "metric=[sliced-wasserstein]", "evaluate.num_samples=8"]
    words[words.index("precision=32-true")] = "precision=bf16-mixed"
    ganrun("-m", *words, "seed=1,2", "run_dir=sweep", cwd=tmp_path)
    assert (tmp_path / "sweep" / "results.csv").read_text().count("finished") == 2
    ranked = ganrun("rank", "of=sweep", "by=sliced-wasserstein", cwd=tmp_path)
    assert "sweep/seed=1" in ranked.stdout and "sweep/seed=2" in ranked.stdout
    weights = state(tmp_path / "sweep" / "seed=1")["state_dict"]
    assert all(value.isfinite().all() and value.dtype != torch.bfloat16 for value in weights.values())
    translator = package.load_generator(tmp_path / "sweep" / "seed=1" / "generator.safetensors")
    for i, direction in enumerate(translator.channels):
        for key, value in getattr(translator, direction).state_dict().items():
            assert torch.equal(value, weights[f"ema.average.{i}.{key}"]), key
            if value.dim() == 4:
                assert not torch.equal(value, weights[f"recipe.{direction}.{key}"]), key


def test_a_collapse_rolls_back_with_the_pool(tmp_path):
    """Far too large a step makes all fakes alike; the run goes back to its best state, and ends at the second time."""
    words = [*CYCLEGAN, *RUN, "optimizer.lr=10", "collapse.patience=1", "on_collapse=rollback", "collapse.rollbacks=1"]
    words = [*words, "evaluate.every=4", "checkpoint.every=4", "steps=40", "run_dir=run"]
    ganrun(*words, cwd=tmp_path, check=4)
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("back at step 4 of 40") == 1 and "(1 of 1)" in log
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "collapsed" and len(result["collapse"]) == 2
    kept = state(tmp_path / "run")["state_dict"]["recipe.adversary_a.presentations.image-pool.num"].item()
    assert 4 * 4 < kept <= 50


REFUSED = {
    "pix2pix": {
        "conditional=label": "conditional=label: nothing in this experiment takes labels",
        "noise=normal noise.z_dim=4": "noise: Pix2Pix starts from images and takes none; expected noise=none",
        "term=[cycle]": "term.cycle: it needs two generators a2b and b2a, as in model=cyclegan",
        "term=[identity]": "term.identity: it needs two generators",
        "pairs=classes": "dataset digits has no pairs, which Pix2Pix learns from; try model=cyclegan",
        "pairs=none": "recipe: Pix2Pix takes source, which dataset digits has not",
        "dataset=ring": "pairs=edges: dataset ring has points; expected images",
        "dataset.resolution=12": "generator.resolution=12x12: unet cannot halve both sides",
    },
    "cyclegan": {
        "term=[l1]": "term.l1: outputs of CycleGAN have no true counterparts; leave l1 out",
        "term=[feature-matching]": "term.feature-matching: it needs one discriminator; this recipe has a, b",
        "pairs=colorize dataset.channels=3": "recipe: a2b and b2a are networks of one config and need the same number",
        "presentation.image-pool.size=0": "presentation.image-pool.size=0; expected at least 1",
        "micro_batch=1 batch_size=2 schedule.reuse_stale=true": "schedule.reuse_stale=true does not act with micro_b",
        "init_from={pix2pix}": "init_from={pix2pix}: its networks are of another kind than those here",
    },
}


@pytest.mark.parametrize(("model", "words"), [(model, words) for model in REFUSED for words in REFUSED[model]])
def test_refused_in_one_line(model, words, tmp_path, request):
    told, given = REFUSED[model][words], words
    if "{" in words:
        one = request.getfixturevalue("pix2pix_run")
        told, given = (text.format(pix2pix=one) for text in (told, words))
    refused = ganrun(
        *MODELS[model], "dataset.limit=40", "steps=1", *given.split(), "run_dir=run", cwd=tmp_path, check=2
    )
    assert refused.stderr.startswith(f"ganrun: {told}") and refused.stderr.count("\n") == 1, refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pix2pix_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("other")
    ganrun(*PIX2PIX, *FEW, "steps=1", "run_dir=run", cwd=path)
    return path / "run"


def test_weights_fit_another_resolution(pix2pix_run, tmp_path):
    """A U-Net for 32 pixels is one level deeper: what is new is named."""
    told = ganrun(
        *PIX2PIX, *FEW, "steps=1", f"init_from={pix2pix_run}", "dataset.resolution=32", "run_dir=run", cwd=tmp_path
    )
    text = told.stdout + told.stderr
    assert "tensors are copied" in text and "new here: generator." in text, text
