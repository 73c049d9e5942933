"""Every command in the README runs, and what it says of files is there."""

import os
import re
import shlex
import shutil
import subprocess

import pytest
import slurm
from conftest import GANRUN, ROOT, TINY, made_once
from forked import run
from serving import serving
from shards import write_parquet, write_shards

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.strip()
]
TRANSLATING = README.split("## Translate images")[1].split("\n## ")[0]
SHORT = ["steps=2", "dataset.limit=64", "evaluate.num_samples=32", "num_samples=16"]
FEWER = {
    "sample": ["batch_size=64"],
    "evaluate": ["num_samples=40", "metric/features=none", "metric.kid.subset_size=20"],
    "rank": ["of=outputs-of-mine"],
    "clean": ["of=outputs-of-mine"],
    "explain": ["json=true"],
    "report": ["neighbours=null"],
    "translate": ["device=cpu"],
    "export": ["overwrite=true"],
    "share": ["overwrite=true"],
}
WIDTHS = ["generator.width=8", "discriminator.width=8"]
FEWER["plan"] = [*SHORT, *WIDTHS, "tries=false", "seconds=0"]
NARROW = ["dataset.resolution=32", "generator.width=4", "discriminator.width=4"]
RAY = {"address=auto": "address=null", "num_gpus=1": "num_gpus=0"}  # no cluster, no GPU
ONE_WORKER = [f"+hydra.launcher.ray.init.{word}" for word in ("num_cpus=1", "include_dashboard=false")]
LIGHT = ("--help", "--cfg")


def code_block(language, marker):
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.S) if marker in b]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A user's folder, which each test process has for itself."""
    made, path = made_once("readme", make_place), tmp_path_factory.mktemp("readme") / "place"
    shutil.copytree(made, path)
    sweep = path / "sweep" / "sweep.yaml"
    sweep.write_text(sweep.read_text().replace(str(made), str(path)))  # where it was started
    return path


def make_place(path):
    """A finished run, a translator, own images, and the README's own loss."""
    run(*SHORT, *WIDTHS, "run_dir=run", cwd=path)
    shutil.copytree(path / "run", path / "outputs-of-mine" / "one")
    run("-m", *SHORT, *WIDTHS, "seed=1,2", "run_dir=sweep", cwd=path)
    run("sample", "from=run", "num=40", "out=pngs", cwd=path)
    run("model=cyclegan", "pairs=invert", *NARROW, *SHORT, "run_dir=translator", cwd=path)
    shutil.copytree(path / "pngs", path / "photos")
    shutil.copy(path / "run" / "samples" / "final.png", path / "photo.png")
    (path / "my" / "loss").mkdir(parents=True)
    (path / "my" / "my_losses.py").write_text(code_block("python", "class Quadratic"))
    (path / "my" / "loss" / "quadratic.yaml").write_text(code_block("yaml", "my_losses"))
    (path / "images").mkdir()
    for i in range(4):
        shutil.copy(path / "run" / "samples" / "final.png", path / "images" / f"{i}.png")
    (path / "labels.csv").write_text("file,age,smiling\n0.png,20,1\n1.png,31.5,0\n2.png,40,1\n3.png,50,0\n")
    tabled = ["dataset=image-folder", "dataset.path=images", "dataset.labels=labels.csv", "conditional=attributes"]
    run(*tabled, *SHORT, *WIDTHS, "run_dir=tabled", cwd=path)
    write_shards(path / "shards", [40, 40])
    write_parquet(path / "train.parquet", 80)


