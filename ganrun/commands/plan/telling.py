"""A plan as people read it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ganrun.commands.ls.listing import size
from ganrun.commands.train.table import shared_words, without
from ganrun.config.places import command

Plan = Mapping[str, Any]
BETTER = 1.05  # times the steps/s from which something counts as faster; below its inverse as slower

SHOWN = 0.05  # seconds that something must take to be named


def run(plan: Plan) -> str:
    """The plan of one run."""
    rows = [("", command(*plan["words"])), ("device", device(plan))]
    networks = "; ".join(f"{name.rpartition('.')[2]} {number:,}" for name, number in plan["parameters"].items())
    rows.append(("parameters", f"{networks}; {sum(plan['parameters'].values()):,} in all"))
    rows.append(("FLOPs", f"{scaled(plan['flops_per_step'])} a step: convolutions, products of matrices, attention"))
    images = plan["steps_per_second"] * plan["batch_size"]
    speed = f"{plan['steps_per_second']:,.3g} steps/s, batches of {plan['batch_size']}: {images:,.0f} images/s"
    rows.append(("speed", f"{speed}, measured in {plan['steps_timed']} steps"))
    rows.append(("time", f"{duration(plan['seconds'])} for {plan['steps']:,} steps: {parts_of_time(plan)}"))
    rows.append(("memory", f"{size(plan['peak_memory_mib'] << 20)} at the peak, {measured_on(plan)}"))
    disk = ", ".join(f"{name} {size(number)}" for name, number in plan["disk_bytes_of"].items() if number)
    rows.append(("disk", f"{size(plan['disk_bytes'])}: {disk}"))
    if plan.get("largest_batch"):
        rows.append(("largest batch", largest(plan["largest_batch"], plan["memory_mib"])))
    rows += [("faster?", way(each)) for each in plan.get("ways", ())]
    rows += [("", saving(each)) for each in plan["savings"]]
    rows += [("left out", text) for text in plan["left_out"]]
    rows += [("warning", text) for text in plan["notes"]]
    rows += [("caches", f"what was prepared stays in {', '.join(plan['caches'])}")] if plan["caches"] else []
    return aligned(rows)


def sweep(plan: Plan, budget: float) -> str:
    """The plan of a sweep."""
    jobs = plan["jobs"]
    named = [{"overrides": " ".join(job["words"])} for job in jobs]
    shared = shared_words(named)
    rows = [("seconds", "MiB", "on disk", "job")]
    for job, row in zip(jobs, named, strict=True):
        told = without(row["overrides"], shared) or row["overrides"]
        cells = (f"{job['seconds']:.0f}", f"{job['peak_memory_mib']:,}", size(job["disk_bytes"]))
        rows.append((*cells, told + ("" if job["trial"] else "  (as the job above)")))
    number = len(jobs) + plan["jobs_left_out"]
    total = f"{number} jobs, one after the other: {duration(plan['seconds'])}, {size(plan['disk_bytes'])} on disk, at "
    lines = [aligned(rows), f"{total}most {size(plan['peak_memory_mib'] << 20)} of memory"]
    lines += [f"{command(*job['words'])} fails: {job['error']}" for job in plan["jobs_failed"]]
    if plan["jobs_left_out"]:
        left = f"{plan['jobs_left_out']} jobs not tried, since budget={budget:g} seconds were over"
        lines.append(f"{left}; they count as the mean of the others")
    return "\n".join(lines)


def device(plan: Plan) -> str:
    threads = f", {plan['threads']} thread{'s' * (plan['threads'] > 1)}" if plan["device"] == "cpu" else ""
    return f"{plan['device']}{threads}, precision {plan['precision']}"


def measured_on(plan: Plan) -> str:
    if plan["device"] == "cpu":
        return f"of the whole process; {size(plan['memory_mib'] << 20)} may be used"
    return f"of tensors on the device; {size(plan['memory_mib'] << 20)} may be used"


def parts_of_time(plan: Plan) -> str:
    parts = []
    for name, seconds in plan["seconds_of"].items():
        number = plan["times"].get(name)
        if name in ("start-up", "steps") or seconds >= SHOWN:
            parts.append(f"{name}{f' ({number:,})' if number else ''} {duration(seconds)}")
    return ", ".join(parts)


def largest(batch: Mapping[str, Any], memory_mib: int) -> str:
    each = f"{batch['mib_an_image']:.3g} MiB an image"
    return f"{batch['images']:,} images a pass in {size(memory_mib << 20)}, {batch['how']}, {each}"


def way(each: Mapping[str, Any]) -> str:
    gain = each["gain"]
    text = f"{each['words']}: {gain:.2f} x the steps/s" + ("" if 1 / BETTER < gain < BETTER else
                                                          ", faster" if gain > 1 else ", slower")  # fmt: skip
    if gain > BETTER and each["pays_after"]:
        text += f"; its first steps take {duration(each['warming'])}, made up for after {each['pays_after']:,} steps"
    return text


def saving(each: Mapping[str, Any]) -> str:
    share = f"{each['name']} take {each['share']:.0%} of the time"
    return f"{each['key']}={each['every']}: {duration(each['seconds'])} less; {share}"


def scaled(number: float) -> str:
    """1.5e9 -> 1.50 G"""
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 1000 or unit == "P":
            return f"{number:.3g} {unit}".strip()
        number /= 1000
    raise AssertionError("the last unit takes any number")


def duration(seconds: float) -> str:
    """1:02:03, or 12.3 s below two minutes."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 20 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Lines whose columns are as wide as their widest cell; the last one is not padded."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
