"""Labels from a table: several at once, numbers and vectors; from the .csv or .json to samples that are asked for."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, ganrun
from PIL import Image

from ganrun import cli, load_generator
from ganrun.attributes import Attribute, as_seen, asked, headings, in_units, of_plain, remarks
from ganrun.commands.evaluate.sources import GeneratorSource
from ganrun.data.derived import Invert
from ganrun.data.identity import changes
from ganrun.data.images import ImageFolder
from ganrun.data.sides import Subset
from ganrun.errors import UserError
from ganrun.networks import dcgan, mlp, r3gan, resnet
from ganrun.networks.heads import Head
from ganrun.networks.layers import append_label
from ganrun.noise import Normal
from ganrun.sampling.generator import SamplingGenerator

NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]
CSV = "file,age,smiling\na/1.png,10,1\na/2.png,20,0\nb/3.png,30,1\nb/4.png,40.0,1\n"


@pytest.fixture
def opened(tmp_path):
    """Opens a set of grey 8x8 images with a table beside it. content: of the table, text or what JSON holds."""

    def make(content, table="labels.csv", names=NAMES, **settings):
        for i, name in enumerate(names):
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 60 * i % 256).save(tmp_path / "set" / name)
        (tmp_path / table).write_text(content if isinstance(content, str) else json.dumps(content))
        settings = {"labels": str(tmp_path / table), "path": str(tmp_path / "set")} | settings
        return ImageFolder(name="own", resolution=8, channels=1, **settings)

    return make


def test_columns_become_standardised_vectors(opened):
    data = opened(CSV)
    age, smiling = data.attributes  # 10, 20, 30, 40: mean 25, variance (225 + 25 + 25 + 225) / 4 = 125
    assert (age.name, age.kind, age.mean, age.low, age.high) == ("age", "number", 25, 10, 40)
    assert age.std == pytest.approx(125**0.5)
    assert (smiling.kind, smiling.mean, smiling.usual) == ("binary", 0.75, 1) and smiling.std == pytest.approx(
        3**0.5 / 4
    )
    batch = data.read(torch.tensor([0, 3, 1]))
    assert batch["attributes"].dtype == torch.float32 and "label" not in batch and data.classes == []
    wanted = torch.tensor([[-15, 0.25], [15, 0.25], [-5, -0.75]]) / torch.tensor([125**0.5, 3**0.5 / 4])
    torch.testing.assert_close(batch["attributes"], wanted)
    text = "attributes: age (10 to 40, mean 25, deviation 11.18), smiling (0 or 1, mean 0.75) from "
    assert [note.partition(str(data.labels))[0] for note in data.notes] == [text]


def test_columns_are_chosen_and_mapped_from_ranges(opened):
    data = opened(CSV, columns=["age"], ranges={"age": [0, 100]})
    assert [one.name for one in data.attributes] == ["age"]
    torch.testing.assert_close(data.read(torch.arange(4))["attributes"], torch.tensor([[-0.8], [-0.6], [-0.4], [-0.2]]))
    assert opened(CSV, columns="smiling").classes == ["0", "1"]  # one column of whole numbers: as ever


FORMS = {
    "labels.json": {"labels": [[name, [10 * i + 10, int(i != 1)]] for i, name in enumerate(NAMES)]},  # StyleGAN's
    "by_file.json": {name: {"age": 10 * i + 10, "smiling": i != 1} for i, name in enumerate(NAMES)},
    "bare.csv": CSV.replace("a/", "").replace("b/", ""),
    "semicolons.csv": "\ufeff" + CSV.replace(",", ";"),
    "tabs.csv": CSV.replace(",", "\t").replace("a/1.png", ".\\a\\1.png"),
    "quoted.csv": CSV.replace("a/1.png", '"a/1.png"').replace("\n", "\r\n").replace(",1\r", ",True\r"),
}


@pytest.mark.parametrize("table", FORMS)
def test_all_forms_say_the_same(opened, table):
    data = opened(FORMS[table], table)
    assert torch.equal(data.attribute_values, torch.tensor([[10, 1], [20, 0], [30, 1], [40, 1]]).double())
    assert [one.name for one in data.attributes] == (["0", "1"] if table == "labels.json" else ["age", "smiling"])


def test_a_table_within_a_zip_and_folders_around_everything(opened, tmp_path):
    opened(CSV)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in NAMES:
            packed.write(tmp_path / "set" / name, f"top/{name}")
        packed.writestr("top/dataset.json", json.dumps(FORMS["labels.json"]))
    data = ImageFolder(name="own", path=str(archive), labels=f"{archive}/top/dataset.json", resolution=8, channels=1)
    assert data.attribute_values[:, 0].tolist() == [10, 20, 30, 40]
    unread = ImageFolder(name="own", path=str(archive), resolution=8, channels=1)
    assert not unread.attributes and f"dataset.labels={archive}/top/dataset.json reads them" in unread.notes[-1]


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["2", "0", "0", "2"], ["0", "1", "2"], [2, 0, 0, 2]),
        (["dog", "cat", "cat", "é"], ["cat", "dog", "é"], [1, 0, 0, 2]),
        (["-1", "1", "1", "-1"], ["-1", "1"], [0, 1, 1, 0]),
    ],
)
def test_a_single_column_of_whole_numbers_or_names_is_one_of_classes(opened, cells, classes, labels):
    data = opened("\n".join(["file,kind", *map(",".join, zip(NAMES, cells, strict=True))]))
    assert data.classes == classes and data.class_labels.tolist() == labels and not data.attributes
    assert data.read(torch.arange(4)).keys() == {"real", "label"} and data.num_classes == len(classes)


def test_a_single_column_of_numbers_is_none_of_classes(opened):
    rows = ["file,x", *(f"{name},{i}" for i, name in enumerate(NAMES))]
    assert opened("\n".join(rows)).classes == ["0", "1", "2", "3"]
    assert opened("\n".join(rows), ranges={"x": None}).attributes[0].mean == 1.5
    assert opened("\n".join([*rows[:-1], "b/4.png,2.5"])).attributes[0].high == 2.5


def test_every_step_of_the_way_keeps_the_rows_together(opened):
    data = opened(CSV, limit=2)  # the first and the last
    assert data.attribute_values.tolist() == [[10], [40]] and len(data.attributes) == 1
    assert "left out, the same for every image: smiling" in data.notes[0]
    streamed = opened(CSV, num_workers=1).read(torch.tensor([2, 0]))
    held = opened(CSV).read(torch.tensor([2, 0]))
    assert all(torch.equal(streamed[key], held[key]) for key in ("real", "attributes"))


def test_rows_without_files_are_counted_and_files_without_rows_can_be_left_out(opened):
    content = CSV.replace("a/2.png,20,0", "gone.png,20,0").replace("40.0", "old")
    data = opened(content, on_error="skip", columns=["age"], ranges={"age": None})
    assert "has rows for 1 files that are not there, such as gone.png" in data.notes[0]
    assert data.attribute_values.tolist() == [[10], [30]]
    why = dict(data.skipped)
    assert why["a/2.png"].endswith("labels.csv has no row for it")
    assert why["b/4.png"].endswith("labels.csv line 5: age is old; expected a number")


FAULTS = {
    "a/2.png,20,0\n": ("", r"cannot read image a/2.png: .*labels.csv has no row for it; dataset.on_error=skip"),
    "a/2.png,20": ("a/1.png,20", "line 2 and line 3 are both for a/1.png; expected one row for each file"),
    "20,0": ("20", "line 3: 2 values; expected 3: file, age, smiling"),
    ",20,": (",twenty,", "line 3: age is twenty; expected a number"),
    ",30,": (",,", "line 4: age is empty; expected a number"),
    ",10,": (",nan,", "line 2: age is nan; expected a number"),
    "age": ("smiling", "column smiling; expected names, each once"),
    "file,age,smiling": ("file", "line 2: 3 values; expected 1: file"),
    "a/1.png,10": ('"a/1.png,10', "cannot be read"),
    CSV: ("file,age\n", "there is no row in it"),
}


@pytest.mark.parametrize("part", FAULTS)
def test_a_wrong_csv_is_one_line(opened, part):
    content, why = CSV.replace(part, FAULTS[part][0]), FAULTS[part][1]
    assert content != CSV
    with pytest.raises(UserError, match=why) as raised:
        opened(content)
    assert "\n" not in str(raised.value) and "labels.csv" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "expected {"),
        ('{"labels": null}', "expected {"),
        ('{"labels": [["a/1.png", 1, 2]]}', r"row 1: \[\"a/1.png\", 1, 2\]; expected"),
        (
            '{"labels": [["a/1.png", [1, 2]], ["a/2.png", [1]]]}',
            "row 2: 1 numbers for a/2.png; expected 2, as in row 1",
        ),
        ('{"a/1.png": {"x": 1}, "a/2.png": {"y": 1}}', "a/2.png has y; expected x, as the first file"),
        ('{"a/1.png": {"x": 1}, "a/1.png": {"x": 2}}', "a/1.png is there twice"),
        ("{", "cannot be read"),
        ("[" * 10**5, "cannot be read"),
    ],
)
def test_a_wrong_json_is_one_line(opened, content, why):
    with pytest.raises(UserError, match=why) as raised:
        opened(content, "own.json")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"columns": ["agee"]},
            r"dataset.columns=\[agee\]: .*has no column agee; did you mean age\? valid: age, smiling",
        ),
        ({"columns": ["age", "age"]}, "a column is named twice"),
        ({"ranges": {"agee": [0, 1]}}, "dataset.ranges.agee: there is no such column; did you mean age"),
        ({"ranges": {"age": [1, 1]}}, r"dataset.ranges.age=\[1, 1\]; expected \[low,high\]"),
        ({"columns": ["smiling", "age"], "limit": 2}, "smiling is 1 for every image, which says nothing; leave it out"),
        ({"labels": None, "columns": ["age"]}, "dataset.columns: it is for dataset.labels=<.csv or .json>"),
        ({"labels_from": "folders"}, "labels are read from dataset.labels; give one"),
        ({"num_attributes": 3}, "dataset.num_attributes=3, but own has 2 attributes"),
        ({"labels": "set"}, "dataset.labels=set: expected a .csv or .json"),
        ({"labels": "gone.csv"}, "dataset.labels=gone.csv: No such file"),
    ],
)
def test_settings_that_do_not_fit(opened, settings, why):
    with pytest.raises(UserError, match=why):
        opened(CSV, **settings)


@pytest.mark.parametrize(
    ("change", "ranges"),
    [({",10,": ",1e300,"}, None), ({",10,": ",1e-200,", ",20,": ",0,", ",30,": ",0,", ",40.0,": ",0,"}, None),
     ({",10,": ",1e300,"}, {"age": [0, 1]})],
)  # fmt: skip
def test_numbers_beyond_float32_are_refused(opened, change, ranges):
    content = CSV
    for old, new in change.items():
        content = content.replace(old, new)
    with pytest.raises(UserError, match=r"age goes from .* which float32 cannot hold; expected other units"):
        opened(content, ranges=ranges)


def test_values_outside_a_range_are_said(opened):
    data = opened(CSV, ranges={"age": [0, 30]})
    assert data.read(torch.arange(4))["attributes"][3, 0] == pytest.approx(5 / 3)
    assert "lie outside dataset.ranges.age=[0, 30]" in data.notes[-1]


def test_names_that_fit_several_files_or_none(opened):
    with pytest.raises(UserError, match=r"line 2: 2 files are called 1\.png; expected their paths in the set"):
        opened("file,x\n1.png,1\n", names=["a/1.png", "b/1.png"])
    with pytest.raises(
        UserError, match="none of its 2 rows names a file of the set; its first column has 0, 1; the set"
    ):
        opened("index,x\n0,1\n1,2\n", names=["a/1.png", "b/1.png"])


CHANGED = {
    "a value": (lambda text: text.replace("40.0", "40.0000001"), {}, "attributes age"),
    "two files' rows exchanged": (lambda text: text.replace("20,0", "30,1").replace("b/3.png,30,1", "b/3.png,20,0"),
                                  {}, "other values of the same attributes"),
    "a column's name": (lambda text: text.replace("age", "years"), {}, "attributes years"),
    "the range": (str, {"ranges": {"age": [0, 100]}}, r"attributes age \(\(value - 50\) / 50\)"),
    "the columns": (str, {"columns": ["smiling", "age"]}, "attributes smiling"),
    "no table": (str, {"labels": None, "labels_from": "none"}, "attributes none, they were age"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGED)
def test_other_labels_are_other_data(opened, what):
    change, settings, said = CHANGED[what]
    had, again = opened(CSV), opened(CSV.replace("10,1", "1e1,1.0"), "moved.csv")
    assert changes(again.fingerprint, had.fingerprint) == [] and again.identity == had.identity
    got = opened(change(CSV), **settings)
    assert got.identity != had.identity
    (text,) = changes(got.fingerprint, had.fingerprint)
    assert re.match(said, text), text


def test_derived_sides_and_subsets_keep_the_rows(opened):
    data = opened(CSV)
    derived = Invert(source_channels=1)(data)
    assert torch.equal(derived.read(torch.tensor([3]))["attributes"], data.read(torch.tensor([3]))["attributes"])
    assert derived.attributes == data.attributes
    assert derived.identity != Invert(source_channels=1)(opened(CSV.replace("10,1", "11,1"))).identity
    some = Subset(data, torch.tensor([2, 0]), "some")
    assert some.attribute_values.tolist() == [[30, 1], [10, 1]] and some.attributes == data.attributes
    unlabelled = Subset(data, torch.tensor([2, 0]), "some", labelled=False)
    assert unlabelled.attribute_values is None and unlabelled.read(torch.tensor([0])).keys() == {"real"}


def test_rows_of_other_data_are_scored_in_the_generators_terms(opened):
    data = opened(CSV, columns=["age"], ranges={"age": None})  # mean 25, variance 125; the generator knows 30 and 10
    generator = dcgan.Generator(z_dim=3, channels=1, resolution=8, width=2, num_classes=1).eval()
    sampling = SamplingGenerator(generator, Normal(3), value_range=(-1, 1), classes=[], attributes=[AGE])
    (batch,) = GeneratorSource(sampling, data, 4, 4).fakes(0, data.read(torch.arange(4))["attributes"])
    torch.testing.assert_close(batch["attributes"], torch.tensor([[-2.0], [-1.0], [0.0], [1.0]]))


AGE = Attribute("age", "number", 30.0, 10.0, 5.0, 45.0)
GLASSES = Attribute("glasses", "binary", 0.25, 0.4, 0.0, 1.0)
SIZE = Attribute("size", "number", 3.0, 1.0, 0.0, 9.0, (0.0, 10.0))
THREE = [AGE, GLASSES, SIZE]


def test_labels_are_asked_for_in_their_own_units():
    assert asked("age=0.5, glasses=1", THREE).tolist() == [[0.5, 1, 3]]
    assert asked({"size": 4}, THREE).tolist() == [[30, 0, 4]]  # of two values the more frequent one
    assert asked(["age=1", {"glasses": 1, "age": 2}], THREE).tolist() == [[1, 0, 3], [2, 1, 3]]
    assert asked("glasses", THREE).tolist() == [[30, 0, 3], [30, 1, 3]]
    ages = asked(None, THREE)[:, 0]
    assert len(ages) == 8 and ages[0] == 10 and ages[-1] == 45  # mean - 2 std, and the largest one
    seen = as_seen(asked("age=50,glasses=1,size=10", THREE), THREE)
    torch.testing.assert_close(seen, torch.tensor([[2.0, 0.75 / 0.4, 1.0]]))
    torch.testing.assert_close(in_units(seen, THREE), torch.tensor([[50.0, 1.0, 10.0]]).double())
    assert headings(asked("glasses,age=1", THREE)) == ["0", "1"]
    assert of_plain(yaml.safe_load(yaml.safe_dump([one.plain for one in THREE]))) == THREE


def test_what_a_label_leaves_open_is_said():
    assert remarks("age=30,glasses,size=1", THREE) == []
    said = remarks("age=50", THREE)
    assert said[0].endswith("more frequent one: glasses=0, size=3")
    assert said[1] == "age=50 lies outside the training data's 5 to 45"


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("agee=3", "label=agee=3: there is no attribute 'agee'; did you mean age"),
        ("age=old", "age=old; expected a number"),
        ("age=nan", "age=nan; expected a number"),
        ("age=", "age=; expected a number"),
        ("age=1,age=2", "age is given twice"),
        ("age,size", "at most one of them without a value"),
        ([], "expected attributes with values, as in label=age=30,glasses=0.25"),
        (3, "there is no attribute '3'"),
    ],
)
def test_labels_that_cannot_be_understood(label, why):
    with pytest.raises(UserError, match=why):
        asked(label, THREE)


@pytest.mark.parametrize(
    "change", [{"std": 0}, {"mean": "x"}, {"range": [1.0, 0.0]}, {"kind": "other"}, {"low": float("nan")}, {"more": 1}]
)
def test_an_edited_generator_file_is_refused(change):
    with pytest.raises(UserError, match=r"attributes in a generator's .yaml"):
        of_plain([AGE.plain | change])


def test_vectors_are_appended_as_features_and_as_maps():
    vector = torch.tensor([[1.5, -2.0]])
    assert append_label(torch.zeros(1, 1), vector, 2).tolist() == [[0, 1.5, -2]]
    maps = append_label(torch.zeros(1, 1, 2, 3), vector, 2)
    assert maps.shape == (1, 3, 2, 3) and (maps[0, 1] == 1.5).all() and (maps[0, 2] == -2).all()


def test_projection_is_linear_in_the_vector():
    head = Head(2, "projection", 3)
    features, label = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0, -1.0]])
    plain = torch.nn.functional.linear(features, head.weight, head.bias)[0]
    rows = head.embed.weight
    wanted = plain + (0.5 * rows[0] - rows[2]) @ features[0]
    torch.testing.assert_close(head(features, label).logits, wanted)


NETWORKS = {
    "dcgan": dcgan, "mlp": mlp, "resnet": resnet, "r3gan": r3gan,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("condition", ["concatenate", "projection"])
def test_a_class_is_the_vector_that_is_1_there(name, condition):
    torch.manual_seed(0)
    shape = {"channels": 1, "resolution": 8, "width": 4, "num_classes": 3}
    generator, label = NETWORKS[name].Generator(z_dim=5, **shape).eval(), torch.tensor([2, 0])
    discriminator = NETWORKS[name].Discriminator(condition=condition, **shape).eval()
    z, vector = torch.randn(2, 5), torch.eye(3)[label]
    images = generator(z, label)
    torch.testing.assert_close(generator(z, vector), images)
    torch.testing.assert_close(discriminator(images, vector).logits, discriminator(images, label).logits)
    assert not torch.allclose(generator(z, vector * 0.5), images)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of 32 grey images, whose table says how bright they are and which half is dark; and a run on it."""
    path = tmp_path_factory.mktemp("tabled")
    rng, lines = np.random.default_rng(0), ["file,grey,dark"]
    (path / "set").mkdir()
    for i in range(32):
        grey, dark = 80 + 4 * i, i % 2
        pixels = np.full((8, 8), grey) + rng.integers(-9, 9, (8, 8))
        pixels[:, : 4 * dark] = 10
        Image.fromarray(pixels.astype(np.uint8)).save(path / "set" / f"{i:02}.png")
        lines.append(f"{i:02}.png,{grey},{dark}")
    (path / "labels.csv").write_text("\n".join(lines))
    ganrun(*words("whole"), "steps=6", cwd=path)
    return path


