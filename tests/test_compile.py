"""Compiled networks play the same game: every model, every penalty, the same names, resumed and shown."""

import logging
from functools import lru_cache

import pytest
import torch
from conftest import TINY, ganrun
from test_configs import SMALL, composed
from test_runs import assert_same_state, state

from ganrun.config.groups import options
from ganrun.training.build import build
from ganrun.training.fit import make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # by torch's own tracing
TRANSLATION = ["critic.norm=none", "generator.norm=none", "pairs=invert", "discriminator.layers=1", "metric=[]"]
SETTINGS = {"mlp": ["dataset=ring"], "pix2pix": TRANSLATION, "cyclegan": [*TRANSLATION, "generator.blocks=1"]}
SMALLEST = ["critic.norm=none", "dataset.resolution=8"]
MODELS = {name: [f"model={name}", *SETTINGS.get(name, SMALLEST)] for name in options("model")}
ALIKE = {"deep-conv": "r1", "resnet": "r2", "sagan": "gradient", "biggan": "r1", "biggan-deep": "dragan", "r3gan": "r2"}
ALIKE |= {"stylegan2": "r1", "fastgan": "r2", "projected-gan": "lecam"}
NEAR = {"projected-gan": 1e-3}  # its heads see features of up to hundreds, in fp32
SGD = ["optimizer=sgd", "optimizer.lr=1e-6"]  # Adam makes whole steps of the rounding of gradients that are 0
MODELS |= {name: [f"model={name}", *SGD] for name in ALIKE}  # most with spectral norm
SMALLER = ["dataset.resolution=8", "generator.attention=8", "discriminator.attention=4"]  # one block of each kind
MODELS |= {name: [*MODELS[name], *SMALLER] for name in ("sagan", "biggan", "biggan-deep")}
MODELS["r3gan"] += ["dataset.resolution=8", "generator.blocks=1", "discriminator.blocks=1"]
MODELS["stylegan2"] += ["dataset.resolution=8", "generator.mapping_layers=1", "generator.w_dim=8"]
MODELS["fastgan"] += ["dataset.resolution=32", "generator.reach=2", "discriminator.reach=2"]
MODELS["projected-gan"] += ["dataset.resolution=32", "discriminator.side=64", "generator.reach=2"]
TRANSLATED = [(model, penalty) for model in ("pix2pix", "cyclegan") for penalty in ("gradient", "dragan", "r1", "r2")]
CASES = [("dcgan", penalty) for penalty in [*options("penalty"), "conditional"]]
CASES += [("mlp", penalty) for penalty in options("penalty") if penalty not in ("cr", "bcr")]  # which flip images
CASES = sorted([*CASES, *TRANSLATED, *ALIKE.items()])
assert {model for model, _ in CASES} == MODELS.keys()


def fitted(*overrides, **compiled):
    parts = build(composed(*SMALL, "precision=32-true", "steps=3", *overrides)[0])
    if compiled:
        parts.module.compile_networks(**compiled)
    trainer = make_trainer(parts.cfg, logger=False, callbacks=[])
    trainer.fit(parts.module, datamodule=parts.datamodule)
    return parts.module


@pytest.fixture(scope="module", autouse=True)
def traced():
    """Nothing is left uncompiled, and pytest does not record torch's traces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._logging._internal, "trace_log", logging.Logger("unheard"))
        patch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
        yield
    torch.compiler.reset()


@lru_cache(1)
def begin(what):
    """Forgets what is compiled of anything else. Penalties of a model share it, as far as torch's guards allow."""
    torch.compiler.reset()


@pytest.mark.parametrize(("model", "penalty"), CASES)
def test_every_model_and_every_penalty(model, penalty):
    begin(model)
    case = ["conditional=label"] if penalty == "conditional" else [f"penalty=[{penalty}]"]
    case += [*MODELS[model], "schedule.discriminator=2"]
    plain, compiled = fitted(*case), fitted(*case, backend="aot_eager")
    networks = [network for player in compiled.players.values() for network in player.networks]
    assert len(networks) >= 2 and all(network._compiled_call_impl for network in networks)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for name, value in plain.state_dict().items():
        near = NEAR.get(model, 1e-5 if model in ALIKE else 1e-6)
        assert torch.allclose(value, compiled.state_dict()[name], rtol=0, atol=near), name


def test_it_is_the_compiled_network_that_plays_and_not_the_one_that_shows():
    begin("counted")
    calls = []

    def backend(graph, _):
        return lambda *args: calls.append(graph) or graph(*args)

    module = fitted(backend=backend)
    assert len(set(calls)) >= 2
    played = len(calls)
    module.show(module.noise(5, torch.Generator()))
    assert len(calls) == played and module.recipe.generator._compiled_call_impl


def test_a_compiled_run_resumes_exactly_and_its_generator_loads_anywhere(tmp_path):
    run = [
        *TINY,
        "compile=true",
        "precision=32-true",
        "dataset.resolution=8",
        "checkpoint.every=2",
        "critic.norm=spectral",
    ]
    ganrun(*run, "steps=4", "run_dir=whole", cwd=tmp_path)
    ganrun(*run, "steps=2", "run_dir=parts", cwd=tmp_path)
    ganrun("resume=parts", "steps=4", cwd=tmp_path)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    ganrun(*run, "compile=false", "steps=4", "run_dir=eager", cwd=tmp_path)
    eager, compiled = (state(tmp_path / name)["state_dict"] for name in ("eager", "whole"))
    assert eager.keys() == compiled.keys()
    assert max((eager[key].double() - compiled[key].double()).abs().max().item() for key in eager) < 1e-5
