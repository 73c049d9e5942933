"""Whatever is kept, or compared with what it was: the same again where nothing has changed, never where something has.

Each thing is used twice, then something that decides its content really changes, then it is used again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from ganrun.commands.evaluate.evaluations import weights_of
from ganrun.data.identity import changes
from ganrun.data.images import ImageFolder
from ganrun.files.run_dir import RunDir
from ganrun.metrics import classifier, inception, precision_recall
from ganrun.metrics.frechet import FID
from ganrun.metrics.inception import sha256
from ganrun.metrics.network import Network
from ganrun.metrics.precision_recall import Coverage
from ganrun.metrics.protocol import difference
from ganrun.metrics.scorer import Scorer
from ganrun.training.state import config_digest

CPU = torch.device("cpu")
SIDE = 160  # a .bmp of 77 kB


class Weighted(nn.Module):
    """Counts the images that it sees."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.weight * x.mean((2, 3))


@dataclass
class World:
    """A folder of labelled images, and how it is opened and scored."""

    place: Path
    patch: pytest.MonkeyPatch
    data: dict[str, Any] = field(default_factory=lambda: {"resolution": SIDE, "channels": 3, "fit": "crop"})
    network: dict[str, Any] = field(default_factory=lambda: {"std": [0.5]})
    weight: float = 1.0
    num_real: int | None = None
    coverage: dict[str, Any] = field(default_factory=lambda: {"k": 2, "max_samples": None})
    last: Any = None

    def __post_init__(self):
        rng = np.random.default_rng(0)
        for i in range(12):
            self.file(i).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (SIDE, SIDE + 10 * i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.file(i))

    def file(self, i: int) -> Path:
        return self.place / "images" / ("a" if i < 6 else "b") / f"{i:02}.bmp"

    def open(self, **settings) -> ImageFolder:
        return ImageFolder(name="mine", path=str(self.place / "images"), **self.data | settings)

    def counted(self, owner: Any, name: str, result: Any = None) -> list:
        """The calls of a function from now on; result: what it gives in place of what it would."""
        calls, call = [], getattr(owner, name)

        def watched(*args, **kwargs):
            calls.append(args)
            return call(*args, **kwargs) if result is None else result

        watched.__name__ = name
        self.patch.setattr(owner, name, watched)
        return calls

    def scorer(self, metric) -> Scorer:
        scorer = Scorer({"it": metric}, self.open(), num_fake=4, num_real=self.num_real, cache=self.place / "cache")
        scorer.prepare(CPU)
        return scorer

    def fid(self) -> FID:
        return FID(features=Network(Weighted(self.weight), name="mine", **self.network))

    def differs(self, now: Any, differ: Callable = lambda now, last: now != last) -> bool:
        """From what it was the last time?"""
        self.last, last = now, self.last
        return last is None or bool(differ(now, last))


# Each of these uses a thing and says whether it was made anew, or found to differ.


def prepared_pixels(world: World) -> bool:
    decoded = world.counted(ImageFolder, "_decode")
    world.open(cache=str(world.place / "cache"))
    return bool(decoded)


def statistics_of_reals(world: World) -> bool:
    metric = world.fid()
    world.scorer(metric)._see_reals()
    return metric.features.network.seen > 0


def radii_of_reals(world: World) -> bool:
    found = world.counted(precision_recall, "blocks")
    scorer = world.scorer(Coverage(**world.coverage))
    scorer._see_reals()
    scorer._real.popitem()[1].radii  # noqa: B018
    return bool(found)


def trained_classifier(world: World) -> bool:
    network = classifier.make_network(world.open().shape, 2)
    trained = world.counted(classifier, "train", (network, 0.5))
    classifier.Classifier(cache=str(world.place / "cache")).prepare(world.open(), CPU)
    return bool(trained)


def downloaded_weights(world: World) -> bool:
    source = world.place / "weights.pth"
    source.write_bytes(b"published")
    world.patch.setattr(inception, "URL", source.as_uri())
    world.patch.setattr(inception, "SHA256", sha256(source)[:8])
    downloads = world.counted(inception, "download_url_to_file")
    assert inception.downloaded(world.place / "cache").read_bytes() == b"published"
    return bool(downloads)


def data_of_a_resume(world: World) -> bool:
    return world.differs(world.open().fingerprint, changes)


