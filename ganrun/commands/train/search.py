"""Search: Optuna proposes the jobs of a sweep, in batches as large as its launcher runs side by side.

The study lies in the sweep's directory, so a killed search goes on: trials that were cut off are resumed first.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig

from ganrun.callbacks.prune import Prune, import_optuna, make_pruner
from ganrun.errors import UserError, one_of
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import replacing
from ganrun.seeding import derive

if TYPE_CHECKING:
    import optuna

NAME = "hydra_plugins.ganrun.Search"  # Hydra takes plugins from its own namespace alone
FILE = "search.json"  # in a sweep's directory: where its study lies and what is searched for
STUDY = "ganrun"
SAMPLERS = ("tpe", "random", "grid")


class Search(Sweeper):
    """A Hydra sweeper. `path_of` gives the directory of a job; set by `register`."""

    path_of: Callable[[list[str]], Path]
    directory: Path

    def __init__(
        self, *, sampler: str, pruner: str, n_trials: int | None, by: Any, seed: int, storage: str | None,
        at_once: int | None,
    ):  # fmt: skip
        if sampler not in SAMPLERS:
            raise UserError(f"hydra.sweeper.sampler={sampler}; {one_of(SAMPLERS, str(sampler))}")
        if sampler != "grid" and (not isinstance(n_trials, int) or n_trials < 1):
            raise UserError(f"hydra.sweeper.n_trials={n_trials}; expected at least 1")
        if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
            raise UserError(f"hydra.sweeper.at_once={at_once}; expected at least 1, or null")
        self.at_once = at_once
        self.sampler, self.pruner, self.n_trials, self.seed = sampler, pruner, n_trials, seed
        self.by = [by] if isinstance(by, str) else list(by or [])
        if len(self.by) > 1 and pruner != "none":
            raise UserError(f"hydra.sweeper.pruner={pruner}: one score alone can end a run; got by={self.by}")
        self.storage = storage or f"sqlite:///{self.directory.absolute() / 'optuna.db'}"

    def setup(self, *, hydra_context, task_function, config) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        n_jobs = config.hydra.launcher.get("n_jobs", 1)
        self.at_once = self.at_once or (n_jobs if n_jobs > 0 else max(1, os.cpu_count() + 1 + n_jobs))  # as joblib's

    def sweep(self, arguments: list[str]) -> None:
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(arguments)
        self.space = {each.get_key_element(): distribution(each) for each in overrides if each.is_sweep_override()}
        self.fixed = [each.input_line for each in overrides if not each.is_sweep_override()]
        if not self.space:
            raise UserError("hydra/sweeper: nothing to search; give a key several values or interval(low,high)")
        study = self.study()
        started = 0
        for trials in self.batches(study):
            jobs = [[*self.fixed, *words(trial)] for trial in trials]
            self.launcher.launch(jobs, initial_job_idx=started)
            started += len(jobs)
            results = [RunDir(self.path_of(job)).read_result() for job in jobs]
            for trial, result in zip(trials, results, strict=True):
                self.tell(study, trial, result)
            if any(result.get("status", "").startswith("stopped") or not result for result in results):
                raise KeyboardInterrupt  # in a process of a launcher: the whole search stops

    def study(self) -> "optuna.Study":
        """This sweep's, made or found; and the file that tells others of it."""
        optuna = import_optuna()
        cfg = self.hydra_context.config_loader.load_configuration("train", self.fixed, RunMode.RUN)
        better, reports = directions(cfg, self.by)
        self.by = list(better)
        make_pruner(self.pruner, reports)  # refuses an unknown one before anything is written
        study = optuna.create_study(
            storage=self.storage, study_name=STUDY, directions=list(better.values()), load_if_exists=True
        )
        about = {"storage": self.storage, "study": STUDY, "by": self.by, "pruner": self.pruner, "reports": reports}
        with replacing(self.directory / FILE) as file:
            file.write(json.dumps(about).encode())
        return study

    def batches(self, study: "optuna.Study") -> Iterator[list[Any]]:
        """Trials to run at once: those that were cut off, then new ones."""
        optuna = import_optuna()
        cut_off = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
        for i in range(0, len(cut_off), self.at_once):
            yield [optuna.trial.Trial(study, trial._trial_id) for trial in cut_off[i : i + self.at_once]]
        limit = self.n_trials or 0
        if self.sampler == "grid":
            limit = min(limit or len(self.combinations()), len(self.combinations()))
        while (left := limit - len(begun(study))) > 0:
            yield [self.ask(study) for _ in range(min(left, self.at_once))]

    def ask(self, study: "optuna.Study") -> Any:
        """A new trial. What is drawn depends on the seed and on the trials before, and not on kills."""
        samplers, number = import_optuna().samplers, len(begun(study))
        seed = derive(self.seed, "trial", number) % 2**32
        kind = samplers.TPESampler if self.sampler == "tpe" else samplers.RandomSampler
        study.sampler = kind(seed=seed)
        if self.sampler == "grid":
            study.enqueue_trial(self.combinations()[number], skip_if_exists=True)
        return study.ask(self.space)

    def combinations(self) -> list[dict[str, str]]:
        """Of a grid, the last key's values first."""
        for key, values in self.space.items():
            if not hasattr(values, "choices"):
                raise UserError(f"hydra/sweeper=grid: {key} has no list of values; choose random or tpe")
        every = product(*(values.choices for values in self.space.values()))
        return [dict(zip(self.space, values, strict=True)) for values in every]

    def tell(self, study: "optuna.Study", trial: Any, result: dict[str, Any]) -> None:
        """What became of a trial; one that was stopped stays open, to go on later."""
        state, status = import_optuna().trial.TrialState, result.get("status")
        if status == "finished":
            values = [value_of(result, name) for name in self.by]
            if None not in values:
                study.tell(trial, values)
                return
        if status in ("collapsed", "pruned"):
            study.tell(trial, state=state.PRUNED)
        elif status in ("finished", "failed"):
            study.tell(trial, state=state.FAIL)


