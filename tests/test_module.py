"""The game as it is played: who moves, what is shared, what is read to the host."""

from collections import Counter

import pytest
import torch
from test_configs import SMALL, composed
from torch.utils._python_dispatch import TorchDispatchMode

from ganrun.files.run_dir import RunDir
from ganrun.signals import Signals
from ganrun.training.build import build
from ganrun.training.fit import Fit, make_trainer


def fitted(*overrides, probe=None):
    parts = build(composed(*SMALL, *overrides)[0])
    if probe:
        probe(parts.module)
    trainer = make_trainer(parts.cfg, logger=False, callbacks=[])
    trainer.fit(parts.module, datamodule=parts.datamodule)
    return parts.module


@pytest.mark.parametrize("schedule", ["alternate", "generator-first"])
@pytest.mark.parametrize("loss", ["non-saturating", "wgan-gp", "relativistic-average"])
def test_one_move_changes_only_its_players_parameters(schedule, loss):
    moves = []

    def probe(module):
        play = module._move

        def watched(index, *args):
            before = {name: p.detach().clone() for name, p in module.recipe.named_parameters()}
            play(index, *args)
            changed = {name for name, p in module.recipe.named_parameters() if not torch.equal(before[name], p)}
            moves.append((module.moves[index].player, changed))
            assert all(p.requires_grad for p in module.recipe.parameters()), "a frozen parameter was not restored"

        module._move = watched

    fitted(f"schedule={schedule}", f"loss={loss}", probe=probe)
    for player, changed in moves:
        prefix = "generator." if player == "generator" else "adversary.discriminator."
        assert changed and all(name.startswith(prefix) for name in changed), (player, changed)
    critics = 5 if loss == "wgan-gp" else 1
    expected = ["discriminator"] * critics + ["generator"]
    if schedule == "generator-first":
        expected = expected[-1:] + expected[:-1]
    assert [player for player, _ in moves] == 2 * expected


PASSES = {"non-saturating": (1, 3), "relativistic-pairing": (1, 4), "wgan-gp": (5, 16)}


@pytest.mark.parametrize("loss", PASSES)
def test_passes_a_round(loss):
    counts = {"generator": 0, "discriminator": 0}

    def probe(module):
        networks = {"generator": module.recipe.generator, "discriminator": module.recipe.adversary.discriminator}
        for name, network in networks.items():
            forward = network.forward

            def counted(*args, forward=forward, name=name):
                counts[name] += 1
                return forward(*args)

            network.forward = counted

    fitted(f"loss={loss}", probe=probe)
    assert (counts["generator"] / 2, counts["discriminator"] / 2) == PASSES[loss]


ADAPTIVE = ["loss=hinge", "penalty=[r1]", "augment=[ada,diffaugment]", "augment.ada.filter=1", "presentation=[apa]"]


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a number, wherever in training it happens, by step."""

    def __init__(self):
        super().__init__()
        self.steps, self.now = Counter(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            self.steps[self.now] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [[], ["micro_batch=2"], ["precision=bf16-mixed"], ADAPTIVE], ids=str)
def test_nothing_is_read_to_the_host_off_logging_steps(settings, tmp_path, monkeypatch):
    game = ["loss=wgan-gp", "term=[feature-matching]", "augment=[instance-noise]"]
    unread([*game, *settings], tmp_path, monkeypatch)


def unread(settings, tmp_path, monkeypatch):
    """Asserts that of eight steps only those that log, every fourth, wait for a number."""
    log = ["steps=8", "log_every=4", f"run_dir={tmp_path}", "metric=[]"]
    parts = build(composed(*SMALL, *settings, *log)[0])
    reads, play = Reads(), parts.module.training_step

    def step(*args):
        reads.now = parts.module.global_step + 1
        return play(*args)

    parts.module.training_step = step
    RunDir(tmp_path).make()
    to_list = torch.Tensor.tolist  # which the dispatcher does not see
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: (reads.steps.update([reads.now]), to_list(x))[1])
    with reads, Signals() as signals:
        fit = Fit(parts, RunDir(tmp_path), None, signals)
        reads.steps.clear()
        fit.run_to_end()
    assert set(range(1, 9)) & set(reads.steps) == {4, 8}, reads.steps


def test_lazy_penalty_acts_in_its_steps_and_is_logged_between():
    seen = []

    def probe(module):
        play = module.training_step

        def watched(*args):
            module.terms.clear()
            play(*args)
            seen.append("discriminator/r1" in module.terms)

        module.training_step = watched

    fitted("penalty=[r1]", "penalty.r1.every=3", "critic.norm=none", "steps=2", probe=probe)
    assert seen == [True, False]


def test_same_seed_same_weights_and_another_seed_others():
    states = [fitted("augment=[instance-noise]", f"seed={seed}").state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not torch.equal(states[0]["recipe.generator.stem.0.weight"], states[2]["recipe.generator.stem.0.weight"])


def test_ema_follows_the_generator_and_show_uses_it():
    module = fitted("ema.decay=0.5", "ema.warmup=1")
    z = {"z": torch.randn(2, 100)}
    shown = module.show(z)["fake"]
    average = module.ema.average[0].eval()
    assert torch.equal(shown, average(z["z"]))
    assert module.recipe.training and not torch.equal(shown, module.recipe.generator.eval()(z["z"]))


def test_bfloat16_keeps_losses_in_float32():
    module = fitted("precision=bf16-mixed")
    assert {value.dtype for value in module.terms.values()} == {torch.float32}


@pytest.mark.parametrize("loss", ["non-saturating", "wgan-gp"])
def test_bfloat16_moves_see_the_weights_that_the_last_move_left(loss):
    """Autocast may keep its casts of weights until its context ends, which is the round's end."""

    def within(cache):
        def probe(module):
            play = module.training_step

            def step(batch, batch_idx):
                with torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
                    play(batch, batch_idx)

            module.training_step = step

        return fitted("precision=bf16-mixed", f"loss={loss}", probe=probe).state_dict()

    kept, right = within(True), within(False)
    assert all(torch.equal(kept[name], right[name]) for name in kept)


NO_NORM = ["generator.norm=none", "discriminator.norm=none", "precision=32-true", "batch_size=8", "steps=6"]


@pytest.mark.parametrize("case", [["loss=non-saturating"], ["loss=hinge", "penalty=[r1,r2]"], ["loss=lsgan"]], ids=str)
def test_micro_batches_add_up_to_the_batch(case):
    whole, parts = (fitted(*case, *NO_NORM, f"micro_batch={rows}") for rows in ("null", 2))
    assert [m.generate for m in parts.moves] == [True] * len(parts.moves)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, parts.state_dict()[name], rtol=0, atol=2e-6), name
    for name, value in whole.terms.items():
        assert float(parts.terms[name]) == pytest.approx(float(value), abs=1e-5), name


def test_micro_batches_hold_the_graph_of_one_part_only():
    seen = []

    def probe(module):
        for network in (module.recipe.generator, module.recipe.adversary.discriminator):
            network.register_forward_hook(
                lambda net, x, _: seen.append((type(net).__name__, len(x[0]), grad_needed(net)))
            )

    def grad_needed(network):
        return torch.is_grad_enabled() and any(p.requires_grad for p in network.parameters())

    fitted("micro_batch=2", "steps=1", probe=probe)
    critic = [("Generator", 2, False), ("Discriminator", 2, True), ("Discriminator", 2, True)]
    assert seen[-10:] == critic * 2 + [("Generator", 2, True), ("Discriminator", 2, False)] * 2