def test_the_readme_has_commands():
    assert "./scripts/demo" in COMMANDS and "./scripts/test" in COMMANDS
    assert sum(command.startswith("ganrun ") for command in COMMANDS) >= 10


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("ganrun ")])
def test_command_runs(command, place, request, tmp_path):
    folder = "pngs" if "evaluate" in command else "images"
    named = "translator" if command in TRANSLATING else "tabled" if "label=" in command else "run"
    places = {"<run>": named, "<folder or .zip>": folder, "<.csv or .json>": "labels.csv"}
    places["<hub name, folder, .parquet or .arrow>"] = "train.parquet"
    words = shlex.split(re.sub("|".join(places), lambda found: places[found[0]], command))
    words = [re.sub(r"range\(0,\d+\)", "range(0,2)", word) for word in words]
    if words[1] == "serve" and "--help" not in words:
        with serving(place / "run", *words[3:]) as server:
            assert "<html" in server.client.get("/").text
        return
    if "run_dir=sweep" in words:
        words[words.index("run_dir=sweep")] = f"run_dir=sweep-of-{len(command)}"
    if not {*LIGHT, "resume=sweep", "of=sweep"} & set(words):
        words += FEWER.get(words[1]) or (SHORT[:1] if "resume=run" in words else SHORT)
        words += WIDTHS if "steps=2" in words and not re.search("width|resume=", command) else []
        words += ["schedule.discriminator=1"] if "-m" in words else []
        words += NARROW if {"model=pix2pix", "model=cyclegan"} & set(words) else []
    if words[1] == "evaluate" and any(word.startswith("metric=[") and "kid" not in word for word in words):
        words.remove("metric.kid.subset_size=20")
    words = [word.replace("steps=4000", "steps=3") for word in words if word != "steps=2" or "steps=4000" not in words]
    if "dataset=mnist" in words:
        words.append(f"data_dir={request.getfixturevalue('data_dir')}")
    words = [next((word.replace(*pair) for pair in RAY.items() if pair[0] in word), word) for word in words]
    words += ONE_WORKER if "hydra/launcher=ray" in words else []
    run(
        *words[1:], cwd=place, env=slurm.install(tmp_path / "slurm") if "hydra/launcher=submitit_slurm" in words else {}
    )


def test_python_door(place):
    code = code_block("python", "load_generator").replace("<run>", "run") + "\nassert images.shape == (512, 1, 16, 16)"
    (place / "door.py").write_text(code)
    run(cwd=place, script=place / "door.py")


def test_from_python(place):
    few = {"dataset__limit": 64, "evaluate__num_samples": 32, "generator__width": 8, "discriminator__width": 8}
    code = re.sub("steps=[15]00", "steps=2, **few", code_block("python", "ganrun.train")).replace("600", "3")
    checks = "assert images.shape == (16, 1, 16, 16) and run.steps == 3 and len(runs) == 2 and config.penalty.r1"
    (place / "from_python.py").write_text(f"few = {few}\n{code}\n{checks}\n")
    run(cwd=place, script=place / "from_python.py")


def test_demo_and_test_scripts(tmp_path):
    demo = [ROOT / "scripts" / "demo", "steps=1", *TINY, f"run_dir={tmp_path / 'demo'}"]
    done = subprocess.run(demo, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "demo" / "report.html")
    assert "samples/final.png" in done.stdout and "tensorboard --logdir" in done.stdout
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    script = [ROOT / "scripts" / "test", "--collect-only", "-q", "tests/test_seeding.py"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0 and "All checks passed" in done.stdout, done.stdout + done.stderr


def test_slurm_script_starts_a_run_and_then_resumes_it(tmp_path):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "job").write_text(code_block("sh", "#SBATCH"))
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run(["bash", "-eu", "job"], cwd=tmp_path, env=env, check=True, timeout=60)
        (tmp_path / "outputs" / "big" / ".hydra").mkdir(parents=True, exist_ok=True)
        (tmp_path / "outputs" / "big" / ".hydra" / "config.yaml").touch()
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert first == "--kill-on-bad-exit=1 ganrun trainer=ddp trainer.devices=8 trainer.num_nodes=2 run_dir=outputs/big"
    assert second == "--kill-on-bad-exit=1 ganrun resume=outputs/big"


def test_torchrun_command_is_understood(tmp_path):
    command = code_block("sh", "torchrun").replace("\\\n", " ").replace("$HOST", "localhost:0")
    command = command.replace("--nnodes 2 --nproc-per-node 8", "--nnodes 1 --nproc-per-node 2").replace(
        "ganrun", "echo"
    )
    words = [str(GANRUN.parent / "torchrun"), *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    wanted = "trainer=ddp trainer.devices=8 trainer.num_nodes=2 run_dir=outputs/big"
    assert done.returncode == 0 and done.stdout.count(wanted) == 2, done.stderr


def test_output_tree_is_the_real_one(place):
    tree = README.split("## What a run leaves")[1].split("```")[1]
    for name in (
        "train.log",
        "metrics.jsonl",
        "result.json",
        "generator.safetensors",
        "generator.yaml",
        "best.safetensors",
        ".lock",
    ):
        assert name in tree and (place / "run" / name).exists()
    for folder in (".hydra", "checkpoints", "tensorboard", "samples"):
        assert f"  {folder}/" in tree and (place / "run" / folder).is_dir()


def test_picture_and_changelog_exist():
    assert (ROOT / re.search(r"!\[.*?\]\((.*?)\)", README)[1]).exists()
    from ganrun import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
