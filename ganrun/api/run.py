"""A run directory as an object: what its files say, its pictures and generators, and what can be done with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganrun.api.page import card
from ganrun.errors import UserError, one_of, require_extra
from ganrun.files.record import Record
from ganrun.files.run_dir import RunDir, find_run

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig
    from PIL.Image import Image
    from torch import Tensor

    from ganrun.commands.evaluate.evaluations import Scored
    from ganrun.explaining.finding import Finding
    from ganrun.sampling.generator import SamplingGenerator
    from ganrun.sampling.translator import Translator

At = int | Literal["best"] | None


class Run:
    """One run, whatever state it is in. All is read from its files anew, so that a run in training shows progress.

    Example:
        run = ganrun.Run("outputs/digits/dcgan_wgan-gp/2026-01-31_12-00-00")
        run.status, run.scores, run.metrics().plot(), run.grid(), run.sample(16), run.resume(steps=4000)

    path: of its directory. Raises ganrun.UserError if there is no run.
    """

    def __init__(self, path: str | Path):
        self.path = find_run(str(path), "path")[0].path

    @property
    def record(self) -> Record:
        """What its files say, see ganrun.files.record."""
        return Record(self.path)

    @property
    def status(self) -> str:
        """running, finished, failed, collapsed, pruned, `stopped by <signal>`, or `no result`."""
        return self.record.status

    @property
    def reason(self) -> str | None:
        """Why it failed or was ended; None otherwise."""
        return self.result.get("reason")

    @property
    def steps(self) -> int:
        """How far it has come; while it is in training, the last logged step."""
        return self.record.steps

    @property
    def config(self) -> "DictConfig":
        """The composed config that it was started with."""
        from omegaconf import OmegaConf

        return OmegaConf.create(self.record.config)

    @property
    def overrides(self) -> list[str]:
        """The words that it was started with."""
        return self.record.overrides

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json; empty while there is none."""
        return self.record.result

    @property
    def scores(self) -> dict[str, float]:
        """The last score of each metric; `result["scores"]` has the best ones and their protocols."""
        return {name: score["final"] for name, score in self.result.get("scores", {}).items()}

    def rows(self) -> list[dict[str, float]]:
        """One dict for each logged step: `step`, and all that was logged or scored at it."""
        return self.record.metrics

    def metrics(self) -> "pd.DataFrame":
        """The same as a table: a row for each logged step, a column for each name.

        Needs pandas: `pip install "ganrun[notebook]"`; `rows()` does not.
        """
        require_extra("metrics()", "notebook", "pandas")
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["step", *self.record.names]).set_index("step")

    def grid(self, step: int | None = None) -> "Image":
        """The picture of samples after a step, None = the newest. Raises ganrun.UserError if there is none."""
        from PIL import Image

        record = self.record
        found = record.grids()
        path = record.newest_grid() if step is None else found.get(step)
        if path is None and not found:
            raise UserError(f"{self.path}: no picture of samples{'' if step is None else f' of step {step}'} yet")
        if path is None:
            raise UserError(f"step={step}; {one_of(map(str, found), str(step))}")
        with Image.open(path) as picture:
            return picture.copy()

    def explain(self) -> "list[Finding]":
        """What its curves mean, in words with numbers, and the command that each finding leads to.

        Example:
            for finding in run.explain():
                print(finding.text)
        """
        from ganrun.explaining.findings import findings

        return findings(self.record)

    def generator(self, at: At = None, *, trust: str | Iterable[str] = ()) -> "SamplingGenerator | Translator":
        """The generator, or of translation the Translator, in eval mode on the CPU.

        at: the step of a checkpoint, "best" for that of the best score, None = the newest. trust: packages, besides
        ganrun, whose classes its config may name. Raises ganrun.UserError if it has not been saved.
        """
        from ganrun.commands.sample.request import find_generator
        from ganrun.training.of_checkpoint import open_generator

        run = RunDir(self.path)
        place = {None: run.path, "best": run.best_generator}.get(at) or run.step_checkpoint(int(at))
        if not place.exists():
            there = [*map(run.checkpoint_step, run.step_checkpoints()), *["best"] * run.best_generator.exists()]
            raise UserError(f"at={at}: no such checkpoint; {one_of(map(str, there), str(at))}")
        return open_generator(*find_generator(str(place)), trust=trust)

    def sample(
        self, num: int = 16, seed: int = 0, label: Any = None, *, at: At = None, trust: str | Iterable[str] = (),
        **settings: Any,
    ) -> "Tensor":  # fmt: skip
        """(num, C, H, W) in [-1, 1] for images, (num, D) for vectors. at, trust: see generator.

        label, settings (truncation, batch_size, ...): as of `sample` of the generator, which is loaded at each call.
        """
        found = self.generator(at, trust=trust)
        if not hasattr(found, "sample"):
            raise UserError(f"{self.path}: this generator turns images into images; use generator().translate")
        return found.sample(num, seed, label, **settings)

    def resume(self, *overrides: str, **keys: Any) -> "Run":
        """Goes on with it, as `ganrun resume=<run>`; returns it. Arguments and errors as of ganrun.train.

        Example:
            run.resume(steps=4000)
        """
        from ganrun.api.calls import train

        return train(*overrides, resume=self.path, **keys)

    def evaluate(self, *overrides: str, **keys: Any) -> "list[Scored]":
        """Scores it as `ganrun evaluate from=<run>`, which also writes them into its result.

        Example:
            run.evaluate(metric=["fid", "kid"], seeds=3)[0].mean

        Each has metric, mean, std over seeds, values, floor (the score of real data), better and its protocol.
        """
        from ganrun.api.calls import called
        from ganrun.api.words import words_of

        with called():
            from ganrun.commands.evaluate import score

            return score(words_of("evaluate", overrides, {"from": self.path, **keys}, None))

    def __repr__(self) -> str:
        scores = "".join(f", {name} {value:.5g}" for name, value in self.scores.items())
        return f"<Run {self.path}: {self.status}, {self.steps:,} steps{scores}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.path.absolute() == other.path.absolute()

    def __hash__(self) -> int:
        return hash(self.path.absolute())

    def _repr_html_(self) -> str:
        return card(self.record)
