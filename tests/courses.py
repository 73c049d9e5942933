"""Runs made of numbers alone, for rules that read curves."""

import json
from pathlib import Path
from typing import Any

import yaml

from ganrun.explaining.finding import Finding
from ganrun.explaining.findings import findings
from ganrun.files.record import Record

LOOK = {
    "pixel_spread": 0.9,
    "feature_spread": 0.9,
    "twins": 0.0,
    "real_twins": 0.0,
    "reach": 0.4,
    "real_reach": 0.7,
}
PLAYER = {"lr": 2e-4, "lr_schedule": "constant", "decay_steps": 1000, "_target_": "ganrun.optim.PlayerOptimizer"}
CONFIG: dict[str, Any] = {
    "steps": 1000,
    "batch_size": 32,
    "loss": {"_target_": "ganrun.losses.NonSaturating"},
    "optimizer": {"lr": 2e-4, "generator": PLAYER, "discriminator": PLAYER},
    "evaluate": {"every": 50},
    "metric": {"sliced-wasserstein": {}},
    "dataset": {"resolution": 16},
    "collapse": {"patience": 3, "lr_factor": 0.5},
}


def write_run(
    path: Path, rows: list[dict[str, float]], result: dict | None = None, words: list[str] | None = None, **config
) -> Record:
    """A run directory with these rows of metrics; `config` replaces entries of CONFIG."""
    (path / ".hydra").mkdir(parents=True, exist_ok=True)
    (path / ".hydra" / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
    (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words or []))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = rows[-1]["step"] if rows else 0
    (path / "result.json").write_text(json.dumps({"status": "finished", "steps": last, "goal": last} | (result or {})))
    return Record(path)


def rows(num: int = 20, every: int = 50, **series) -> list[dict[str, float]]:
    """Rows of a healthy run; series: values by name (`_` for the first `/`), or functions of the row's index."""
    base = {
        "discriminator/adversarial": 0.9, "discriminator/real_logits": 0.8, "discriminator/fake_logits": -0.8,
        "discriminator/gradient_norm": 1.0, "generator/gradient_norm": 1.0, "discriminator/weight_norm": 6.0,
        "generator/weight_norm": 8.0, "score/sliced-wasserstein": lambda i: 1 / (i + 2),
        **{f"collapse/{name}": value for name, value in LOOK.items()},
    }  # fmt: skip
    base |= {name.replace("__", "-").replace("_", "/", 1): value for name, value in series.items()}
    of = {
        name: value if callable(value) else (lambda i, value=value: value)
        for name, value in base.items()
        if value is not None
    }
    return [{"step": every * (i + 1), **{name: value(i) for name, value in of.items()}} for i in range(num)]


def kinds(found: list[Finding]) -> set[str]:
    return {finding.kind for finding in found}


def told(record: Record) -> dict[str, Finding]:
    """The findings of a record by kind."""
    return {finding.kind: finding for finding in findings(record)}
