"""Features: what networks are given, how their weights come and are known, and that nothing else is disturbed."""

import io
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import get_model

from ganrun.data.images import Digits
from ganrun.data.vectors import Ring, SwissRoll
from ganrun.errors import UserError
from ganrun.metrics import inception as inception_module
from ganrun.metrics.classifier import Classifier, train
from ganrun.metrics.features import Values
from ganrun.metrics.inception import Inception, sha256
from ganrun.metrics.network import Network, Torchvision

CPU = torch.device("cpu")


def digits(**settings) -> Digits:
    return Digits(name="digits", resolution=16, channels=1, **settings)


def images(num: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (num, channels, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the Inception network in a file like the published one."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(), patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("random", ["2048"], empty)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


class Opener:
    def __reduce__(self):
        return open, ("executed", "w")


class TestValues:
    def test_pixels_and_points(self):
        values = Values()
        values.prepare(digits(), CPU)
        seen = values.see(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3))
        assert seen.features.tolist() == [pytest.approx([-1, -0.6, 1])] and seen.logits is None
        points = torch.tensor([[3.0, -4.0]])
        assert torch.equal(values.see(points).features, points)


class TestInception:
    def test_it_is_torch_fidelitys_network(self, weights):
        mine = Inception(weights=str(weights))
        mine.prepare(digits(), CPU)
        theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(weights))
        seen, (features, logits) = mine.see(images(3)), theirs(images(3))
        assert seen.features.shape == (3, 2048) and seen.logits.shape == (3, 1008)
        torch.testing.assert_close(seen.features, features)
        torch.testing.assert_close(seen.logits, logits)

    def test_grey_images_are_repeated(self, weights):
        mine = Inception(weights=str(weights))
        mine.prepare(digits(), CPU)
        grey = images(2, channels=1)
        torch.testing.assert_close(mine.see(grey).features, mine.see(grey.repeat(1, 3, 1, 1)).features)

    def test_the_protocol_names_the_file(self, weights):
        mine = Inception(weights=str(weights))
        mine.prepare(digits(), CPU)
        assert mine.protocol["features"] == "inception" and mine.protocol["weights"] == sha256(weights)[:16]
        assert "TensorFlow" in mine.protocol["resizer"]

    def test_downloaded_once_and_checked(self, weights, tmp_path, monkeypatch, capsys):
        source = tmp_path / f"weights-{sha256(weights)[:8]}.pth"
        source.write_bytes(weights.read_bytes())
        monkeypatch.setattr(inception_module, "URL", source.as_uri())
        monkeypatch.setattr(inception_module, "SHA256", sha256(weights)[:8])
        for _ in range(2):
            Inception(cache=str(tmp_path / "cache")).prepare(digits(), CPU)
        assert capsys.readouterr().out.count("downloading") == 1
        kept = tmp_path / "cache" / source.name
        kept.write_bytes(kept.read_bytes()[:-100])  # damaged: its hash tells
        Inception(cache=str(tmp_path / "cache")).prepare(digits(), CPU)
        assert sha256(kept) == sha256(weights)

    def test_a_download_of_another_content_is_refused(self, weights, tmp_path, monkeypatch):
        monkeypatch.setattr(inception_module, "URL", weights.as_uri())
        with pytest.raises(UserError, match=r"download failed \(invalid hash value.*metric.features.weights=<file>"):
            Inception(cache=str(tmp_path)).prepare(digits(), CPU)
        assert not list(tmp_path.glob("*.pth"))

    def test_offline_is_told_in_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(inception_module, "URL", (tmp_path / "nowhere.pth").as_uri())
        with pytest.raises(UserError, match=r"cache_dir=.*the download failed .*or use metric/features=classifier"):
            Inception(cache=str(tmp_path)).prepare(digits(), CPU)

    def test_hostile_weights_are_not_executed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"a": Opener()}, tmp_path / "evil.pth")
        with pytest.raises(UserError, match="cannot be read as weights"):
            Inception(weights=str(tmp_path / "evil.pth")).prepare(digits(), CPU)
        assert not (tmp_path / "executed").exists()

    def test_weights_of_another_network_are_refused(self, tmp_path):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
        with pytest.raises(UserError, match="these are not Inception's"):
            Inception(weights=str(tmp_path / "other.pth")).prepare(digits(), CPU)

    def test_points_are_no_images(self):
        with pytest.raises(UserError, match="ring are no images; use metric/features=none"):
            Inception().prepare(Ring(name="ring", channels=2, num=10), CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


class TestClassifier:
    @pytest.fixture
    def hasty(self, monkeypatch):
        """Training that ends before it knows anything."""
        monkeypatch.setattr("ganrun.metrics.classifier.STEPS", 2)

    def test_it_is_trained_once_and_knows_digits(self, tmp_path, capsys):
        before = torch.get_rng_state()
        first, second = Classifier(cache=str(tmp_path)), Classifier(cache=str(tmp_path))
        for one in (first, second):
            one.prepare(digits(), CPU)
        assert torch.equal(torch.get_rng_state(), before), "a score must not draw from what training draws from"
        assert capsys.readouterr().out.count("training a classifier on digits") == 1
        assert first.protocol == second.protocol and first.protocol["accuracy"] > 0.9
        data = digits()
        seen = first.see(data.held["real"][:200])
        assert seen.features.shape == (200, 128) and first.classifies == 10
        assert (seen.logits.argmax(1) == data.held["label"][:200]).float().mean() > 0.9

    def test_what_is_held_back_is_not_trained_on(self, monkeypatch):
        monkeypatch.setattr("ganrun.metrics.classifier.STEPS", 40)

        class Watched(Digits):
            def read(self, indices):
                trained_on.update(indices.tolist())
                return super().read(indices)

        trained_on, held = set(), set()
        monkeypatch.setattr("ganrun.metrics.classifier.accuracy", lambda *args: held.update(args[2].tolist()) or 1.0)
        train(Watched(name="digits", resolution=16, channels=1), CPU)
        assert len(held) == 179 and len(trained_on) > 1500 and not held & trained_on

    def test_other_data_get_another_one(self, hasty, folder, tmp_path):
        one, other = Classifier(cache=folder), Classifier(cache=str(tmp_path))
        one.prepare(digits(), CPU)
        other.prepare(digits(limit=300), CPU)
        assert one.protocol["weights"] != other.protocol["weights"]

    def test_a_damaged_file_is_made_again(self, hasty, folder, tmp_path, capsys):
        Classifier(cache=folder).prepare(digits(), CPU)
        capsys.readouterr()
        (file,) = Path(folder).glob("*.ckpt")
        content = bytearray(file.read_bytes())
        content[1000] ^= 1
        file.write_bytes(content)
        Classifier(cache=folder).prepare(digits(), CPU)
        assert "training a classifier" in capsys.readouterr().out

    def test_a_file_from_elsewhere_is_used(self, hasty, folder, tmp_path, capsys):
        Classifier(cache=folder).prepare(digits(), CPU)
        (file,) = Path(folder).glob("*.ckpt")
        capsys.readouterr()
        elsewhere = Classifier(weights=str(file), cache=str(tmp_path / "none"))
        elsewhere.prepare(digits(limit=300), CPU)
        assert capsys.readouterr().out == "" and not (tmp_path / "none").exists()
        with pytest.raises(UserError, match="this classifier knows"):
            Classifier(weights=str(file)).prepare(Ring(name="ring", channels=2, num=10), CPU)
        with pytest.raises(UserError, match=r"nothing\.ckpt: there is no such file"):
            Classifier(weights="nothing.ckpt").prepare(digits(), CPU)

    def test_points_have_one_too(self, tmp_path):
        ring = Ring(name="ring", channels=2, num=2000)
        mine = Classifier(cache=str(tmp_path))
        mine.prepare(ring, CPU)
        assert (mine.see(ring.held["real"]).logits.argmax(1) == ring.held["label"]).float().mean() > 0.9

    def test_data_without_labels_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="swiss-roll has no labels to train it on; valid: none"):
            Classifier(cache=str(tmp_path)).prepare(SwissRoll(name="swiss-roll", channels=2, num=10), CPU)


class TestNetwork:
    def test_pixels_reach_it_normalised_and_resized(self):
        seen = []

        class Spy(nn.Module):
            def forward(self, x):
                seen.append(x)
                return x.mean((2, 3))

        mine = Network(Spy(), name="spy", resolution=8, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
        mine.prepare(digits(), CPU)
        found = mine.see(torch.full((2, 1, 16, 16), 255, dtype=torch.uint8))
        assert seen[0].shape == (2, 3, 8, 8) and torch.allclose(seen[0], torch.tensor(2.0))
        assert found.features.shape == (2, 3) and found.logits is None
        assert mine.protocol["features"] == "spy" and mine.protocol["resizer"] == "bilinear, antialiased, to 8"

    def test_torchvision_gives_what_goes_into_the_last_layer(self, tmp_path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = get_model("resnet18", weights=None).eval()
        torch.save(network.state_dict(), tmp_path / "resnet.pth")
        mine = Torchvision(model="resnet18", weights=str(tmp_path / "resnet.pth"), resolution=64)
        mine.prepare(digits(), CPU)
        seen = mine.see(images(2))
        assert seen.features.shape == (2, 512) and seen.logits.shape == (2, 1000)
        torch.testing.assert_close(network.fc(seen.features), seen.logits)

    def test_an_unknown_model_and_a_failed_download_are_told(self, monkeypatch):
        with pytest.raises(UserError, match=r"metric.features.model=resnet19; did you mean resnet18"):
            Torchvision(model="resnet19").prepare(digits(), CPU)
        with (
            patch("torchvision.models.get_model", side_effect=OSError("no network")),
            pytest.raises(UserError, match=r"download of its weights failed \(no network\)"),
        ):
            Torchvision(model="resnet18").prepare(digits(), CPU)


def test_scores_neither_use_nor_change_tf32():
    class Spy(nn.Module):
        def forward(self, x):
            assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
            assert not torch.is_autocast_enabled("cpu")
            return x.flatten(1)

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        mine = Network(Spy(), name="spy")
        mine.prepare(digits(), CPU)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mine.see(images(1))
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32 == before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
