"""Questions about modules, and modes that they are in for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from ganrun.game import PerRank, Recipe


@contextmanager
def eager(network: nn.Module) -> Iterator[None]:
    """Within it a network runs uncompiled: other batch sizes would trigger a new compilation."""
    compiled = [(module, module._compiled_call_impl) for module in network.modules() if module._compiled_call_impl]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call


def untrained(module: nn.Module, trained: set[int], path: str = "") -> dict[str, nn.Module]:
    """The largest parts of a module with no trained parameter, by path. trained: ids of parameters.

    A ModuleDict, such as a recipe's terms, counts by its parts: one of them may have a state of its own.
    """
    parameters = [id(p) for p in module.parameters()]
    if parameters and path and trained.isdisjoint(parameters) and not isinstance(module, nn.ModuleDict):
        return {path: module}
    parts = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()} if parameters else {}
    return {where: found for name, child in parts.items() for where, found in untrained(child, trained, name).items()}


def per_rank_buffers(recipe: Recipe) -> list[str]:
    """Names of the buffers that differ between processes."""
    modules = [(path, module) for path, module in recipe.named_modules() if isinstance(module, PerRank)]
    return [f"{path}.{name}" if path else name for path, module in modules for name, _ in module.named_buffers()]


@contextmanager
def in_eval(networks: Iterable[nn.Module]) -> Iterator[None]:
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
