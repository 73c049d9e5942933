"""`ganrun translate` on what lies in people's folders, with networks whose outputs are known by hand."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_generator_file import make
from torch import nn

import ganrun as package
from ganrun import cli
from ganrun.commands.translate.images import outputs, why
from ganrun.errors import UserError
from ganrun.networks import resnet_translator, unet
from ganrun.sampling.generator_file import save_generator
from ganrun.sampling.translator import Translator, padded, reflected

OWN = '''
import torch
from torch import nn


class Scaled(nn.Module):
    """x -> scale * x, for sides of multiples of 8 from 16 pixels up."""

    multiple, least = 8, 16

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image):
        if any(side % 8 or side < 16 for side in image.shape[2:]):
            raise ValueError(f"no image of {list(image.shape[2:])}")
        return self.scale * image
'''
ORIENTATION = 0x0112
RNG = np.random.default_rng(0)


def noise(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def negative(image):
    return 255 - np.asarray(image.convert("L"))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A generator file whose a2b makes negatives in grey and whose b2a copies colours; images of every kind."""
    place = tmp_path_factory.mktemp("translate")
    (place / "own_translators.py").write_text(OWN)
    header = {
        "networks": {name: {"_target_": "own_translators.Scaled"} for name in ("a2b", "b2a")}, "noise": None,
        "trained": {}, "value_range": [-1.0, 1.0], "classes": [], "channels": {"a2b": [1, 1], "b2a": [3, 3]},
        "between": {"a2b": ["source", "real"], "b2a": ["real", "source"]},
    }  # fmt: skip
    save_generator(place / "g.safetensors", {"a2b.scale": -torch.ones(1), "b2a.scale": torch.ones(1)}, header)
    save_generator(
        place / "nan.safetensors", {f"{name}.scale": torch.ones(1) * torch.inf for name in header["networks"]}, header
    )
    images = place / "images"
    (images / "sub" / "deeper").mkdir(parents=True)
    Image.fromarray(noise(16, 24)).save(images / "same.png")
    Image.fromarray(noise(16, 24, 3)).save(images / "same.bmp")
    Image.fromarray(noise(31, 17, 3)).save(images / "sub" / "odd.png")
    Image.fromarray(noise(1, 3)).save(images / "sub" / "deeper" / "tiny.png")
    Image.fromarray(noise(16, 40, 4)).save(images / "alpha.png")
    Image.fromarray(noise(16, 40, dtype=np.uint16)).save(images / "deep.png")
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    Image.fromarray(noise(16, 40, 3)).save(images / "Turned.JPG", exif=turned)
    (images / "notes.txt").write_text("not an image")
    with zipfile.ZipFile(place / "images.zip", "w") as archive:
        for path in sorted(images.rglob("*.*")):
            archive.write(path, path.relative_to(place))
    bad = place / "bad"
    bad.mkdir()
    (bad / "cut.png").write_bytes((images / "same.png").read_bytes()[:100])
    (bad / "empty.jpg").touch()
    (bad / "text.png").write_text("text")
    (bad / "gone.png").symlink_to("nowhere")
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(bad / "dark.png")
    Image.fromarray(RNG.random((16, 16), np.float32)).save(bad / "float.tiff")
    frames = [Image.fromarray(noise(16, 16)) for _ in range(3)]
    frames[0].save(bad / "film.gif", save_all=True, append_images=frames[1:])
    return place


