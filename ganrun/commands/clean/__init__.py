"""Free disk space: list what nobody has used for days=30, such as old step checkpoints; yes=true deletes it."""

from omegaconf import DictConfig

from ganrun.config.hydra_main import refuse_flags, run_hydra


def run(args: list[str]) -> int:
    """Prints what can go, deletes it if asked to, and returns the exit code."""
    refuse_flags(args, sweeps=False)
    run_hydra("clean", args, _clean)
    return 0


def _clean(cfg: DictConfig) -> None:
    from rich.table import Table

    from ganrun.commands.clean.unused import delete, unused
    from ganrun.commands.ls.listing import age, size
    from ganrun.progress import console

    found = unused(cfg)
    screen, total = console(), size(sum(each.bytes for each in found))
    table = Table("file", "what", "unused for", "size")
    for each in found:
        table.add_row(str(each.path), each.what, age(each.seconds), size(each.bytes))
    screen.print(table)
    if cfg.yes:
        kept = delete(found)
        freed = sum(each.bytes for each in found if each not in kept)
        screen.print(f"{len(found) - len(kept)} files deleted, {size(freed)} freed")
    else:
        screen.print(f"{len(found)} files, {total}" + ("; nothing is deleted without yes=true" if found else ""))
