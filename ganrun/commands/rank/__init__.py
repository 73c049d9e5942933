"""Rank runs by a score; of=[<run or sweep>, ...] by=fid. Scores with different protocols are refused."""

from omegaconf import DictConfig

from ganrun.config.hydra_main import refuse_flags, run_hydra


def run(args: list[str]) -> int:
    """Prints a table, the best run first, and returns the exit code."""
    refuse_flags(args, sweeps=False)
    run_hydra("rank", args, _rank)
    return 0


def _rank(cfg: DictConfig) -> None:
    from rich.table import Table

    from ganrun.commands.rank.ranking import ranked
    from ganrun.metrics.protocol import short
    from ganrun.training.report import console

    rows = ranked(cfg)
    table = Table("", cfg.by, "step", "run")
    for place, row in enumerate(rows, 1):
        spread = f" ± {row.std:.2g}" if row.std is not None else ""
        table.add_row(str(place), f"{row.value:.5g}{spread}", "" if row.step is None else f"{row.step:,}", str(row.run))
    screen = console()
    screen.print(table)
    screen.print(f"{rows[0].words}; {rows[0].better} is better; {short(rows[0].protocol)}")
