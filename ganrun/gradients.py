"""The mean of one player's gradients over all processes, taken while its backward pass goes on."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

BUCKET = 2**25  # bytes that travel together: enough to use the wire, few enough to start early


class GradientMean:
    """Averages the gradients of a player's parameters in buckets, from the last layer's to the first's.

    After `expect`, the next backward pass sends each bucket as soon as its gradients are there; `finish` waits for
    all of them. Only the gradients of the player that moves are sent, once a move, however many passes they are summed
    over. torch's DistributedDataParallel would send every player's gradients at every pass. All processes must agree
    on which parameters have a gradient.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.buckets = in_buckets(reversed(list(parameters)))
        self._missing: list[set[nn.Parameter]] = []  # for each bucket, the parameters without a gradient so far
        self._sent: list[tuple[list[Tensor], Tensor, distributed.Work]] = []
        for index, bucket in enumerate(self.buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda p, index=index: self._arrived(p, index))

    def expect(self) -> None:
        self._missing, self._sent = [set(bucket) for bucket in self.buckets], []

    def _arrived(self, parameter: nn.Parameter, index: int) -> None:
        if self._missing:
            self._missing[index].discard(parameter)
            while len(self._sent) < len(self.buckets) and not self._missing[len(self._sent)]:
                self._send()  # in order, so that all processes send the same buckets

    def _send(self) -> None:
        gradients = [p.grad for p in self.buckets[len(self._sent)] if p.grad is not None]
        flat = (
            torch.cat([gradient.flatten() for gradient in gradients]) if gradients else self.buckets[0][0].new_zeros(1)
        )
        self._sent.append((gradients, flat, distributed.all_reduce(flat, async_op=True)))

    def finish(self) -> None:
        while len(self._sent) < len(self.buckets):
            self._send()
        for gradients, flat, work in self._sent:
            work.wait()
            flat /= distributed.get_world_size()
            parts = flat.split([gradient.numel() for gradient in gradients]) if gradients else []
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        self._missing, self._sent = [], []


def in_buckets(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Buckets of a single dtype, and of at most BUCKET bytes unless one parameter is larger."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        nbytes = parameter.numel() * parameter.element_size()
        if not buckets or size + nbytes > BUCKET or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += nbytes
    return buckets
