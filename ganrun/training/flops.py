"""Counts the floating-point operations of whatever runs within."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(TorchDispatchMode):
    """total: of convolutions, products of matrices and attention, a multiplication with its addition as two.

    Forward and backward passes count alike, and so do the second derivatives of a penalty, which torch's own counter
    cannot see. Sums over elements, activations, normalisation and optimizers are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        self.total += formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        return out
