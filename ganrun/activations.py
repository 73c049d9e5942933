"""The memory of a move: what autograd keeps from a forward pass until the backward pass has used it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def kept_by_autograd(besides: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Within it, collects the bytes of each piece of memory that autograd keeps, by address; except `besides`.

    Keep the results computed within until the end: memory that is freed may be handed out and counted again.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
