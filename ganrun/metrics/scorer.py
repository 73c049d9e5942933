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

from ganrun.data.base import Data
from ganrun.errors import CannotWrite
from ganrun.files.checkpoint import FORMAT, damage, load_checkpoint, save_checkpoint
from ganrun.files.storage import make_cache
from ganrun.game import Batch
from ganrun.metrics.features import Features, in_fp32
from ganrun.metrics.metric import Metric, Score, Setting
from ganrun.metrics.summaries import Summary
from ganrun.progress import tracked
from ganrun.seeding import derive, seed_default_generators

log = logging.getLogger("ganrun")
Key = tuple[Features, str]  # and the summary's name


def key_of(metric: Metric) -> Key:
    return metric.features, metric.summary().name


@dataclass
class Scorer:
    """metrics: by name. num_real: reals, None = all, or if `even` as many as fakes for metrics that need no more.

    split: what the reals are called in the protocol. shows: how far it is, where nothing else does?
    conditional: are the fakes made for labels? asks: are these chosen here, for a generator? paired: do the fakes come
    with their targets? source: what they are made from, None = noise. cache: folder for statistics of reals, None =
    computed each time.
    """

    metrics: dict[str, Metric]
    data: Data
    num_fake: int
    num_real: int | None = None
    even: bool = False
    conditional: bool = False
    paired: bool = False
    source: Data | None = None
    split: str = "training data"
    asks: bool = True
    shows: bool = False
    cache: Path | None = None
    _labels: Tensor | None = field(default=None, init=False)
    _real: dict[tuple[Key, int], Summary] = field(default_factory=dict, init=False)  # with the number of reals
    _device: torch.device | None = field(default=None, init=False)

    def prepare(self, device: torch.device) -> None:
        """Loads or trains all that the metrics need; fp64 and exact sums want a GPU by NVIDIA, or the CPU.

        Raises UserError for a metric that cannot score this data.
        """
        self.check(device)
        for metric in self.metrics.values():
            metric.prepare(self._setting(metric))

    def check(self, device: torch.device) -> None:
        """Raises UserError for a metric that cannot score this data, before anything is loaded or trained."""
        self._device = device if device.type == "cuda" else torch.device("cpu")
        for metric in self.metrics.values():
            metric.check(self._setting(metric))

    def _setting(self, metric: Metric) -> Setting:
        num = self.reals_for(metric)
        return Setting(self.data, num, self.num_fake, self.conditional, self._device, self.labels(), self.paired)

    def reals_for(self, metric: Metric) -> int:
        """How many reals a metric sees."""
        some = self.num_fake if self.even and not metric.needs_all_reals else None
        return min(self.num_real or some or len(self.data), len(self.data))

    def labels(self) -> Tensor | None:
        """(num_fake,) what fakes are made for: the labels of as many reals, over and over if there are fewer."""
        if not (self.conditional and self.asks):
            return None
        if self._labels is None:
            found = torch.cat([batch["label"].cpu() for batch in self.data.shuffled(self.num_fake)])
            self._labels = found[torch.arange(self.num_fake) % len(found)]
        return self._labels

    def score(self, fakes: Iterable[Batch], names: Iterable[str] | None = None) -> dict[str, Score]:
        """Of a stream with fake (num, ...) as the data set stores its own, label (num,) if made for labels, and if
        paired target (num, ...), stored as fake is. names: of the metrics to score, None = all.

        All of it, making the stream included, in fp32 or better. Changes nothing but its own memory of the reals.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices), in_fp32(self._device), torch.no_grad():
            seed_default_generators(derive("score"))  # for what networks draw inside
            self._see_reals()
            metrics = {name: self.metrics[name] for name in (self.metrics if names is None else names)}
            fake = self._summarise(fakes, "fake", metrics.values())
            return {name: self._score(metric, fake) for name, metric in metrics.items()}

    def _score(self, metric: Metric, fake: dict[Key, Summary]) -> Score:
        return metric.score(self._real[self._key(metric)] if metric.needs_real else None, fake[key_of(metric)])

    def _key(self, metric: Metric) -> tuple[Key, int]:
        return key_of(metric), self.reals_for(metric)

    def _see_reals(self) -> None:
        """Once; what costs a network's passes, or much arithmetic, is kept in a file."""
        missing = {}
        for metric in self.metrics.values():
            if metric.needs_real and self._key(metric) not in self._real:
                summary, state = metric.summary(), self._kept(metric) if metric.features.costly else None
                if state:
                    summary.load(state)
                    self._real[self._key(metric)] = summary
                else:
                    missing[self._key(metric)] = metric
        for num in sorted({num for _, num in missing}):
            some = [metric for (_, its), metric in missing.items() if its == num]
            found = self._summarise(self.data.shuffled(num), "real", some)
            self._real |= {(key, num): summary for key, summary in found.items()}
        for key, metric in missing.items():
            self._keep(metric, self._real[key])

    def _keep(self, metric: Metric, summary: Summary) -> None:
        """All of it, or of features that cost nothing what is derived from them, which may have been kept before."""
        names = None if metric.features.costly else summary.derived
        if not self.cache or names == ():
            return
        if names and (state := self._kept(metric)):
            summary.load(state)
            return
        state = {name: value.cpu() for name, value in summary.state().items() if names is None or name in names}
        try:
            make_cache(self.cache)
            save_checkpoint({"ganrun": {"format": FORMAT}, "state": state}, self._file(metric))
        except CannotWrite as error:  # it only costs time
            log.warning("statistics of the data set are not kept: %s", error)

    def _kept(self, metric: Metric) -> dict[str, Tensor] | None:
        """What a file holds of a metric's reals, if there is one that can be read."""
        path = self._file(metric)
        if path is None or damage(path):
            return None
        try:
            return {key: value.to(self._device) for key, value in load_checkpoint(path)["state"].items()}
        except Exception:  # of another version, or not written by ganrun
            return None

    def _file(self, metric: Metric) -> Path | None:
        about = [metric.features.protocol, metric.summary().name, self.data.identity, self.reals_for(metric)]
        name = hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()
        return self.cache / f"real-{name}.ckpt" if self.cache else None

    def _summarise(self, batches: Iterable[Batch], key: str, metrics: Iterable[Metric]) -> dict[Key, Summary]:
        """One pass over the samples; what several metrics look at is computed once."""
        found: dict[Key, Summary] = {}
        for metric in metrics:
            found.setdefault(key_of(metric), metric.summary())
        if self.shows:
            total = self.num_fake if key == "fake" else None
            batches = tracked(batches, total, f"scoring: {key}", "samples", size=lambda batch: len(batch[key]))
        for batch in batches:
            for features in {features for features, _ in found}:
                seen = features.see(batch[key])._replace(label=batch.get("label"), target=batch.get("target"))
                for (its, _), summary in found.items():
                    if its is features:
                        summary.add(seen)
        return found

    @property
    def protocols(self) -> dict[str, dict[str, Any]]:
        """What made each metric's score; after `prepare`."""
        return {name: self._protocol(metric) for name, metric in self.metrics.items()}

    def _protocol(self, metric: Metric) -> dict[str, Any]:
        num_real = self.reals_for(metric)
        limit = metric.max_samples or max(self.num_fake, num_real)
        about = {
            "metric": type(metric).__name__,
            **metric.protocol,
            **metric.features.protocol,
            "dataset": self.data.name,
            "data": self.data.identity,
            **({"source": self.source.identity} if self.source else {}),
            **self.data.described,
            "split": self.split,
            "num_real": min(num_real, limit) if metric.needs_real else 0,
            "num_fake": min(self.num_fake, limit),
            "values": "8 bit" if len(self.data.shape) == 3 else "float",
        }
        return about | {"labels": "as in the data" if self.conditional else "none"}
