"""Another run's weights for networks of possibly other shapes: what fits is copied, the rest is reported.

Layers are matched by their names. Those of another size of image fit where name and shape agree; the stages of a
discriminator that says so (`from_image_on`) are counted from the smallest map, as those of its generator are.
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from safetensors.torch import load_file
from torch import Tensor

from ganrun.errors import UserError
from ganrun.module import GANModule
from ganrun.sampling.generator_file import reading

SHOWN = 8  # layers named in a message
PREFIXES = ("recipe.adversary.", "recipe.")  # of networks, in the names of a checkpoint
AVERAGES = "ema."
NOISE = "noise."


class Weights(NamedTuple):
    """Weights to start from, by their names in a checkpoint, and the names of the classes that they know."""

    state: dict[str, Tensor]
    classes: Sequence[str] = ()


def weights_in(path: Path) -> Weights:
    """The weights of a generator's or discriminator's .safetensors file; its .yaml, if there is one, names classes."""
    with reading(path, "generator or discriminator"):
        tensors, header_path = load_file(path), path.with_suffix(".yaml")
        header = yaml.safe_load(header_path.read_text(encoding="utf-8")) if header_path.exists() else {}
        state = {key if key.startswith(NOISE) else f"recipe.{key}": value for key, value in tensors.items()}
        return Weights(state, [str(name) for name in header.get("classes", ())])


def copy_what_fits(
    module: GANModule, given: Weights, key: str, classes: Sequence[str] = (), *, only: tuple[str, ...] = ("",)
) -> str | None:
    """Copies each layer whose tensors all have the same names and shapes; names the others, None if there are none.

    Where another number of classes is all that differs, classes of the same name keep their weights, and others stay
    new. classes: names of those here. only: how the names of tensors begin that are spoken of.
    Raises UserError if no weight fits, or one that is frozen does not. key: the config key that named the weights.
    """
    own = {name: value for name, value in module.state_dict().items() if name.startswith(only)}
    for path, network in module.recipe.discriminators().items():
        for stages in getattr(network, "from_image_on", ()):
            given = given._replace(state=counted_from_the_end(own, given.state, f"recipe.{path}.{stages}."))
    state, by_name = fitted(own, given, classes)
    misfits = {layer_of(name) for name in own if name not in state or state[name].shape != own[name].shape}
    fitting = {name: state[name] for name in own if layer_of(name) not in misfits}
    if not any(tensor.dim() > 1 for tensor in fitting.values()):
        if not any(own[name].dim() > 1 for name in own.keys() & state.keys()):
            raise UserError(f"{key}: its networks are of another kind than those here, which share no layer with them")
        raise UserError(f"{key}: none of its layers has the shape of one here: {difference(own, state)}")
    check_frozen(module, fitting, key)
    module.load_state_dict(fitting, strict=False)
    said = "; ".join(filter(None, [by_class(by_name - misfits, given.classes, classes), difference(own, state)]))
    copied, all_of_them = (sum(not name.startswith(AVERAGES) for name in names) for names in (fitting, own))
    return f"{key}: {copied} of {all_of_them} tensors are copied; {said}" if said else None


def counted_from_the_end(own: dict[str, Tensor], state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """`state` with the numbers that follow `prefix` moved, so that its last stage has the number of the last one here.

    A stage that would come before the first one here gets a number below 0.
    """
    here, there = ([int(name.removeprefix(prefix).split(".")[0]) for name in some if name.startswith(prefix)]
                   for some in (own, state))  # fmt: skip
    if not (here and there):
        return state
    moved = {}
    for name, value in state.items():
        number, dot, rest = name.removeprefix(prefix).partition(".")
        renamed = f"{prefix}{int(number) + max(here) - max(there)}{dot}{rest}" if name.startswith(prefix) else name
        moved[renamed] = value
    return moved


def check_frozen(module: GANModule, fitting: Container[str], key: str) -> None:
    """Raises UserError for frozen layers without weights to copy: they would stay as they were initialised."""
    frozen = {id(p) for p in module.frozen}
    left = sorted({shown(name) for name, p in module.named_parameters() if id(p) in frozen and name not in fitting})
    if left:
        raise UserError(f"freeze_discriminator: {key} has no weights of their shape for {listed(left)}; freeze fewer")


def fitted(own: dict[str, Tensor], given: Weights, classes: Sequence[str]) -> tuple[dict[str, Tensor], set[str]]:
    """The state with tensors of another number of classes fitted to those here, and the layers that these are of."""
    state, layers = dict(given.state), set()
    for name in own.keys() & state.keys():
        made = by_names(own[name], state[name], classes, given.classes)
        if made is not None:
            state[name] = made
            layers.add(layer_of(name))
    return state, layers


def by_names(own: Tensor, there: Tensor, here: Sequence[str], names: Sequence[str]) -> Tensor | None:
    """`there` in the shape of `own`, if only the number of classes differs; None if that is not all.

    here, names: the classes of `own` and of `there`. They are rows, or the last columns, as of layers that are given
    the label beside something else. A class that `there` does not have stays as in `own`.
    """
    differing = [dim for dim in range(own.dim()) if own.dim() == there.dim() and own.shape[dim] != there.shape[dim]]
    if differing not in ([0], [1]):
        return None
    dim = differing[0]
    others = own.shape[dim] - len(here)
    if others < 0 or others != there.shape[dim] - len(names) or (dim == 0 and others):
        return None
    made = own.clone()
    made.narrow(dim, 0, others).copy_(there.narrow(dim, 0, others))
    for i, name in enumerate(here):
        if name in names:
            made.select(dim, others + i).copy_(there.select(dim, others + names.index(name)))
    return made


def by_class(layers: set[str], there: Sequence[str], here: Sequence[str]) -> str:
    """In words: what was done with layers of other classes; empty if there are none."""
    if len(there) == len(here) and list(there) != list(here):
        return "its classes have other names, and their weights are taken in order"
    found = sorted({shown(f"{layer}.weight") for layer in layers if not layer.startswith(AVERAGES)})
    if not found:
        return ""
    kept = len(set(here) & set(there))
    return f"of {len(here)} classes here and {len(there)} there, {kept} keep their weights by name: {listed(found)}"


def difference(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """In words: layers of other shapes, new layers, and layers that have no place here; averages are left out."""
    own, state = ({name: one for name, one in some.items() if not name.startswith(AVERAGES)} for some in (own, state))
    both = [name for name in own if name in state and own[name].shape != state[name].shape]
    shapes = {shown(name): f"{size(state[name])} there, {size(own[name])} here" for name in both}
    parts = {
        "not copied": [f"{layer} ({text})" for layer, text in shapes.items()],
        "new here": sorted({shown(name) for name in own if name not in state}),
        "not used": sorted({shown(name) for name in state if name not in own}),
    }
    return "; ".join(f"{what}: {listed(layers)}" for what, layers in parts.items() if layers)


def layer_of(name: str) -> str:
    """The layer that a tensor is of; the singular vectors of spectral norm belong to that of their weight."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def shown(name: str) -> str:
    """recipe.generator.to_image.weight -> generator.to_image"""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return layer_of(name)


def size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "1"


def listed(layers: list[str]) -> str:
    more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    return ", ".join(layers[:SHOWN]) + more
