"""Decoded pixels kept in files: the same as decoding anew, built once, never wrong and never in the way."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_images import encoded, picture, written

from ganrun.data import decoded, prepared
from ganrun.data.decoded import Unreadable
from ganrun.data.images import ImageFolder
from ganrun.errors import UserError

CONTENTS = {f"{'ab'[i % 2]}/{i:02}.png": encoded(picture(10 * i)) for i in range(12)}
BAD = {"a/04.png": b"", "b/05.png": encoded(Image.effect_noise((64, 64), 50))[:500]}


def opened(path: Path, cache: Path | None, **settings) -> ImageFolder:
    settings = {"name": "mine", "resolution": 4, "channels": 3} | settings
    return ImageFolder(path=str(path), cache=cache and str(cache), **settings)


def content(data: ImageFolder) -> tuple:
    batch = data.read(torch.arange(len(data)))
    return batch["real"].tolist(), batch["label"].tolist(), data.classes, data.skipped, data.digest()


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decodings(monkeypatch) -> list[str]:
    """The files that were decoded."""
    names, decode = [], ImageFolder._decode
    monkeypatch.setattr(ImageFolder, "_decode", lambda self, name: names.append(name) or decode(self, name))
    return names


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"limit": 5}, {"channels": 1, "resolution": [3, 5]}, {"on_error": "skip"}, {"on_error": "skip", "limit": 4}],
    ids=str,
)
def test_equal_to_decoding_and_decoded_once(tmp_path, cache, kind, settings, decodings, capsys):
    path = written(tmp_path, kind, CONTENTS | (BAD if "on_error" in settings else {}))
    plain = content(opened(path, None, **settings))
    capsys.readouterr()
    decodings.clear()
    assert content(opened(path, cache, **settings)) == plain
    first = len(decodings)
    assert first >= len(plain[1]) and "preparing" in capsys.readouterr().out
    again = opened(path, cache, **settings)
    assert content(again) == plain and len(decodings) == first
    assert capsys.readouterr().out == ""
    assert again.is_resident and again.held["real"].is_contiguous(memory_format=torch.channels_last)
    assert str(next(cache.glob("*.pixels"))) in Path("/proc/self/maps").read_text()


def test_size_and_place_are_announced(tmp_path, cache, capsys):
    opened(written(tmp_path, "folder", CONTENTS), cache, resolution=512)
    (pixels,) = cache.glob("*.pixels")
    assert capsys.readouterr().out == f"dataset mine: preparing 12 images once, 9.0 MiB in {pixels}\n"
    assert pixels.stat().st_size == 12 * 3 * 512 * 512


def changed_content(path: Path) -> None:
    file = path / "a" / "00.png"
    status, old = os.stat(file), file.read_bytes()
    file.write_bytes(encoded(picture(99))[: len(old)].ljust(len(old), b"\0"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as cp -p, rsync and tar leave it


CHANGES = {
    "content": changed_content,
    "one more": lambda path: shutil.copy(path / "a" / "00.png", path / "a" / "99.png"),
    "one less": lambda path: (path / "a" / "00.png").unlink(),
    "other name": lambda path: (path / "a" / "00.png").rename(path / "a" / "01.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_prepared_anew(tmp_path, cache, change, decodings):
    path = written(tmp_path, "folder", CONTENTS)
    opened(path, cache)
    CHANGES[change](path)
    decodings.clear()
    assert content(opened(path, cache)) == content(opened(path, None))
    assert len(decodings) == 2 * len(opened(path, None))
    assert len(list(cache.glob("*.pixels"))) == 2


def test_what_an_older_decoder_prepared_is_not_used(tmp_path, cache, monkeypatch):
    path = written(tmp_path, "folder", CONTENTS)
    monkeypatch.setattr(decoded, "DECODER", decoded.DECODER - 1)
    opened(path, cache)
    monkeypatch.undo()
    with monkeypatch.context() as later:
        later.setattr(ImageFolder, "_decode", lambda self, name: (torch.full((3, 4, 4), 7, dtype=torch.uint8), 0))
        assert opened(path, cache).read(torch.arange(12))["real"].unique().tolist() == [7]
    assert len(list(cache.glob("*.pixels"))) == 2


@pytest.mark.parametrize(
    "setting",
    [{"resolution": 5}, {"channels": 1}, {"fit": "crop"}, {"limit": 3}, {"range": [0, 200]}, {"range": "auto"}],
    ids=str,
)
def test_other_settings_are_another_set(tmp_path, cache, setting):
    path = written(tmp_path, "folder", CONTENTS)
    opened(path, cache)
    opened(path, cache, **setting)
    assert len(list(cache.glob("*.pixels"))) == 2


def test_two_folders_of_the_same_names_sizes_and_times(tmp_path, cache):
    for name, grey in (("one", 10), ("other", 200)):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), grey).save(tmp_path / name / "a.bmp")
        os.utime(tmp_path / name / "a.bmp", ns=(10**18, 10**18))
    one, other = (opened(tmp_path / name, cache) for name in ("one", "other"))
    assert one.read(torch.tensor([0]))["real"].unique().tolist() == [10]
    assert other.read(torch.tensor([0]))["real"].unique().tolist() == [200]
    assert one.digest() != other.digest()  # so that a resume notices


def flip_a_bit(pixels: Path) -> None:
    stored = bytearray(pixels.read_bytes())
    stored[len(stored) // 2] ^= 1
    pixels.write_bytes(stored)


DAMAGES = {
    "a flipped bit": flip_a_bit,
    "cut off": lambda pixels: pixels.write_bytes(pixels.read_bytes()[:-1]),
    "too long": lambda pixels: pixels.write_bytes(pixels.read_bytes() + b"0"),
    "no header": lambda pixels: pixels.with_suffix(".json").unlink(),
    "torn header": lambda pixels: pixels.with_suffix(".json").write_text('{"num": 12'),
    "a header of something else": lambda pixels: pixels.with_suffix(".json").write_text("[1]"),
    "no pixels": lambda pixels: pixels.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_mended(tmp_path, cache, damage, decodings, capsys):
    path = written(tmp_path, "folder", CONTENTS)
    plain = content(opened(path, cache))
    (pixels,) = cache.glob("*.pixels")
    DAMAGES[damage](pixels)
    decodings.clear()
    capsys.readouterr()
    assert content(opened(path, cache)) == plain and len(decodings) == 12
    assert ("is damaged" in capsys.readouterr().out) == (not damage.startswith("no "))
    assert content(opened(path, cache)) == plain and len(decodings) == 12


def test_of_large_sets_evenly_spaced_blocks_are_checked(monkeypatch):
    monkeypatch.setattr(prepared, "BLOCK", 4)
    monkeypatch.setattr(prepared, "CHECKED", 16)
    stored = np.arange(40, dtype=np.uint8)
    sums = prepared.checksums(stored)
    assert len(sums) == 10 and not prepared.mismatch(stored, sums) and prepared.mismatch(stored, sums[:-1])
    seen = []
    for i in range(40):
        damaged = stored.copy()
        damaged[i] ^= 1
        seen.append(prepared.mismatch(damaged, sums))
    assert [i for i in range(10) if seen[4 * i]] == [0, 3, 6, 9] and sum(seen) == 16


def test_a_refused_set_leaves_nothing(tmp_path, cache):
    path = written(tmp_path, "folder", CONTENTS | {"b/05.png": BAD["b/05.png"]})
    for _ in range(2):
        with pytest.raises(Unreadable, match=r"b/05.png: .*on_error=skip"):
            opened(path, cache)
        assert not list(cache.glob("*.pixels")) and not list(cache.glob("*.partial"))


def test_nothing_to_prepare(tmp_path, cache):
    path = written(tmp_path, "folder", dict.fromkeys(CONTENTS, b""))
    with pytest.raises(UserError, match="dataset mine: no image is left; "):
        opened(path, cache, on_error="skip")
    assert not list(cache.glob("*.pixels"))


def test_a_prepared_set_is_read_where_nothing_can_be_written(tmp_path, cache, monkeypatch):
    path = written(tmp_path, "folder", CONTENTS)
    plain = content(opened(path, cache))
    monkeypatch.setattr(prepared.Prepared, "owned", lambda self: pytest.fail("takes a lock"))
    assert content(opened(path, cache)) == plain


def test_no_room_and_no_permission_are_one_line(tmp_path, cache, monkeypatch):
    path = written(tmp_path, "folder", CONTENTS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"dataset.cache=.*file: .*; dataset.cache=null does without"):
        opened(path, tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"dataset.cache=.*: No space left on device; name another folder"):
        opened(path, cache)
    assert {file.suffix for file in cache.iterdir()} == {".lock"}


def open_and_count(path: Path, cache: Path, found: multiprocessing.Queue) -> None:
    count = 0
    decode = ImageFolder._decode

    def counted(self, name):
        nonlocal count
        count += 1
        return decode(self, name)

    ImageFolder._decode = counted
    data = opened(path, cache, resolution=64)
    found.put((count, data.digest()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_of_several_processes_one_prepares(tmp_path, cache):
    path = written(tmp_path, "folder", CONTENTS)
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    processes = [context.Process(target=open_and_count, args=(path, cache, found)) for _ in range(3)]
    for process in processes:
        process.start()
    counts, digests = zip(*(found.get(timeout=60) for _ in processes), strict=True)
    for process in processes:
        process.join()
    assert sorted(counts) == [0, 0, 12] and len(set(digests)) == 1


def killed_while_preparing(path: Path, cache: Path) -> None:
    ImageFolder._decode = lambda self, name: os._exit(9)
    opened(path, cache)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("resolution", [4, 5], ids=["the same set", "another set"])
def test_the_next_preparation_removes_what_a_killed_one_left(tmp_path, cache, resolution):
    path = written(tmp_path, "folder", CONTENTS)
    process = multiprocessing.get_context("fork").Process(target=killed_while_preparing, args=(path, cache))
    process.start()
    process.join()
    assert process.exitcode == 9 and list(cache.glob("*.partial")) and not list(cache.glob("*.pixels"))
    plain = content(opened(path, None, resolution=resolution))
    assert content(opened(path, cache, resolution=resolution)) == plain
    assert not list(cache.glob("*.partial")) and len(list(cache.glob("*.pixels"))) == 1


def test_larger_than_memory_is_left_to_workers(tmp_path, cache, monkeypatch):
    path = written(tmp_path, "folder", CONTENTS)
    monkeypatch.setattr("ganrun.data.base.physical_memory", lambda: 100)
    assert opened(path, cache, num_workers=0).is_resident
    streamed = opened(path, cache, num_workers=2)
    assert streamed.held and not streamed.is_resident
    assert content(streamed) == content(opened(path, None))


def test_the_header_says_what_is_missing(tmp_path, cache):
    opened(written(tmp_path, "folder", CONTENTS | BAD), cache, on_error="skip")
    (header,) = cache.glob("*.json")
    assert json.loads(header.read_text())["num"] == 10 and sorted(json.loads(header.read_text())["bad"]) == sorted(BAD)


def test_without_a_cache_small_sets_are_kept_in_memory(tmp_path, monkeypatch):
    path = written(tmp_path, "folder", CONTENTS)
    assert opened(path, None).held and not opened(path, None, num_workers=1).held
    monkeypatch.setattr(decoded, "IN_MEMORY", 10)
    assert not opened(path, None).held


def test_without_a_folder_to_write_a_set_is_read_all_the_same(tmp_path, monkeypatch, capsys):
    path = written(tmp_path, "folder", CONTENTS)
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "no folder"))
    assert content(opened(path, prepared.DEFAULT)) == content(opened(path, None))
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "decoded pixels are not kept; cache_dir=<folder> or $GANRUN_CACHE" in told
