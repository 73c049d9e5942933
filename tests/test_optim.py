"""A player's optimizer: learning-rate courses, gradient clipping and weight clipping by hand."""

import math

import pytest
import torch
from torch import nn

from ganrun.errors import UserError
from ganrun.game import Now
from ganrun.optim import PlayerOptimizer


def make(*values: float, optimizer: str = "torch.optim.SGD", lr: float = 0.1, **settings):
    """A PlayerOptimizer over one scalar parameter a value."""
    parameters = [nn.Parameter(torch.tensor([value])) for value in values]
    return PlayerOptimizer(parameters, optimizer=optimizer, lr=lr, **settings), parameters


def step(player: PlayerOptimizer, parameters, gradients, at: int = 0) -> list[float]:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor([gradient])
    player.before_step(Now(at, 0, 16 * at))
    player.optimizer.step()
    player.after_step()
    return [parameter.item() for parameter in parameters]


@pytest.mark.parametrize(
    ("lr_schedule", "expected"),
    [
        ("constant", [0.1, 0.1, 0.1, 0.1, 0.1]),
        ("linear", [0.1, 0.075, 0.05, 0.0, 0.0]),
        ("cosine", [0.1, 0.1 * (2 + math.sqrt(2)) / 4, 0.05, 0.0, 0.0]),
        ("constant-then-linear", [0.1, 0.1, 0.1, 0.0, 0.0]),
    ],
)
def test_lr_course(lr_schedule, expected):
    player, _ = make(0.0, lr_schedule=lr_schedule, decay_steps=20)
    assert [player.lr_at(Now(at, 0, 0)) for at in (0, 5, 10, 20, 30)] == pytest.approx(expected, abs=1e-12)


def test_lr_of_the_step_is_what_acts():
    player, parameters = make(1.0, lr_schedule="linear", decay_steps=10)
    assert step(player, parameters, [2.0], at=5) == pytest.approx([1 - 0.05 * 2])
    assert step(player, parameters, [2.0], at=0) == pytest.approx([0.9 - 0.1 * 2])  # of the step alone, in any order
    assert step(player, parameters, [2.0], at=10) == pytest.approx([0.7])


def test_clip_weights_projects_after_the_step():
    player, parameters = make(0.0, 0.0, 0.005, -5.0, clip_weights=0.01)
    player.before_step(Now(0, 0, 0))
    assert parameters[3].item() == -5
    assert step(player, parameters, [-1.0, 1.0, 0.01, 0.0]) == pytest.approx([0.01, -0.01, 0.004, -0.01])


def test_clip_gradients_bounds_the_norm_over_all_parameters():
    player, parameters = make(0.0, 0.0, lr=1.0, clip_gradients=2.0)
    assert step(player, parameters, [3.0, 4.0]) == pytest.approx([-1.2, -1.6], abs=1e-5)
    player, parameters = make(0.0, 0.0, lr=1.0, clip_gradients=5.1)
    assert step(player, parameters, [3.0, 4.0]) == [-3, -4]


def test_off_by_default():
    player, parameters = make(50.0, lr=1.0)
    assert step(player, parameters, [-1000.0]) == [1050]


def test_settings_reach_the_optimizer():
    player, _ = make(0.0, optimizer="torch.optim.Adam", lr=1e-4, betas=(0.0, 0.9))
    (group,) = player.optimizer.param_groups
    assert type(player.optimizer) is torch.optim.Adam
    assert (group["lr"], group["betas"]) == (1e-4, (0.0, 0.9))


def test_takes_an_iterator_of_parameters():
    layer = nn.Linear(2, 1)
    nn.init.ones_(layer.weight)
    player = PlayerOptimizer(layer.parameters(), optimizer="torch.optim.SGD", lr=0.1, clip_weights=0.5)
    player.after_step()
    assert layer.weight.tolist() == [[0.5, 0.5]]
    assert len(player.optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_schedule": "linaer"}, "lr_schedule=linaer; did you mean linear .* valid: linear, cosine, constant"),
        ({"lr": 0.0}, "lr=0.0; expected more than 0$"),
        ({"lr": -1.0}, "lr=-1.0; expected more than 0$"),
        ({"clip_weights": 0.0}, r"clip_weights=0.0; expected more than 0 \(null = off\)"),
        ({"clip_gradients": -1.0}, r"clip_gradients=-1.0; expected more than 0 \(null = off\)"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(UserError, match=message):
        make(0.0, **settings)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("Adam", "fused"), ("AdamW", "fused"), ("SGD", "fused"), ("RMSprop", "foreach"), ("LBFGS", None)],
)
def test_all_parameters_move_in_one_go_by_the_same_formula(name, setting):
    quick, quicks = make(1.0, -2.0, 0.5, optimizer=f"torch.optim.{name}", lr=0.01)
    group = quick.optimizer.param_groups[0]
    assert [key for key in ("fused", "foreach") if group.get(key)] == ([setting] if setting else [])
    if setting is None:
        return
    slow = [nn.Parameter(p.detach().clone()) for p in quicks]
    plain = getattr(torch.optim, name)(slow, lr=0.01, foreach=False)
    for gradients in ([1.0, -3.0, 0.2], [0.5, 4.0, -1.0]):
        for p, gradient in zip(slow, gradients, strict=True):
            p.grad = torch.tensor([gradient])
        plain.step()
        assert step(quick, quicks, gradients) == pytest.approx([p.item() for p in slow], rel=1e-6)


@pytest.mark.parametrize("own", ["foreach", "differentiable", "fused"])
def test_a_setting_of_the_users_own_wins(own):
    player, _ = make(1.0, optimizer="torch.optim.Adam", **{own: True})
    group = player.optimizer.param_groups[0]
    assert {key for key in ("foreach", "differentiable", "fused") if group[key]} == {own}
