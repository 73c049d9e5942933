"""Equalised learning rate: weights are kept as N(0, 1) and scaled where they are used.

Adam's steps are thus as large relative to the weights in each layer: Karras et al. 2018, arXiv 1710.10196, section 4.1.
"""

from math import sqrt
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrize import register_parametrization

SLOPE = 0.2  # of LeakyReLU
GAIN = sqrt(2)  # of StyleGAN2's LeakyReLU; layers before one have it in their weights and biases
Layer = TypeVar("Layer", bound=nn.Module)


class Scaled(nn.Module):
    """The parametrisation factor * raw."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, raw: Tensor) -> Tensor:
        return raw * self.factor

    def right_inverse(self, value: Tensor) -> Tensor:
        return value / self.factor


def equalise(layer: Layer, *, gain: float = 1.0, lr_multiplier: float = 1.0, bias: float = 0.0) -> Layer:
    """Sets weights to N(0, gain^2 / inputs) and biases to `bias`, and keeps both scaled.

    gain:          multiplies what the layer puts out; GAIN before a LeakyReLU
    lr_multiplier: of weights and biases: how far a step moves them relative to other layers
    """
    scale = gain / sqrt(layer.weight[0].numel())
    nn.init.normal_(layer.weight, 0.0, scale)
    register_parametrization(layer, "weight", Scaled(scale * lr_multiplier))
    if getattr(layer, "bias", None) is not None:
        nn.init.constant_(layer.bias, gain * bias)
        if gain * lr_multiplier != 1:
            register_parametrization(layer, "bias", Scaled(gain * lr_multiplier))
    return layer


def leaky(x: Tensor, clamp: float | None = None) -> Tensor:
    """LeakyReLU, in place. clamp: largest absolute value; None = off."""
    x = leaky_relu(x, SLOPE, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)
