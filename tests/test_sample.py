"""`ganrun sample`: whole commands on small trained runs, and what is in the files that they write."""

import io
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import forked
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, TINY, ganrun, last_line
from PIL import Image
from safetensors.torch import load_file, save_file

from ganrun import cli, load_generator
from ganrun.commands.sample.neighbours import beside_neighbours
from ganrun.data.images import Digits, ImageFolder
from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir
from ganrun.networks import dcgan
from ganrun.noise import Normal
from ganrun.pictures import grid, to_uint8
from ganrun.sampling.files import folder_names, write_folder
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.generator_file import save_generator
from ganrun.sampling.interpolation import path
from ganrun.training.of_checkpoint import open_generator

FILES = ("generator.safetensors", "generator.yaml")
LAST = "/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory with the runs plain, cond (by label) and ring."""
    place = tmp_path_factory.mktemp("sampled")
    words = ["steps=30", "evaluate.every=0", "sample_every=0", *TINY]
    ganrun(*words, "run_dir=plain", cwd=place)
    ganrun(*words, "run_dir=cond", "conditional=label", cwd=place)
    ganrun("dataset=ring", "model=mlp", *words, "run_dir=ring", cwd=place)
    return place


@pytest.fixture
def sample(runs, tmp_path, monkeypatch, capfd):
    """Runs `ganrun sample from=<run> ...` in an empty directory; returns the path that it says it wrote."""
    monkeypatch.chdir(tmp_path)

    def sample(run: str, *words: str):
        assert cli.run(["sample", f"from={runs / run}", *words]) == 0, capfd.readouterr().err
        return tmp_path / capfd.readouterr().out.splitlines()[-1]

    return sample


@pytest.fixture
def plain(runs):
    return load_generator(runs / "plain" / "generator.safetensors")


@pytest.fixture
def cond(runs):
    return load_generator(runs / "cond" / "generator.safetensors")


def opened(file) -> np.ndarray:
    return np.asarray(Image.open(file))


def pixels(samples: torch.Tensor) -> np.ndarray:
    """(num, 1, H, W) in [-1, 1] -> uint8 (num, H, W)"""
    return to_uint8(samples)[:, 0].numpy()


def test_two_files_are_enough(runs, tmp_path):
    for name in FILES:
        shutil.copy(runs / "cond" / name, tmp_path)
    code = (
        "import sys; from ganrun import cli\n"
        "assert cli.run(['sample', 'from=generator.safetensors', 'num=10', 'out=s.npz']) == 0\n"
        "assert cli.run(['sample', 'from=.', 'num=10', 'out=s']) == 0\n"
        "assert not {'sklearn', 'pytorch_lightning', 'torchvision', 'ganrun.data'} & set(sys.modules)"
    )
    env = {"GANRUN_DATA": "/nowhere", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120, env=env)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "s.npz", "s"}


def test_in_a_process_of_its_own(runs, tmp_path):
    done = ganrun("sample", f"from={runs / 'plain'}", cwd=tmp_path)
    assert last_line(done) == "samples.png" and done.stderr == "" and (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("run", ["plain", "cond", "ring"])
def test_the_same_whatever_batch_size_and_num(sample, run):
    words = ["truncation=1.5", "seed=4"]
    many = np.load(sample(run, "num=50", "out=a.npz", *words))
    few = np.load(sample(run, "num=20", "batch_size=7", "out=b.npz", *words))
    assert set(many) == set(few)
    np.testing.assert_allclose(many["arr_0"][:20].astype(float), few["arr_0"], atol=1 if run != "ring" else 1e-5)
    if run == "cond":
        assert few["labels"].tolist() == [i % 10 for i in range(20)]
    other = np.load(sample(run, "num=20", "out=c.npz", "truncation=1.5"))
    assert (other["arr_0"] != few["arr_0"]).any()


@pytest.mark.parametrize("run", ["plain", "cond", "ring"])
def test_a_checkpoint_makes_what_the_generator_file_of_its_step_makes(sample, run):
    made = [np.load(sample(f"{run}{file}", "num=20", f"out={i}.npz")) for i, file in enumerate(("", LAST))]
    assert made[0].files == made[1].files
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0].files)