def words(run, *more):
    chosen = ["dataset=image-folder", "dataset.path=set", "dataset.labels=labels.csv", "dataset.resolution=8"]
    chosen += ["dataset.channels=1", "conditional=attributes", "evaluate.every=3", "checkpoint.every=3"]
    return [*chosen, *TINY, f"run_dir={run}", *more]


@pytest.fixture
def run(place, monkeypatch, capfd):
    """Runs a command beside the run; returns its exit code, its stdout and its stderr."""
    monkeypatch.chdir(place)

    def command(*args):
        code = cli.run(list(args))
        return code, *capfd.readouterr()

    return command


def test_a_run_keeps_what_sampling_needs(place):
    held = yaml.safe_load((place / "whole" / "generator.yaml").read_text())
    assert held["classes"] == [] and held["networks"]["generator"]["num_classes"] == 2
    grey, dark = held["attributes"]
    assert (grey["name"], grey["mean"], grey["low"], grey["high"]) == ("grey", 142, 80, 204)
    assert (dark["kind"], dark["mean"], dark["std"]) == ("binary", 0.5, 0.5)
    config = yaml.safe_load((place / "whole" / ".hydra" / "config.yaml").read_text())
    assert config["dataset"]["num_attributes"] == 2 and config["dataset"]["labels"] == str(place / "labels.csv")
    assert "2 attributes" in json.dumps(config) or "attributes: grey" in (place / "whole" / "train.log").read_text()


