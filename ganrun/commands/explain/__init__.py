"""Explain runs in plain words, with a picture; of=<run>: is it still improving, who leads, what to try next."""

from omegaconf import DictConfig

from ganrun.config.hydra_main import refuse_flags, run_hydra


def run(args: list[str]) -> int:
    """Prints what the curves of each run say, draws them, and returns the exit code."""
    refuse_flags(args, sweeps=False)
    run_hydra("explain", args, _explain)
    return 0


def _explain(cfg: DictConfig) -> None:
    from ganrun.commands.explain.explained import checked, draw_all, lines, printable
    from ganrun.explaining.findings import findings

    records, places = checked(cfg)
    found = [findings(record) for record in records]
    if cfg.json:
        print(printable(records, found))
    drawn = draw_all(records, found, places)
    for record, some, picture in zip(records, found, drawn, strict=True):
        if not cfg.json:
            print("\n".join(lines(record, some, picture)))
