"""Features of a small network trained on the data set's own labels. For grey and tiny images, about which Inception,
trained on colour photographs, says little, and for work without internet access."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganrun.classes import listed
from ganrun.data.base import Data
from ganrun.depth import to_numbers
from ganrun.errors import UserError
from ganrun.files.checkpoint import FORMAT, damage, load_checkpoint, save_checkpoint
from ganrun.files.storage import locked, make_cache, mark_used
from ganrun.metrics.features import NetworkFeatures, fit_weights, hash_of, in_fp32
from ganrun.progress import tracked
from ganrun.seeding import derive, rng_for

RECIPE = 2  # increase it with any change below that changes the weights
STEPS = 600
BATCH = 128
LR = 2e-3  # at the start; linear to 0
HELD_BACK = 0.1  # share of the samples kept from training, to measure the accuracy
FEATURES = 128


class Classifier(NetworkFeatures):
    """128 features before the last layer of a convolutional network (a perceptron for points), and its logits.

    It is trained once for each data set and kept in the folder `cache`. weights: such a file from another machine,
    None = off; scores of two machines compare only if they use the same file.
    """

    chunk = 512

    def __init__(self, *, weights: str | None = None, cache: str = "~/.cache/ganrun"):
        self.weights = weights
        self.cache = cache

    def load(self, data, device):
        if not data.num_classes:
            valid = "inception, torchvision, none" if len(data.shape) == 3 else "none"
            raise UserError(f"metric/features=classifier: {data.name} has no labels to train it on; valid: {valid}")
        path = Path(self.weights).expanduser() if self.weights else trained(data, Path(self.cache).expanduser(), device)
        if not path.is_file():
            raise UserError(f"metric.features.weights={path}: there is no such file")
        saved = load_checkpoint(path)
        network = make_network(data.shape, data.num_classes)
        if saved.get("classes") != data.classes:
            raise UserError(
                f"{path}: this classifier knows other classes than dataset {data.name}: "
                f"{listed(saved.get('classes') or [])}; expected {listed(data.classes)}; name another file"
            )
        fit_weights(network, saved.get("weights"), str(path))
        self.classifies = data.num_classes
        about = {"features": "classifier", "weights": hash_of(network.state_dict()), "accuracy": saved.get("accuracy")}
        return network, about | {"resizer": "none"}

    def look(self, samples):
        features = self._network[:-1](to_numbers(samples))
        return features, self._network[-1](features)


def make_network(shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """The untrained network. Its last layer is linear; the input of that layer are the features."""
    if len(shape) == 1:
        body = [nn.Linear(shape[0], FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES), nn.ReLU()]
    else:
        widths = [shape[0], 32, 64, 64]
        body = [layer for i in range(3) for layer in block(widths[i], widths[i + 1], stride=1 if i == 0 else 2)]
        body += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * 64, FEATURES), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(FEATURES, num_classes)).to(memory_format=torch.channels_last)  # twice as fast


def block(channels: int, width: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def trained(data: Data, folder: Path, device: torch.device) -> Path:
    """The file of a data set's classifier in the cache, made if it is missing. Raises CannotWrite."""
    about = [RECIPE, STEPS, BATCH, LR, HELD_BACK, FEATURES, data.identity]
    name = hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
    path = folder / f"classifier-{name}.ckpt"
    if not damage(path):
        mark_used(path)
        return path
    make_cache(folder)
    with locked(path):  # one of several processes trains it
        if damage(path):
            print(f"training a classifier on {data.name} for scores, once; it will lie in {path}", flush=True)
            network, accuracy = train(data, device)
            about = {"ganrun": {"format": FORMAT}, "dataset": data.name, "classes": data.classes, "accuracy": accuracy}
            save_checkpoint(about | {"weights": {k: v.cpu() for k, v in network.state_dict().items()}}, path)
            print(f"it is right about {accuracy:.1%} of the samples held back", flush=True)
    return path


def train(data: Data, device: torch.device) -> tuple[nn.Module, float]:
    """The trained network, and its accuracy on samples that it was not trained on."""
    torch.manual_seed(derive("classifier"))
    order = torch.randperm(len(data), generator=rng_for("classifier"))
    num_held = max(1, int(len(data) * HELD_BACK))
    held, seen = order[:num_held], order[num_held:] if len(data) > num_held else order
    network = make_network(data.shape, data.num_classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, foreach=True)
    with in_fp32(device):
        for step in tracked(range(STEPS), STEPS, "training the classifier", "steps"):
            batch = data.read(seen[torch.randint(len(seen), (BATCH,), generator=rng_for("classifier", step))])
            optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)
            optimizer.zero_grad()
            cross_entropy(network(numbers(batch, device)), batch["label"].to(device)).backward()
            optimizer.step()
        return network, accuracy(network.eval(), data, held, device)


@torch.no_grad()
def accuracy(network: nn.Module, data: Data, indices: Tensor, device: torch.device) -> float:
    right = 0
    for part in indices.split(BATCH):
        batch = data.read(part)
        right += int((network(numbers(batch, device)).argmax(1).cpu() == batch["label"].cpu()).sum())
    return right / len(indices)


def numbers(batch: dict[str, Any], device: torch.device) -> Tensor:
    return to_numbers(batch["real"].to(device))
