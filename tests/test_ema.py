"""The moving average: its values by hand, its buffers, and the swap with the live weights."""

import pytest
import torch
from torch import nn

from ganrun.ema import EMA
from ganrun.errors import UserError
from ganrun.networks.spectral import spectral_normalise


def constant(value: float) -> nn.Linear:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(value)
    return layer


def set_to(layer: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(value)


def values(layers) -> list[float]:
    return [x.item() for layer in layers for parameter in layer.parameters() for x in parameter.flatten()]


def test_by_hand():
    layer = constant(0.0)
    ema = EMA((layer,), decay=0.5, warmup=4)
    expected = 0.0
    for step, decay in enumerate([1 / 4, 2 / 5, 0.5, 0.5]):  # (1 + t) / (4 + t), at most 0.5
        set_to(layer, step + 1.0)
        ema.update(step, 16)
        expected = decay * expected + (1 - decay) * (step + 1)
        assert values(ema.average) == pytest.approx([expected] * 3)
    assert values([layer]) == [4.0] * 3


@pytest.mark.parametrize(
    ("warmup", "step", "average"), [(10, 0, 0.9), (1, 0, 0.001), (10, 90, 0.09), (10, 10**6, 0.001)]
)
def test_warmup(warmup, step, average):
    layer = constant(0.0)
    ema = EMA((layer,), decay=0.999, warmup=warmup)
    set_to(layer, 1.0)
    ema.update(step, 16)
    assert values(ema.average) == pytest.approx([average] * 3, rel=1e-3)


def test_several_networks_keep_their_own_average():
    layers = constant(0.0), constant(10.0)
    ema = EMA(layers, decay=0.5, warmup=1)
    set_to(layers[0], 1.0)
    set_to(layers[1], 20.0)
    ema.update(0, 16)
    assert values(ema.average) == [0.5] * 3 + [15.0] * 3


def test_buffers_are_copied():
    norm = nn.BatchNorm1d(2)
    ema = EMA((norm,), decay=0.999, warmup=1)
    norm(torch.tensor([[1.0, 2.0], [3.0, 8.0]]))
    ema.update(0, 16)
    (average,) = ema.average
    assert average.running_mean.tolist() == pytest.approx([0.2, 0.5])
    assert average.num_batches_tracked == 1
    norm(torch.ones(2, 2))
    assert average.num_batches_tracked == 1  # a copy, not the same tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_are_averaged_on_demand(dtype):
    norm = nn.BatchNorm1d(1)
    ema = EMA((norm,), decay=0.75, warmup=1, statistics="averaged").to(dtype)
    norm.to(dtype)  # to another type, as to another device, its buffers become other tensors
    norm(torch.tensor([[1.0], [3.0]], dtype=dtype))  # 0.9 of 0 and 1, 0.1 of 2 and 2
    ema.update(0, 16)
    (average,) = ema.average
    assert average.running_mean.item() == pytest.approx(0.25 * 0.2)
    assert average.running_var.item() == pytest.approx(0.75 * 1 + 0.25 * 1.1)
    assert average.num_batches_tracked == 1
    with pytest.raises(UserError, match=r"ema\.statistics=mean; valid: averaged, copied"):
        EMA((norm,), statistics="mean")


def test_averages_are_divided_by_their_own_singular_value():
    torch.manual_seed(0)
    network = nn.Linear(6, 4)
    spectral_normalise(network)
    ema = EMA((network,), decay=0.5, warmup=1)
    for step in range(2):  # other weights, whose singular vectors are others
        nn.init.normal_(network.parametrizations.weight.original)
        network(torch.ones(1, 6))
        ema.update(step, 16)
    network.eval()
    live = {key: value.clone() for key, value in network.state_dict().items()}
    seen = []
    for _ in range(2):  # the second time nothing changes, to the bit
        with ema.applied():
            assert torch.linalg.matrix_norm(network.weight, 2).item() == pytest.approx(1, abs=1e-3)
            seen.append({key: value.clone() for key, value in network.state_dict().items()})
            ema._settled = False
    torch.testing.assert_close(*seen, rtol=0, atol=0)
    torch.testing.assert_close(dict(network.state_dict()), live, rtol=0, atol=0)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_applied_swaps_and_restores(error):
    network = nn.Sequential(constant(1.0), nn.BatchNorm1d(1))
    ema = EMA((network,), decay=0.5, warmup=1)
    set_to(network, 3.0)
    network(torch.ones(2, 2))
    live = {key: value.clone() for key, value in network.state_dict().items()}
    average = {key: value.clone() for key, value in ema.average[0].state_dict().items()}
    pointers = [parameter.data_ptr() for parameter in network.parameters()]
    try:
        with ema.applied():
            torch.testing.assert_close(dict(network.state_dict()), average, rtol=0, atol=0)
            assert not torch.equal(average["0.weight"], live["0.weight"])
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert type(raised) is error
    torch.testing.assert_close(dict(network.state_dict()), live, rtol=0, atol=0)
    torch.testing.assert_close(dict(ema.average[0].state_dict()), average, rtol=0, atol=0)
    assert [parameter.data_ptr() for parameter in network.parameters()] == pointers  # optimizers still hold them


def test_update_needs_no_graph_and_leaves_gradients():
    layer = constant(1.0)
    ema = EMA((layer,))
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad.clone()
    ema.update(0, 16)
    assert torch.equal(layer.weight.grad, before)
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert all(parameter.requires_grad for parameter in layer.parameters())


def test_state_holds_the_averages_alone():
    ema = EMA((constant(1.0),))
    assert set(ema.state_dict()) == {"average.0.weight", "average.0.bias"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "decay=1.0; expected 0 <= decay < 1"),
        ({"decay": -0.1}, "decay=-0.1"),
        ({"warmup": 0}, "warmup=0; expected at least 1"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        EMA((constant(1.0),), **settings)
