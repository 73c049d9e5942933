"""Gradients averaged over processes: what is sent, when, and what comes back. Two real processes each time."""

import multiprocessing
import os
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn

from ganrun import gradients
from ganrun.gradients import GradientMean, in_buckets

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_two_processes(act, tmp_path) -> list:
    """What `act(rank)` returns in each."""
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    ranks = [context.Process(target=_rank, args=(act, rank, tmp_path / "meet", found)) for rank in range(2)]
    for process in ranks:
        process.start()
    got = dict(found.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join()
    return [got[0], got[1]]


def _rank(act, rank, meet, found):
    torch.set_num_threads(1)
    where = f"file://{meet}"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=timedelta(seconds=30))
    try:
        found.put((rank, act(rank)))
    except Exception as error:
        found.put((rank, repr(error)))
    found.close()
    found.join_thread()
    distributed.barrier()
    os._exit(0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


def rows(rank: int) -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(1))[rank * 4 : rank * 4 + 4]


def expected() -> list[list[float]]:
    net = network()
    net(torch.cat([rows(0), rows(1)])).square().mean().backward()
    return [p.grad.flatten().tolist() for p in net.parameters()]


@pytest.mark.parametrize("bucket", [1, 100, 2**25], ids=["a bucket each", "some", "one bucket"])
def test_every_process_gets_the_mean(tmp_path, monkeypatch, bucket):
    monkeypatch.setattr(gradients, "BUCKET", bucket)

    def act(rank):
        net = network()
        mean = GradientMean(net.parameters())
        for _ in range(2):  # it can be used again and again
            net.zero_grad()
            mean.expect()
            net(rows(rank)).square().mean().backward()
            mean.finish()
        return [p.grad.flatten().tolist() for p in net.parameters()]

    for got in in_two_processes(act, tmp_path):
        for mine, theirs in zip(got, expected(), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-7)


def test_of_several_passes_only_the_sum_is_sent(tmp_path):
    def act(rank):
        net, sizes = network(), []
        mean, send = GradientMean(net.parameters()), distributed.all_reduce
        distributed.all_reduce = lambda flat, **kwargs: sizes.append(flat.numel()) or send(flat, **kwargs)
        for part in rows(rank).split(2):
            if len(sizes) == 0 and torch.equal(part, rows(rank)[2:]):
                mean.expect()
            (net(part).square().mean() / 2).backward()
        mean.finish()
        distributed.all_reduce = send
        return sizes, [p.grad.flatten().tolist() for p in net.parameters()]

    for sizes, got in in_two_processes(act, tmp_path):
        assert sizes == [sum(p.numel() for p in network().parameters())]
        for mine, theirs in zip(got, expected(), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-7)


def test_later_layers_travel_while_earlier_ones_are_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "BUCKET", 1)

    def act(rank):
        net, on_the_way = network(), []
        mean = GradientMean(net.parameters())
        hidden = net[0](rows(rank))
        hidden.register_hook(lambda _: on_the_way.append(len(mean._sent)))  # before the first layer's own gradients
        mean.expect()
        net[1:](hidden).square().mean().backward()
        mean.finish()
        return on_the_way

    assert in_two_processes(act, tmp_path) == [[4], [4]]  # weights and biases of the two later layers


def test_parameters_without_a_gradient_stay_without(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "BUCKET", 1)

    def act(rank):
        net, unused = network(), nn.Parameter(torch.ones(2))
        mean = GradientMean([*net[:3].parameters(), unused, *net[3:].parameters()])
        mean.expect()
        net(rows(rank)).square().mean().backward()
        mean.finish()
        return unused.grad, [p.grad.flatten().tolist() for p in net.parameters()]

    for unused, got in in_two_processes(act, tmp_path):
        assert unused is None
        for mine, theirs in zip(got, expected(), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-7)


def test_nothing_is_sent_unless_it_is_expected(tmp_path):
    def act(rank):
        net, sent, send = network(), [], distributed.all_reduce
        distributed.all_reduce = lambda *args, **kwargs: sent.append(args)
        GradientMean(net.parameters())
        net(rows(rank)).square().mean().backward()
        distributed.all_reduce = send
        return len(sent), [p.grad is not None for p in net.parameters()]

    assert in_two_processes(act, tmp_path) == [(0, [True] * 6)] * 2


def test_buckets_hold_one_type_and_no_more_than_they_may(monkeypatch):
    monkeypatch.setattr(gradients, "BUCKET", 16)
    sizes = [(2, torch.float32), (2, torch.float32), (1, torch.float32), (9, torch.float32), (1, torch.float64)]
    parameters = [nn.Parameter(torch.zeros(num, dtype=dtype)) for num, dtype in sizes]
    assert [[p.numel() for p in bucket] for bucket in in_buckets(parameters)] == [[2, 2], [1], [9], [1]]
