#!/usr/bin/env python3
"""A stand-in for SLURM on one machine: sbatch, srun, sacct and scontrol, by the name it is called by.

Its state lies in $SLURM_STAND_IN: for each task of a job array <job>_<task>.state.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import fresh

SOCKET = "python.socket"
HERE = Path(os.environ.get("SLURM_STAND_IN", "."))


def install(folder: Path) -> dict[str, str]:
    """The environment in which its commands are found; `folder` is new. Steps start as fresh.py says."""
    folder.mkdir()
    import forked

    forked.start(forked.CONTEXT.Process(target=fresh.serve_others, args=(str(folder / SOCKET),), daemon=True))
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SLURM_STAND_IN": str(folder)}


def sbatch(script: str) -> None:
    job = 100 + len(list(HERE.glob("*.submitted")))
    copy = HERE / f"{job}.submitted"
    copy.write_text(Path(script).read_text())
    array = re.search(r"#SBATCH --array=0-(\d+)", copy.read_text())
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # sbatch ends, and with it what it prints to
    for task in range(int(array[1]) + 1):
        (HERE / f"{job}_{task}.state").write_text("PENDING")
        words = [sys.executable, __file__, "task", str(job), str(task), str(copy)]
        subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, **quiet)
    print(f"Submitted batch job {job}")


def task(job: str, number: str, script: str) -> None:
    """Runs one task, again as often as it is requeued."""
    name = f"{job}_{number}"
    names = {"JOB_ID": str(1000 + int(number)), "ARRAY_JOB_ID": job, "ARRAY_TASK_ID": number, "NTASKS": "1",
             "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NUM_NODES": "1"}  # fmt: skip
    env = os.environ | {f"SLURM_{key}": value for key, value in names.items()}
    while True:
        (HERE / f"{name}.state").write_text("RUNNING")
        code = subprocess.run(["bash", script], env=env).returncode
        again = HERE / f"{name}.requeue"
        if not again.exists():
            break
        again.unlink()
    (HERE / f"{name}.state").write_text("FAILED" if code else "COMPLETED")


def srun(*words: str) -> None:
    """Runs the command of the step."""
    job, number = os.environ["SLURM_ARRAY_JOB_ID"], os.environ["SLURM_ARRAY_TASK_ID"]
    command = [word for word in words if word != "--unbuffered"]
    for descriptor, flag in ((1, "--output"), (2, "--error")):
        at = command.index(flag)
        path = command[at + 1].replace("%A", job).replace("%a", number).replace("%t", "0")
        Path(path).parent.mkdir(exist_ok=True)  # a job may start before all of it has been written down
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        del command[at : at + 2]
    sys.exit(fresh.run_by(str(HERE / SOCKET), fresh.python_words(command)))


def sacct(*words: str) -> None:
    print("JobID|State|NodeList")
    for file in HERE.glob("*.state"):
        print(f"{file.stem}|{file.read_text()}|here")


def scontrol(action: str, name: str) -> None:
    assert action == "requeue"
    (HERE / f"{name}.requeue").touch()


if __name__ == "__main__":
    {each.__name__: each for each in (sbatch, task, srun, sacct, scontrol)}[sys.argv[1]](*sys.argv[2:])
