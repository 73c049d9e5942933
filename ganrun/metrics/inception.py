"""The Inception network that FID, KID and the Inception score are defined on, ported from TensorFlow by torch-fidelity.

Szegedy et al. 2015, arXiv 1512.00567, trained on ImageNet, version of 2015-12-05. Images are resized to 299x299 as in
TensorFlow 1. torchmetrics' wrapper of the same network smooths them by default, which gives other scores.
"""

import hashlib
import io
from pathlib import Path

import torch
from torch import nn
from torch.hub import download_url_to_file

from ganrun.depth import to_depth
from ganrun.errors import UserError
from ganrun.files.storage import make_cache, mark_used
from ganrun.metrics.features import NetworkFeatures, check_channels, load_weights

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d"  # start of the file's hash


class Inception(NetworkFeatures):
    """2048 features before the last layer, 1008 logits without its bias; grey images are repeated in 3 channels.

    It is defined on 8-bit images, so 16 bits are rounded to 8.
    weights: a .pth of that network, None = downloaded once to the folder `cache`, where its hash is checked.
    """

    chunk = 64
    classifies = 1008

    def __init__(self, *, weights: str | None = None, cache: str = "~/.cache/ganrun"):
        self.weights = weights
        self.cache = cache

    def check(self, data):
        check_channels(data, (1, 3), "metric/features=inception")

    def load(self, data, device):
        if len(data.shape) != 3:
            raise UserError(f"metric/features=inception: {data.name} are no images; use metric/features=none")
        path = Path(self.weights).expanduser() if self.weights else downloaded(Path(self.cache).expanduser())
        network = inception(load_weights(path, "metric.features.weights"))
        rounded = {} if data.depth == 8 else {"pixels": "rounded to 8 bit"}
        return network, rounded | {
            "features": "inception",
            "weights": sha256(path)[:16],
            "resizer": "bilinear as TensorFlow 1, to 299",
        }

    def look(self, samples):
        features, logits = self._network(to_depth(samples, 8).expand(-1, 3, -1, -1))
        return features, logits


def inception(state: dict) -> nn.Module:
    """torch-fidelity's network. It would unpickle a file, so it gets a state dict that was read without unpickling."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], buffer)
    except Exception as error:
        raise UserError(f"metric.features.weights: these are not Inception's: {str(error).splitlines()[-1]}") from error


def downloaded(folder: Path) -> Path:
    """The published weights in the cache. Raises UserError if they cannot be downloaded."""
    path = folder / URL.rpartition("/")[2]
    if path.exists() and sha256(path).startswith(SHA256):
        mark_used(path)
        return path
    make_cache(folder)
    print(f"downloading {path.name} to {folder}")
    try:
        download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
    except Exception as error:  # whatever the network or the disk raises, the advice is the same
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"metric/features=inception: its weights are not in cache_dir={folder}; the download failed ({reason}): "
            f"bring {URL} there, give metric.features.weights=<file>, or "
            "use metric/features=classifier, without download"
        ) from error
    return path


def sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
