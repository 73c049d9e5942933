"""Rank runs by a score; of=[<run or sweep>, ...] by=fid group=seed. Scores with different protocols are refused."""

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
    from ganrun.commands.train.significance import verdict
    from ganrun.metrics.protocol import short
    from ganrun.progress import console

    rows = ranked(cfg)
    table = Table("", cfg.by, "n" if cfg.group else "step", f"without {cfg.group}" if cfg.group else "run")
    for place, row in enumerate(rows, 1):
        spread = f" ± {row.std:.2g}" if row.std is not None else ""
        third = str(len(row.values)) if cfg.group else "" if row.step is None else f"{row.step:,}"
        table.add_row(str(place), f"{row.value:.5g}{spread}", third, row.name or str(row.run))
    screen = console()
    screen.print(table)
    if cfg.group and len(rows) > 1:
        screen.print(verdict(cfg.by, *((row.name, row.values) for row in rows[:2])))
    screen.print(f"{rows[0].words}; {rows[0].better} is better; {short(rows[0].protocol)}")