def test_a_checkpoint_of_an_earlier_step_is_sampled_and_scored(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "steps=4", "checkpoint.every=2", "evaluate.every=0", "metric=[]", "ema=none"]
    ganrun(*words, "run_dir=run", cwd=tmp_path)
    run, early = tmp_path / "run", "run/checkpoints/step-000002.ckpt"
    weights = torch.load(early, weights_only=True)["state_dict"]
    opened = open_generator(Path(early), RunDir(run), trust=[])
    assert opened.trained == {"dataset": "digits", "steps": 2, "seed": 0, "ema": False}
    for key, value in opened.generator.state_dict().items():
        assert torch.equal(value, weights[f"recipe.generator.{key}"])
    for start in (early, "run"):
        words = ["metric=[sliced-wasserstein]", "num_samples=32", "floor=false"]
        assert cli.run(["evaluate", f"from={start}", *words]) == 0, capfd.readouterr().err
    scores = json.loads((run / "result.json").read_text())["evaluations"]
    assert [(one["of"]["from"], one["of"]["steps"]) for one in scores] == [
        ("checkpoints/step-000002.ckpt", 2),
        ("generator.safetensors", 4),
    ]
    assert scores[0]["mean"] != scores[1]["mean"] and scores[0]["protocol"]["ema"] is False
    (run / "generator.safetensors").unlink()  # as in a run that was killed before it wrote one
    capfd.readouterr()
    assert cli.run(["sample", "from=run", "out=a.npz"]) == 0
    assert "has no generator.safetensors yet; taking run/checkpoints/last.ckpt" in capfd.readouterr().err
    assert cli.run(["sample", "from=run/checkpoints/step-000004.ckpt", "out=b.npz"]) == 0
    assert np.array_equal(np.load("a.npz")["arr_0"], np.load("b.npz")["arr_0"])


def test_npz(sample, cond):
    arrays = np.load(sample("cond", "num=12", "out=x.npz", "label=[3,8]"))
    assert arrays["arr_0"].shape == (12, 16, 16, 1) and arrays["arr_0"].dtype == np.uint8
    assert (arrays["arr_0"][..., 0] == pixels(cond.sample(12, label=[3, 8] * 6))).all()
    assert arrays["labels"].tolist() == [3, 8] * 6 and arrays["classes"].tolist() == [str(i) for i in range(10)]


def test_npz_of_vectors(sample, runs):
    arrays = np.load(sample("ring", "num=300", "out=x.npz"))
    assert arrays["arr_0"].shape == (300, 2) and arrays["arr_0"].dtype == np.float32 and "labels" not in arrays
    ring = load_generator(runs / "ring" / "generator.safetensors")
    np.testing.assert_allclose(arrays["arr_0"], ring.sample(300).numpy(), rtol=1e-5, atol=1e-6)


def read_again(path, num: int) -> tuple[ImageFolder, dict]:
    data = ImageFolder(name="image-folder", path=str(path), channels=1, resolution=16)
    return data, data.read(torch.arange(num))


@pytest.mark.parametrize("out", ["made", "made.zip"])
def test_an_image_folder_reads_them_again(sample, cond, out):
    data, batch = read_again(sample("cond", "num=25", "batch_size=4", f"out={out}"), 25)
    assert data.classes == cond.classes and len(data) == 25
    order = torch.arange(25)[torch.argsort(torch.arange(25) % 10, stable=True)]  # folder by folder
    assert torch.equal(batch["label"], order % 10)
    assert (batch["real"][:, 0].numpy() == pixels(cond.sample(25))[order]).all()


def test_folder_of_an_unconditional_generator(sample, plain):
    out = sample("plain", "num=12", "out=made")
    assert sorted(file.name for file in out.iterdir()) == [f"{i:05}.png" for i in range(12)]
    assert (np.stack([opened(out / f"{i:05}.png") for i in range(12)]) == pixels(plain.sample(12))).all()


