"""Which trials a plan needs, and what follows from them."""

import json
from collections.abc import Sequence
from typing import Any

from ganrun.commands.plan import Request, estimate, telling
from ganrun.commands.plan.child import COMPILE
from ganrun.commands.plan.trials import Trials
from ganrun.commands.train.jobs import combinations, searches
from ganrun.commands.train.sweep import check_installed, settings_of, with_space
from ganrun.config.hydra_main import parsed, refuse_flags
from ganrun.config.places import key_of
from ganrun.errors import Failure, UserError

WORTH_COMPILING = 120  # seconds of steps below which compiling cannot pay
NO_COST = ("seed", "run_dir")  # keys whose values change nothing that takes time, memory or disk
Plan = dict[str, Any]


def plan_run(words: Sequence[str], request: Request) -> None:
    trials = Trials(request.seconds, request.budget)
    found = trials.run(words)
    plan = of_run(words, found)
    if request.tries:
        plan["largest_batch"], failed = largest_batch(words, found, trials)
        plan["ways"], untried = faster(words, found, trials)
        plan["left_out"] += failed + untried
    print(json.dumps(plan, indent=2) if request.json else telling.run(plan))


def of_run(words: Sequence[str], found: Plan) -> Plan:
    """What follows from one trial."""
    config, seconds, disk = found["config"], estimate.time_of(found), estimate.disk_of(found)
    cpu = estimate.time_of(found, estimate.CPU)
    step = estimate.a_step(found)
    return {
        "words": list(words),
        **{key: found[key] for key in ("device", "threads", "notes", "caches")},
        **{key: config[key] for key in ("precision", "batch_size", "steps")},
        "parameters": {name: n for networks in found["networks"].values() for name, n in networks.items()},
        "flops_per_step": round(estimate.flops_of(found)),
        "steps_per_second": 1 / step,
        "steps_timed": sum(map(len, found["times"].values())),
        "times": {name: number for name, number in estimate.counts(found).items() if name in found["events"]},
        "seconds": sum(seconds.values()),
        "seconds_of": seconds,
        "cpu_seconds": sum(cpu.values()),
        "cpu_seconds_of": cpu,
        "imports": found["imports"],
        "peak_memory_mib": round(found["memory"]["peak"] / 2**20),
        "memory_mib": round(found["memory"]["room"] / 2**20),
        "disk_bytes": sum(disk.values()),
        "disk_bytes_of": disk,
        "savings": [saving._asdict() for saving in estimate.savings(found)],
        "left_out": [f"{name}: not counted" for name in found["left_out"]],
    }


def largest_batch(words: Sequence[str], found: Plan, trials: Trials) -> tuple[Plan, list[str]]:
    """By a second trial with a larger batch; by the dry run's activations where there can be none. And what failed."""
    line, how, failed = estimate.Line.of_activations(found), "from the activations that a dry run keeps, in fp32", []
    larger = estimate.factor(found)
    if larger and found["memory"]["steps"] is not None and trials.has_time():
        sizes = [f"{key}={size * larger}" for key, size in found["sizes"].items()]
        try:
            other = trials.run([*words, *sizes], events=False, limited=True)
            line = estimate.Line.through(found, other)
            how = f"extrapolated from {found['images']} and {other['images']} images a pass"
        except Failure as error:
            failed = [f"{' '.join(sizes)}: {error}"]
    most = line.largest(found["memory"]["room"])
    return {"images": most, "mib_an_image": line.each / 2**20, "how": how}, failed


def faster(words: Sequence[str], found: Plan, trials: Trials) -> tuple[list[Plan], list[str]]:
    """What was tried to make the steps faster, and what was not tried."""
    tried, left_out = [], []
    for each in found["ways"]:
        if each == COMPILE and estimate.of_steps(found) < WORTH_COMPILING:
            left_out.append(f"{each}: not tried, since all steps take less than {WORTH_COMPILING} s")
        elif not trials.has_time():
            left_out.append(f"{each}: not tried, since budget={trials.budget:g} seconds were over")
        else:
            try:
                other = trials.run([*words, each], events=False, limited=True)
                tried.append(estimate.way(each, other, found)._asdict())
            except Failure as error:
                left_out.append(f"{each}: {error}")
    return tried, left_out


def plan_sweep(args: Sequence[str], request: Request) -> None:
    """One trial for all jobs that cost the same. A job that fails in it is named, as in the sweep itself."""
    jobs, flags = jobs_of(args)
    trials, groups = Trials(request.seconds, request.budget), {}
    for job in jobs:
        groups.setdefault(cost_key(job), []).append(job)
    plans, failed, left_out = [], [], 0
    for group in groups.values():
        if plans and not trials.has_time():
            left_out += len(group)
            continue
        try:
            plan = of_run(group[0], trials.run([*flags, *group[0]]))
            plans += [plan | {"words": job, "trial": job is group[0]} for job in group]
        except Failure as error:
            if len(groups) == 1:
                raise
            failed += [{"words": job, "error": str(error)} for job in group]
    if not plans:
        raise UserError(failed[0]["error"])
    plan = of_sweep(plans, failed, left_out)
    print(json.dumps(plan, indent=2) if request.json else telling.sweep(plan, request.budget))


def jobs_of(args: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The words of each job of a sweep, and the flags of all. Raises UserError where the jobs are not known yet."""
    _, words = settings_of(with_space(list(args)))
    refuse_flags(words)
    check_installed(words)
    words = [word for word in words if not word.lstrip("+").startswith("run_dir=")]
    if searches(words):
        raise UserError("-m: a search chooses its jobs as it goes; plan one of them, and multiply by n_trials")
    jobs = combinations(words)
    if not jobs:
        raise UserError("-m: a plan needs the values of each job: key=a,b or range(0,3); got glob() or interval()")
    folder = parsed(words).config_dir
    return jobs, ["--config-dir", folder] if folder else []


def cost_key(job: Sequence[str]) -> tuple[str, ...]:
    """What two jobs that cost the same have in common: all words but those whose values cost nothing."""
    return tuple(sorted(word for word in job if key_of(word) not in NO_COST))


def of_sweep(plans: Sequence[Plan], failed: Sequence[Plan], left_out: int) -> Plan:
    """The sum over the jobs of one process, which starts once; with those left out at the mean of the others."""
    again = (len(plans) - 1) * plans[0]["imports"]["seconds"]
    seconds, disk = sum(plan["seconds"] for plan in plans) - again, sum(plan["disk_bytes"] for plan in plans)
    share = (len(plans) + left_out) / len(plans)
    return {
        "jobs": list(plans),
        "jobs_failed": list(failed),
        "jobs_left_out": left_out,
        "seconds": seconds * share,
        "cpu_seconds": share * (sum(p["cpu_seconds"] for p in plans) - (len(plans) - 1) * plans[0]["imports"]["cpu"]),
        "disk_bytes": round(disk * share),
        "peak_memory_mib": max(plan["peak_memory_mib"] for plan in plans),
    }