def protocol_of_scores(world: World) -> bool:
    return world.differs(world.scorer(world.fid()).protocols["it"], difference)


def config_of_a_run(world: World) -> bool:
    run = RunDir(world.place / "run")
    if not run.config.exists():
        run.hydra.mkdir(parents=True)
        run.config.write_text(yaml.safe_dump({"seed": 0, "steps": 5, "loss": {"weight": 1.0}}))
    return world.differs(config_digest(run))


def weights_of_an_evaluation(world: World) -> bool:
    file = world.place / "generator.safetensors"
    if not file.exists():
        file.write_bytes(bytes(100))
    return world.differs(weights_of(file))


# And these change what decides its content.


def flip_last_byte(path: Path) -> None:
    """Leaves size and time of modification, as cp -p and rsync do."""
    status, content = os.stat(path), bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def set_(name: str, key: str, value: Any) -> Callable[[World], None]:
    return lambda world: getattr(world, name).update({key: value})


def edit_config(world: World) -> None:
    config = RunDir(world.place / "run").config
    config.write_text(config.read_text().replace("weight: 1.0", "weight: 2.0"))


PIXELS = {
    "a byte at the end of a file": lambda world: flip_last_byte(world.file(0)),  # the top row of a square
    "a file more": lambda world: world.file(3).with_name("03b.bmp").write_bytes(world.file(4).read_bytes()),
    "a file less": lambda world: world.file(3).unlink(),
    "limit": set_("data", "limit", 7),
    "fit": set_("data", "fit", "resize"),
    "resolution": set_("data", "resolution", 20),
    "channels": set_("data", "channels", 1),
}
DATA = PIXELS | {
    "a label": lambda world: world.file(5).rename(world.file(6).with_name("05.bmp")),  # in the same place of the order
    "a class's name": lambda world: world.file(0).parent.rename(world.file(0).parent.with_name("aa")),
}
FEATURES = {
    "weights of the network": lambda world: setattr(world, "weight", 2.0),
    "normalisation": set_("network", "std", [5.0]),
    "resizer": set_("network", "resolution", 8),
    "number of reals": lambda world: setattr(world, "num_real", 8),
}
TABLE = {
    prepared_pixels: PIXELS
    | {
        "on_error": set_("data", "on_error", "skip"),
        "Pillow": lambda world: world.patch.setattr(PIL, "__version__", "0"),
        "torch": lambda world: world.patch.setattr(torch, "__version__", "0"),
    },
    statistics_of_reals: DATA | FEATURES,
    radii_of_reals: DATA | {"k": set_("coverage", "k", 3), "max_samples": set_("coverage", "max_samples", 9)},
    trained_classifier: DATA
    | {
        name: lambda world, name=name: world.patch.setattr(classifier, name, getattr(classifier, name) + 1)
        for name in ("RECIPE", "STEPS", "BATCH", "LR")
    },
    downloaded_weights: {"its file": lambda world: flip_last_byte(world.place / "cache" / "weights.pth")},
    data_of_a_resume: DATA,
    protocol_of_scores: DATA | FEATURES,
    config_of_a_run: {"a setting": edit_config},
    weights_of_an_evaluation: {"a weight": lambda world: flip_last_byte(world.place / "generator.safetensors")},
}


@pytest.mark.parametrize(
    ("use", "change"),
    [pytest.param(use, change, id=f"{use.__name__}-{name}") for use in TABLE for name, change in TABLE[use].items()],
)
def test_what_is_kept_is_used_again_until_something_changes_it(tmp_path, monkeypatch, use, change):
    world = World(tmp_path, monkeypatch)
    assert use(world), "there was nothing"
    assert not use(world), "nothing has changed"
    change(world)
    assert use(world), "it is not what it was"
    assert not use(world), "nothing has changed since"


@pytest.mark.parametrize("use", [statistics_of_reals, radii_of_reals, trained_classifier, data_of_a_resume])
def test_the_same_pixels_from_elsewhere_are_the_same(tmp_path, monkeypatch, use):
    world = World(tmp_path, monkeypatch)
    assert use(world)
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "images").symlink_to("moved")
    os.utime(world.file(3))
    world.data |= {"num_workers": 1}  # streamed
    assert not use(world)
