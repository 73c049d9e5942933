"""EfficientNet-Lite0's convolutions, to be filled with weights trained on ImageNet: Tan and Le 2019, arXiv 1905.11946.

Lite has no squeeze and excitation, and ReLU6 instead of SiLU. Padding and batch norm's eps are TensorFlow's.
"""

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import pad

EPS = 1e-3  # of batch norm
STAGES = (
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
    (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
)  # fmt: skip - channels, blocks, kernel, stride of the first block, expansion
STEM = 32  # channels before the first stage
CUTS = (0, 2, 3, 4, 6, 8)  # between modules of `layers`: parts that end at strides of 2, 4, 8, 16 and 32
UNUSED = ("_conv_head", "_bn1", "_fc")  # of the file's weights: the classifier


class EfficientNetLite0(nn.Module):
    """Images (batch, 3, H, W), 0 to 255 as (x - 127) / 128 -> maps at strides of 2, 4, 8, 16 and 32 pixels.

    Their channels are 16, 24, 40, 112 and 320: each is the last one of its size. `load` takes the state dict of
    efficientnet-lite0-57934424.pth, whose tensors are in the order of these layers.

    Example:
        maps = EfficientNetLite0()(images)  # images (4, 3, 224, 224) -> (4, 16, 112, 112), ..., (4, 320, 7, 7)
    """

    strides = (2, 4, 8, 16, 32)

    def __init__(self):
        super().__init__()
        layers = [nn.Sequential(*convolution(3, STEM, 3, 2), nn.ReLU6())]
        channels = STEM
        for out, blocks, kernel, stride, expansion in STAGES:
            first = Block(channels, out, kernel, stride, expansion)
            layers.append(nn.Sequential(first, *(Block(out, out, kernel, 1, expansion) for _ in range(blocks - 1))))
            channels = out
        self.parts = nn.ModuleList(nn.Sequential(*layers[a:b]) for a, b in pairwise(CUTS))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return maps

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes the weights. Raises ValueError if they are those of another network."""
        given = [tensor for name, tensor in state.items() if name.split(".")[0] not in UNUSED]
        own = self.state_dict()
        if [x.shape for x in given] != [x.shape for x in own.values()]:
            raise ValueError("tensors of other shapes than EfficientNet-Lite0's")
        self.load_state_dict(dict(zip(own, given, strict=True)), assign=True)


class Block(nn.Module):
    """Widens by `expansion`, filters each channel, narrows; with a shortcut where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = channels_in * expansion
        wide = [*convolution(channels_in, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        deep = [*convolution(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6()]
        self.layers = nn.Sequential(*wide, *deep, *convolution(hidden, channels_out, 1))
        self.shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class SameConv2d(nn.Conv2d):
    """TensorFlow's padding "SAME": ceil(side / stride) pixels come out, and an odd zero is added below and right."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        rows, columns = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
        return super().forward(pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)))


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = SameConv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels_out, eps=EPS)]
