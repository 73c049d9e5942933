"""Score a generator, a folder of images or real test data; from=<run> metric=[fid,kid] seeds=3.

Metrics (metric=[...]), features (metric/features=...), data sets (dataset=...) and their pairs (pairs=..., for
translators) are listed by `ganrun --help`; if none are named, those of the run are used.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ganrun.config.hydra_main import refuse_flags, run_hydra
from ganrun.errors import UserError
from ganrun.files.storage import replacing

if TYPE_CHECKING:
    from rich.table import Table

    from ganrun.commands.evaluate.evaluations import Scored


def run(args: list[str]) -> int:
    """Prints a table, writes the scores into the run's result.json, and returns the exit code."""
    score(args, shows=True)
    return 0


def score(args: list[str], *, shows: bool = False) -> list["Scored"]:
    """Writes the scores into the run's result.json, and returns them. shows: print a table?"""
    found: list[Scored] = []
    refuse_flags(args, sweeps=False)
    of_dataset = [arg for arg in args if arg.startswith("dataset.")]
    if any(arg.startswith("dataset=") for arg in args):
        of_dataset = []
    rest = [arg for arg in args if arg not in of_dataset]
    run_hydra("evaluate", rest, lambda cfg: found.extend(_evaluate(cfg, of_dataset, shows)))
    return found


def _evaluate(cfg: DictConfig, of_dataset: list[str], shows: bool) -> list["Scored"]:
    from ganrun.commands.evaluate.evaluations import write_into
    from ganrun.commands.evaluate.scoring import evaluate

    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    scores, run = evaluate(cfg, typed, of_dataset)
    if cfg.out:
        with replacing(Path(cfg.out).expanduser()) as file:
            file.write((json.dumps([asdict(score) for score in scores], indent=2) + "\n").encode())
    if shows:
        print_table(cfg, scores)
    if run:
        try:
            write_into(run, scores)
            if shows:
                print(run.result)
        except UserError as error:  # it is being trained, and will write its own result
            print(f"warning: not written into {run.result}: {error}", file=sys.stderr)
    return scores


def shown(score: "Scored") -> str:
    spread = f" ± {score.std:.2g}" if len(score.values) > 1 else ""
    within = f" (± {score.within:.2g} within)" if score.within is not None else ""
    return f"{score.mean:.5g}{spread}{within}"


def sweep_table(scores: list["Scored"]) -> "Table":
    """A row for each truncation, a column for each metric: quality against variety."""
    from rich.table import Table

    from ganrun.metrics.protocol import short, truncated

    first = {score.metric: score for score in reversed(scores)}
    names = list(first)[::-1]
    about = {short({**first[name].protocol, "truncation": None}): None for name in names}
    where = max(truncated(score.protocol) for score in scores)  # without truncation there is nothing to say
    table = Table(f"truncation{where}", *(f"{name} ({first[name].better})" for name in names), caption="\n".join(about))
    for row in range(0, len(scores), len(names)):
        some = scores[row : row + len(names)]
        table.add_row(str(some[0].protocol.get("truncation", "none")), *map(shown, some))
    if any(score.floor is not None for score in first.values()):
        floors = [first[name].floor for name in names]
        table.add_row("real", *("" if floor is None else f"{floor:.5g}" for floor in floors))
    return table


def print_table(cfg: DictConfig, scores: list["Scored"]) -> None:
    from rich.table import Table

    from ganrun.metrics.protocol import short
    from ganrun.progress import console

    screen = console()
    if OmegaConf.is_list(cfg.truncation):
        screen.print(sweep_table(scores))
    else:
        table = Table("metric", "score", "real", "better", "protocol")
        for score in scores:
            floor = "" if score.floor is None else f"{score.floor:.5g}"
            table.add_row(score.metric, shown(score), floor, score.better, short(score.protocol))
        screen.print(table)
    if cfg["from"] == "test":
        screen.print("these are the data set's own test samples: the floor, which no generator can be expected to pass")
    elif any(score.floor is not None and "against" not in score.protocol for score in scores):
        other = {"train": "test", "test": "training"}[cfg.split]
        screen.print(f"real: the score of the data set's own {other} samples, the floor under this protocol")
    copied = [score.metric for score in scores if score.floor is not None and "against" in score.protocol]
    if copied:
        screen.print(
            f"real, of {', '.join(copied)}: the score of the sources themselves, untranslated, which is to be beaten"
        )
