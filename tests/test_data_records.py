"""Sets of many samples a file: Hugging Face's, Parquet, Arrow, tar shards; read by number or in sequence."""

import json
import shutil
import tarfile
from pathlib import Path

import braceexpand
import pytest
import torch
from conftest import TINY, ganrun, last_line
from forked import Run
from shards import NAMES, add, digits, served, write_parquet, write_shards
from test_clean import aged
from test_runs import assert_same_state
from webdataset.tariterators import group_by_keys, tar_file_expander

from ganrun.data.datamodule import Rounds
from ganrun.data.derived import Invert
from ganrun.data.few_labels import FewLabels
from ganrun.data.huggingface import HuggingFace
from ganrun.data.naming import Naming
from ganrun.data.pixels import Decoding
from ganrun.data.places import braces, spelt_out
from ganrun.data.records import Records
from ganrun.data.sequence import Reader, Shards, shuffled_in_windows
from ganrun.data.webdataset import WebDataset
from ganrun.errors import UserError

SIZES = [13, 1, 20, 16]
NUM = sum(SIZES)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The same 50 digits in every form."""
    import datasets

    path = tmp_path_factory.mktemp("records")
    write_shards(path / "tars", SIZES)
    write_shards(path / "gz", SIZES, "tar.gz")
    (path / "parquet").mkdir()
    write_parquet(path / "parquet" / "train-00000-of-00002.parquet", 30)
    write_parquet(path / "parquet" / "train-00001-of-00002.parquet", NUM, first=30)
    write_parquet(path / "parquet" / "test-00000-of-00001.parquet", 9)
    images, labels = digits(NUM)
    features = datasets.Features({"picture": datasets.Image(), "digit": datasets.ClassLabel(names=NAMES)})
    rows = {"picture": [{"bytes": image, "path": None} for image in images], "digit": labels}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.save_to_disk(str(path / "saved"))
    datasets.DatasetDict({"train": table, "validation": table.select(range(5))}).save_to_disk(str(path / "dict"))
    shutil.copy(next((path / "saved").glob("*.arrow")), path / "train.arrow")
    return path


def opened(path: object, **settings) -> Records:
    kind = WebDataset if any(word in str(path) for word in ("tar", "gz", "http")) else HuggingFace
    about = {"name": "mine", "resolution": 8, "channels": 1, "fit": "exact"}
    return kind(**about | {"path": path and str(path)} | settings)


FORMS = ["parquet", "saved", "dict", "train.arrow", "tars", "tars/train-{0000..0003}.tar", "gz"]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_samples(place, tmp_path, form, streaming, capsys):
    images, labels = digits(NUM)
    expected = torch.stack([Decoding((8, 8), 1).decode(image)[0] for image in images])
    for cache in (None, str(tmp_path / "cache"), str(tmp_path / "cache")):
        data = opened(place / form, streaming=streaming, cache=cache, window=8)
        batch = data.read(torch.arange(NUM))
        assert torch.equal(batch["real"], expected) and batch["label"].tolist() == labels
    assert data.classes == (["0", "1", "2"] if form in ("parquet", *FORMS[4:]) else NAMES)
    assert data.in_sequence == (streaming and form in ("parquet", "gz"))
    assert capsys.readouterr().out.count("preparing") == (not streaming)  # the second time it is found
    assert any(note.startswith("streamed: ") for note in data.notes) == streaming
    few = opened(place / form, streaming=streaming, limit=7, window=8)
    assert len(few) == 7 and len(few.read(torch.arange(7))["real"]) == 7


def test_the_same_pixels_are_the_same_data(place, tmp_path):
    same = [opened(place / form, cache=None) for form in ("parquet", "tars", "gz")]
    assert len({data.identity for data in same}) == 1
    streamed = opened(place / "tars", streaming=True)
    assert streamed.identity != same[0].identity
    shutil.copytree(place / "tars", tmp_path / "tars")
    assert opened(tmp_path / "tars", streaming=True).identity == streamed.identity
    assert opened(tmp_path / "tars", streaming=True, resolution=4, fit="crop").identity != streamed.identity
    write_shards(tmp_path / "tars", [12, 2, 20, 16])
    assert opened(tmp_path / "tars", streaming=True).identity != streamed.identity


def test_shards_agree_with_the_library(place):
    """WebDataset's own reader, as an independent implementation."""
    data, number = opened(place / "tars", streaming=True), 0
    for shard in sorted((place / "tars").iterdir()):
        with shard.open("rb") as file:
            for sample in group_by_keys(tar_file_expander([{"url": shard.name, "stream": file}])):
                name = data._names[number]
                assert name == f"{shard.name}/{sample['__key__']}" and data.content(name) == sample["png"]
                assert data._found.labels[number] == sample["cls"].decode()
                number += 1
    assert number == NUM


