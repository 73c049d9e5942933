"""export.discriminator=true: the run's discriminators as files of their own, which run nobody's code."""

import pytest
import torch
import yaml
from conftest import TINY, ganrun
from test_configs import SMALL, composed

import ganrun as package
from ganrun.errors import UserError
from ganrun.files.checkpoint import load_checkpoint
from ganrun.files.run_dir import RunDir
from ganrun.sampling.discriminator_file import assemble
from ganrun.training.build import build
from ganrun.training.of_checkpoint import of_discriminators

FEW = ["dataset.limit=24", "batch_size=8", "evaluate.every=0", "steps=2", "export.discriminator=true"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def run(place):
    spectral = ["loss=hinge", "critic.norm=spectral", "model=resnet", "conditional=projection"]
    ganrun(*TINY, *FEW, *spectral, "run_dir=run", cwd=place)
    return RunDir(place / "run")


def saved(run, prefix):
    """The tensors of a network in the run's last checkpoint."""
    state = load_checkpoint(run.last)["state_dict"]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def test_it_is_the_discriminator_of_the_last_checkpoint(run):
    trained = package.load_discriminator(run.discriminator)
    state = saved(run, "recipe.adversary.discriminator.")
    torch.testing.assert_close(dict(trained.network.state_dict()), state, rtol=0, atol=0)
    assert trained.trained == {"dataset": "digits", "steps": 2, "seed": 0, "loss": "ganrun.losses.Hinge"}
    assert trained.classes == [str(i) for i in range(10)]
    images, label = torch.rand(5, 1, 16, 16) * 2 - 1, torch.arange(5)
    verdict = trained.judge(images, label)
    assert verdict.logits.shape == (5,) and not verdict.logits.requires_grad
    alone = torch.cat([trained.judge(images[i : i + 1], label[i : i + 1]).logits for i in range(5)])
    torch.testing.assert_close(alone, verdict.logits)  # in eval mode


def test_both_of_cyclegan(place):
    words = ["model=cyclegan", "pairs=invert", "generator.blocks=1", "discriminator.layers=1", "generator.width=4"]
    ganrun(*FEW, *words, "discriminator.width=4", "batch_size=2", "num_samples=6", "run_dir=two", cwd=place)
    run = RunDir(place / "two")
    trained = package.load_discriminator(run.discriminator)
    assert list(trained.networks) == ["adversary_a.discriminator", "adversary_b.discriminator"]
    for path, network in trained.networks.items():
        torch.testing.assert_close(dict(network.state_dict()), saved(run, f"recipe.{path}."), rtol=0, atol=0)
    with pytest.raises(UserError, match="there are several discriminators: adversary_a"):
        trained.judge(torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize(
    "words",
    [
        ["model=resnet", "head=[minibatch,san]", "conditional=projection"],
        ["model=stylegan2", "generator.w_dim=8", "head=[san]", "term=[infogan]", "conditional=projection"],
        ["model=resnet", "critic.gradient_norm=true", "critic.norm=none"],
        ["model=fastgan", "dataset.resolution=32"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_heads_and_gradient_normalisation_come_with_it(words):
    cfg = composed(*SMALL, "loss=hinge", *words)[0]
    module = build(cfg).module.eval()
    (path, network), *_ = module.recipe.discriminators().items()
    if "head=[minibatch,san]" in words:
        torch.nn.init.normal_(network.head.head.sum.weight)
    about = of_discriminators(cfg, {"value_range": [-1, 1], "classes": []}, 2, [path])
    tensors = {f"{path}.{name}": value for name, value in network.state_dict().items()}
    trained = assemble(yaml.safe_load(yaml.safe_dump(about)), tensors, [], "here")
    x, y = torch.rand(4, 1, *[32 if "model=fastgan" in words else 16] * 2), torch.arange(4)
    expected = module.recipe.adversary.judge(y if "conditional=projection" in words else None)(x)
    with torch.no_grad():
        found = trained.judge(x, y)
    assert not found.logits.requires_grad
    torch.testing.assert_close(found.logits, expected.logits.detach())


def test_values_are_those_of_the_data(run):
    trained = package.load_discriminator(run.discriminator)
    trained.value_range = [0.0, 1.0]
    images, label = torch.rand(2, 1, 16, 16) * 2 - 1, torch.zeros(2, dtype=torch.int64)
    expected = trained.network(images / 2 + 0.5, label).logits
    torch.testing.assert_close(trained.judge(images, label).logits, expected)


@pytest.fixture
def copy(run, tmp_path):
    for path in (run.discriminator, run.discriminator.with_suffix(".yaml")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / run.discriminator.name


def refused(path, message):
    with pytest.raises(UserError, match=message) as error:
        package.load_discriminator(path)
    assert "\n" not in str(error.value)


def test_damage_and_other_files_are_refused(copy):
    header, data = copy.with_suffix(".yaml"), copy.read_bytes()
    copy.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(copy, "damaged, or from another moment than discriminator.yaml: checksums differ")
    copy.write_bytes(data)
    text = header.read_text()
    header.write_text(text.replace("ganrun.networks.resnet.Discriminator", "os.system"))
    refused(copy, "names os.system; trusted are only classes defined in ganrun.networks, ganrun.noise")
    header.write_text(yaml.safe_dump({**yaml.safe_load(text), "format": 9}))
    refused(copy, "not of a discriminator of format 1 \\(format 9\\)")
    header.unlink()
    refused(copy, "no such file; export.discriminator=true writes it")


def test_nested_networks_are_checked_too(copy):
    header = yaml.safe_load(copy.with_suffix(".yaml").read_text())
    (node,) = header["networks"].values()
    node["width"] = {"_target_": "os.system", "command": "true"}
    copy.with_suffix(".yaml").write_text(yaml.safe_dump(header))
    refused(copy, "width._target_ names os.system")


def test_at_last_commands_know_the_file(run, place):
    before = run.discriminator.read_bytes()
    ganrun("clean", "of=run", "days=0", "yes=true", "cache_dir=none", cwd=place)
    assert run.discriminator.read_bytes() == before
    total = ganrun("ls", "of=run", cwd=place).stdout
    assert "finished" in total
    ganrun("resume=run", "steps=3", "export.discriminator=false", cwd=place)
    assert package.load_discriminator(run.discriminator).trained["steps"] == 2  # no longer written
    ganrun("resume=run", "steps=4", cwd=place)
    assert package.load_discriminator(run.discriminator).trained["steps"] == 4
    run.clear()
    assert not run.discriminator.exists() and not run.discriminator.with_suffix(".yaml").exists()
