"""Two sides, each read in its own order: every epoch complete, no pairs, the same wherever a round is read."""

from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_configs import composed
from test_data_rounds import Numbered, numbered, same

from ganrun.data.datamodule import GANDataModule, Rounds
from ganrun.data.derived import Invert
from ganrun.data.folders import UnpairedImages
from ganrun.errors import UserError
from ganrun.seeding import derive
from ganrun.training.nodes import open_data


def unpaired(place, num_source: int = 5, num_real: int = 8, **settings) -> UnpairedImages:
    """Source i is (i, 99), real i is (100 + i, 200): numbers and mirroring can be read."""
    for key, num, first, last in (("source", num_source, 0, 99), ("real", num_real, 100, 200)):
        (place / key).mkdir(exist_ok=True)
        for i in range(num):
            pixels = np.array([[first + i, last]], dtype=np.uint8)
            Image.fromarray(pixels).save(place / key / f"{i}.png")
    about = {"name": "two", "resolution": (1, 2), "channels": 1, "fit": "exact"} | settings
    return UnpairedImages(source=str(place / "source"), path=str(place / "real"), **about)


def loaded(data, *, start: int = 0, num: int = 6, rank: int = 0, world_size: int = 1) -> list[dict]:
    """What a trainer that stands at step `start` is fed, through the real loader."""
    module = GANDataModule(data, batch_size=4, num_batches=2, seed=0, unpaired=True)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, global_step=start, strategy=strategy)
    return [module.on_after_batch_transfer(batch, 0) for batch in islice(module.train_dataloader(), num)]


