"""What autograd keeps, counted by hand."""

import torch
from test_configs import SMALL, composed
from torch import nn

from ganrun.activations import kept_by_autograd
from ganrun.training.build import build


def test_by_hand():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    x = torch.randn(7, 3)
    with kept_by_autograd(net.parameters()) as kept:
        loss = net(x).square().sum()
    # the input, ReLU's output, which the second layer needs too, and the logits that are squared
    assert sum(kept.values()) == 4 * 7 * (3 + 5 + 1) and loss.requires_grad
    with kept_by_autograd([*net.parameters(), x]) as kept:
        loss = net(x).square().sum()
    assert sum(kept.values()) == 4 * 7 * (5 + 1)


def test_nothing_is_kept_without_a_graph():
    net = nn.Linear(3, 5)
    with kept_by_autograd([]) as kept, torch.no_grad():
        net(torch.randn(7, 3))
    assert not kept


def test_of_a_game_it_grows_with_networks_and_penalties():
    def bytes_of(*overrides):
        return build(composed(*SMALL, *overrides)[0]).activation_bytes

    plain = bytes_of()
    assert 0 < bytes_of("generator.width=2", "discriminator.width=2") < plain < bytes_of("penalty=[r1]")
    assert bytes_of("micro_batch=2") < plain  # the generator's graph does not live through the discriminator's move