@pytest.fixture
def translate(made, tmp_path, monkeypatch, capsys):
    """Runs the command in a folder that holds links to what was made; returns its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(made)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    before = set(tmp_path.iterdir())

    def run(*words, source="g.safetensors"):
        code = cli.run(["translate", f"from={source}", "trust=[own_translators]", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    run.new = lambda: set(tmp_path.iterdir()) - before
    return run


def upright_on_white(path):
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "I;16":
            return np.rint(np.asarray(image) / 257).astype(np.uint8)[..., None].repeat(3, 2)
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))


NAMES = {
    "same.png": "same.png.png", "same.bmp": "same.bmp.png", "sub/odd.png": "sub/odd.png", "alpha.png": "alpha.png",
    "sub/deeper/tiny.png": "sub/deeper/tiny.png", "deep.png": "deep.png", "Turned.JPG": "Turned.png",
}  # fmt: skip


def test_every_file_keeps_its_name_size_and_colours(translate):
    code, out, err = translate("input=images", "out=copies", "direction=b2a")
    assert code == 0 and err == "" and out.splitlines() == ["input=images: not used: 1 .txt", "copies"]
    found = {path.relative_to("copies").as_posix() for path in Path("copies").rglob("*.*")}
    assert found == set(NAMES.values())
    for name, place in NAMES.items():
        expected = upright_on_white(Path("images") / name)
        assert np.array_equal(pixels(Path("copies") / place), expected), name


def test_the_first_direction_makes_negatives(translate):
    assert translate("input=images", "out=negatives")[0] == 0
    with Image.open("images/sub/odd.png") as image:
        assert np.array_equal(pixels("negatives/sub/odd.png"), negative(image))


def test_a_zip_a_folder_in_it_and_one_file_give_the_same(translate):
    for words in (["input=images.zip", "out=a"], ["input=images.zip/images/sub", "out=b"], ["input=images", "out=d"]):
        assert translate(*words)[0] == 0
    for words in (["input=images/sub/odd.png", "out=c"], ["input=images/sub/odd.png", "out=one.PNG"]):
        code, out, _ = translate(*words)
        assert code == 0 and out == f"{words[1][4:]}\n"
    expected = Path("d/sub/odd.png").read_bytes()
    for path in ("a/images/sub/odd.png", "b/odd.png", "c/odd.png", "one.PNG"):
        assert Path(path).read_bytes() == expected, path


def test_what_cannot_be_translated_is_listed_with_its_reason(translate):
    os.makedirs("mixed")
    for path in [*Path("bad").iterdir(), Path("images/same.png")]:
        (Path("mixed") / path.name).symlink_to(path.resolve() if path.exists() else "nowhere")
    code, out, err = translate("input=mixed", "out=made")
    assert code == 1 and out == "made\n"
    assert [path.name for path in Path("made").iterdir()] == ["same.png"]
    told = dict(line.removeprefix("not translated: ").split(": ", 1) for line in err.splitlines())
    assert told.pop("cut.png").startswith(("OSError: image file is truncated", "SyntaxError: broken PNG"))
    assert told == {
        "gone.png": "a broken symbolic link",
        "dark.png": "16-bit pixels lie in 0..255 of 0..65535 (1 of 1 images looked at): they would be black or flat; "
        "save it in 8 bits",
        "empty.jpg": "the file is empty",
        "film.gif": "3 frames or pages; save the one that is meant as a file of its own",
        "float.tiff": told["float.tiff"],
        "text.png": "not an image that Pillow can read",
    }
    assert "have no range of their own; save it in 8 bits" in told["float.tiff"]


def test_without_padding_other_sizes_are_listed(translate):
    code, _, err = translate("input=images", "out=made", "pad=false")
    assert code == 1 and err.splitlines() == [
        "not translated: sub/deeper/tiny.png: no image of [1, 3]",
        "not translated: sub/odd.png: no image of [31, 17]",
    ]
    translate("input=images", "out=padded")
    for path in Path("made").rglob("*.png"):
        assert path.read_bytes() == (Path("padded") / path.relative_to("made")).read_bytes()


def test_larger_files_than_allowed_are_listed(translate):
    code, _, err = translate("input=images/sub", "out=made", "max_pixels=100")
    assert code == 1 and err == "not translated: odd.png: 527 pixels; at most 100 are read: max_pixels=527 allows it\n"


REFUSED = {
    "input=bad": "input=bad: no image could be translated; gone.png: a broken symbolic link (and 6 more)",
    "input=bad/text.png": "input=bad/text.png: no image could be translated; text.png: not an image",
    "input=void": "input=void: there is no image in it",
    "input=nowhere": "input=nowhere: there is no such folder, .zip or image",
    "input=images/none.png": "input=images/none.png: there is no such folder, .zip or image",
    "input=images.zip/none": "input=images.zip/none: there is no folder none in images.zip",
    "input=": "input=: expected a path",
    "input=images out=": "out=: expected a path",
    "input=images out=images": "out=images is in input=images: what is written there would be translated too",
    "input=images out=images/made overwrite=true": "out=images/made is in input=images",
    "input=. out=made": "out=made is in input=.",
    "input=one/a.png out=one overwrite=true": "out=one: one/a.png is an image to be translated; name another place",
    "input=one/a.png out=one/a.png overwrite=true": "out=one/a.png: one/a.png is an image to be translated",
    "input=images out=made.png": "out=made.png: 7 images need a folder",
    "input=images out=made.zip": "out=made.zip: this makes a folder",
    "input=images out=nowhere/made": "out=nowhere/made: there is no folder nowhere to put it in",
    "input=images out=own_translators": "out=own_translators is a file; name another place",
    "input=one/a.png out=void.png": "out=void.png is a folder; name another place",
    "input=images direction=b2c": "direction=b2c: there is no such generator; did you mean b2a? valid: b2a, a2b",
    "input=images device=gpu": "device=gpu; did you mean cuda? valid: auto, cpu",
    "input=images pad=1": "pad=1; expected true or false",
    "input=images max_pixels=0": "max_pixels=0; expected at least 1",
    "input=images size=8": "size: there is no such key",
    "": "input= must be given",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_one_line(words, translate):
    for folder in ("void", "void.png", "one"):
        os.mkdir(folder)
    Path("own_translators").touch()
    Image.fromarray(noise(16, 16)).save("one/a.png")
    kept, before = Path("one/a.png").read_bytes(), translate.new()
    code, _, err = translate(*words.split())
    assert code == 2 and err.startswith(f"ganrun: {REFUSED[words]}") and err.count("\n") == 1, err
    assert Path("one/a.png").read_bytes() == kept and translate.new() == before and len(os.listdir("one")) == 1


def test_a_package_must_be_trusted(translate):
    code, _, err = translate("input=images", "trust=[]")
    assert code == 2 and "own_translators.Scaled" in err and "pass trust=[package] to add one" in err
    assert err.count("\n") == 1 and translate.new() == set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_must_be_there(translate):
    code, _, err = translate("input=images", "device=cuda")
    assert code == 2 and "device=cuda: this machine has none" in err and translate.new() == set()


def test_outputs_are_replaced_only_if_asked(translate):
    os.makedirs("made/sub")
    Path("made/alpha.png").write_text("mine")
    Path("made/sub/mine.png").write_text("mine")
    code, _, err = translate("input=images", "out=made")
    assert code == 2 and err == (
        "ganrun: out=made: made/alpha.png exists; overwrite=true replaces it, or name another place\n"
    )
    assert Path("made/alpha.png").read_text() == "mine" and len(list(Path("made").rglob("*.png"))) == 2
    assert translate("input=images", "out=made", "overwrite=true")[0] == 0
    assert pixels("made/alpha.png").shape == (16, 40) and Path("made/sub/mine.png").read_text() == "mine"
    assert not list(Path("made").rglob(".*"))


def test_an_input_behind_a_link_is_never_replaced(translate):
    os.makedirs("made")
    os.makedirs("links")
    Image.fromarray(noise(16, 16)).save("made/a.png")
    Path("links/a.png").symlink_to("../made/a.png")
    kept = Path("made/a.png").read_bytes()
    code, _, err = translate("input=links", "out=made", "overwrite=true")
    assert code == 2 and "made/a.png is an image to be translated" in err and Path("made/a.png").read_bytes() == kept


def test_a_place_that_cannot_be_written_is_named(translate):
    os.makedirs("made")
    Path("made/sub").touch()
    code, _, err = translate("input=images", "out=made")
    assert code == 1 and err.startswith("ganrun: cannot write made/sub") and err.count("\n") == 1


def test_a_generator_that_starts_from_noise_is_refused(translate):
    sampling, header = make()
    save_generator(Path("noise.safetensors"), sampling.state_dict(), header)
    code, _, err = translate("input=images", source="noise.safetensors")
    assert code == 2 and err == (
        "ganrun: from=noise.safetensors: this generator makes samples from noise; use ganrun sample\n"
    )


def test_infinity_is_not_written_as_black(translate):
    code, _, err = translate("input=images/same.png", "out=made", source="nan.safetensors")
    assert code == 2 and "same.png: the network makes NaN or infinity of it" in err and translate.new() == set()


def test_no_two_outputs_meet():
    out = Path("o")
    assert outputs(out, ["a.jpg", "b.jpg"]) == {"a.jpg": out / "a.png", "b.jpg": out / "b.png"}
    for names in (["a.jpg", "a.png"], ["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "A.png"], ["x/a.gif", "x/a.bmp"]):
        assert len({str(place).casefold() for place in outputs(out, names).values()}) == len(names), names


def test_reasons_name_no_key_of_data_sets():
    assert why(ValueError("3 frames or pages; dataset.frames=first reads")) == (
        "3 frames or pages; save the one that is meant as a file of its own"
    )
    assert why(RuntimeError("[enforce fail] can't allocate memory: you tried")) == (
        "it is so large that the network needs more memory than there is"
    )
    assert why(OSError("cut\n off")) == "OSError: cut off"


class TestPadding:
    def test_continues_by_reflection(self):
        assert reflected(4, 6).tolist() == [0, 1, 2, 3, 2, 1]
        assert reflected(3, 9).tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0]
        assert reflected(1, 3).tolist() == [0, 0, 0] and reflected(2, 5).tolist() == [0, 1, 0, 1, 0]
        network, images = nn.Identity(), torch.rand(2, 3, 9, 14)
        network.multiple, network.least = 8, 8
        expected = nn.functional.pad(images, (0, 2, 0, 7), mode="reflect")
        assert torch.equal(padded(images, network), expected)

    @pytest.mark.parametrize("size", [(16, 16), (24, 40)])
    def test_leaves_what_the_network_takes_untouched(self, size):
        network, images = nn.Identity(), torch.rand(1, 1, *size)
        network.multiple, network.least = 8, 16
        assert padded(images, network) is images and padded(images, nn.Identity()) is images

    @pytest.mark.parametrize("size", [(32, 48), (33, 47), (5, 64), (1, 1)])
    @pytest.mark.parametrize("room", [unet, resnet_translator])
    def test_networks_take_any_size(self, room, size):
        torch.manual_seed(0)
        network = room.Generator(channels=1, source_channels=3, resolution=16, width=4).eval()
        about = {"value_range": (-1, 1), "channels": {"g": (3, 1)}, "between": {"g": ("source", "real")}}
        translator, images = Translator({"g": network}, **about), torch.rand(2, 3, *size) * 2 - 1
        found = translator.translate(images)
        assert found.shape == (2, 1, *size) and found.isfinite().all()
        if all(side % 16 == 0 for side in size):
            assert torch.equal(found, translator.translate(images, pad=False))
        else:
            with pytest.raises(UserError, match=rf"takes no image of {size[0]}x{size[1]} pixels"):
                translator.translate(images, pad=False)

    def test_cuts_enlarged_outputs_in_proportion(self):
        network = nn.Upsample(scale_factor=2)
        network.multiple, network.least = 8, 8
        about = {"value_range": (-1, 1), "channels": {"g": (1, 1)}, "between": {"g": ("source", "real")}}
        images = torch.rand(1, 1, 9, 12)
        found = Translator({"g": network}, **about).translate(images)
        torch.testing.assert_close(found, network(images))


def test_from_python(made, monkeypatch):
    monkeypatch.syspath_prepend(made)
    translator = package.load_generator(made / "g.safetensors", trust=["own_translators"])
    images = torch.rand(5, 1, 16, 17) * 2 - 1
    torch.testing.assert_close(translator.translate(images, batch_size=2), -images)
    with pytest.raises(UserError, match=r"a2b takes images of numbers in \[-1, 1\], got torch.uint8"):
        translator.translate(torch.zeros(1, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"b2a takes images of shape \(num, 3, H, W\), got \(5, 1, 16, 17\)"):
        translator.translate(images, "b2a")
    assert json.dumps(translator.channels) == '{"a2b": [1, 1], "b2a": [3, 3]}'
