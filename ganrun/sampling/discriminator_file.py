"""discriminator.safetensors + discriminator.yaml: a run's discriminators, for samplers and for fine-tuning.

As for a generator's files, nothing is unpickled, and only ganrun's own networks are built unless more are trusted.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load, save
from torch import Tensor, nn

from ganrun.adversary import with_heads
from ganrun.config.trust import GENERATOR_ROOMS, package_names, shown
from ganrun.errors import UserError
from ganrun.files.storage import replacing
from ganrun.game import Verdict
from ganrun.gradient_norm import with_gradient_norm
from ganrun.modules import untrained
from ganrun.sampling.generator_file import build_trusted, reading

FORMAT = 1


class TrainedDiscriminator(nn.Module):
    """The discriminators of a run, without its augmentations; in eval mode.

    networks:    by their dotted paths in the recipe, such as adversary.discriminator
    value_range: of the pixels that they take, None for vectors
    classes:     names of the labels that they are given, empty if none are
    trained:     on which data, by which loss, for how many steps
    normalised:  those of the networks whose logits critic.gradient_norm divides

    Example:
        trained = ganrun.load_discriminator("<run>/discriminator.safetensors")
        logits = trained.judge(images).logits  # images (batch, C, H, W) in [-1, 1] -> (batch,)
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        *,
        value_range: Sequence[float] | None,
        classes: list[str],
        trained: dict[str, Any],
        normalised: Sequence[str] = (),
    ):
        super().__init__()
        self.networks = networks
        self._held = nn.ModuleList(networks.values())  # moves with this module; names with dots cannot
        self.value_range = value_range
        self.classes = classes
        self.trained = trained
        self.normalised = normalised
        self.eval().requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """The only discriminator. Raises UserError if there are several."""
        if len(self.networks) > 1:
            raise UserError(f"there are several discriminators: {', '.join(self.networks)}; choose one of `networks`")
        return next(iter(self.networks.values()))

    def judge(self, images: Tensor, label: Tensor | None = None) -> Verdict:
        """The verdict of the only network on images in [-1, 1], as generators sample them, or on vectors as they are.

        label: class indices or attributes (batch, ...), or the source images, for a discriminator that takes some.
        """
        if self.value_range is not None:
            low, high = self.value_range
            images = (images + 1) * ((high - low) / 2) + low
        return self(images, label)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Verdict:
        """The verdict of the only network on images in its own value range, as in training."""
        network = self.network
        if not self.normalised:
            return network(images, label)
        verdict = with_gradient_norm(network, images, label)
        return verdict if torch.is_grad_enabled() else Verdict(*map(detached, verdict))


def detached(value: Any) -> Any:
    """Without its graph, if it is a tensor."""
    return value.detach() if isinstance(value, Tensor) else value


def save_discriminator(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes `path` (.safetensors) and the .yaml beside it, which holds a checksum of it.

    tensors: by `<network>.<name>`. header: networks (their configs by name), value_range, classes, trained; where there
    are some, heads (by network, the configs of what changes its head) and normalised (networks, see above).
    """
    data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    header = {"format": FORMAT, **header, "checksum": checksum(data)}
    for file, content in (
        (path, data),
        (path.with_suffix(".yaml"), yaml.safe_dump(header, sort_keys=False, allow_unicode=True).encode()),
    ):
        with replacing(file) as opened:
            opened.write(content)


def load_discriminator(path: str | Path, *, trust: Iterable[str] = ()) -> TrainedDiscriminator:
    """The discriminators of a run, from its discriminator.safetensors and discriminator.yaml; on the CPU.

    trust: further packages whose classes the YAML may name. Raises UserError for missing, damaged or unusable files.
    """
    path = Path(path)
    header_path = path.with_suffix(".yaml")
    for file in (path, header_path):
        if not file.is_file():
            raise UserError(f"{file}: no such file; export.discriminator=true writes it, and the .yaml, with a run")
    with reading(path, "discriminator"):
        header = yaml.safe_load(header_path.read_text(encoding="utf-8"))
        if header.get("format") != FORMAT or "checksum" not in header:
            got = shown(header.get("format"))
            raise UserError(f"{header_path}: not of a discriminator of format {FORMAT} (format {got})")
        data = path.read_bytes()
        if checksum(data) != header["checksum"]:
            raise UserError(f"{path}: damaged, or from another moment than {header_path.name}: checksums differ")
        return assemble(header, load(data), trust, str(header_path))


def assemble(
    header: dict[str, Any], tensors: dict[str, Tensor], trust: Iterable[str], where: str
) -> TrainedDiscriminator:
    """The discriminators that a header describes. tensors: by `<network>.<name>`; frozen parts may be missing.

    where: source of the header, for messages.
    """
    allowed = (*GENERATOR_ROOMS, *package_names(trust))
    networks = {path: build_trusted(node, allowed, f"{where}: {path}") for path, node in header["networks"].items()}
    for path, nodes in header.get("heads", {}).items():
        heads = {name: build_trusted(node, allowed, f"{where}: head.{name}") for name, node in nodes.items()}
        with_heads(networks[path], heads)
    for path, network in networks.items():
        own = {key.removeprefix(f"{path}."): value for key, value in tensors.items() if key.startswith(f"{path}.")}
        network.load_state_dict(frozen_parts(network) | own)
    about = {key: header[key] for key in ("value_range", "classes", "trained")}
    return TrainedDiscriminator(networks, **about, normalised=header.get("normalised", ()))


def frozen_parts(network: nn.Module) -> dict[str, Tensor]:
    """Tensors of the parts that no training moves, which checkpoints leave out: they come with the network."""
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    parts = untrained(network, trained)
    return {f"{path}.{key}": value for path, part in parts.items() for key, value in part.state_dict().items()}


def checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