@pytest.mark.parametrize(
    "text", ["a-{0000..0012}.tar", "{train,val}-{8..10}.tar", "x{3..1}{a,b}", "plain.tar", "{01..2}"]
)
def test_braces_are_the_shells(text):
    assert braces(text, text) == list(braceexpand.braceexpand(text))


def test_lists_globs_and_urls(place):
    assert spelt_out("[a.tar, 'b-{0..1}.tar']") == ["a.tar", "b-0.tar", "b-1.tar"]
    assert spelt_out("https://x.org/a-{0..1}.tar?key=*") == [f"https://x.org/a-{i}.tar?key=*" for i in (0, 1)]
    assert len(spelt_out(f"{place}/tars/train-*.tar")) == 4


@pytest.mark.parametrize("ending", ["tars", "gz"])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole files"])
def test_shards_on_a_server(place, tmp_path, monkeypatch, ranges, ending):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("ganrun.data.records.LOOKED_AT", 3)
    with served(place / ending, ranges=ranges) as (address, asked):
        url = f"{address}/train-{{0000..0003}}.{'tar' if ending == 'tars' else 'tar.gz'}"
        here = opened(place / ending)
        about = {"streaming": True, "cache": str(tmp_path / "cache"), "window": 4}
        data = opened(url, **about)
        assert data.in_sequence and torch.equal(data.read(torch.arange(NUM))["real"], here.held["real"])
        asked.clear()
        again = opened(url, **about)  # the index is kept
        assert {line.partition(" ")[2] for line in asked[:4]} == {"bytes=0-5"}
        asked.clear()
        rows = torch.tensor([50 - 2, 50 - 1])  # near the end of the last shard
        assert torch.equal(again.read(rows)["real"], here.held["real"][rows])
        begins = [int(line.rpartition("=")[2].rstrip("-")) for line in asked if "None" not in line]
        assert len(asked) == 1 and (len(begins) == 1 and begins[0] > 0) == (ending == "tars")
        with pytest.raises(UserError, match=r"nosuch\.tar: the server answers 404"):
            opened(f"{address}/nosuch.tar")
    with pytest.raises(UserError, match="Connection refused"):
        opened(f"{address}/train-0000.tar")


def rounds_of(data: Records, start: int, num: int, **settings) -> list[dict]:
    rounds = Rounds(data, batch_size=6, num_batches=1, seed=3, **settings)
    return [rounds[number] for number in range(start, start + num)]


@pytest.mark.parametrize("form", ["parquet", "gz", "tars"])
def test_a_stream_passes_every_sample_once_whoever_reads_it(place, form):
    def made(window: int = 8) -> Records:
        return opened(place / form, streaming=True, window=window, num_workers=2)

    whole = rounds_of(made(), 0, 25)  # three passes of 50
    read = torch.cat([batch["real"] for batch in whole])
    content = opened(place / form, cache=None).held["real"]
    numbers = {bytes(image.numpy()): [] for image in content}
    for number, image in enumerate(content):
        numbers[bytes(image.numpy())].append(number)
    for one in read.split(NUM):
        assert sorted(bytes(image.numpy()) for image in one) == sorted(bytes(image.numpy()) for image in content)
    assert not torch.equal(read[:NUM], read[NUM : 2 * NUM]) and not torch.equal(read[:NUM], content)
    later = rounds_of(made(), 11, 4)  # a resume: another process, in the middle of a pass
    assert all(torch.equal(a["real"], b["real"]) for a, b in zip(whole[11:15], later, strict=True))
    ranks = [rounds_of(made(), 5, 3, rank=rank, world_size=2) for rank in (0, 1)]
    together = [torch.cat([a["real"], b["real"]]) for a, b in zip(*ranks, strict=True)]
    assert all(torch.equal(a["real"], b) for a, b in zip(whole[5:8], together, strict=True))


