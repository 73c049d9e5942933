"""Compares what `ganrun plan` predicts with what the run then takes, for configs of different families.

Each row is planned, then trained to its end in a directory of its own. Both are counted in seconds of this process's
children on all cores, which other work on the machine disturbs less than the clock; memory is the peak in result.json,
disk what the run directory holds. A ratio is taken / predicted. Set OMP_NUM_THREADS=1 on a machine that is busy.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ganrun.commands.ls.listing import bytes_of

GANRUN = Path(sys.executable).parent / "ganrun"
ROWS = {
    "mlp, ring": ["dataset=ring", "model=mlp", "steps=1500"],
    "dcgan, wgan-gp": ["model=dcgan", "loss=wgan-gp", "dataset.resolution=32", "generator.width=32",
                       "discriminator.width=32", "steps=20"],
    "sngan, by class": ["experiment=sngan-digits", "conditional=projection", "steps=40"],
    "r3gan": ["experiment=r3gan-digits", "steps=80"],
    "stylegan2": ["experiment=stylegan2-digits", "steps=100"],
    "pix2pix": ["model=pix2pix", "dataset=digits", "dataset.resolution=32", "pairs=edges", "generator.width=16",
                "discriminator.width=16", "steps=300"],
    "fastgan": ["experiment=fastgan-digits", "steps=24"],
}  # fmt: skip


def cpu() -> float:
    """Seconds of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def longer(words: list[str], times: int) -> list[str]:
    """So many times the steps; pictures, scores and checkpoints twice a run."""
    (steps,) = (times * int(word.partition("=")[2]) for word in words if word.startswith("steps="))
    often = (f"{key}={steps // 2}" for key in ("sample_every", "evaluate.every", "checkpoint.every"))
    return [*(word for word in words if not word.startswith("steps=")), f"steps={steps}", *often]


def check(words: list[str], seconds: int) -> dict[str, dict[str, float]]:
    """Predicted and taken: cpu seconds, wall seconds, MiB, bytes on disk."""
    plan = [GANRUN, "plan", *words, "json=true", "tries=false", f"seconds={seconds}"]
    with tempfile.TemporaryDirectory() as folder:
        found = json.loads(subprocess.run(plan, cwd=folder, check=True, capture_output=True).stdout)
        assert not list(Path(folder).iterdir()), "a plan left something behind"
        before, began, run = cpu(), time.perf_counter(), Path(folder) / "run"
        subprocess.run([GANRUN, *words, f"run_dir={run}"], cwd=folder, check=True, capture_output=True)
        taken = {"cpu_seconds": cpu() - before, "seconds": time.perf_counter() - began}
        result = json.loads((run / "result.json").read_text())
        taken |= {"peak_memory_mib": result["peak_memory_mib"], "disk_bytes": bytes_of(run)}
    return {"predicted": {key: found[key] for key in taken}, "taken": taken, "plan": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seconds", type=int, default=10, help="for the steps of a trial (default 10)")
    parser.add_argument(
        "--longer", type=int, default=1, help="so many times the steps, of about 20 seconds (default 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found")
    options = parser.parse_args()
    rows = {}
    for name in options.rows:
        rows[name] = check(longer(ROWS[name], options.longer), options.seconds)
        told = []
        for key in ("cpu_seconds", "seconds", "peak_memory_mib", "disk_bytes"):
            had, got = (rows[name][when][key] for when in ("predicted", "taken"))
            told.append(f"{key} {had:,.1f} predicted, {got:,.1f} taken, {got / had:.2f}")
        print(f"{name}: {'; '.join(told)}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