@pytest.mark.parametrize("start", ["whole", "whole/checkpoints/last.ckpt"])
def test_samples_are_asked_for_without_the_data(place, run, start, tmp_path):
    code, _, err = run("sample", f"from={start}", "label=grey=100,dark=1", "num=3", f"out={tmp_path / 'a.npz'}")
    assert (code, err) == (0, "")
    arrays = np.load(tmp_path / "a.npz")
    np.testing.assert_allclose(arrays["attributes"], [[100, 1]] * 3, rtol=1e-6)
    assert arrays["attribute_names"].tolist() == ["grey", "dark"] and "labels" not in arrays
    generator = load_generator(place / "whole" / "generator.safetensors")
    same = generator.sample(3, label={"grey": 100, "dark": 1})
    assert (np.rint((same.numpy()[:, 0] + 1) * 127.5) == arrays["arr_0"][..., 0]).all()
    assert not torch.equal(same, generator.sample(3, label={"grey": 200, "dark": 1}))
    with pytest.warns(UserWarning, match="more frequent one: dark=0"):
        assert not torch.equal(same, generator.sample(3, label="grey=100"))


def test_files_carry_their_labels_and_are_read_again(run, place, tmp_path):
    out = tmp_path / "made"
    code, _, err = run("sample", "from=whole", "label=dark,grey=90", "num=4", f"out={out}")
    assert code == 0 and err == ""
    lines = (out / "labels.csv").read_text().splitlines()
    assert lines[:3] == ["file,grey,dark", "00000.png,90,0", "00001.png,90,1"]
    data = ImageFolder(
        name="own", path=str(out), labels=str(out / "labels.csv"), resolution=8, channels=1, columns="dark"
    )
    assert data.class_labels.tolist() == [0, 1, 0, 1] and not any("not used" in note for note in data.notes)
    assert run("sample", "from=whole", "num=2", f"out={out}", "overwrite=true")[0] == 0
    assert len(list(out.iterdir())) == 3
    (out / "labels.csv").write_text("mine")
    code, _, err = run("sample", "from=whole", "num=2", f"out={out}", "overwrite=true")
    assert code == 2 and "there is a labels.csv that ganrun did not write" in err
    assert (out / "labels.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "columns", "said"),
    [([], 8, "values of grey"), (["label=dark"], 2, "values of dark"),
     (['label=["grey=90,dark=0","grey=90,dark=1","grey=200,dark=1"]'], 3, "several attributes")],
)  # fmt: skip
def test_a_grid_has_a_column_for_each_value(run, tmp_path, more, columns, said):
    code, _, err = run("sample", "from=whole", *more, f"out={tmp_path / 'x.png'}")
    assert code == 0 and said in err
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width == columns * (48 + 2) + 2