class Counted(Shards):
    """Samples that are their own shard and place, and a count of what was opened and read."""

    def __init__(self, sizes):
        self.sizes, self.opened, self.passed, self.faults = sizes, [], 0, 0

    def open(self, shard, place):
        self.opened.append((shard, place))
        for number in range(place, self.sizes[shard]):
            if self.faults and number % 5 == 4:
                self.faults -= 1
                raise OSError("connection lost")
            self.passed += 1
            yield shard, number


@pytest.mark.parametrize("sizes", [[100], [7, 300, 1, 1, 1, 40, 25], [3] * 60])
def test_whoever_follows_the_order_reads_each_shard_once(sizes):
    numbers = torch.arange(sum(sizes)).split(sizes)
    where = [(shard, place) for shard, size in enumerate(sizes) for place in range(size)]
    shards = Counted(sizes)
    reader, most = Reader(shards, 16), 0
    for epoch in range(2):
        order = shuffled_in_windows(numbers, 16, 5, epoch).tolist()
        assert sorted(order) == list(range(sum(sizes)))
        for number in order:
            assert reader.read(*where[number]) == where[number]
            most = max(most, sum(len(cursor.kept) for cursor in reader._cursors.values()))
    assert shards.passed <= 2 * sum(sizes) + 6 * 16 and most <= 6 * 16 + 32
    assert shuffled_in_windows(numbers, 16, 5, 0).tolist() != order
    start = sum(sizes) // 2  # a resume begins near its window, not at the front
    shards.passed = 0
    late = Reader(shards, 16)
    assert [late.read(*where[number]) for number in order[start : start + 5]] == [
        where[number] for number in order[start : start + 5]
    ]
    assert shards.passed <= 6 * 16


