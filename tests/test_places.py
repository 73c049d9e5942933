"""Places as people type them: any letters, no quotes but the shell's own, and hints that can be pasted."""

import shlex
from pathlib import Path

import pytest
from conftest import TINY
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from ganrun import cli
from ganrun.config.places import command, is_place, quote, quoted, unquoted

ODD = [
    "数据", "é", "a b", " a ", "a,b", "a=b", "[x]", "]x[", "{a", "it's", 'say "hi"', "'a' and 'b'", "(1)", "x (1)",
    "#1", "$HOME", "a$b", "a\\b", "C:\\data\\x", "a\\", "a\\'b", "a\\\\'b", "'", '"', "\\", "\\\\", "\\'", "007",
    "2026", "1e3", ".5", "true", "None", "nan", "..x", "x.", "-x", "a:b", "a;b", "a&b", "a|b", "a`b", "!", "?", "*",
    "@", "%", "a\nb", "a\tb", "choice(a,b)",
]  # fmt: skip


def parsed(word):
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override(), word
    return override.value()


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("key", ["dataset.path", "++run_dir"])
def test_place_is_taken_letter_by_letter(name, key):
    (word,) = quoted([f"{key}={name}"])
    assert parsed(word) == name and unquoted(word.partition("=")[2]) == name
    assert parsed(f"x={quote(name)}") == name and unquoted(quote(name)) == name
    assert shlex.split(command(f"resume={name}")) == ["ganrun", f"resume={name}"]


AS_HYDRA_HAS_IT = {
    "run_dir=": "",
    "init_from=null": None,
    "dataset.path='a b'": "a b",
    'dataset.path="a,b"': "a,b",
    "data_dir=${oc.env:HOME,'~/a b'}/x y": "${oc.env:HOME,'~/a b'}/x y",
    "of=[]": [],
    "of=[a b,'c,d', 数]": ["a b", "c,d", "数"],
    "of=[${steps},007]": ["${steps}", "007"],
    "dataset.cache=false": False,
    "metric.features.weights=[1,2]": [1, 2],
    "penalty.r1.weight=3": 3,
    "term.path-length.weight=2": 2,
    "seed=007": "007",
}


@pytest.mark.parametrize("word", AS_HYDRA_HAS_IT)
def test_what_keeps_its_meaning(word):
    assert parsed(quoted([word])[0]) == AS_HYDRA_HAS_IT[word]


SWEPT = {
    "dataset.path=a,b c": ["a", "b c"],
    "dataset.path='a,b',数": ["a,b", "数"],
    "dataset.path=${oc.env:HOME,b},c": ["${oc.env:HOME,b}", "c"],
    "dataset.path=choice(a,b)": ["a", "b"],
    "dataset.path=x,y": ["x,y"],  # there is a file of that name
    "run_dir=a,b": ["a,b"],  # of the whole sweep
}


@pytest.mark.parametrize("word", SWEPT)
def test_a_comma_sweeps_unless_a_file_has_that_name(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x,y").touch()
    override = OverridesParser.create().parse_override(quoted(["-m", word])[1])
    values = override.value().list if override.is_sweep_override() else [override.value()]
    assert [getattr(value, "text", value) for value in values] == SWEPT[word]


def test_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert quoted(["dataset.path=~/x", "of=[~/a,~]"]) == ["dataset.path=/home/me/x", "of=[/home/me/a,/home/me]"]
    assert quoted(["~dataset.path", "run_dir=./~"]) == ["~dataset.path", "run_dir='./~'"]


def test_keys_that_name_places():
    for key in ("dataset.path", "run_dir", "from", "out", "my.weights_path", "metric.features.weights", "mask-folder"):
        assert is_place(key), key
    for key in ("hydra.sweep.dir", "hydra.searchpath", "seed", "penalty.r1.weight", "term.path-length", "dataset.fit"):
        assert not is_place(key), key


def test_run_among_odd_names(tmp_path, monkeypatch, capfd):
    """Trained, gone on with, drawn from, started from, swept and ranked: each place has a name of its own kind."""
    monkeypatch.chdir(tmp_path)
    Path("数据, a=b [1]").mkdir()
    for i in range(8):
        Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(f"数据, a=b [1]/{i}.png")
    data = ["dataset=image-folder", "dataset.path=数据, a=b [1]", "dataset.cache=it's $HOME", "dataset.resolution=16"]
    small = [*data, *TINY, "batch_size=4", "steps=1", "evaluate.num_samples=8"]
    assert cli.run([*small, "run_dir=$HOME 'é' \\"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "$HOME 'é' \\"
    run = tmp_path / "$HOME 'é' \\"
    assert OmegaConf.load(run / ".hydra" / "config.yaml").dataset.path == str(tmp_path / "数据, a=b [1]")
    assert list(run.glob("tensorboard/events*")) and list((tmp_path / "it's $HOME").glob("*.pixels"))
    assert cli.run(["resume=$HOME 'é' \\", "steps=2", "dataset.path=数据, a=b [1]"]) == 0
    assert cli.run(["sample", "from=$HOME 'é' \\", "num=2", "out=007"]) == 0
    assert cli.run([*small, "init_from=$HOME 'é' \\", "run_dir=1e3"]) == 0
    assert cli.run(["-m", *small, "seed=1,2", "run_dir=(a, b)"]) == 0
    assert cli.run(["rank", "of=[(a, b),1e3]", "by=sliced-wasserstein"]) == 2  # in brackets a comma separates
    assert cli.run(["rank", "of=['(a, b)',1e3]", "by=sliced-wasserstein"]) == 0
    capfd.readouterr()
    assert cli.run([*small, "run_dir=$HOME 'é' \\"]) == 2
    hint = capfd.readouterr().err.partition("go on with it: ")[2].partition(", or")[0]
    assert shlex.split(hint) == ["ganrun", "resume=$HOME 'é' \\"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "数据, a=b [1]", "it's $HOME", "$HOME 'é' \\", "007", "1e3", "(a, b)"}  # fmt: skip
