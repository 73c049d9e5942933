"""What scores in training look at: the averaged generator, by the same noise and the data's labels each time."""

import pytest
import torch
from test_configs import composed

from ganrun.callbacks.scores import Evaluate
from ganrun.files.run_dir import RunDir
from ganrun.training.build import build


@pytest.fixture(scope="module")
def built():
    line = "generator.width=4 discriminator.width=4 dataset.limit=64 conditional=label evaluate.num_samples=40"
    return build(composed(*line.split())[0])


def fakes(built, step: int = 0) -> torch.Tensor:
    """What is scored at this step."""
    evaluate = Evaluate(
        RunDir("unused"), built.scorer, built.datamodule, every=1, best_by="sliced-wasserstein", export=None,
        ends=lambda: False, doubts=lambda: False,
    )  # fmt: skip
    built.module.trainer = type("At", (), {"global_step": step, "current_epoch": step})()
    try:
        seen = list(evaluate._fakes(built.module))
    finally:
        built.module.trainer = None
    assert torch.equal(torch.cat([batch["label"] for batch in seen]), built.scorer.labels())
    return torch.cat([batch["fake"] for batch in seen])


def test_scores_are_of_the_average_as_their_protocol_says(built):
    before = fakes(built)
    live = built.module.recipe.generator
    kept = {key: value.clone() for key, value in live.state_dict().items()}
    with torch.no_grad():
        for parameter in live.parameters():
            parameter += 0.5
    assert torch.equal(fakes(built), before), "the live weights are scored"
    with torch.no_grad():
        for parameter in built.module.ema.average[0].parameters():
            parameter += 0.5
    assert not torch.equal(fakes(built), before)
    live.load_state_dict(kept)


def test_each_score_sees_the_same_noise(built):
    assert torch.equal(fakes(built, step=1), fakes(built, step=2))