def test_zip_holds_what_a_folder_would(sample):
    folder, archive = sample("cond", "num=11", "out=made"), zipfile.ZipFile(sample("cond", "num=11", "out=made.zip"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
    assert {name: archive.read(name) for name in archive.namelist()} == files
    assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist()) and archive.testzip() is None


def test_one_class(sample, cond):
    out = sample("cond", "num=3", "out=made", "label=7")
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == [
        f"7/{i:05}.png" for i in range(3)
    ]
    assert (opened(out / "7" / "00002.png") == pixels(cond.sample(3, label="7"))[2]).all()


def test_folder_names():
    classes = ["T-shirt/top", "T-shirt-top", "..", "", "__MACOSX", ".hidden", "Cat", "cat", "a\nb", "ö" * 200, "con:x"]
    names = folder_names(classes)
    assert names[:9] == ["T-shirt-top", "T-shirt-top-2", "class", "class-2", "macosx", "hidden", "Cat", "cat-2", "a-b"]
    assert names[9] == "ö" * 50 and names[10] == "con-x"
    assert len({name.casefold() for name in names}) == len(classes)


def test_overwriting_a_folder_spares_what_is_not_ours(sample, tmp_path):
    out = sample("cond", "num=25", "out=made")
    Image.new("L", (4, 4)).save(out / "3" / "00099.png")
    Image.new("L", (4, 4)).save(out / "00007.png")
    (out / "3" / "notes.txt").write_text("mine")
    (out / "4" / "deeper").mkdir()
    sample("cond", "num=4", "out=made", "overwrite=true", "label=[0,1]", "seed=1")
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert left == [
        "0/00000.png",
        "0/00002.png",
        "00007.png",
        "1/00001.png",
        "1/00003.png",
        "3/00099.png",
        "3/notes.txt",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["0", "00007.png", "1", "3", "4"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_overwriting_a_file(sample):
    first = sample("plain", "num=4").read_bytes()
    assert sample("plain", "num=4", "overwrite=true", "seed=1").read_bytes() != first


def test_grid(sample, plain, cond):
    assert (opened(sample("plain", "num=9")) == np.asarray(grid(plain.sample(9) / 2 + 0.5, columns=3))).all()
    drawn = grid(cond.sample(60) / 2 + 0.5, columns=10, names=cond.classes)
    assert (opened(sample("cond", "out=cond.PNG")) == np.asarray(drawn)).all()
    two = grid(cond.sample(6, label=[1, 7] * 3) / 2 + 0.5, columns=2, names=["1", "7"])
    assert (opened(sample("cond", "out=two.png", "num=6", "label=[1,7]")) == np.asarray(two)).all()


@pytest.fixture(scope="module")
def many(runs):
    """An untrained generator of 300 numbered classes, named from 1 on."""
    header = yaml.safe_load((runs / "cond" / "generator.yaml").read_text())
    config = header["networks"]["generator"] | {"num_classes": 300}
    settings = {key: value for key, value in config.items() if key != "_target_"}
    torch.manual_seed(0)
    classes = sorted(str(i) for i in range(1, 301))
    sampling = SamplingGenerator(
        dcgan.Generator(**settings),
        Normal(**{key: value for key, value in header["noise"].items() if key != "_target_"}),
        value_range=[-1, 1],
        classes=classes,
    )
    (runs / "many").mkdir()
    about = {**header, "networks": {"generator": config}, "classes": classes}
    save_generator(runs / "many" / FILES[0], sampling.state_dict(), about)
    return load_generator(runs / "many" / FILES[0])


def test_pictures_of_many_classes(sample, many):
    turn = [
        many.classes.index(str(i)) for i in (1, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 240, 260, 280, 300)
    ]
    made = many.sample(64, label=torch.tensor(turn * 4))
    drawn = grid(made / 2 + 0.5, columns=16, names=[many.classes[i] for i in turn])
    assert (opened(sample("many")) == np.asarray(drawn)).all()
    assert opened(sample("many", "interpolate=2", "frames=2", "num=3", "out=walk.png")).shape == (152, 152, 3)
    chosen = opened(sample("many", f"label=[{','.join(str(i) for i in range(1, 101))}]", "out=chosen.png"))
    assert chosen.shape == (14 + 52, 5002, 3)
    square = opened(sample("many", f"label=[{','.join(str(i) for i in range(1, 145))}]", "out=square.png"))
    assert square.shape == (12 * 50 + 2, 12 * 50 + 2, 3)


def test_columns_are_in_the_order_of_numbers(sample, runs):
    generator = load_generator(runs / "cond" / FILES[0])
    header = yaml.safe_load((runs / "cond" / FILES[1]).read_text())
    names = sorted(str(i) for i in range(1, 11))
    place = runs / "numbered"
    place.mkdir()
    shutil.copy(runs / "cond" / FILES[0], place)
    (place / FILES[1]).write_text(yaml.safe_dump({**header, "classes": names}))
    order = [0, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    made = generator.sample(20, label=torch.tensor(order * 2))
    drawn = grid(made / 2 + 0.5, columns=10, names=[str(i) for i in range(1, 11)])
    assert (opened(sample("numbered", "num=20")) == np.asarray(drawn)).all()
    assert np.load(sample("numbered", "num=10", "out=x.npz"))["labels"].tolist() == list(range(10))
    assert [path.name for path in sample("numbered", "num=1", "label=2", "out=two").iterdir()] == ["2"]


def test_scatter_plot_of_vectors(sample):
    assert opened(sample("ring")).shape == (405, 810, 3)


def test_truncation_reaches_the_generator(sample, plain):
    got = np.load(sample("plain", "num=8", "truncation=0.3", "out=x.npz"))["arr_0"][..., 0]
    z = plain.draw(range(8), 0, 0.3)
    assert z.abs().max() <= 0.3 and (got == pixels(plain.decode(z))).all()
    assert got.std(0).mean() < pixels(plain.sample(8)).std(0).mean()  # less variety


def test_path_closes():
    keys = torch.tensor([[[0.0], [1.0], [2.0]], [[5.0], [6.0], [9.0]]])  # 2 walks of 3 keys
    closed = torch.stack(list(path(keys, 2, torch.lerp, closed=True)))[..., 0]
    assert closed.T.tolist() == [[0, 0.5, 1, 1.5, 2, 1], [5, 5.5, 6, 7.5, 9, 7]]
    assert torch.stack(list(path(keys, 2, torch.lerp, closed=False)))[..., 0].T[0].tolist() == [0, 0.5, 1, 1.5, 2]


def test_walk_png_has_a_row_for_each_way(sample, plain, cond):
    drawn = opened(sample("plain", "interpolate=4", "frames=5", "out=walk.png"))
    assert drawn.shape == (3 * 50 + 2, 6 * 50 + 2, 3)
    keys = np.asarray(grid(plain.sample(4) / 2 + 0.5, columns=1))
    for row in range(3):  # from key to key
        top = slice(2 + row * 50, 50 + row * 50)
        assert (drawn[top, 2:50] == keys[top, 2:50]).all()
        assert (drawn[top, 252:300] == keys[52 + row * 50 : 100 + row * 50, 2:50]).all()
    drawn = opened(sample("cond", "interpolate=2", "num=2", "frames=3", "label=[4,9]", "out=two.png"))
    keys = np.asarray(grid(cond.sample(4, label=[4, 4, 9, 9]) / 2 + 0.5, columns=2))
    assert drawn.shape == (102, 202, 3)
    assert (drawn[:, :52] == keys[:, :52]).all() and (drawn[:, 150:] == keys[:, 50:]).all()


def test_gif(sample, plain):
    out = sample("plain", "interpolate=3", "frames=4", "num=4", "fps=10", "batch_size=5", "out=walk.gif")
    keys = plain.sample(12) / 2 + 0.5
    first, second = (np.asarray(grid(keys[i::3], columns=2)) for i in range(2))  # of each of the 4 walks
    with Image.open(out) as film:
        assert film.n_frames == 12 and film.info["loop"] == 0 and film.info["duration"] == 100
        assert film.size == (102, 102)
        assert (np.asarray(film.convert("RGB")) == first).all()
        film.seek(4)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - second).max() <= 1


@pytest.mark.parametrize(("num", "size"), [(1, (52, 52)), (2, (52, 102))])
def test_mp4(sample, plain, num, size):
    out = sample("plain", "interpolate=3", "frames=5", f"num={num}", "fps=12", "out=walk.mp4")
    with av.open(str(out)) as film:
        stream = film.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 12
    assert len(frames) == 15 and frames[0].shape == (*size[::-1], 3)
    first = np.asarray(grid(plain.sample(3 * num)[::3] / 2 + 0.5, columns=1))
    assert np.abs(frames[0].astype(int) - first).mean() < 8


def test_mp4_of_odd_size(sample, runs, tmp_path, plain, monkeypatch):
    from ganrun.sampling.films import even, write_mp4

    assert even(np.zeros((51, 53, 3), np.uint8)).shape == (52, 54, 3) and even(np.zeros((2, 4, 3))).shape == (2, 4, 3)
    write_mp4(tmp_path / "odd.mp4", [Image.new("RGB", (53, 51))] * 3, fps=5)
    with av.open(str(tmp_path / "odd.mp4")) as film:
        assert [(frame.width, frame.height) for frame in film.decode(video=0)] == [(54, 52)] * 3
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="pip install av"):
        write_mp4(tmp_path / "none.mp4", [], fps=5)


def test_neighbours(sample, plain):
    drawn = opened(sample("plain", "neighbours=3", "num=5"))
    assert drawn.shape == (14 + 5 * 50 + 2, 4 * 50 + 2, 3)
    data = Digits(name="digits", channels=1, resolution=16)
    real = data.read(torch.arange(len(data)))["real"].float()
    made = to_uint8(plain.sample(5)).float()
    apart = torch.cdist(made.flatten(1).double(), real.flatten(1).double())
    wanted = torch.cat([made[:, None], real[apart.topk(3, largest=False).indices]], 1)
    assert (drawn[14:] == np.asarray(grid(wanted.flatten(0, 1) / 255, columns=4))).all()


def test_training_images_are_their_own_neighbours(monkeypatch):
    monkeypatch.setattr("ganrun.commands.sample.neighbours.READ", 100)
    data = Digits(name="digits", channels=1, resolution=16)
    real = data.read(torch.tensor([3, 500, 1790]))["real"]
    rows, distances = beside_neighbours(real / 127.5 - 1, data, 2)
    assert torch.equal(rows[:, 0], real) and torch.equal(rows[:, 1], real)
    assert distances[:, 0].max() == 0 and distances[:, 1].min() > 0


def test_neighbours_where_the_data_lie_now(runs, tmp_path, sample):
    made = sample("cond", "num=40", "out=made")
    words = ["dataset=image-folder", f"dataset.path={made}", "dataset.channels=1", "dataset.resolution=16"]
    ganrun(*words, "steps=1", *TINY, "evaluate.num_samples=8", "run_dir=run", cwd=tmp_path)
    made.rename(tmp_path / "moved")
    refused = ganrun("sample", "from=run", "neighbours=2", cwd=tmp_path, check=2)
    assert "there is no such folder" in refused.stderr and refused.stderr.count("\n") == 1
    ganrun("sample", "from=run", "neighbours=2", "data_dir=moved", cwd=tmp_path)
    assert opened(tmp_path / "neighbours.png").shape[1] == 3 * 50 + 2


def test_neighbours_run_nothing_that_a_config_names(runs, tmp_path, monkeypatch, capfd):
    shutil.copytree(runs / "plain", tmp_path / "run")
    config = tmp_path / "run" / ".hydra" / "config.yaml"
    hostile = {"_target_": "os.system", "command": f"touch {tmp_path / 'canary'}"}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "dataset": hostile}))
    monkeypatch.chdir(tmp_path)
    assert cli.run(["sample", "from=run", "neighbours=2"]) == 2
    assert "dataset._target_ names os.system; trusted are only" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert cli.run(["sample", "from=run"]) == 0  # the config is not even read


