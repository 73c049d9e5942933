"""Make averages of any length after training: of=<run> std=0.05, where callbacks=[posthoc-ema] kept some.

ganrun callbacks=[posthoc-ema] run_dir=run       keeps averages of two lengths in run/ema
ganrun ema of=run std=[0.02,0.05,0.1,0.15]       run/ema-0.02.safetensors, ...
ganrun evaluate from=run/ema-0.1.safetensors     which of them is best?
"""

from omegaconf import DictConfig

from ganrun.config.hydra_main import refuse_flags, run_hydra


def run(args: list[str]) -> int:
    """Returns the exit code. The last lines on stdout are the paths that were written."""
    refuse_flags(args, sweeps=False)
    run_hydra("ema", args, _ema)
    return 0


def _ema(cfg: DictConfig) -> None:
    from ganrun.commands.ema.reconstruct import check, reconstruct

    request = check(cfg)
    for path in [reconstruct(request, std) for std in request.outs]:
        print(path, flush=True)