def stream(data, num: int, *, seed: int = 0, batch_size: int = 4, unpaired: bool = True) -> dict[str, list[int]]:
    """The numbers of the first `num` samples of each side."""
    rounds = Rounds(data, batch_size=batch_size, num_batches=1, seed=seed, unpaired=unpaired)
    batches = [data.complete(rounds[i]) for i in range(-(-num // batch_size))]
    return {key: torch.cat([b[key] for b in batches]).flatten(1).amin(1).tolist()[:num] for key in ("source", "real")}


@pytest.mark.parametrize(("num_source", "num_real"), [(5, 8), (8, 5), (6, 6), (1, 7)])
@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_each_side_is_complete_in_each_of_its_own_epochs(tmp_path, num_source, num_real, batch_size):
    data = unpaired(tmp_path, num_source, num_real)
    found = stream(data, 4 * num_source * num_real, batch_size=batch_size)
    for key, num, first in (("source", num_source, 0), ("real", num_real, 100)):
        epochs = np.array(found[key]).reshape(-1, num)
        assert (np.sort(epochs) == np.arange(first, first + num)).all()
        assert num == 1 or len({tuple(epoch) for epoch in epochs}) > 1
    assert len(data) == max(num_source, num_real)
    assert {key: len(side) for key, side in data.sides.items()} == {"source": num_source, "real": num_real}


def test_sides_of_pairs_are_not_aligned_and_do_not_move_alike():
    data = Invert(source_channels=1)(numbered(60, flip=True))
    rounds = Rounds(data, batch_size=60, num_batches=1, seed=0, unpaired=True)
    batch = data.complete(rounds[0])
    source, real = (255 - batch["source"]).flatten(1), batch["real"].flatten(1)
    assert sorted(source.amin(1).tolist()) == sorted(real.amin(1).tolist()) == list(range(60))
    assert (source.amin(1) == real.amin(1)).sum() < 6
    flips = [x.argmax(1) for x in (source, real)]
    assert all(15 < flip.sum() < 45 for flip in flips) and 15 < (flips[0] != flips[1]).sum() < 45
    assert torch.equal(batch["label"], real.amin(1).long() % 3)  # of the real image
    paired = data.complete(Rounds(data, batch_size=60, num_batches=1, seed=0)[0])
    assert torch.equal(255 - paired["source"], paired["real"])


def test_a_side_is_the_stream_that_it_would_be_alone(tmp_path):
    data = unpaired(tmp_path, flip=True)
    both = Rounds(data, batch_size=7, num_batches=2, seed=3, unpaired=True)[4]
    for key, side in data.sides.items():
        alone = Rounds(side, batch_size=7, num_batches=2, seed=derive(3, "side", key))[4]
        assert same({name.removeprefix(f"{key}/"): v for name, v in both.items() if name.startswith(key)}, alone)


def test_one_sided_data_are_read_as_ever():
    data = numbered(11, flip=True)
    plain, asked = (Rounds(data, batch_size=4, num_batches=2, seed=0, unpaired=which) for which in (False, True))
    assert all(same(plain[i], asked[i]) for i in range(5))


def test_seeds_differ_and_the_same_seed_repeats(tmp_path):
    data = unpaired(tmp_path, 20, 20)
    first, again, other = (stream(data, 20, seed=seed) for seed in (0, 0, 1))
    assert first == again and first["source"] != other["source"] and first["real"] != other["real"]
    assert [100 + number for number in first["source"]] != first["real"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", [0, 3])
def test_the_same_for_any_number_of_workers_and_any_start(tmp_path, start):
    whole = loaded(unpaired(tmp_path, flip=True))
    for num_workers in (0, 2):
        rest = loaded(unpaired(tmp_path, flip=True, num_workers=num_workers), start=start, num=6 - start)
        assert all(same(one, other) for one, other in zip(whole[start:], rest, strict=True))
    assert not same(whole[0], whole[1])


def test_ranks_together_are_the_single_process(tmp_path):
    data = unpaired(tmp_path, flip=True)
    (single,) = loaded(data, start=2, num=1)
    ranks = [loaded(data, start=2, num=1, rank=rank, world_size=2) for rank in (0, 1)]
    rows = torch.arange(8).reshape(2, 2, 2)  # batch, rank, row
    for rank, (found,) in enumerate(ranks):
        assert all(torch.equal(found[key], single[key][rows[:, rank].flatten()]) for key in ("source", "real"))


def test_indices_and_samples_on_their_way_are_the_same(tmp_path):
    data = unpaired(tmp_path, flip=True)
    index, read = (
        Rounds(data, batch_size=6, num_batches=1, seed=0, only_index=only, unpaired=True)[1] for only in (True, False)
    )
    assert index.keys() == {"source/index", "source/flip", "real/index", "real/flip"}
    assert same(data.complete(index), data.complete(read))
    assert data.complete(index).keys() == {"source", "real"}


def test_samples_for_scores_are_two_fixed_shuffles(tmp_path):
    data = unpaired(tmp_path, 5, 12)
    module = GANDataModule(data, batch_size=4, num_batches=1, seed=0, unpaired=True)
    batch = {key: data.as_stored(value).flatten(1)[:, 0].tolist() for key, value in module.reals(100).items()}
    assert sorted(batch["real"]) == list(range(100, 112)) != batch["real"]
    assert sorted(batch["source"][:5]) == list(range(5)) and batch["source"][5:10] == batch["source"][:5]
    parts = list(data.shuffled(7, chunk=3))
    assert torch.cat([part["real"] for part in parts])[:, 0, 0, 0].tolist() == batch["real"][:7]
    (alone,) = data.sides["real"].shuffled(7)
    assert alone["real"][:, 0, 0, 0].tolist() == batch["real"][:7]


def test_what_is_not_paired_has_no_labels(tmp_path):
    for key in ("source", "real"):
        for name in ("x", "y"):
            (tmp_path / key / name).mkdir(parents=True)
            Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / key / name / "0.png")
    data = unpaired(tmp_path, 0, 0)
    assert data.classes == [] and data.class_labels is None and data.num_classes == 0
    assert data.read(torch.tensor([0])).keys() == {"source", "real"}
    assert data.notes == ["no classes: what is not paired has none"]


def test_identity_covers_both_sides(tmp_path):
    data = unpaired(tmp_path)
    identities = {data.identity, unpaired(tmp_path, source_channels=3).identity, unpaired(tmp_path, limit=4).identity}
    more = unpaired(tmp_path, num_source=6)
    assert len(identities | {more.identity}) == 4
    assert more.fingerprint["source"]["num"] == 6 and more.fingerprint["num"] == 8


@dataclass(kw_only=True)
class Many(Numbered):
    """With a test split of 7."""

    def held_out(self):
        return numbered(7)


def test_the_test_split_of_two_classes():
    from ganrun.data.between_classes import Classes

    data = Classes(a=0, b=2, source_channels=1)(Many(name="many", num=30)).held_out()
    assert {key: len(side) for key, side in data.sides.items()} == {"source": 3, "real": 2}
    found = stream(data, 6)
    assert sorted(found["source"][:3]) == [0, 3, 6] and sorted(found["real"][:2]) == [2, 5]


def test_unpaired_from_the_config_and_mistakes(tmp_path):
    unpaired(tmp_path)
    words = ["dataset=unpaired", f"dataset.source={tmp_path}/source", f"dataset.path={tmp_path}/real"]
    words += ["dataset.resolution=[1,2]", "dataset.cache=null"]
    data = open_data(composed(*words)[0])
    assert not data.paired and data.parts == {"source": (3, 1, 2), "real": (3, 1, 2)}
    with pytest.raises(UserError, match=r"dataset=unpaired needs dataset.source=<folder or .zip>"):
        open_data(composed("dataset=unpaired")[0])
    with pytest.raises(UserError, match=r"dataset\.source=.*/none: there is no such folder"):
        open_data(composed(*words, f"dataset.source={tmp_path}/none")[0])
