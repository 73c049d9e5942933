"""Sources derived from real images: against images made by hand or by another library, in training and in scores."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_configs import composed
from test_data_rounds import numbered

from ganrun.data import filters
from ganrun.data.base import Data
from ganrun.data.between_classes import Classes
from ganrun.data.datamodule import GANDataModule, Rounds
from ganrun.data.derived import Colorize, Denoise, Edges, Inpaint, Invert, SuperResolution
from ganrun.data.filters import bicubic, luma, shrunk, sobel, with_hole, with_noise
from ganrun.data.identity import changes
from ganrun.data.images import Digits, ImagesInMemory
from ganrun.data.pixels import to_channels
from ganrun.data.vectors import Ring
from ganrun.errors import UserError
from ganrun.training.nodes import open_data

OF_COLOUR = {
    "colorize": Colorize(source_channels=1),
    "edges": Edges(source_channels=1),
    "super-resolution": SuperResolution(source_channels=3),
    "inpaint": Inpaint(source_channels=3),
    "denoise": Denoise(source_channels=3),
    "invert": Invert(source_channels=3),
}


class Noise(ImagesInMemory):
    """Different images of 8x8 in colour."""

    def load(self):
        rng = torch.Generator().manual_seed(0)
        images = torch.randint(256, (30, 3, 8, 8), generator=rng).to(torch.uint8)
        return images, torch.arange(30) % 3, ["a", "b", "c"]


def noise(**settings) -> Noise:
    return Noise(name="noise", resolution=8, channels=3, **settings)


def pixels(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def test_luma_is_pillows():
    image = torch.randint(256, (1, 3, 64, 64)).to(torch.uint8)
    grey = np.asarray(Image.fromarray(image[0].permute(1, 2, 0).numpy()).convert("L"))
    assert luma(image)[0, 0].tolist() == grey.tolist()
    assert luma(torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)).item() == 76  # 0.299 * 255


def test_sobel_by_hand():
    upright = pixels([0, 0, 255, 255], [0, 0, 255, 255], [0, 0, 255, 255])
    assert sobel(upright)[0, 0].tolist() == [[0, 255, 255, 0]] * 3
    assert torch.equal(sobel(upright.mT), sobel(upright).mT)
    point = pixels([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 80, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0])
    assert sobel(point)[0, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 28, 40, 28, 0],  # sqrt(80^2 + 80^2) / 4, 2 * 80 / 4
        [0, 40, 0, 40, 0],
        [0, 28, 40, 28, 0],
        [0, 0, 0, 0, 0],
    ]
    assert not sobel(torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)).any()


def test_shrinking_takes_the_mean_and_enlarging_is_pillows_bicubic():
    small = shrunk(pixels([0, 2, 10, 10], [4, 4, 20, 21]), 2)
    assert small.tolist() == [[[[2, 15]]]]  # 2.5 to even, 15.25
    image = torch.randint(256, (5, 1, 6, 5)).to(torch.uint8)
    for one, enlarged in zip(image, bicubic(image, 3), strict=True):
        whole = Image.fromarray(one[0].float().numpy()).resize((15, 18), Image.Resampling.BICUBIC)  # without rounding
        assert np.abs(np.asarray(whole).clip(0, 255) - enlarged[0].numpy()).max() < 0.501


def test_a_hole_is_where_it_is_said():
    images = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)
    holed = with_hole(images, torch.tensor([[0, 0], [2, 3]]), (2, 3))
    assert (holed[0, :, :2, :3] == 128).all() and (holed[1, :, 2:, 3:] == 128).all()
    assert (holed == 128).sum() == 2 * 3 * 6


def test_holes_of_half_the_side_get_everywhere():
    drawn = Inpaint(source_channels=3).draw(np.arange(2000), 0, (3, 32, 16))["hole"]
    assert drawn.amin(0).tolist() == [0, 0] and drawn.amax(0).tolist() == [16, 8]
    assert Inpaint(source_channels=3).size(32, 16) == (16, 8)


def test_noise_is_gaussian_and_depends_on_the_key_alone():
    grey = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    keys = torch.arange(64)
    noisy = with_noise(grey, keys, 20.0)
    found = noisy.double() - 128
    assert found.mean().abs() < 0.2 and abs(found.std() - 20) < 0.2
    assert abs(found.pow(4).mean() / found.std() ** 4 - 3) < 0.05
    assert torch.equal(with_noise(grey[5:7], keys[5:7], 20.0), noisy[5:7])
    flat = found.flatten(1)
    assert (flat @ flat.T / flat.shape[1] / 400 - torch.eye(64)).abs().max() < 0.1  # images have nothing in common
    clipped = with_noise(torch.zeros(1, 1, 32, 32, dtype=torch.uint8), keys[:1], 51.0)
    assert 0.4 < (clipped == 0).float().mean() < 0.6


def test_words_are_splitmix64():
    mask = 2**64 - 1
    for key in (0, 7, 2**53 - 1):
        expected = []
        for count in (1, 2, 3):
            x = (key + count * 0x9E3779B97F4A7C15) & mask
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
            x ^= x >> 31
            expected += [(x >> bits) & 0xFFFF for bits in (0, 16, 32, 48)]
        assert filters.words(torch.tensor([key]), 10)[0].tolist() == expected[:10]


@pytest.mark.parametrize("name", OF_COLOUR)
def test_a_source_is_derived_from_the_flipped_and_cropped_image(name):
    derivation = OF_COLOUR[name]
    data = derivation(noise(flip=True, random_crop=2))
    assert data.parts == {"source": (derivation.source_channels, 8, 8), "real": (3, 8, 8)}
    alone, both = (Rounds(one, batch_size=40, num_batches=1, seed=1)[0] for one in (data.sides["real"], data))
    real, batch = data.sides["real"].complete(dict(alone)), data.complete(dict(both))
    assert list(batch) == ["source", "real", "label"] and torch.equal(batch["real"], real["real"])
    drawn = {key: both[key] for key in derivation.drawn}
    assert torch.equal(batch["source"], derivation.derive(batch["real"], drawn))
    assert batch["source"].dtype == torch.uint8 and batch["source"].shape[1:] == data.parts["source"]


@pytest.mark.parametrize("name", OF_COLOUR)
def test_a_source_is_made_where_the_image_lies(name):
    data = OF_COLOUR[name](noise(flip=True, random_crop=2))
    batch = Rounds(data, batch_size=4, num_batches=1, seed=0)[0]
    there = data.complete({key: value.to("meta") for key, value in batch.items()})
    assert there["source"].device.type == "meta" and there["source"].shape == (4, *data.parts["source"])


@pytest.mark.parametrize("name", OF_COLOUR)
def test_samples_for_scores_have_the_same_source_whenever_they_are_read(name):
    data = OF_COLOUR[name](noise(flip=True))
    whole = data.read(torch.arange(30))
    assert torch.equal(data.read(torch.tensor([7, 3]))["source"], whole["source"][[7, 3]])
    assert torch.equal(data.sides["source"].read(torch.arange(30))["real"], whole["source"])
    assert torch.equal(data.sides["real"].read(torch.arange(30))["real"], whole["real"])
    (batch,) = (GANDataModule(data, batch_size=4, num_batches=1, seed=3).reals(10)["source"],)
    (again,) = [b["real"] for b in data.sides["source"].shuffled(10)]
    assert torch.equal(batch, data.to_range(again))


@pytest.mark.parametrize("name", ["inpaint", "denoise"])
def test_chance_depends_on_position_and_seed_alone(name):
    data = OF_COLOUR[name](noise())
    whole = [Rounds(data, batch_size=24, num_batches=1, seed=0)[i] for i in (0, 1)]
    parts = [Rounds(data, batch_size=8, num_batches=3, seed=0, rank=rank, world_size=2)[1] for rank in (1, 0)]
    (key,) = OF_COLOUR[name].drawn
    rows = torch.arange(24).reshape(3, 2, 4)  # batch, rank, row
    for rank, part in zip((1, 0), parts, strict=True):
        assert torch.equal(part[key], whole[1][key][rows[:, rank].flatten()])
        assert torch.equal(data.complete(part)["source"], data.complete(whole[1])["source"][rows[:, rank].flatten()])
    assert not torch.equal(whole[0][key], whole[1][key])
    assert not torch.equal(Rounds(data, batch_size=24, num_batches=1, seed=1)[0][key], whole[0][key])


def test_resident_and_travelling_samples_are_the_same():
    data = OF_COLOUR["denoise"](noise(flip=True))
    index, read = (Rounds(data, batch_size=9, num_batches=1, seed=0, only_index=only)[2] for only in (True, False))
    assert index.keys() == {"index", "flip", "noise"} and read.keys() == {"real", "label", "flip", "noise"}
    one, other = data.complete(index), data.complete(read)
    assert all(torch.equal(one[key], other[key]) for key in ("source", "real", "label"))


@pytest.mark.parametrize("channels_last", [True, False])
def test_both_take_their_value_range_and_memory_format_on_the_device(channels_last):
    data = OF_COLOUR["invert"](noise(value_range=(0, 1)))
    module = GANDataModule(data, batch_size=4, num_batches=1, seed=0, channels_last=channels_last)
    batch = module.on_after_batch_transfer(Rounds(data, batch_size=4, num_batches=1, seed=0)[0], 0)
    assert torch.allclose(batch["source"], 1 - batch["real"], atol=1e-6)
    for key in ("source", "real"):
        assert batch[key].is_contiguous(memory_format=torch.channels_last) == channels_last
    assert torch.equal(data.in_range({"source": torch.tensor([0]), "real": torch.tensor([255])})["real"], torch.ones(1))


def test_deriving_keeps_what_is_held_and_copies_nothing():
    base = noise()
    data = OF_COLOUR["colorize"](base)
    assert data.is_resident and data.lies_on(torch.device("cpu")) and data.num_bytes == base.num_bytes
    assert data.sides["real"] is base and not data.held
    assert data.paired and len(data) == 30 and data.classes == ["a", "b", "c"] and data.num_classes == 3
    assert torch.equal(data.class_labels, base.class_labels)


def test_identity_is_of_the_samples_and_the_derivation():
    ways = [
        *OF_COLOUR.values(),
        Inpaint(source_channels=3, share=0.25),
        Denoise(source_channels=3, std=0.1),
        SuperResolution(source_channels=3, factor=4),
    ]
    identities = {way(noise()).identity for way in ways} | {noise().identity}
    assert len(identities) == len(ways) + 1
    assert Invert(source_channels=3)(noise()).identity in identities
    assert Invert(source_channels=3)(noise(limit=20)).identity not in identities
    assert Invert(source_channels=3)(noise()).sides["real"].identity == noise().identity  # whose statistics are shared
    weak, strong = (Denoise(source_channels=3, std=std)(noise()) for std in (0.1, 0.2))
    said = changes(weak.fingerprint, strong.fingerprint)
    assert len(said) == 1 and said[0].startswith("source: other contents")
    assert changes(noise().fingerprint, weak.fingerprint) == ["samples without a source image, they had one"]
    assert weak.described == {"resolution": "8x8", "channels": 3, "fit": "resize", "pairs": "denoise", "std": 0.1}


def test_the_test_split_is_derived_alike():
    class Split(Noise):
        def held_out(self):
            return noise(limit=5)

    data = Inpaint(source_channels=3, share=0.25)(Split(name="split", resolution=8, channels=3))
    other = data.held_out()
    assert len(other) == 5 and other.derivation is data.derivation
    assert OF_COLOUR["invert"](noise()).held_out() is None


def test_two_classes_are_the_sides():
    base = numbered(31)
    data = Classes(a="b", b=0, source_channels=1)(base)
    assert not data.paired and data.class_labels is None and data.classes == [] and data.num_classes == 0
    assert {key: len(side) for key, side in data.sides.items()} == {"source": 10, "real": 11} and len(data) == 11
    numbers = {key: side.read(torch.arange(len(side)))["real"][:, 0, 0, 0] for key, side in data.sides.items()}
    assert numbers["source"].tolist() == list(range(1, 31, 3)) and numbers["real"].tolist() == list(range(0, 31, 3))
    assert data.read(torch.tensor([10])).keys() == {"source", "real"}
    assert data.num_bytes == base.num_bytes and data.lies_on(torch.device("cpu"))
    assert data.described["a"] == "b" and data.described["b"] == "a"
    assert data.identity != Classes(a="a", b="b", source_channels=1)(base).identity
    assert changes(data.fingerprint, Classes(a="c", b=0, source_channels=1)(base).fingerprint)


REFUSED = [
    (Colorize(source_channels=1), Ring(name="ring", channels=2, num=10), "pairs=colorize: dataset ring has points"),
    (Colorize(source_channels=1), numbered(3), "pairs=colorize: the data set is grey"),
    (Colorize(source_channels=3), noise(), r"pairs\.source_channels=3; expected 1"),
    (Invert(source_channels=1), noise(), r"pairs\.source_channels=1; expected 3"),
    (Invert(source_channels=3), OF_COLOUR["invert"](noise()), "dataset noise has two sides already"),
    (SuperResolution(source_channels=3, factor=3), noise(), r"pairs\.factor=3; .* divisor of 8 and 8"),
    (Inpaint(source_channels=3, share=1.0), noise(), r"pairs\.share=1\.0; "),
    (Denoise(source_channels=3, std=0.0), noise(), r"pairs\.std=0\.0; "),
    (Classes(a="x", b="b", source_channels=3), noise(), r"pairs\.a=x: dataset noise has no such class; .*a, b, c"),
    (Classes(a=0, b=3, source_channels=3), noise(), r"pairs\.b=3: "),
    (Classes(a=0, b="a", source_channels=3), noise(), "expected two classes"),
]


@pytest.mark.parametrize(("way", "data", "told"), REFUSED, ids=[told for *_, told in REFUSED])
def test_what_nothing_can_be_derived_from(way, data: Data, told):
    with pytest.raises(UserError, match=told) as raised:
        way(data)
    assert "\n" not in str(raised.value)


def test_classes_of_a_set_without_any():
    data = Digits(name="digits", resolution=8, channels=1, limit=10)
    assert Classes(a=3, b="7", source_channels=1)(data).chosen == {"a": "3", "b": "7"}
    data.classes = []
    with pytest.raises(UserError, match="dataset digits has no classes"):
        Classes(a=0, b=1, source_channels=1)(data)


@pytest.mark.parametrize("option", [*OF_COLOUR, "classes"])
def test_each_option_from_the_config(option):
    data = open_data(composed("dataset=digits", "dataset.channels=3", "dataset.limit=20", f"pairs={option}")[0])
    assert list(data.parts) == ["source", "real"] and data.parts["real"] == (3, 16, 16)
    assert data.paired == (option != "classes")


def test_nothing_derived_and_keys_without_an_option():
    assert isinstance(open_data(composed("dataset=digits")[0]), Digits)
    with pytest.raises(UserError, match=r"pairs is off; choose pairs="):
        composed("+pairs.factor=2")
    with pytest.raises(UserError, match=r"pairs\.factor=2\.5; expected an integer"):
        composed("pairs=super-resolution", "pairs.factor=2.5")


def test_a_real_set_is_derived(data_dir):
    cfg, _ = composed("dataset=mnist", f"data_dir={data_dir}", "pairs=edges")
    data = open_data(cfg)
    assert len(data) == 60000 and len(data.held_out()) == 10000
    batch = data.read(torch.arange(100))
    assert batch["source"].shape == batch["real"].shape == (100, 1, 32, 32) and batch["source"].float().mean() > 20


def test_real_colours_lose_them(data_dir):
    place = data_dir / "cifar10-jpeg" / "test.zip"
    if not place.exists():
        pytest.skip("CIFAR-10 as a .zip of images is not on this machine")
    words = ["dataset=image-folder", f"dataset.path={place}", "dataset.limit=50", "dataset.cache=null"]
    data = open_data(composed(*words, "pairs=colorize")[0])
    batch = data.read(torch.arange(50))
    assert (batch["source"].int() - to_channels(batch["real"], 1).int()).abs().max() <= 1  # which sums in floats
    assert data.classes[0] == "airplane"