@pytest.mark.parametrize("more", [["interpolate=2", "num=4", "out=walk.gif"], ["neighbours=2", "out=near.png"]])
def test_other_outputs(run, more):
    assert run("sample", "from=whole", "overwrite=true", *more)[0] == 0


def test_a_wrong_label_is_one_line(run):
    code, _, err = run("sample", "from=whole", "label=gray=3", "out=none.png")
    assert code == 2 and err.splitlines() == [
        "ganrun: label=gray=3: there is no attribute 'gray'; did you mean grey? valid: grey, dark"
    ]


def test_a_resume_is_exact_wherever_the_table_lies(place, run):
    assert run(*words("cut"), "steps=3")[0] == 0
    shutil.copy(place / "labels.csv", place / "moved.csv")
    code, _, err = run(
        "resume=cut", "steps=6", "dataset.labels=moved.csv", "dataset.num_workers=1", "dataset.cache=null"
    )
    assert code == 0, err
    for file in ("generator.safetensors", "best.safetensors"):
        assert (place / "cut" / file).read_bytes() == (place / "whole" / file).read_bytes()
    (place / "moved.csv").write_text((place / "labels.csv").read_text().replace("31.png,204,1", "31.png,203,1"))
    code, _, err = run("resume=cut", "steps=8")
    assert code == 2 and "attributes grey ((value - 141.969) / " in err


