"""List runs with status, step, score, age and size; of=<folder>, outputs by default."""

from omegaconf import DictConfig

from ganrun.config.hydra_main import refuse_flags, run_hydra


def run(args: list[str]) -> int:
    """Prints a table and returns the exit code."""
    refuse_flags(args, sweeps=False)
    run_hydra("ls", args, _ls)
    return 0


def _ls(cfg: DictConfig) -> None:
    from rich.table import Table

    from ganrun.commands.ls.listing import age, listed, size
    from ganrun.progress import console

    rows = listed(cfg)
    table = Table("run", "status", "step", "score", "age", "size")
    for row in rows:
        steps = "" if row.steps is None else f"{row.steps:,}" + (f" of {row.goal:,}" if row.goal else "")
        table.add_row(str(row.path), row.status, steps, row.score, age(row.seconds), size(row.bytes))
    screen = console()
    screen.print(table)
    screen.print(f"{len(rows)} runs, {size(sum(row.bytes for row in rows))}")