MISTAKES = {
    "": "from= must be given",
    "from=": "from=: there is no such run directory, .safetensors file or checkpoint",
    "from=nothing": "there is no such run directory, .safetensors file or checkpoint",
    "from=.": "from=.: not a run",
    "from=RUNS": "not a run; expected a directory with a generator.safetensors in it",
    "from=3": "from=3: there is no such run directory",
    "from=RUNS/plain/generator.yaml": "expected a run directory, a .safetensors file, a checkpoint (.ckpt) or hf:",
    "from=RUNS/bare.ckpt": "a checkpoint needs its run, which says what networks it holds",
    "from=PLAIN/checkpoints/others.ckpt": "was not made by this run's config",
    "from=PLAIN/checkpoints/cut.ckpt": "no checksum at its end: truncated",
    "from=a\0b": "from=a",
    "from=PLAIN num=0": "num=0; expected at least 1",
    "from=PLAIN num=-1": "num=-1; expected at least 1",
    "from=PLAIN num=1e3": "num=1000.0; expected an integer or null",
    "from=PLAIN num=10000000000": "expected at most 1,000,000,000",
    "from=PLAIN num=10001": "one picture holds at most 10,000 images",
    "from=PLAIN seed=-1": "seed=-1; expected at least 0",
    "from=PLAIN seed=null": "seed=null; expected an integer",
    "from=PLAIN truncation=0": "truncation=0; expected more than 0",
    "from=PLAIN truncation=-2.5": "expected more than 0",
    "from=PLAIN truncation=nan": "expected a finite number",
    "from=PLAIN truncation=true": "expected a number or null",
    "from=PLAIN label=0": "this generator is unconditional",
    "from=COND label=99": "or indices from 0 to 9, several in brackets; did you mean 9? valid: 9, 0",
    "from=COND label=-1": "label=-1; expected names of classes",
    "from=COND label=cat": "label=cat; expected names of classes, or indices from 0 to 9",
    "from=COND label=[1,dog]": "label=dog; expected names of classes",
    "from=COND label=[]": "label=[]; expected names of classes",
    "from=COND label=1.0": "label=1.0; expected names of classes",
    "from=COND label=[[1]]": "label=[1]; expected names of classes",
    "from=COND label={a:1}": "expected names of classes",
    "from=COND label=99 out=x": "label=99; expected names of classes",
    "from=COND label=99 out=x.npz": "label=99; expected names of classes",
    "from=COND label=99 interpolate=3": "label=99; expected names of classes",
    "from=COND label=1,2": "label=1,2; expected names of classes, or indices from 0 to 9, several in brackets",
    "from=PLAIN batch_size=0": "batch_size=0; expected at least 1",
    "from=PLAIN device=warp": "device=warp; valid: auto, cpu, cuda, cuda:<number>, mps",
    "from=PLAIN device=cuda:99": "device=cuda:99: this machine has",
    "from=PLAIN out=x.jpg": "out=x.jpg: this makes a folder (no ending), .zip, .npz, .npy, .png; with interpolate=<n>",
    "from=PLAIN out=x.gif": "with interpolate=<n> .gif, .mp4",
    "from=PLAIN out=missing/x.png": "there is no folder missing to put it in",
    "from=PLAIN out=missing/x": "there is no folder missing to put it in",
    "from=PLAIN out=": "out=: expected a path",
    "from=PLAIN out=RUNS overwrite=false": "exists and is not empty; overwrite=true",
    "from=PLAIN out=PLAIN/result.json": "this makes a folder",
    "from=PLAIN out=PLAIN/samples/final.png": "exists; overwrite=true",
    "from=PLAIN overwrite=1": "overwrite=1; expected true or false",
    "from=PLAIN trust=os.": "expected names of Python packages",
    "from=PLAIN trust=3": "trust=3; expected text or a list of texts",
    "from=PLAIN interpolate=1": "interpolate=1; expected at least 2",
    "from=PLAIN interpolate=3 out=x": "with interpolate= this makes .gif, .mp4, .png",
    "from=PLAIN interpolate=3 out=x.npz": "with interpolate= this makes .gif, .mp4, .png",
    "from=PLAIN interpolate=3 frames=0": "frames=0; expected at least 1",
    "from=PLAIN interpolate=3 fps=0": "fps=0; expected at least 1",
    "from=PLAIN interpolate=3 fps=60": "a .gif shows at most 50",
    "from=PLAIN interpolate=3 fps=3 out=x.png": "a .png stands still",
    "from=PLAIN interpolate=3 neighbours=3": "give one of them",
    "from=PLAIN interpolate=9999 frames=9999 out=x.png": "one picture holds at most 10,000 images",
    "from=PLAIN interpolate=9999 frames=9999": "a film holds at most 20,000 frames",
    "from=PLAIN frames=3": "frames=3: it acts with interpolate= only",
    "from=PLAIN fps=3": "fps=3: it acts with interpolate= only",
    "from=PLAIN data_dir=x": "data_dir=x: it acts with neighbours= only",
    "from=PLAIN neighbours=0": "neighbours=0; expected at least 1",
    "from=PLAIN neighbours=100": "neighbours=100; expected at most 99",
    "from=PLAIN neighbours=3 out=x.zip": "with neighbours= this makes .png",
    "from=PLAIN neighbours=3 data_dir=x": "digits, lies in no folder",
    "from=ALONE/generator.safetensors neighbours=3": "give from=<run directory>",
    "from=ALONE neighbours=3": "give from=<run directory>",
    "from=RING out=x": "this generator makes vectors; valid: .png (scatter plot), .npz, .npy",
    "from=RING out=x.zip": "this generator makes vectors",
    "from=RING interpolate=3": "it needs images, but this generator makes vectors",
    "from=RING neighbours=3": "it needs images, but this generator makes vectors",
    "from=UNIFORM truncation=1": "Uniform noise has no tails to cut off",
    "from=UNIFORM truncation=1 out=x": "Uniform noise has no tails to cut off",
    "from=PLAIN nun=3": "nun: there is no such key; did you mean num",
    "from=PLAIN +x=3": "x: there is no such key",
    "from=PLAIN ~seed": "seed is missing",
    "from=PLAIN model=dcgan": "model: there is no such key",
    "from=PLAIN steps=3": "steps: there is no such key",
    "from=PLAIN hydra.run.dir=x": "hydra.run.dir=x: there is no such key",
    "from=PLAIN hydra/launcher=joblib": "there is no such key",
    "-m from=PLAIN seed=1": "-m: this command does one thing at a time",
    "from=PLAIN --foo": "there is no such flag",
    "from=PLAIN x": "x: not an override",
}


