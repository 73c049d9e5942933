"""Ends a run of a search that looks hopeless by its scores in training: Optuna's pruners decide."""

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from ganrun.callbacks.scores import Evaluate
from ganrun.errors import UserError, one_of

if TYPE_CHECKING:
    import optuna

PRUNERS = ("none", "median", "halving", "hyperband")


def import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError("hydra/sweeper: a search needs Optuna; pip install 'ganrun[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_pruner(name: str, reports: int) -> "optuna.pruners.BasePruner":
    """reports: scores that a whole run has."""
    pruners = import_optuna().pruners
    if name not in PRUNERS:
        raise UserError(f"hydra.sweeper.pruner={name}; {one_of(PRUNERS, str(name))}")
    made = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "halving": lambda: pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        "hyperband": lambda: pruners.HyperbandPruner(min_resource=1, max_resource=reports, reduction_factor=3),
    }
    return made[name]()


class Prune(pl.Callback):
    """Tells a trial each score of its run, and ends training when the study's pruner gives it up.

    storage: Optuna's, as a URL
    study:   the study's name
    trial:   the trial's number
    metric:  the score that is searched for
    pruner:  none, median, halving or hyperband
    reports: scores that a whole run has
    """

    def __init__(self, *, storage: str, study: str, trial: int, metric: str, pruner: str, reports: int):
        optuna = import_optuna()
        found = optuna.load_study(storage=storage, study_name=study, pruner=make_pruner(pruner, reports))
        (frozen,) = (one for one in found.get_trials(deepcopy=False) if one.number == trial)
        self.trial = optuna.trial.Trial(found, frozen._trial_id)
        self.metric = metric
        self.step: int | None = None  # of the last score that was told

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """A step after the score: this callback comes before the one that scores."""
        (evaluate,) = (callback for callback in trainer.callbacks if isinstance(callback, Evaluate))
        step = evaluate.last.get("step")
        if step is None or step == self.step:
            return
        self.step, number = step, step // evaluate.every if evaluate.every else 1
        value = evaluate.last[self.metric]
        self.trial.report(value, number)  # again after a kill, which changes nothing
        if self.trial.should_prune():
            evaluate.gives_up = f"given up by the search after {number} scores: {self.metric} {value:.4g}"
            trainer.should_stop = True
