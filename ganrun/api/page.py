"""How a notebook shows a run: where it lies, how it ended, its scores and its newest samples."""

import base64
from html import escape

from ganrun.files.record import Record


def card(record: Record) -> str:
    """HTML that needs no other file."""
    result = record.result
    goal, steps = result.get("goal"), record.steps
    of = f" of {goal:,}" if goal not in (None, steps) else ""
    lines = [("run", str(record.path)), ("overrides", " ".join(record.overrides)), ("status", record.status)]
    lines += [("reason", result["reason"])] if result.get("reason") else []
    lines += [("steps", f"{steps:,}{of}")]
    for name, score in result.get("scores", {}).items():
        best = "" if score.get("best") is None else f" ({score['best']:.5g} at best, step {score['best_step']:,})"
        lines.append((name, f"{score['final']:.5g}{best}, {score['better']} is better"))
    cell = "<td style='text-align:left'>"
    rows = "".join(f"<tr>{cell}{escape(name)}</td>{cell}{escape(text)}</td></tr>" for name, text in lines)
    return f"<table>{rows}</table>{picture(record)}"


def picture(record: Record) -> str:
    """The newest samples; empty if there are none."""
    path = record.newest_grid()
    try:
        content = base64.b64encode(path.read_bytes()).decode() if path else ""
    except OSError:  # removed meanwhile
        content = ""
    return f'<img src="data:image/png;base64,{content}" alt="samples" style="max-width:100%">' if content else ""