@pytest.fixture(scope="module")
def places(runs):
    alone, uniform = runs / "alone", runs / "uniform"
    for folder in (alone, uniform):
        folder.mkdir()
        for name in FILES:
            shutil.copy(runs / "plain" / name, folder)
    header = yaml.safe_load((uniform / "generator.yaml").read_text())
    header["noise"]["_target_"] = "ganrun.noise.Uniform"
    (uniform / "generator.yaml").write_text(yaml.safe_dump(header))
    checkpoints = runs / "plain" / "checkpoints"
    shutil.copy(checkpoints / "last.ckpt", runs / "bare.ckpt")
    shutil.copy(runs / "cond" / "checkpoints" / "last.ckpt", checkpoints / "others.ckpt")
    (checkpoints / "cut.ckpt").write_bytes((checkpoints / "last.ckpt").read_bytes()[:5000])
    return {"RUNS": runs, **{name.upper(): runs / name for name in ("plain", "cond", "ring", "alone", "uniform")}}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake_is_one_line_and_leaves_nothing(line, places, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = line.split(" ") if line else []
    for name, place in places.items():
        words = [word.replace(f"={name}", f"={place}") for word in words]
    assert cli.run(["sample", *words]) == 2, capfd.readouterr()
    out, err = capfd.readouterr()
    assert MISTAKES[line] in err, err
    assert err.startswith("ganrun: ") and err.count("\n") == 1 and "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == [], "a refused command left something behind"


def test_existing_things_of_another_kind(sample, runs, tmp_path, capfd):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "made").write_text("mine")
    for out, what in (("x.png", "is a folder"), ("made", "is a file")):
        assert cli.run(["sample", f"from={runs / 'plain'}", f"out={out}", "overwrite=true"]) == 2
        assert f"out={out} {what}; name another place" in capfd.readouterr().err
    assert (tmp_path / "made").read_text() == "mine" and not any((tmp_path / "x.png").iterdir())


