"""The model card: README.md with a YAML header, as the Hugging Face Hub reads it."""

import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from ganrun import __version__
from ganrun.commands.evaluate.evaluations import is_entry, weights_of
from ganrun.commands.share.places import hidden, hidden_word
from ganrun.commands.share.request import Request
from ganrun.files.hub import SCHEME
from ganrun.files.record import Record
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.translator import Translator

PUBLISHED = {"fid": "FID", "kid": "KID", "inception-score": "Inception Score"}  # known by these names on Inception
LEFT_OUT = ("versions", "metric")  # of a protocol; the table has the metric, the text the versions
TASKS = {True: "image-to-image", False: "unconditional-image-generation"}


class Score(NamedTuple):
    metric: str
    value: float
    spread: float | None
    of: str  # the file
    protocol: dict[str, Any]


def card(request: Request, record: Record, made: SamplingGenerator | Translator, *, picture: str | None) -> str:
    """The text of README.md. picture: the file with samples, if there is one."""
    scores, title = [*scored(record)], request.title or title_of(record)
    parts = [
        f"---\n{yaml.safe_dump(header(request, record, made, scores), sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        summary(record, made),
        f"![Samples]({picture})" if picture else "",
        "## Use",
        use(request, made),
        "## Scores" if scores else "",
        table(scores),
        "## Training",
        training(record),
        "## Licence",
        request.license or "None is named: ask the author before you use it.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def title_of(record: Record) -> str:
    return f"{options(record).get('model') or 'GAN'} on {data_of(record)}"


def options(record: Record) -> dict[str, Any]:
    """The chosen options of groups, by group."""
    from ganrun.training.run_config import read_yaml

    about = read_yaml(record.run.hydra / "hydra.yaml")
    return about.get("hydra", {}).get("runtime", {}).get("choices", {})


def data_of(record: Record) -> str:
    dataset = record.config.get("dataset", {})
    return hidden(str(dataset.get("name") or dataset.get("_target_", "").rpartition(".")[2]))


def header(request: Request, record: Record, made: Any, scores: list[Score]) -> dict[str, Any]:
    """The YAML that the hub reads."""
    chosen, task = options(record), TASKS[isinstance(made, Translator)]
    tags = ["gan", *dict.fromkeys(str(chosen[key]) for key in ("model", "loss", "dataset") if chosen.get(key))]
    found = {"license": request.license} if request.license else {}
    found |= {"library_name": "ganrun", "pipeline_tag": task, "tags": tags}
    comparable = [score for score in scores if is_published(score)]
    if comparable:
        name = request.push.partition("/")[2] if request.push else request.out.name
        data = {"type": data_of(record), "name": data_of(record)}
        metrics = [
            {"type": score.metric, "value": score.value, "name": f"{PUBLISHED[score.metric]} ({sizes(score.protocol)})"}
            for score in comparable
        ]
        found["model-index"] = [
            {"name": name, "results": [{"task": {"type": task}, "dataset": data, "metrics": metrics}]}
        ]
    return found


def is_published(score: Score) -> bool:
    """Is it the metric that others know by this name, of the newest weights? The index has no room for a protocol."""
    return score.metric in PUBLISHED and score.protocol.get("features") == "inception" and score.of == "generator"


def sizes(protocol: dict[str, Any]) -> str:
    return ", ".join(
        f"{protocol[key]:,} {word}" for key, word in (("num_fake", "samples"), ("num_real", "reals")) if key in protocol
    )


def summary(record: Record, made: SamplingGenerator | Translator) -> str:
    steps, averaged = made.trained.get("steps"), made.trained.get("ema")
    how = (f", after {steps:,} steps" if isinstance(steps, int) else "") + (", averaged" if averaged else "")
    if isinstance(made, Translator):
        what = "; ".join(f"{name}: {a} to {b} channels" for name, (a, b) in made.channels.items())
        return f"An image-to-image network ({what}), trained with ganrun {__version__} on {data_of(record)}{how}."
    shape = " x ".join(map(str, made.sample(1).shape[1:]))
    labels = [one.name for one in made.attributes] or made.classes
    given = f" Labels: {', '.join(labels[:20])}{', ...' if len(labels) > 20 else ''}." if labels else ""
    return f"A generator of {shape} samples, trained with ganrun {__version__} on {data_of(record)}{how}.{given}"


def use(request: Request, made: SamplingGenerator | Translator) -> str:
    """How to load it."""
    branch = f"@{quote(request.branch, safe='')}" if request.branch else ""
    place = f"{SCHEME}{request.push}{branch}" if request.push else "."
    file = place if request.push else "generator.safetensors"
    translates = isinstance(made, Translator)
    command = f"translate from={place} input=photos out=translated" if translates else f"sample from={place}"
    call = "translate(images)  # (num, C, H, W) in [-1, 1]" if translates else "sample(16, seed=0)  # images in [-1, 1]"
    code = f'import ganrun\n\nimages = ganrun.load_generator("{file}").{call}'
    safe = "Nothing is unpickled, and no code of this repository runs."
    return f"```bash\nganrun {command}\n```\n\n```python\n{code}\n```\n\n{safe}"


def scored(record: Record) -> Iterator[Score]:
    """The final and best scores of training, and those of `ganrun evaluate` that are of the files as they are now."""
    result = record.result
    for metric, score in result.get("scores", {}).items():
        yield Score(metric, score["final"], None, "generator", score.get("protocol", {}))
        if record.run.best_generator.exists() and score.get("best") is not None:
            yield Score(metric, score["best"], None, "best", score.get("protocol", {}))
    for entry in filter(is_entry, result.get("evaluations", [])):
        file = record.path / str(entry["of"].get("from"))
        if file in (record.run.generator, record.run.best_generator) and weights_of(file) == entry["of"].get("weights"):
            yield Score(entry["metric"], entry["mean"], entry.get("std"), file.stem, entry["protocol"])


def table(scores: list[Score]) -> str:
    """Scores are comparable only under one protocol, so each row says its own."""
    if not scores:
        return ""
    rows = ["| metric | score | of | protocol |", "|---|---|---|---|"]
    for score in scores:
        value = f"{score.value:.5g}" + (f" ± {score.spread:.2g}" if score.spread is not None else "")
        told = "; ".join(f"{key} {said(x)}" for key, x in hidden(score.protocol).items() if key not in LEFT_OUT)
        rows.append(f"| {score.metric} | {value} | {score.of} | {told.replace('|', ' ')} |")
    return "\n".join(rows) + "\n\nCompare a score only with one of the same protocol: `ganrun rank` does."


def said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {said(x)}" for key, x in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def training(record: Record) -> str:
    words = [hidden_word(word) for word in record.overrides if not word.startswith("run_dir=")]
    versions = record.result.get("versions", {})
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"```bash\n{shlex.join(['ganrun', *words])}\n```\n\n[config.yaml](config.yaml) has every value."
    return text + (f" Versions: {used}." if used else "")
