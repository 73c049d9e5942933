"""Scores one stream of fakes after another against the same reals, under one protocol."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganrun.checkpoint_file import FORMAT, damage, load_checkpoint, save_checkpoint
from ganrun.data.base import Data
from ganrun.errors import CannotWrite
from ganrun.game import Batch
from ganrun.metrics.features import Features, in_fp32
from ganrun.metrics.metric import Metric, Score, Setting
from ganrun.metrics.summaries import Summary
from ganrun.seeding import derive, seed_default_generators
from ganrun.storage import writing

log = logging.getLogger("ganrun")
Summaries = dict[tuple[Features, str], Summary]  # by features and the summary's name


def key_of(metric: Metric) -> tuple[Features, str]:
    return metric.features, metric.summary().name


@dataclass
class Scorer:
    """metrics: by name. num_real: reals, None = all. split: what the reals are called in the protocol.

    conditional: are the fakes made for labels? asks: are these chosen here, for a generator? cache: folder for
    statistics of reals, None = computed each time.
    """

    metrics: dict[str, Metric]
    data: Data
    num_fake: int
    num_real: int | None = None
    conditional: bool = False
    split: str = "training data"
    asks: bool = True
    cache: Path | None = None
    _labels: Tensor | None = field(default=None, init=False)
    _real: Summaries = field(default_factory=dict, init=False)
    _device: torch.device | None = field(default=None, init=False)

    def prepare(self, device: torch.device) -> None:
        """Loads or trains all that the metrics need; fp64 and exact sums want a GPU by NVIDIA, or the CPU.

        Raises UserError for a metric that cannot score this data.
        """
        self._device = device if device.type == "cuda" else torch.device("cpu")
        self.num_real = min(self.num_real or len(self.data), len(self.data))
        labels = self.labels()
        setting = Setting(self.data, self.num_real, self.num_fake, self.conditional, self._device, labels)
        for metric in self.metrics.values():
            metric.prepare(setting)

    def labels(self) -> Tensor | None:
        """(num_fake,) what fakes are made for: the labels of as many reals, over and over if there are fewer."""
        if not (self.conditional and self.asks):
            return None
        if self._labels is None:
            found = torch.cat([batch["label"].cpu() for batch in self.data.shuffled(self.num_fake)])
            self._labels = found[torch.arange(self.num_fake) % len(found)]
        return self._labels

    def score(self, fakes: Iterable[Batch]) -> dict[str, Score]:
        """Of a stream with fake (num, ...) as the data set stores its own, and label (num,) if made for labels.

        All of it, making the stream included, in fp32 or better. Changes nothing but its own memory of the reals.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices), in_fp32(self._device), torch.no_grad():
            seed_default_generators(derive("score"))  # for what networks draw inside
            self._see_reals()
            fake = self._summarise(fakes, "fake", self.metrics.values())
            return {name: self._score(metric, fake) for name, metric in self.metrics.items()}

    def _score(self, metric: Metric, fake: Summaries) -> Score:
        return metric.score(self._real[key_of(metric)] if metric.needs_real else None, fake[key_of(metric)])

    def _see_reals(self) -> None:
        """Once; what costs a network's passes is kept in a file."""
        wanted = [metric for metric in self.metrics.values() if metric.needs_real]
        missing = [metric for metric in wanted if key_of(metric) not in self._real and not self._load(metric)]
        if not missing:
            return
        self._real |= self._summarise(self.data.shuffled(self.num_real), "real", missing)
        for metric in missing:
            if metric.features.costly and self.cache:
                summary = self._real[key_of(metric)]
                content = {"ganrun": {"format": FORMAT}, "state": {k: v.cpu() for k, v in summary.state().items()}}
                try:
                    with writing(self.cache):
                        self.cache.mkdir(parents=True, exist_ok=True)
                    save_checkpoint(content, self._file(metric))
                except CannotWrite as error:  # it only costs time
                    log.warning("statistics of the data set are not kept: %s", error)

    def _load(self, metric: Metric) -> bool:
        path = self._file(metric)
        if path is None or not metric.features.costly or damage(path):
            return False
        summary = metric.summary()
        try:
            summary.load({key: value.to(self._device) for key, value in load_checkpoint(path)["state"].items()})
        except Exception:  # of another version, or not written by ganrun
            return False
        self._real[key_of(metric)] = summary
        return True

    def _file(self, metric: Metric) -> Path | None:
        about = [metric.features.protocol, metric.summary().name, self.data.identity, self.num_real]
        name = hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()
        return self.cache / f"real-{name}.ckpt" if self.cache else None

    def _summarise(self, batches: Iterable[Batch], key: str, metrics: Iterable[Metric]) -> Summaries:
        """One pass over the samples; what several metrics look at is computed once."""
        found: Summaries = {}
        for metric in metrics:
            found.setdefault(key_of(metric), metric.summary())
        for batch in batches:
            for features in {features for features, _ in found}:
                seen = features.see(batch[key])._replace(label=batch.get("label"))
                for (its, _), summary in found.items():
                    if its is features:
                        summary.add(seen)
        return found

    @property
    def protocols(self) -> dict[str, dict[str, Any]]:
        """What made each metric's score; after `prepare`."""
        return {name: self._protocol(metric) for name, metric in self.metrics.items()}

    def _protocol(self, metric: Metric) -> dict[str, Any]:
        limit = metric.most or max(self.num_fake, self.num_real)
        about = {
            "metric": type(metric).__name__,
            **metric.protocol,
            **metric.features.protocol,
            "dataset": self.data.name,
            "data": self.data.identity,
            **self.data.described,
            "split": self.split,
            "num_real": min(self.num_real, limit) if metric.needs_real else 0,
            "num_fake": min(self.num_fake, limit),
            "values": "8 bit" if len(self.data.shape) == 3 else "float",
        }
        return about | {"labels": "as in the data" if self.conditional else "none"}