def test_scores_draw_labels_from_the_data(run, place):
    protocol = json.loads((place / "whole" / "result.json").read_text())["scores"]["sliced-wasserstein"]["protocol"]
    assert protocol["labels"] == "as in the data"
    code, _, err = run("evaluate", "from=whole", "metric=[sliced-wasserstein]", "num_samples=32", "floor=false")
    assert code == 0, err
    code, _, err = run("evaluate", "from=whole", "metric=[class-accuracy]", "num_samples=32", "floor=false")
    assert code == 2 and "conditional=label" in err
    code, _, err = run(
        "evaluate", "from=whole", "metric=[sliced-wasserstein]", "dataset.columns=[dark,grey]", "num_samples=32"
    )
    assert code == 2 and "the generator's attributes ['grey', 'dark'] are not ['dark', 'grey']" in err


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["dataset=digits"], "attributes are numbers in dataset.labels="),
        (
            ["dataset.columns=[dark]"],
            "classes: 0, 1 from labels.csv; conditional=label takes what they have; attributes",
        ),
        (["conditional=label"], "have no such label; conditional=attributes takes what they have"),
        (["conditional.head=classes"], "conditional.head=classes: it needs classes; for attributes valid: concatenate"),
        (["dataset.columns=grey,dark"], "dataset.columns"),
        (["dataset.labels=set"], "dataset.labels=set: expected a .csv or .json"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(run, place, more, why):
    base = words("none")
    if more == ["dataset=digits"]:
        base = [word for word in base if not word.startswith("dataset.")]
    code, _, err = run(*base, "steps=2", *more)
    assert code == 2 and why in err and len(err.splitlines()) == 1 and not (place / "none").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["model=dcgan", "conditional.head=projection", "loss=wgan-gp", "micro_batch=4"],
        ["model=resnet", "conditional.head=projection", "critic.norm=spectral"],
        ["model=resnet", "generator.condition=concatenate", "generator.latents=chunks", "generator.z_dim=4"],
        ["model=mlp", "dataset.ranges={grey: [0,255]}", "dataset.flip=true", "penalty=[r1]"],
    ],
)
def test_every_network_takes_them(run, more):
    code, _, err = run(*words("other"), "steps=2", "evaluate.every=0", "checkpoint.every=0", *more)
    shutil.rmtree("other", ignore_errors=True)
    assert code == 0, err
