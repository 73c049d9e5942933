"""Another run's weights for networks of possibly other shapes: what fits is copied, the rest is reported."""

from torch import Tensor, nn

from ganrun.errors import UserError

SHOWN = 8  # layers named in a message
PREFIXES = ("recipe.adversary.", "recipe.")  # of networks, in the names of a checkpoint
AVERAGES = "ema."


def copy_what_fits(module: nn.Module, state: dict[str, Tensor], key: str) -> str | None:
    """Copies each layer whose tensors all have the same names and shapes; names the others, None if there are none.

    Raises UserError if no weight fits. key: the config key that named the state.
    """
    own = module.state_dict()
    misfits = {layer_of(name) for name in own if name not in state or state[name].shape != own[name].shape}
    fitting = {name: state[name] for name in own if layer_of(name) not in misfits}
    if not any(tensor.dim() > 1 for tensor in fitting.values()):
        raise UserError(f"{key}: none of its layers has the shape of one here: {difference(own, state)}")
    module.load_state_dict(fitting, strict=False)
    said = difference(own, state)
    copied, all_of_them = (sum(not name.startswith(AVERAGES) for name in names) for names in (fitting, own))
    return f"{key}: {copied} of {all_of_them} tensors are copied; {said}" if said else None


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
    return name.rpartition(".")[0]


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
