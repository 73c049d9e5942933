"""Features of any network."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from ganrun.depth import largest
from ganrun.errors import UserError, one_of
from ganrun.metrics.features import NetworkFeatures, check_channels, fit_weights, hash_of, load_weights

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of pixels in [0, 1]


class Network(NetworkFeatures):
    """Features from your own network, which maps images (num, C, H, W) in [0, 1], normalised, to (num, F).

    network:    module, or a `_target_` in YAML
    name:       for the protocol
    resolution: side in pixels to which images are resized (bilinear, antialiased); None = as they are
    mean:       subtracted from each channel; grey images are repeated to as many channels; None = off
    std:        divides each channel; None = off

    Example:
        features = Network(torch.nn.Flatten(), name="pixels")
        metric = FID(features=features)  # on the values that the network returns
    """

    chunk = 64

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        resolution: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ):
        self.network = network
        self.name = name
        self.resolution = resolution
        self.mean, self.std = (torch.tensor(list(v)).view(-1, 1, 1) for v in (mean or [0.0], std or [1.0]))

    def check(self, data):
        if len(self.mean) > 1:
            check_channels(data, (1, len(self.mean)), f"metric.features: {self.name}")

    def load(self, data, device):
        if len(data.shape) != 3:
            raise UserError(f"metric.features: {data.name} are no images; metric/features=none compares values")
        return self.network, self.about(self.network)

    def about(self, network: nn.Module) -> dict[str, Any]:
        size = self.resolution
        resizer = f"bilinear, antialiased, to {size}" if size else "none"
        normalised = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        return {"features": self.name, "weights": hash_of(network.state_dict()), "resizer": resizer, **normalised}

    def look(self, samples):
        return self._network(self.resized(samples)).flatten(1).float(), None

    def resized(self, samples: torch.Tensor) -> torch.Tensor:
        pixels = samples if samples.dtype == torch.uint8 else samples.float()
        x = (pixels / largest(samples)).expand(-1, max(samples.shape[1], len(self.mean)), -1, -1)
        if self.resolution:
            x = interpolate(x, size=(self.resolution,) * 2, mode="bilinear", antialias=True)
        return (x - self.mean.to(x.device)) / self.std.to(x.device)


class Torchvision(Network):
    """A classifier of torchvision, trained on ImageNet: the input of its last linear layer, and its logits.

    model: its name there. weights: a state dict in a file, None = torchvision's own, downloaded and checked.
    """

    classifies = 1000

    def __init__(self, *, model: str, weights: str | None = None, resolution: int = 224):
        mean, std = IMAGENET
        super().__init__(nn.Identity(), name=f"torchvision {model}", resolution=resolution, mean=mean, std=std)
        self.model = model
        self.weights = weights

    def load(self, data, device):
        super().load(data, device)
        from torchvision import models

        valid = models.list_models(module=models)
        if self.model not in valid:
            raise UserError(f"metric.features.model={self.model}; {one_of(valid, self.model)}")
        network = self.loaded()
        self._last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        self._last.register_forward_pre_hook(self._remember)
        return network, self.about(network)

    def loaded(self) -> nn.Module:
        from torchvision.models import get_model

        if self.weights:
            network = get_model(self.model, weights=None)
            fit_weights(network, load_weights(self.weights, "metric.features.weights"), "metric.features.weights")
            return network
        try:
            return get_model(self.model, weights="DEFAULT")
        except Exception as error:  # whatever the network or the disk raises
            reason = " ".join(str(error).split())
            raise UserError(
                f"metric.features.model={self.model}: the download of its weights failed ({reason}); give "
                "metric.features.weights=<file>"
            ) from error

    def _remember(self, module, args):
        self._features = args[0]

    def look(self, samples):
        logits = self._network(self.resized(samples))
        return self._features.flatten(1), logits
