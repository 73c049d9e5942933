"""Shared folders, and hf:// addresses, against a hub on the loopback."""

import json
import re
import shutil
from pathlib import Path

import hub as loopback
import pytest
import torch
import yaml
from conftest import TINY, ganrun, last_line
from PIL import Image

from ganrun import UserError, load_generator
from ganrun.commands.share import card, places
from ganrun.commands.share.upload import upload
from ganrun.errors import Failure
from ganrun.files import hub as door
from ganrun.files.record import Record

SECRET = "alice-of-the-laptop"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run on images in somebody's home, and what is shared of it: `plain` as by default, `whole` with everything."""
    path = tmp_path_factory.mktemp("share") / SECRET
    (path / "pictures").mkdir(parents=True)
    for i in range(16):
        Image.effect_noise((8, 8), i + 1).save(path / "pictures" / f"{i:02}.png")
    data = ["dataset=image-folder", f"dataset.path={path / 'pictures'}", "dataset.resolution=8", "dataset.channels=1"]
    settings = [*TINY, "batch_size=8", "evaluate.num_samples=16", "steps=2", f"cache_dir={path / 'cache'}"]
    ganrun(*data, *settings, f"data_dir={path}/data", f"run_dir={path}/run", cwd=path)
    (path / "elsewhere").mkdir()
    ganrun("share", "from=run", "out=plain", "license=mit", cwd=path)
    ganrun("share", "from=run", "out=elsewhere/whole", "include=[discriminator,checkpoint]", "title=All", cwd=path)
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of no models, an empty cache, and a token."""
    from huggingface_hub import constants

    with loopback.serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", loopback.TOKEN)
        yield served


def test_the_folder_has_what_was_asked_for(place):
    def names(folder):
        return {str(file.relative_to(place / folder)) for file in (place / folder).rglob("*") if file.is_file()}

    always = {"README.md", "config.yaml", "samples.png", "generator.safetensors", "generator.yaml", "best.safetensors",
              "best.yaml"}  # fmt: skip
    more = {"discriminator.safetensors", "discriminator.yaml", "checkpoints/last.ckpt", ".hydra/config.yaml",
            ".hydra/hydra.yaml", ".hydra/overrides.yaml"}  # fmt: skip
    assert names("plain") == always and names("elsewhere/whole") == always | more
    ours, theirs = (load_generator(place / folder / "generator.safetensors") for folder in ("run", "plain"))
    assert torch.equal(ours.sample(4), theirs.sample(4))


def test_sharing_anew_leaves_nothing_of_an_earlier_share(place):
    shutil.copytree(place / "elsewhere" / "whole", place / "anew")
    ganrun("share", "from=run", "out=anew", "overwrite=true", cwd=place)
    assert {file.name for file in (place / "anew").iterdir()} == {file.name for file in (place / "plain").iterdir()}


def test_nothing_says_whose_machine_it_was(place):
    for folder in ("plain", "elsewhere/whole"):
        for file in filter(Path.is_file, (place / folder).rglob("*")):
            content = file.read_bytes()
            assert SECRET.encode() not in content and str(Path.home()).encode() + b"/" not in content, file
    assert "dataset.path=<path>" in (place / "plain" / "README.md").read_text()


def test_words_and_configs_without_paths():
    words = {
        "dataset.path='/home/bob smith/my, data'": "dataset.path=<path>",
        "dataset.labels=../bob/x.csv": "dataset.labels=<path>",
        "data_dir=data of bob": "data_dir=data",
        "generator._target_=mine.G": "generator._target_=mine.G",
        "+note=[/home/bob/a,~bob,b/c]": "+note=[<path>,<path>,b/c]",
        "dataset.range=[0,255]": "dataset.range=[0,255]",
    }
    assert {word: places.hidden_word(word) for word in words} == words
    config = {"generator": {"latents": "chunks"}, "dataset": {"path": "bob", "name": "x/y"}, "cache_dir": "/home/bob/c"}
    wanted = {"generator": {"latents": "chunks"}, "dataset": {"path": "<path>", "name": "x/y"}, "cache_dir": "cache"}
    assert places.hidden_config(config) == wanted
    assert places.hidden({"labels": "44ca", "note": ["see /home/bob/x", "https://a/b", 3]}) == {
        "labels": "44ca",
        "note": ["see <path>", "https://a/b", 3],
    }


def test_a_whole_folder_is_a_run(place):
    done = ganrun(
        "sample", "from=elsewhere/whole/checkpoints/last.ckpt", "num=4", "sampler=drs", "burn_in=8", cwd=place
    )
    assert last_line(done) == "samples.png"
    shutil.copytree(place / "elsewhere" / "whole", place / "taken")
    ganrun("resume=taken", f"dataset.path={place / 'pictures'}", "steps=3", cwd=place)


def test_card(place, monkeypatch):
    from huggingface_hub import ModelCard

    made = ModelCard.load(place / "plain" / "README.md")
    assert made.data.license == "mit" and made.data.library_name == "ganrun" and made.data.eval_results is None
    assert made.data.tags == ["gan", "dcgan", "non-saturating", "image-folder"]
    assert "| sliced-wasserstein |" in made.text and "num_fake 16" in made.text and "(samples.png)" in made.text
    whole = (place / "elsewhere" / "whole" / "README.md").read_text()
    assert "# All" in whole and "license" not in whole.split("---")[1] and "None is named" in whole
    inception = {"features": "inception", "num_fake": 50000, "num_real": 50000}
    scores = [
        card.Score("fid", 3.5, 0.1, "generator", inception),
        card.Score("fid", 1, None, "generator", {"features": "classifier"}),
    ]
    monkeypatch.setattr(card, "scored", lambda record: scores)
    request = type("Request", (), {"title": None, "license": None, "push": "o/n", "branch": None, "out": place})()
    text = card.card(
        request, Record(place / "run"), load_generator(place / "run" / "generator.safetensors"), picture=None
    )
    (result,) = ModelCard(text).data.eval_results  # of the two only the one that others call so
    assert (result.metric_type, result.metric_value, result.task_type) == ("fid", 3.5, "unconditional-image-generation")
    assert "| fid | 3.5 ± 0.1 |" in text and 'load_generator("hf://o/n")' in text


def test_upload_and_load_again(place, hub, capsys):
    request = asked(place / "plain", push="me/gan", private=True)
    address = upload(request)
    assert re.fullmatch(r"hf://me/gan@[0-9a-f]{40}", address) and hub.private == {"me/gan"}
    assert set(hub.repos["me/gan"][address[-40:]]) == {
        ".gitattributes",
        *(file.name for file in (place / "plain").iterdir()),
    }
    ours = load_generator(place / "run" / "generator.safetensors").sample(4)
    assert torch.equal(load_generator(address).sample(4), ours) and "note" not in capsys.readouterr().err
    asking = len(hub.calls)
    assert torch.equal(load_generator(address).sample(4), ours) and len(hub.calls) == asking  # all is in the cache
    assert load_generator("hf://me/gan/best.safetensors").trained["steps"] == 2
    said = capsys.readouterr().err
    assert f"main is commit {address[-40:]}" in said and f"{address}/best.safetensors stays the same" in said
    with pytest.raises(UserError, match="there is such a repository; overwrite=true"):
        upload(request)
    second = upload(asked(place / "elsewhere" / "whole", push="me/gan", branch="next", overwrite=True))
    assert (
        second != address
        and hub.heads["me/gan", "next"] == second[-40:]
        and hub.heads["me/gan", "main"] == address[-40:]
    )
    assert "checkpoints/last.ckpt" in hub.repos["me/gan"][second[-40:]]
    assert load_generator("hf://me/gan@next").trained["steps"] == 2


def asked(out, **settings):
    return type("Request", (), {"out": out, "private": False, "overwrite": False, "branch": None, **settings})()


def test_without_the_hub_the_cache_serves(place, hub, capsys, monkeypatch):
    commit = hub.share("me/gan", place / "plain")
    first = load_generator("hf://me/gan").sample(2)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    capsys.readouterr()
    assert torch.equal(load_generator("hf://me/gan").sample(2), first)
    assert f"main is commit {commit}, when the hub was last reached" in capsys.readouterr().err
    with pytest.raises(Failure, match="hf://me/other: the hub cannot be reached"):
        load_generator("hf://me/other")
    with pytest.raises(Failure, match="push=me/gan: the hub cannot be reached"):
        upload(asked(place / "plain", push="me/gan"))


def test_one_line_for_each_failure(place, hub, monkeypatch, tmp_path):
    commit = hub.share("me/gan", place / "plain")
    for address, told in {
        "hf://me/nothing": "no such repository, or it is private; log in with `hf auth login`, or set HF_TOKEN",
        "hf://me/gan@nowhere": "there is no such branch, tag or commit",
        "hf://me/gan/bst.safetensors": "did you mean best.safetensors",
        f"hf://me/gan@{'0' * 40}": "there is no such branch, tag or commit",
        "hf://me": "expected hf://<owner>/<name>",
        "hf://me/gan/README.md": "expected hf://<owner>/<name>",
        "hf://me/gan/../x.safetensors": "expected hf://<owner>/<name>",
    }.items():
        with pytest.raises(Failure, match=told) as raised:
            load_generator(address)
        assert str(raised.value).startswith(address) and "\n" not in str(raised.value)
    path = door.fetched(f"hf://me/gan@{commit}")
    with path.resolve().open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(UserError, match="damaged, its hash is not the hub's"):
        load_generator(f"hf://me/gan@{commit}")
    with pytest.raises(UserError, match="push=someone-else/gan: this token has no right to it"):
        upload(asked(place / "plain", push="someone-else/gan"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="push=me/new: no token, or not a valid one"):
        upload(asked(place / "plain", push="me/new"))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="push=me/new: there is no token; log in"):
        upload(asked(place / "plain", push="me/new"))


def test_hidden_code_is_refused(place, hub, tmp_path):
    """Whatever a repository holds, only ganrun's own networks are built."""
    files = {file.name: file.read_bytes() for file in (place / "plain").iterdir()}
    header = yaml.safe_load(files["generator.yaml"])
    header["networks"]["generator"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'ran'}"}
    hub.commit("me/evil", files | {"generator.yaml": yaml.safe_dump(header).encode()})
    with pytest.raises(UserError, match=r"os\.system"):
        load_generator("hf://me/evil")
    assert not (tmp_path / "ran").exists()


