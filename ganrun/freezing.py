"""FreezeD: a discriminator from another run whose first layers stay as they are (Mo et al. 2020, arXiv 2002.10964).

Fine-tuned on few images, a whole discriminator soon knows them by heart; its first layers hold features that other
images share. The paper freezes the blocks nearest to the image and moves the rest.
"""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ganrun.errors import UserError
from ganrun.game import Recipe

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def layers_of(network: nn.Module, prefix: str = "") -> list[dict[str, nn.Module]]:
    """A network's layers or blocks with parameters, the first one first, each as its modules by dotted name.

    A block counts once, whatever is in it, and a normalisation belongs to the layer before it. A network that only
    wraps another has the layers of that one.
    """
    found: list[dict[str, nn.Module]] = []
    for name, module in parts_of(network, prefix):
        if isinstance(module, NORMS) and found:
            found[-1][name] = module
        else:
            found.append({name: module})
    if len(found) == 1 and len(found[0]) == 1:
        ((name, only),) = found[0].items()
        return layers_of(only, f"{name}.") or found
    return found


def parts_of(network: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """Children with parameters, those of containers in their place."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if isinstance(child, CONTAINERS):
            parts += parts_of(child, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            parts.append((prefix + name, child))
    return parts


def freeze(recipe: Recipe, num: int) -> list[nn.Parameter]:
    """Freezes the first `num` layers or blocks of each discriminator; returns their parameters.

    Raises UserError unless at least one layer is left to train, and for a network that begins with frozen features.
    """
    frozen = []
    for path, network in recipe.discriminators().items() if num else ():
        if not all(p.requires_grad for p in network.parameters()):
            raise UserError(f"freeze_discriminator={num}: the first layers of {path} are never trained; leave it out")
        layers = layers_of(network)
        if num >= len(layers):
            raise UserError(
                f"freeze_discriminator={num}: {path} has {len(layers)} layers or blocks; expected at most "
                f"{len(layers) - 1}, so that one is trained"
            )
        frozen += [p for layer in layers[:num] for module in layer.values() for p in module.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen
