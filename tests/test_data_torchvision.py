"""The classic sets through torchvision's own loading code, on small files of the real formats."""

import gzip
import hashlib
import io
import pickle
import shutil
import struct
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import scipy.io
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torchvision import datasets

from ganrun.config.groups import config_dir
from ganrun.errors import UserError
from ganrun.training.nodes import build_node
from ganrun.training.refusing import innermost, refusing

RNG = np.random.default_rng(0)
MNIST_LIKE = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
CIFAR = {"cifar10": (datasets.CIFAR10, 10), "cifar100": (datasets.CIFAR100, 100)}


def dataset(name: str, data_dir: Path, *overrides: str):
    """As `ganrun dataset=<name> data_dir=<data_dir>` builds it."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", [f"dataset={name}", *overrides])
    cfg.data_dir = str(data_dir)
    return build_node(cfg, "dataset")


def everything(data) -> dict[str, torch.Tensor]:
    return data.read(torch.arange(len(data)))


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(256, size=shape, dtype=np.uint8)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


class Mirror:
    """A web server on this machine: what is written to its folder can be downloaded from its url."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url

    def serve(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (self.folder / name).write_bytes(content)


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "mirror").mkdir()
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "mirror")) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Mirror(tmp_path / "mirror", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def idx(array: np.ndarray) -> bytes:
    """The IDX format: magic number, sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_files(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte": idx(train),
        "train-labels-idx1-ubyte": idx(labels),
        "t10k-images-idx3-ubyte": idx(test),
        "t10k-labels-idx1-ubyte": idx(np.zeros(len(test), dtype=np.uint8)),
    }


def test_mnist_from_idx_files(tmp_path, capsys):
    train, labels, test = pixels(5, 28, 28), np.array([3, 0, 9, 3, 1], dtype=np.uint8), pixels(2, 28, 28)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in mnist_files(train, labels, test).items():
        (raw / name).write_bytes(content)
    data = dataset("mnist", tmp_path)
    batch = everything(data)
    assert data.shape == (1, 32, 32) and data.num_classes == 10 and data.classes[3] == "3 - three"
    assert np.array_equal(batch["real"][:, 0, 2:30, 2:30], train) and batch["real"].sum() == train.sum()
    assert batch["label"].tolist() == labels.tolist() and batch["label"].dtype == torch.int64
    other = dataset("mnist", tmp_path, "dataset.arguments.train=false", "dataset.resolution=28", "dataset.limit=1")
    assert np.array_equal(everything(other)["real"][:, 0], test[:1])
    assert capsys.readouterr().out == ""


def test_the_real_mnist(data_dir):
    data = dataset("mnist", data_dir)
    batch = everything(data)
    raw = data_dir / "MNIST" / "raw"
    images = np.fromfile(raw / "train-images-idx3-ubyte", dtype=np.uint8, offset=16).reshape(-1, 28, 28)
    assert np.array_equal(batch["real"][:, 0, 2:30, 2:30], images)
    assert batch["label"].bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.to_range(batch["real"][:100]).mean().item() == pytest.approx(-0.8, abs=0.05)  # mostly black


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_mnist_and_its_likes_are_downloaded_once(tmp_path, monkeypatch, capsys, mirror, name):
    train, labels = pixels(4, 28, 28), np.array([9, 0, 1, 1], dtype=np.uint8)
    files = mnist_files(train, labels, pixels(1, 28, 28))
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    mirror.serve(packed)
    monkeypatch.setattr(MNIST_LIKE[name], "mirrors", ["file:///nowhere/", f"{mirror.url}/"])  # the first is down
    monkeypatch.setattr(MNIST_LIKE[name], "resources", [(name, md5(content)) for name, content in packed.items()])
    first = everything(dataset(name, tmp_path / "data"))
    assert np.array_equal(first["real"][:, 0, 2:30, 2:30], train)
    assert first["label"].tolist() == labels.tolist()
    assert capsys.readouterr().out == f"{name} is not in {tmp_path / 'data'}; downloading it\n"
    shutil.rmtree(mirror.folder)
    assert torch.equal(everything(dataset(name, tmp_path / "data"))["real"], first["real"])
    assert capsys.readouterr().out == ""


def serve_cifar(monkeypatch, mirror: Mirror, cls: type, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """A .tar.gz of pickled batches as the original has them; returns the training images (num, 3, 32, 32), labels."""
    names = [name for name, _ in cls.train_list + cls.test_list]
    images = {name: pixels(3, 3, 32, 32) for name in names}
    labels = {name: RNG.integers(num_classes, size=3).tolist() for name in names}
    key = "labels" if num_classes == 10 else "fine_labels"
    contents = {
        name: pickle.dumps({"data": images[name].reshape(3, -1), key: labels[name]}, protocol=2) for name in names
    }
    meta = pickle.dumps({cls.meta["key"]: [f"class {i}" for i in range(num_classes)]}, protocol=2)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (contents | {cls.meta["filename"]: meta}).items():
            member = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    mirror.serve({cls.filename: packed.getvalue()})
    monkeypatch.setattr(cls, "url", f"{mirror.url}/{cls.filename}")
    monkeypatch.setattr(cls, "tgz_md5", md5(packed.getvalue()))
    for split in ("train_list", "test_list"):
        monkeypatch.setattr(cls, split, [[name, md5(contents[name])] for name, _ in getattr(cls, split)])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(meta)})
    train = [name for name, _ in cls.train_list]
    return np.concatenate([images[name] for name in train]), [label for name in train for label in labels[name]]


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_is_downloaded_once(tmp_path, monkeypatch, mirror, name):
    cls, num_classes = CIFAR[name]
    images, labels = serve_cifar(monkeypatch, mirror, cls, num_classes)
    data = dataset(name, tmp_path / "data")
    batch = everything(data)
    assert np.array_equal(batch["real"], images) and batch["label"].tolist() == labels
    assert data.classes == [f"class {i}" for i in range(num_classes)] and data.flip
    (mirror.folder / cls.filename).unlink()
    assert len(dataset(name, tmp_path / "data")) == len(images)


def test_a_download_with_a_wrong_checksum_is_refused(tmp_path, monkeypatch, mirror):
    serve_cifar(monkeypatch, mirror, datasets.CIFAR10, 10)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(b""))
    with pytest.raises(UserError, match=r"the download failed \(File not found or corrupted.\); point data_dir="):
        dataset("cifar10", tmp_path / "data")


def test_svhn_from_a_mat_file(tmp_path, monkeypatch, mirror):
    images = pixels(11, 3, 32, 32)
    labels = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])  # its zero is written as 10
    path = mirror.folder / "train.mat"
    scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None].astype(np.uint8)})
    served = [f"{mirror.url}/train.mat", "train_32x32.mat", md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", {"train": served})
    data = dataset("svhn", tmp_path / "data")
    assert np.array_equal(everything(data)["real"], images)
    assert everything(data)["label"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.classes == list("0123456789")


@pytest.fixture
def stl10(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """STL-10's binaries, column by column and labelled from 1; returns the arrays by file name."""
    arrays = {f"{split}_X.bin": pixels(3, 3, 96, 96) for split in ("train", "unlabeled", "test")}
    arrays |= {f"{split}_y.bin": np.array([10, 1, 4], dtype=np.uint8) for split in ("train", "test")}
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, array in arrays.items():
        (folder / name).write_bytes((array.transpose(0, 1, 3, 2) if array.ndim == 4 else array).tobytes())
    (folder / "class_names.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    for split in ("train_list", "test_list"):
        names = [name for name, _ in getattr(datasets.STL10, split)]
        checked = [[name, md5((folder / name).read_bytes())] for name in names]
        monkeypatch.setattr(datasets.STL10, split, checked)
    return arrays


def test_stl10_unlabelled(tmp_path, stl10):
    data = dataset("stl10", tmp_path, "dataset.resolution=96")
    assert data.classes == [] and set(everything(data)) == {"real"}
    assert np.array_equal(everything(data)["real"], stl10["unlabeled_X.bin"])
    assert dataset("stl10", tmp_path).shape == (3, 48, 48)


def test_stl10_labelled(tmp_path, stl10):
    split = ["dataset.arguments.split=train", "dataset.num_classes=10"]
    data = dataset("stl10", tmp_path, "dataset.resolution=96", *split)
    assert np.array_equal(everything(data)["real"], stl10["train_X.bin"])
    assert everything(data)["label"].tolist() == [9, 0, 3] and data.classes[9] == "class 9"


def test_stl10_labels_need_their_classes_in_the_config(tmp_path, stl10):
    with pytest.raises(UserError, match=r"dataset.num_classes=0, but stl10 has 10 classes"):
        dataset("stl10", tmp_path, "dataset.arguments.split=train")


@pytest.fixture
def celeba(tmp_path, monkeypatch) -> Path:
    """Six faces, grey by number, of which the first three are for training, with their lists."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 7)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (40 * i,) * 3).save(folder / "img_align_celeba" / name)
    lists = {
        "list_eval_partition.txt": [f"{name} {split}" for name, split in zip(names, [0, 0, 0, 1, 1, 2], strict=True)],
        "identity_CelebA.txt": [f"{name} {i}" for i, name in enumerate(names)],
        "list_bbox_celeba.txt": ["6", "image_id x_1 y_1 width height", *(f"{name} 1 2 3 4" for name in names)],
        "list_landmarks_align_celeba.txt": ["6", "lefteye_x lefteye_y", *(f"{name} 69 109" for name in names)],
        "list_attr_celeba.txt": ["6", "Bald Smiling", *(f"{name} -1  1" for name in names)],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    checked = [(file_id, md5((folder / name).read_bytes()), name) for file_id, _, name in datasets.CelebA.file_list[1:]]
    monkeypatch.setattr(datasets.CelebA, "file_list", checked)
    return folder


def test_celeba_from_its_files(tmp_path, celeba):
    data = dataset("celeba", tmp_path)
    batch = everything(data)
    assert data.shape == (3, 64, 64) and set(batch) == {"real"} and data.flip and data.num_workers == 2
    assert batch["real"].amax((1, 2, 3)).tolist() == pytest.approx([0, 40, 80], abs=2)
    assert batch["real"].amin((1, 2, 3)).tolist() == pytest.approx([0, 40, 80], abs=2)  # cropped, no black frame
    assert len(dataset("celeba", tmp_path, "dataset.arguments.split=valid")) == 2


def test_missing_faces_can_be_skipped(tmp_path, celeba, capsys):
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    data = dataset("celeba", tmp_path, "dataset.on_error=skip")
    assert data.skipped == [("000002.jpg", "No such file or directory")]
    assert everything(data)["real"].amax((1, 2, 3)).tolist() == pytest.approx([0, 80], abs=2)
    assert capsys.readouterr().out.startswith("dataset celeba: preparing 2 images once, ")


def test_a_missing_face_is_named(tmp_path, celeba):
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(UserError, match=r"dataset celeba: cannot read image 000002.jpg"):
        everything(dataset("celeba", tmp_path))


def cut_off(monkeypatch, name: str) -> None:
    """No mirror answers."""
    nowhere = "file:///nowhere/"
    if name in MNIST_LIKE:
        monkeypatch.setattr(MNIST_LIKE[name], "mirrors", [f"{nowhere}1/", f"{nowhere}2/"])
    elif name == "celeba":
        monkeypatch.setitem(sys.modules, "gdown", None)  # not installed: no download at all
    elif name == "svhn":
        monkeypatch.setattr(datasets.SVHN, "split_list", {"train": [f"{nowhere}x.mat", "x.mat", md5(b"")]})
    else:
        monkeypatch.setattr(datasets.STL10 if name == "stl10" else CIFAR[name][0], "url", f"{nowhere}x.tar.gz")


@pytest.mark.parametrize("name", [*MNIST_LIKE, *CIFAR, "svhn", "stl10", "celeba"])
def test_offline_says_what_to_do_in_one_line(tmp_path, monkeypatch, name):
    cut_off(monkeypatch, name)
    with pytest.raises(UserError) as raised:
        dataset(name, tmp_path)
    told = str(raised.value)
    assert told.startswith(f"dataset={name}: not in data_dir={tmp_path}, and the download failed (")
    assert told.endswith("point data_dir= or $GANRUN_DATA at the files, or use dataset=digits, which needs no network")
    assert ("gdown" if name == "celeba" else "nowhere") in told  # the reason itself
    assert "\n" not in told


def test_wrong_arguments_are_no_missing_files(tmp_path, capsys):
    with pytest.raises(UserError, match=r"dataset: .*split"):
        dataset("svhn", tmp_path, "dataset.arguments.split=validation")
    assert "downloading" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["os", "MNISTT", "VisionDataset.__init__", "__loader__", "folder", "utils", ""])
def test_only_data_sets_of_torchvision_can_be_named(tmp_path, name):
    with pytest.raises(UserError, match=r"dataset.dataset=.*: torchvision has no such data set; .*valid: ") as raised:
        dataset("mnist", tmp_path, f"dataset.dataset='{name}'")
    assert ("did you mean MNIST" in str(raised.value)) == (name == "MNISTT") and "\n" not in str(raised.value)


def failing(error: Exception, cause: Exception):
    def make():
        raise error from cause

    return make


def test_what_is_written_for_the_user_wins_over_its_cause():
    advice = UserError("optimizer.lr=-1; expected more than 0")
    with pytest.raises(UserError, match=r"^optimizer: optimizer.lr|^optimizer.lr=-1; expected more than 0$"):
        refusing("optimizer", failing(advice, RuntimeError("deep inside")))()
    with pytest.raises(UserError, match=r"^loss: deep inside$"):
        refusing("loss", failing(ValueError("Error in call to target"), RuntimeError("deep inside\nsecond line")))()
    assert innermost(KeyError()) == "KeyError"