def test_commands_take_addresses(place, hub, tmp_path):
    hub.share("me/gan", place / "plain")
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    env["HF_TOKEN"] = loopback.TOKEN
    from forked import run

    done = run("sample", "from=hf://me/gan@main", "num=4", cwd=tmp_path, env=env)
    assert done.out.splitlines()[-1] == "samples.png" and "main is commit" in done.err
    push = ["share", f"from={place / 'run'}", "out=again", "push=me/again", "license=mit"]
    done = run(*push, cwd=tmp_path, env=env)
    folder, address = done.out.splitlines()[-2:]
    assert folder == "again" and address == f"hf://me/again@{hub.heads['me/again', 'main']}"
    assert json.loads(json.dumps(hub.calls)) and "UserWarning" not in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    {
        "out=x": "from= must be given",
        "from=run": "out must be given|out=",
        "from=plain out=x": "not a run",
        "from=run/checkpoints/last.ckpt out=x": "a checkpoint; expected its run",
        "from=run out=run/x": "is in the run",
        "from=run out=plain": "exists and is not empty; overwrite=true",
        "from=run out=elsewhere overwrite=true": "holds whole, which is of no shared run",
        "from=run out=x license=MIT": "as the hub spells it",
        "from=run out=x push=me": "expected <owner>/<name>",
        "from=run out=x private=true": "it acts with push= only",
        "from=run out=x include=[optimizer]": "include=optimizer; valid: checkpoint, discriminator",
        "from=run out=no/x": "there is no folder no",
    }.items(),
)
def test_mistakes_are_one_line(words, told, place):
    done = ganrun("share", *words.split(), cwd=place, check=2)
    assert re.search(told, done.stderr) and len(done.stderr.splitlines()) == 1 and not (place / "x").exists()
