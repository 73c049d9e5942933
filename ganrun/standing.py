"""Standing statistics: the mean and variance of batch norm, measured anew for the weights that a generator has now.

Brock et al. 2019, arXiv 1809.11096, appendix: the plain mean over many batches of noise, 16 in the code of BigGAN. The
running statistics of training are those of the last few steps, and of live weights where the weights are averages.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganrun.modules import in_eval
from ganrun.seeding import derive, seed_default_generators

BATCH = 64  # samples a pass, whatever the batch size of training or sampling
Given = TypeVar("Given")


def batch_norms(networks: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Their batch norm layers with running statistics, each once."""
    found = [m for network in networks for m in network.modules() if isinstance(m, _BatchNorm)]
    return [m for m in dict.fromkeys(found) if m.track_running_stats]


def said(passes: int, labels: str | None) -> str:
    """How statistics were measured, for a protocol. labels: where they came from; None = there were none."""
    return f"{passes} x {BATCH}" + (f", labels {labels}" if labels else "")


@torch.no_grad()
def measure(networks: Iterable[nn.Module], run: Callable[[Given], Any], batches: Iterable[Given]) -> None:
    """Sets the statistics of all batch norm layers to their plain mean over the batches that `run` sends through.

    Each pass is normalised by its own batch, as in training, and the variance is the unbiased one, as torch keeps it;
    everything else is in eval mode. Processes do not wait for each other, also where batch norm is synchronised.
    """
    networks = list(networks)
    sums = {layer: Sums(layer) for layer in batch_norms(networks)}
    hooks = [layer.register_forward_pre_hook(seen.see) for layer, seen in sums.items()]
    try:
        with in_eval(networks), torch.random.fork_rng(gpus_of(networks)):
            seed_default_generators(derive("standing"))  # for random draws inside networks
            for batch in batches:
                run(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for seen in sums.values():
            seen.keep()


class Sums:
    """The sums of one layer's statistics over its batches."""

    def __init__(self, layer: _BatchNorm):
        self.layer, self.num = layer, 0
        self.mean, self.var = torch.zeros_like(layer.running_mean), torch.zeros_like(layer.running_var)

    def see(self, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        """Adds a batch (batch, C, ...), and has the layer, which is in eval mode, normalise by it."""
        x = inputs[0].to(self.mean.dtype)
        var, mean = torch.var_mean(x, [dim for dim in range(x.dim()) if dim != 1], correction=0)
        values = x.numel() // x.shape[1]
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
        self.num += 1
        self.mean += mean
        self.var += var * (values / max(values - 1, 1))

    def keep(self) -> None:
        """Gives the layer the means over the batches."""
        if self.num:
            self.layer.running_mean.copy_(self.mean / self.num)
            self.layer.running_var.copy_(self.var / self.num)
            self.layer.num_batches_tracked.fill_(self.num)


def gpus_of(networks: Iterable[nn.Module]) -> list[torch.device]:
    return list({p.device for network in networks for p in network.parameters() if p.device.type == "cuda"})