def register(directory: Path, path_of: Callable[[list[str]], Path]) -> None:
    """Makes Hydra know the sweeper, for the sweep that lies in `directory`."""
    Search.directory, Search.path_of = directory, staticmethod(path_of)  # Hydra makes the object itself, by its name
    Plugins.instance().class_name_to_class[NAME] = Search


def value_of(result: dict[str, Any], name: str) -> float | None:
    if name == "seconds":
        return result.get("seconds")
    return result.get("scores", {}).get(name, {}).get("final")


def directions(cfg: DictConfig, by: list[str]) -> tuple[dict[str, str], int]:
    """For each objective whether less or more of it is better; and the number of scores of a whole run."""
    from ganrun.training.build import build_metrics

    metrics = build_metrics(cfg)
    valid = [*metrics, "seconds"]
    for name in by:
        if name not in valid:
            raise UserError(f"hydra.sweeper.by={name}; {one_of(valid, name)}")
    names = by or [cfg.evaluate.best_by or next(iter(metrics), "seconds")]
    reports = -(-cfg.steps // cfg.evaluate.every) if cfg.evaluate.every else 1
    lower = {name: name == "seconds" or metrics[name].lower_is_better for name in names}
    return {name: "minimize" if lower[name] else "maximize" for name in names}, reports


def distribution(override: Override) -> Any:
    """Optuna's, of a value as Hydra's grammar has it: a list of values, range(), interval(), tag(log,...)."""
    distributions, value = import_optuna().distributions, override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        return distributions.FloatDistribution(value.start, value.end, log=log)
    if isinstance(value, RangeSweep) and all(isinstance(n, int) for n in (value.start, value.stop, value.step)) and log:
        return distributions.IntDistribution(value.start, value.stop - 1, log=True)
    return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))


def begun(study: "optuna.Study") -> list[Any]:
    """The trials that have been asked for; one that waits was put there by a process that died before it asked."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name != "WAITING"]


def words(trial: Any) -> list[str]:
    return [f"{key}={value}" for key, value in trial.params.items()]


def opened(directory: Path) -> "tuple[dict[str, Any], optuna.Study]":
    """What is searched for, and the study of the sweep in `directory`."""
    about = json.loads((directory / FILE).read_text(encoding="utf-8"))
    return about, import_optuna().load_study(storage=about["storage"], study_name=about["study"])


def callbacks(cfg: DictConfig, directory: Path, overrides: list[str]) -> list[Prune]:
    """What ends a trial that looks hopeless. It also ends when it collapses, unless the user said otherwise."""
    if not any(text.startswith("on_collapse=") for text in overrides) and cfg.on_collapse == "warn":
        cfg.on_collapse = "stop"
    about, study = opened(directory)
    if about["pruner"] == "none":
        return []
    own = {key: about[key] for key in ("storage", "study", "pruner", "reports")} | {"metric": about["by"][0]}
    running = study.get_trials(deepcopy=False, states=[import_optuna().trial.TrialState.RUNNING])
    numbers = [trial.number for trial in running if set(words(trial)) <= set(overrides)]
    return [Prune(**own, trial=number) for number in numbers[:1]]


def print_best(directory: Path) -> None:
    """The best trial of a search, or of several objectives those that no other beats in all."""
    from ganrun.commands.train.table import show

    if not (directory / FILE).exists():
        return
    about, study = opened(directory)
    counts = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    print(f"{counts.total()} trials: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}")
    if counts["complete"]:
        best = sorted(study.best_trials, key=lambda trial: trial.values)
        head = "best trial" if len(about["by"]) == 1 else "Pareto front"
        show([head, *about["by"]], [[" ".join(words(trial)), *trial.values] for trial in best])
