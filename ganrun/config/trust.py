"""Which classes a file may name. Anybody may have written the file, and importing or calling a name runs code."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from ganrun.errors import UserError, first_line

OPTIMIZERS = "torch.optim"
DATASETS = "torchvision.datasets"
GENERATOR_ROOMS = ("ganrun.networks", "ganrun.noise")  # what a generator.yaml may name
RUN_ROOMS = (  # what a run's config may name; constructing it writes nothing, except torchvision's downloads
    *GENERATOR_ROOMS, "ganrun.adversary", "ganrun.augment", "ganrun.callbacks.posthoc_ema", "ganrun.callbacks.rates",
    "ganrun.conditioning", "ganrun.data", "ganrun.ema", "ganrun.latents", "ganrun.loggers", "ganrun.losses",
    "ganrun.metrics", "ganrun.optim", "ganrun.path_length", "ganrun.penalties", "ganrun.power_ema",
    "ganrun.presentations", "ganrun.ramps", "ganrun.recipes", "ganrun.reconstruction", "ganrun.regularisers",
    "ganrun.terms",
    "pytorch_lightning.callbacks.rich_model_summary", OPTIMIZERS,
)  # fmt: skip
LONGEST = 200  # characters of a dotted name; real names are shorter, and Python's importer recurses over the parts


def trusted_class(name: Any, packages: Iterable[str], *, key: str = "_target_") -> type:
    """The class of this dotted name, if it is defined in one of the packages.

    Both the module in `name` and the module that defines the class must be in a package, since a module's attributes
    include everything that it imports, such as `os`. Nothing outside the packages is imported to find out.
    key: where the name was found, for the message. Raises UserError.
    """
    packages = package_names(packages)
    module, _, attribute = name.rpartition(".") if is_dotted(name) else ("", "", "")
    if not lies_in(module, packages):
        raise _refusal(key, name, packages)
    try:
        found = getattr(import_module(module), attribute, None)
    except Exception as error:  # a module may raise anything while it is imported
        reason = first_line(error)
        raise UserError(f"{key} names {shown(name)}, which cannot be imported: {shown(reason)}") from error
    if not isinstance(found, type) or not lies_in(found.__module__, packages):
        raise _refusal(key, name, packages)
    if lies_in(found.__module__, (OPTIMIZERS,)) and not issubclass(found, import_module(OPTIMIZERS).Optimizer):
        raise UserError(f"{key} names {shown(name)}; of {OPTIMIZERS} only optimizers are trusted")
    return found


def check_trusted(config: Any, trust: Iterable[str] = ()) -> None:
    """Checks everything that a saved config makes ganrun import, and that it holds final values, before it is resolved.

    config: the unresolved plain containers of a run's config. trust: further packages whose classes it may name.
    Raises UserError for the first thing that is not trusted.
    """
    added = package_names(trust)
    if not isinstance(config, dict):
        raise UserError(f"the run's config is {shown(config)}; expected keys with values")
    for path, node in _walk(config, ""):
        if isinstance(node, dict) and "_target_" in node:
            _check_node(node, path, added)
        elif isinstance(node, str) and "${" in node:
            raise UserError(f"{path}={shown(node)}: a run's config holds final values, nothing to resolve")


def packages_of(config: Any) -> list[str]:
    """The packages, other than ganrun, of the classes that a config names."""
    names = [node["_target_"] for _, node in _walk(config, "") if isinstance(node, dict) and "_target_" in node]
    return sorted({name.partition(".")[0] for name in names if is_dotted(name)} - {"ganrun"})


def package_names(trust: Any) -> tuple[str, ...]:
    """One package name or several, as a tuple. Raises UserError for values that cannot be package names."""
    names = [trust] if isinstance(trust, str) else list(trust) if isinstance(trust, Iterable) else [trust]
    for name in names:
        if not is_dotted(name):
            raise UserError(f"trust={shown(name)}; expected names of Python packages, such as trust=[my_package]")
    return tuple(names)


def is_dotted(name: Any) -> bool:
    """Can the name be imported: identifiers joined by dots, none of them empty?"""
    return isinstance(name, str) and len(name) <= LONGEST and all(part.isidentifier() for part in name.split("."))


def lies_in(module: str, packages: Iterable[str]) -> bool:
    """Is the module one of the packages or below one? ganrun_more is not below ganrun."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def shown(value: Any) -> str:
    """A value from a file, in a form fit for one line on a terminal."""
    try:
        text = str(value)
    except ValueError:  # an integer with more digits than Python prints
        text = type(value).__name__
    return (text if text and text.isprintable() else ascii(text))[:LONGEST]


def _refusal(key: str, name: Any, packages: Iterable[str]) -> UserError:
    return UserError(
        f"{key} names {shown(name)}; trusted are only classes defined in {', '.join(packages)}: "
        "pass trust=[package] to add one"
    )


def _check_node(node: dict, path: str, added: tuple[str, ...]) -> None:
    """Checks a node with `_target_`: its class, and the argument by which the class imports another, if it has one."""
    found = trusted_class(node["_target_"], (*RUN_ROOMS, *added), key=f"{path}._target_".lstrip("."))
    classes = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}  # by name: no further imports
    if "ganrun.optim.PlayerOptimizer" in classes and "optimizer" in node:
        trusted_class(node["optimizer"], (OPTIMIZERS, *added), key=f"{path}.optimizer")
    if "ganrun.data.torchvision_sets.TorchvisionImages" in classes and "dataset" in node:
        trusted_class(f"{DATASETS}.{node['dataset']}", (DATASETS,), key=f"{path}.dataset")


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value below a node, itself included, and its dotted path."""
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from _walk(child, f"{path}.{shown(key)}".lstrip("."))
