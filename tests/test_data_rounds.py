"""The stream of samples: every epoch complete, the same for any number of workers, ranks and starts."""

import io
import multiprocessing
import zipfile
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from ganrun.data.datamodule import GANDataModule, Rounds
from ganrun.data.images import Digits, ImageFolder, ImagesInMemory
from ganrun.data.vectors import Gaussian
from ganrun.errors import UserError
from ganrun.module import GANModule
from ganrun.noise import Normal


@dataclass(kw_only=True)
class Numbered(ImagesInMemory):
    """Image i is the two pixels (i, 255), labelled i % 3: its number and whether it is mirrored can be read."""

    num: int
    resolution: tuple = (1, 2)
    channels: int = 1

    def load(self):
        numbers = torch.arange(self.num)
        pixels = torch.stack([numbers, torch.full_like(numbers, 255)], 1).to(torch.uint8)
        return pixels.reshape(-1, 1, 1, 2), numbers % 3, ["a", "b", "c"]


def numbered(num: int, **settings) -> Numbered:
    return Numbered(name="numbered", num=num, **settings)


def stream(data: Numbered, *, num: int, batch_size: int, num_batches: int = 1, seed: int = 0) -> list[int]:
    """The numbers of the first `num` samples and more, up to whole rounds."""
    rounds = Rounds(data, batch_size=batch_size, num_batches=num_batches, seed=seed)
    per_round = batch_size * num_batches
    return torch.cat(
        [data.complete(rounds[i])["real"].flatten(1).amin(1) for i in range(-(-num // per_round))]
    ).tolist()


def loaded(data, *, start: int = 0, num: int = 8, rank: int = 0, world_size: int = 1, further=()) -> list[dict]:
    """What a trainer that stands at step `start` is fed, through the real loader."""
    module = GANDataModule(data, batch_size=4, num_batches=2, seed=0, further=further)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, global_step=start, strategy=strategy)
    return [data.complete(batch) for batch in islice(module.train_dataloader(), num)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("device", "keys"), [("cpu", {"index", "flip"}), ("meta", {"real", "label", "flip"})])
def test_samples_that_lie_elsewhere_than_the_networks_travel(device, keys):
    module = GANDataModule(numbered(20, flip=True), batch_size=4, num_batches=2, seed=0)
    strategy = SimpleNamespace(root_device=torch.device(device))
    module.trainer = SimpleNamespace(global_rank=0, world_size=1, global_step=0, strategy=strategy)
    batch = next(iter(module.train_dataloader()))
    assert batch.keys() == keys
    there = module.on_after_batch_transfer({key: value.to(device) for key, value in batch.items()}, 0)
    assert there["real"].device.type == device and there["real"].shape == (8, 1, 1, 2)


@pytest.mark.parametrize("num_batches", [1, 3])
@pytest.mark.parametrize(
    ("num", "batch_size"),
    [(12, 4), (10, 4), (7, 3), (5, 5), (3, 8), (1, 4), (10, 25)],
    ids=["even", "straddles", "straddles oddly", "whole", "batch of more than two epochs", "one sample", "many epochs"],
)
def test_each_epoch_visits_every_sample_once(num, batch_size, num_batches):
    samples = stream(numbered(num), num=6 * num, batch_size=batch_size, num_batches=num_batches)
    for epoch in range(6):
        assert sorted(samples[epoch * num : (epoch + 1) * num]) == list(range(num))


def test_epochs_are_shuffled_differently():
    samples = stream(numbered(50), num=150, batch_size=10)
    orders = [samples[:50], samples[50:100], samples[100:150], list(range(50))]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


@pytest.mark.parametrize(("batch_size", "num_batches"), [(4, 3), (6, 2), (24, 1), (2, 1)])
def test_the_stream_does_not_depend_on_how_it_is_cut(batch_size, num_batches):
    plain = stream(numbered(10), num=48, batch_size=1)
    assert stream(numbered(10), num=48, batch_size=batch_size, num_batches=num_batches) == plain


def test_labels_and_flips_travel_with_their_samples():
    data = numbered(30, flip=True)
    batch = data.complete(Rounds(data, batch_size=60, num_batches=1, seed=0)[0])
    numbers = batch["real"].flatten(1).amin(1)
    assert torch.equal(batch["label"], numbers.long() % 3)
    mirrored = batch["real"][:, 0, 0, 0] == 255
    again = data.complete(Rounds(data, batch_size=12, num_batches=5, seed=0)[0])["real"][:, 0, 0, 0] == 255
    assert torch.equal(mirrored, again)
    assert 10 < mirrored.sum() < 50
    assert not torch.equal(mirrored[numbers[:30].sort().indices], mirrored[30 + numbers[30:].sort().indices])
    assert not torch.equal(mirrored[:30], mirrored[30:])  # nor do they repeat by place


def test_another_epoch_crops_otherwise():
    data = numbered(30, random_crop=0)
    positions = np.arange(60)
    data.random_crop = 1
    corners = data.draw(positions, 0)["corner"]
    assert not torch.equal(corners[:30], corners[30:]) and torch.equal(corners, data.draw(positions, 0)["corner"])
    order = Rounds(data, batch_size=60, num_batches=1, seed=0, only_index=True)[0]
    first, second = (order["corner"][part][order["index"][part].argsort()] for part in (slice(30), slice(30, 60)))
    assert not torch.equal(first, second)  # the same samples, an epoch later
    assert not torch.equal(order["corner"][:30], order["corner"][30:60])  # the same places


def test_rounds_come_in_any_order():
    data = numbered(10, flip=True)
    rounds, other = (Rounds(data, batch_size=4, num_batches=2, seed=0) for _ in range(2))
    forth = [rounds[i] for i in range(9)]
    back = [other[i] for i in reversed(range(9))]
    assert all(same(a, b) for a, b in zip(forth, reversed(back), strict=True))


def test_seeds_differ():
    first, again, other = (stream(numbered(50), num=50, batch_size=10, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", [0, 5])
def test_the_same_for_any_number_of_workers(tmp_path, start):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i, pixels in enumerate(np.random.default_rng(0).integers(256, size=(23, 8, 8, 3), dtype=np.uint8)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "png")
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", buffer.getvalue())
    streams = []
    for num_workers in (0, 2):
        data = ImageFolder(
            name="mine", path=str(path), resolution=8, channels=3, flip=True, num_workers=num_workers, num_classes=2
        )
        data.read(torch.tensor([0]))  # as a run does before its workers start
        streams.append(loaded(data, start=start))
    assert len(streams[0]) == 8 and streams[0][0]["real"].shape == (8, 3, 8, 8)
    assert all(same(a, b) for a, b in zip(*streams, strict=True))


class Idle(pl.LightningModule):
    def training_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        pass


@pytest.mark.filterwarnings("ignore")  # Lightning's, on a training that does nothing
def test_an_image_damaged_since_ends_training_in_one_line_and_all_workers(tmp_path):
    for i in range(6):
        noise = np.random.default_rng(i).integers(256, size=(64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    data = ImageFolder(name="mine", path=str(tmp_path), resolution=8, channels=3, num_workers=2)
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:-2000])  # its header is still whole
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    trainer = pl.Trainer(max_steps=9, accelerator="cpu", use_distributed_sampler=False, **dict.fromkeys(quiet, False))
    before = multiprocessing.active_children()  # of other tests
    with pytest.raises(UserError) as raised:
        trainer.fit(Idle(), datamodule=GANDataModule(data, batch_size=2, num_batches=1, seed=0))
    assert str(raised.value).startswith("dataset mine: cannot read image 4.png: ")
    assert "\n" not in str(raised.value)
    assert set(multiprocessing.active_children()) <= set(before)  # they ignore the signal that would end them at exit


def test_a_later_start_goes_on_where_the_first_would_be():
    data = numbered(11, flip=True)
    whole, rest = loaded(data), loaded(data, start=3, num=5)
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))
    assert not same(whole[0], whole[3])


@pytest.mark.parametrize("further", [[], [8]], ids=["", "and-further-rows"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_are_the_single_process(world_size, further):
    """Batch for batch and row for row, as GANModule cuts them, each row with its own noise."""
    data = numbered(11, flip=True)
    rows, step = 4 // world_size, 2
    drawing = {
        "noise": Normal(3),
        "num_batches": 2,
        "batch_size": 4,
        "seed": 0,
        "attempt": 0,
        "device": torch.device("cpu"),
        "further": further,
        "larger": [1] * len(further),
    }

    def batches(rank: int, world_size: int) -> list[dict]:
        module = SimpleNamespace(**drawing, trainer=SimpleNamespace(world_size=world_size), global_rank=rank)
        module._noise = partial(GANModule._noise, module)
        (batch,) = loaded(data, start=step, num=1, rank=rank, world_size=world_size, further=further)
        return GANModule._fresh(module, batch, step)

    single, ranks = batches(0, 1), [batches(rank, world_size) for rank in range(world_size)]
    for i in range(2):
        more = sum(further) // world_size if i == 1 else 0
        assert {len(rank[i]["real"]) for rank in ranks} == {rows + more}
        parts = [slice(0, rows), slice(rows, None)]  # those that all players see, and those of the generator alone
        together = {key: torch.cat([rank[i][key][part] for part in parts for rank in ranks]) for key in single[i]}
        assert set(together) == {"real", "label", "z"}
        assert same(together, single[i])


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"batch_size=5 .* multiple of 2"):
        Rounds(numbered(10), batch_size=5, num_batches=1, seed=0, world_size=2)


@pytest.mark.parametrize(
    "data",
    [Digits(name="digits", resolution=8, channels=1), Gaussian(name="gaussian", channels=1, num=100)],
    ids=lambda data: data.name,
)
def test_on_the_device_reals_are_in_the_value_range(data):
    module = GANDataModule(data, batch_size=4, num_batches=1, seed=0)
    stored = data.read(torch.arange(6))
    batch = module.on_after_batch_transfer(dict(stored), 0)
    assert torch.equal(batch["real"], data.to_range(stored["real"])) and batch["real"].dtype == torch.float32
    assert batch.keys() == stored.keys()
    if data.name == "digits":
        assert batch["real"].min() == -1 and batch["real"].max() == 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_on_the_device(channels_last):
    data = Digits(name="digits", resolution=8, channels=3)
    module = GANDataModule(data, batch_size=4, num_batches=1, seed=0, channels_last=channels_last)
    real = module.on_after_batch_transfer(data.read(torch.arange(6)), 0)["real"]
    assert real.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert real.is_contiguous() != channels_last


def test_reals_for_scores_are_a_fixed_shuffle():
    data = numbered(100)
    few, many = (
        GANDataModule(data, batch_size=4, num_batches=1, seed=seed).reals(n) for seed, n in ((0, 20), (1, 200))
    )
    numbers = ((many["real"].flatten(1)[:, 0] + 1) * 127.5).round().long()
    assert sorted(numbers.tolist()) == list(range(100)) != numbers.tolist()
    assert torch.equal(many["label"], numbers % 3)
    assert torch.equal(few["real"], many["real"][:20])