def test_a_lost_connection_is_taken_up_again(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shards = Counted([100])
    shards.faults = 2
    reader = Reader(shards, 16)
    assert [reader.read(0, place) for place in range(30)] == [(0, place) for place in range(30)]
    shards.faults = 3
    with pytest.raises(OSError, match="connection lost"):
        [reader.read(0, place) for place in range(30, 100)]


LABELS = {
    "whole numbers": ([3, 1, 3], [3, 1, 3], ["0", "1", "2", "3"]),
    "numbers as text": (["10", "2", "2"], [10, 2, 2], [str(i) for i in range(11)]),
    "text": (["b", "a", "10"], [2, 1, 0], ["10", "a", "b"]),
    "truth": ([True, False, True], [1, 0, 1], ["False", "True"]),
    "one": (["a", "a", "a"], None, []),
    "none known": ([-1, -1, -1], None, []),
}


@pytest.mark.parametrize("kind", LABELS)
def test_what_labels_become(tmp_path, kind):
    labels, numbers, classes = LABELS[kind]
    write_parquet(tmp_path / "train.parquet", 3, label=labels)
    data = opened(tmp_path / "train.parquet")
    assert data.classes == classes
    assert (data.class_labels if numbers is None else data.class_labels.tolist()) == numbers


def test_numbers_are_not_names():
    """Names of numbers sorted as text, as class folders have them."""
    numbers, classes, _ = Naming(["0", "1", "10", "2"]).numbered([3, 2, "2", "3", True], "here")
    assert numbers == [3, 2, 3, 3, None] and classes == ["0", "1", "10", "2"]
    with pytest.raises(UserError, match="a name is there twice"):
        Naming(["a", "a"])


def test_named_classes_and_columns(tmp_path):
    write_parquet(tmp_path / "train.parquet", 3, label=["b", "a", "c"], other=[0.5, 1.5, 2.5])
    data = opened(tmp_path / "train.parquet", class_names=["b", "a", "z"], on_error="skip")
    assert data.class_labels.tolist() == [0, 1] and data.classes == ["b", "a", "z"]
    assert data.skipped == [("train[2]", "its label c is none of 3 classes")]
    assert any(note.endswith("without images: z") for note in data.notes)
    assert opened(tmp_path / "train.parquet", label_column=None).classes == []
    with pytest.raises(UserError, match=r"train\[0\]: its label is 0.5; expected a class"):
        opened(tmp_path / "train.parquet", label_column="other")


def test_test_splits(place):
    other = opened(place / "parquet", limit=4).held_out()
    assert len(other) == 9 and other.classes == ["0", "1", "2"] and other.held_out() is None
    assert len(opened(place / "dict").held_out()) == 5
    assert opened(place / "dict", test_split=None).held_out() is None is opened(place / "train.arrow").held_out()
    data = opened(place / "tars" / "train-{0000..0002}.tar", test_path=str(place / "tars" / "train-0003.tar"))
    assert len(data.held_out()) == 16 and opened(place / "tars").held_out() is None


MISTAKES = {
    ("parquet", "split=trian"): "split=trian: {path} has no such split; did you mean train? valid: ",
    ("parquet", "test_split=val"): "test_split=val: {path} has no such split",
    ("parquet", "subset=x"): "subset=x: {path} has no such config; valid: default",
    (
        "parquet",
        "image_column=img",
    ): "image_column=img: there is no such column; did you mean image? valid: image, label",
    ("parquet", "image_column=label"): "image_column=label: it holds Value('int64'), no images",
    ("parquet", "label_column=lable"): "label_column=lable: there is no such column; did you mean label?",
    ("parquet", "resolution=4"): "cannot read image train[00]: 8x8 pixels; expected 4x4, and 49 more",
    ("parquet", "window=0"): "window=0; expected at least 1",
    ("nosuch/place/x", ""): "there is no such file or folder",
    ("dict/dataset_dict.json", ""): "expected a folder, a .parquet or an .arrow file",
    (
        "tars",
        "image_key=jpg",
    ): "image_key=jpg: the first sample, 00000, has no such file; did you mean png? valid: png, cls",
    ("tars", "class_key=json"): "class_key=json: the first sample, 00000, has no such file; valid: cls, png",
    ("tars/train-{0000..0009}.tar", ""): "train-0004.tar: No such file or directory, and 5 more",
    ("tars/train-{0000...tar", ""): "expected a-{00..09}.tar",
    ("tars/{0..9999999}", ""): "it names 10,000,000 shards",
    ("pipe:cat tars/x.tar", ""): "pipe: it would run a command; expected files, http:// or https://",
    ("s3://bucket/x.tar", ""): "s3: it is not read; expected files, http:// or https://",
    ("[tars/a.tar,tars/a.tar]", ""): "tars/a.tar is named twice",
}


@pytest.mark.parametrize(("form", "setting"), MISTAKES)
def test_mistakes_are_one_line(place, monkeypatch, form, setting):
    monkeypatch.chdir(place)
    key, _, value = setting.partition("=")
    with pytest.raises(UserError) as raised:
        opened(form, **({key: int(value) if value.isdigit() else value} if key else {}))
    assert MISTAKES[form, setting].replace("{path}", form) in str(raised.value) and "\n" not in str(raised.value)


def test_no_network_and_no_file_are_one_line(monkeypatch):
    import datasets

    def gone(*args, **settings):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\n(LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset_builder", gone)
    with pytest.raises(
        UserError, match=r"the hub does not give it .*check the name, the network, and HF_TOKEN"
    ) as raised:
        opened("nobody/nothing")
    assert "\n" not in str(raised.value)
    for kind, what in ((HuggingFace, "name on the hub"), (WebDataset, "<shards>")):
        with pytest.raises(UserError, match=what):
            kind(name="mine", path=None, resolution=8, channels=1)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("ending", "size"), [("tar", 8700), ("tar", 8192), ("tar.gz", 1500)])
def test_a_shard_that_is_cut_off_is_named(tmp_path, ending, size, streaming):
    """In the middle of a file, between two files, in the middle of a compressed stream."""
    write_shards(tmp_path / "tars", SIZES, ending)
    cut(tmp_path / "tars" / f"train-0002.{ending}", size)
    with pytest.raises(
        UserError, match=rf"train-0002\.{ending}: cut off or damaged: .*, after \d+ samples; dataset.on"
    ):
        opened(tmp_path / "tars", streaming=streaming)
    data = opened(tmp_path / "tars", streaming=streaming, on_error="skip")
    assert 30 < len(data) < NUM and len(data.read(torch.arange(len(data)))["real"]) == len(data)
    assert [name for name, _ in data.skipped] == [f"train-0002.{ending}"]


def test_broken_samples_are_refused_or_skipped(tmp_path):
    images, _ = digits(8)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(8):
            add(archive, f"a/{i}.png", images[i] if i != 2 else images[i][:60])
            add(archive, f"a/{i}.json", json.dumps({"label": "cat" if i % 2 else "dog"} if i != 4 else {}).encode())
        add(archive, "a/8.json", b'{"label": "cat"}')
        add(archive, "a/0.png", images[0])
        add(archive, "a/.hidden", b"")
        add(archive, "a/note.txt", b"")
    bad = {"x.tar/a/4": "its json: no field 'label'", "x.tar/a/8": "it has no image"}
    bad |= {"x.tar/a/0": "another sample of the shard has the same name", "x.tar/a/note": "it has no json"}
    with pytest.raises(UserError, match=r"x\.tar/a/0: another sample"):
        opened(tmp_path / "x.tar")
    data = opened(tmp_path / "x.tar", on_error="skip", cache=str(tmp_path / "cache"))
    assert {**dict(data.skipped), "x.tar/a/2": ""} == bad | {"x.tar/a/2": ""} and len(data) == 5
    assert data.classes == ["cat", "dog"] and any("json:label" in note for note in data.notes)
    streamed = opened(tmp_path / "x.tar", on_error="skip", streaming=True)
    assert [name[-1] for name in streamed._names] == list("123567")  # what its header does not tell is not known yet
    batch = streamed.read(torch.tensor([0, 1, 2]))
    assert torch.equal(batch["real"][1], batch["real"][2])  # it gives way to the next
    assert batch["label"].tolist() == [0, 0, 0]
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        add(archive, "0.png", images[0])
        add(archive, "1.png", images[1][:60])
    with pytest.raises(UserError, match=r"cannot read image y\.tar/1: "):
        opened(tmp_path / "y.tar", streaming=True).read(torch.arange(2))


def test_a_damaged_parquet_is_one_line(tmp_path):
    write_parquet(tmp_path / "train.parquet", 20)
    cut(tmp_path / "train.parquet", 500)
    for streaming in (False, True):
        with pytest.raises(UserError, match=r"train\.parquet: cannot be read: ") as raised:
            opened(tmp_path / "train.parquet", streaming=streaming)
        assert "\n" not in str(raised.value)


def test_what_needs_any_order_is_refused_in_a_sequence(place):
    data = opened(place / "gz", streaming=True)
    with pytest.raises(UserError, match=r"read in sequence.*expected dataset.streaming=false"):
        FewLabels(num=3)(data)
    pairs = Invert(source_channels=1)(data)
    assert pairs.in_sequence and pairs.order(1).tolist() == data.order(1).tolist()
    batch = Rounds(pairs, batch_size=4, num_batches=1, seed=0)[2]
    assert torch.equal(batch["real"], Rounds(data, batch_size=4, num_batches=1, seed=0)[2]["real"])


RUN = [*TINY, "dataset.resolution=16", "dataset.fit=resize", "dataset.channels=1", "conditional=label"]
RUN += ["dataset.flip=true", "steps=8", "checkpoint.every=2", "checkpoint.keep=null"]
SOURCES = {
    "parquet": ["dataset=huggingface", "dataset.path=parquet"],
    "gz": ["dataset=webdataset", "dataset.path=gz", "dataset.streaming=true", "dataset.window=8"],
}


@pytest.mark.parametrize("form", SOURCES)
def test_a_killed_run_resumes_exactly(place, form):
    words = [*RUN, *SOURCES[form], "cache_dir=cache"]
    ganrun(*words, f"run_dir=whole-{form}", cwd=place)
    killed = Run(*words, f"run_dir=killed-{form}", cwd=place)
    killed.wait_for(place / f"killed-{form}" / "checkpoints" / "step-000002.ckpt")
    killed.kill()
    killed.wait()
    done = ganrun(f"resume=killed-{form}", cwd=place)
    assert last_line(done) == f"killed-{form}" or "nothing to do" in done.stdout
    assert_same_state(place / f"whole-{form}", place / f"killed-{form}")


def test_runs_are_sampled_and_scored(place):
    if not (place / "whole-parquet").exists():
        pytest.skip("made by the test before")
    few = ["metric/features=none", "num_samples=20", "metric=[sliced-wasserstein]"]
    ganrun("sample", "from=whole-parquet", "num=6", "neighbours=2", "out=x.png", cwd=place)
    done = ganrun("evaluate", "from=whole-parquet", *few, cwd=place)
    assert "floor" in done.stdout
    for path in (place / "cache").iterdir():
        aged(path, 40)
    listed = ganrun("clean", "cache_dir=cache", "what=prepared", cwd=place).stdout
    assert ".pixels" in listed and ".index" in listed