def test_a_run_without_a_generator(runs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    shutil.copy(runs / "plain" / ".hydra" / "config.yaml", tmp_path / "run" / ".hydra")
    assert cli.run(["sample", "from=run"]) == 2
    assert "the run has no generator yet" in capfd.readouterr().err


def test_nan_is_not_hidden(runs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    tensors = load_file(runs / "plain" / FILES[0])
    name = next(key for key in tensors if key.endswith("weight"))
    save_file({**tensors, name: tensors[name] * float("nan")}, FILES[0])
    shutil.copy(runs / "plain" / FILES[1], tmp_path)
    for words in ([], ["out=x"], ["out=x.npz"], ["interpolate=2", "out=x.mp4"]):
        assert cli.run(["sample", "from=.", *words]) == 3
        assert "makes NaN or infinity" in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


@pytest.mark.parametrize("out", ["x.npz", "x.zip", "x.png", "x.gif", "x.mp4", "x"])
def test_a_disk_that_takes_nothing(sample, runs, tmp_path, monkeypatch, capfd, out):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ganrun.files.storage.os.replace", full)
    words = ["interpolate=2", "frames=2"] if out[-3:] in ("gif", "mp4") else []
    assert cli.run(["sample", f"from={runs / 'plain'}", f"out={out}", *words]) == 1
    err = capfd.readouterr().err
    assert err.startswith("ganrun: cannot write x") and "No space left" in err and err.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_full_disk(runs, tmp_path, monkeypatch, capfd):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        for words in (["num=2000", "out=x.npz"], ["num=2000", "out=x.zip"], ["interpolate=9", "num=100", "out=x.mp4"]):
            monkeypatch.chdir(disk)
            assert cli.run(["sample", f"from={runs / 'plain'}", *words]) == 1
            told = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("drawing: ")]
            assert len(told) == 1 and "No space left on device" in told[0] and list(disk.iterdir()) == []
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("out", ["x.npz", "x.zip"])
def test_interrupted(runs, tmp_path, number, code, out):
    work = tmp_path / "work"
    work.mkdir()
    run = forked.Run("sample", f"from={runs / 'plain'}", "num=10000000", f"out={out}", cwd=work)
    while not list(work.iterdir()):
        assert run.process.is_alive(), run.err
    run.send(number)
    assert run.wait() == code and list(work.iterdir()) == [] and "Traceback" not in run.err


def test_help_and_config(capfd):
    assert cli.run(["sample", "--help"]) == 0
    text = capfd.readouterr().out
    for key in yaml.safe_load((ROOT / "configs" / "sample.yaml").read_text()).keys() - {"defaults", "hydra"}:
        line = next(line for line in text.splitlines() if line.startswith(f"  {key}="))
        assert len(line.split(maxsplit=1)[1]) > 10, line
    assert "hydra" not in text and "usage: ganrun sample" in text
    assert cli.run(["sample", "--cfg", "job"]) == 0
    assert yaml.safe_load(capfd.readouterr().out)["batch_size"] == 256


def test_writing_needs_no_memory_for_all(tmp_path):
    """Batches are taken one at a time: an endless stream is cut off by its reader alone."""
    taken = []

    def batches():
        for i in range(100):
            taken.append(i)
            yield torch.zeros(2, 1, 4, 4), None
            if i == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "made", batches(), num=200, classes=[])
    assert taken == [0, 1, 2, 3] and len(list((tmp_path / "made").iterdir())) == 8


def test_pngs_carry_their_mark(sample):
    archive = zipfile.ZipFile(sample("plain", "num=1", "out=x.zip"))
    picture = Image.open(io.BytesIO(archive.read("00000.png")))
    assert picture.text == {"Software": "ganrun"} and picture.mode == "L"
    assert json.dumps(archive.namelist()) == '["00000.png"]'
