"""Scores one stream of fakes after another against the same reals, under one protocol."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganrun.data.base import Data
from ganrun.errors import CannotWrite
from ganrun.files.checkpoint import FORMAT, damage, load_checkpoint, save_checkpoint
from ganrun.files.storage import make_cache, mark_used
from ganrun.game import Batch
from ganrun.metrics.features import Features, in_fp32
from ganrun.metrics.metric import Metric, Score, Setting
from ganrun.metrics.summaries import Summary
from ganrun.progress import tracked
from ganrun.seeding import derive, seed_default_generators

log = logging.getLogger("ganrun")
Key = tuple[Features, str]  # features, and the summary's name
Classify = Callable[[Tensor], Tensor]  # samples (num, ...) in the value range -> logits (num, K) of classes


def key_of(metric: Metric) -> Key:
    return metric.features, metric.summary().name


@dataclass
class Scorer:
    """Scores fakes by several metrics.

    metrics:     by name
    data:        the reals
    num_fake:    fakes in a score
    num_real:    reals in a score; None = all, or see `even`
    even:        True = as many reals as fakes, for metrics that need no more
    conditional: are the fakes made for labels?
    key:         of these labels in a batch: label, or another for what are no classes
    paired:      do the fakes come with their targets?
    source:      the data that fakes are made from; None = noise
    discriminates: is there a discriminator, as in training?
    split:       name of the reals in the protocol
    asks:        are the labels chosen here, for a generator?
    shows:       show progress, if nothing else does?
    cache:       folder for statistics of reals; None = computed each time
    """

    metrics: dict[str, Metric]
    data: Data
    num_fake: int
    num_real: int | None = None
    even: bool = False
    conditional: bool = False
    key: str = "label"
    paired: bool = False
    source: Data | None = None
    discriminates: bool = False
    split: str = "training data"
    asks: bool = True
    shows: bool = False
    cache: Path | None = None
    _labels: Tensor | None = field(default=None, init=False)
    _real: dict[tuple[Key, int], Summary] = field(default_factory=dict, init=False)  # by key and number of reals
    _device: torch.device | None = field(default=None, init=False)

    def prepare(self, device: torch.device) -> None:
        """Loads or trains everything that the metrics need. fp64 and exact sums need an NVIDIA GPU or the CPU.

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
            metric.features.check(self.data)

    def _setting(self, metric: Metric) -> Setting:
        num, classes = self.reals_for(metric), self.conditional and self.key == "label"
        labels = self.labels() if classes else None
        return Setting(self.data, num, self.num_fake, classes, self._device, labels, self.paired, self.discriminates)

    def reals_for(self, metric: Metric) -> int:
        """The number of reals that a metric uses."""
        some = self.num_fake if self.even and not metric.needs_all_reals else None
        return min(self.num_real or some or len(self.data), len(self.data))

    def labels(self) -> Tensor | None:
        """Labels (num_fake, ...) that the fakes are made for: those of as many reals, repeated if there are fewer."""
        if not (self.conditional and self.asks):
            return None
        if self._labels is None:
            found = torch.cat([batch[self.key].cpu() for batch in self.data.shuffled(self.num_fake)])
            self._labels = found[torch.arange(self.num_fake) % len(found)]
        return self._labels

    def score(
        self, fakes: Iterable[Batch], names: Iterable[str] | None = None, classify: Classify | None = None
    ) -> dict[str, Score]:
        """Scores a stream with fake (num, ...) in the form that the data set stores, label (num,) if the fakes are made
        for labels, and target (num, ...), stored like fake, if paired. names: of the metrics to score, None = all.
        classify: the discriminator's classes, see Recipe.classify, for metrics that score it.

        Everything, making the stream included, runs in fp32 or better. Changes only its own memory of the reals.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices), in_fp32(self._device), torch.no_grad():
            seed_default_generators(derive("score"))  # for random draws inside networks
            self._see_reals()
            metrics = {name: self.metrics[name] for name in (self.metrics if names is None else names)}
            of_fakes = [metric for metric in metrics.values() if not metric.of_discriminator]
            fake = self._summarise(fakes, "fake", of_fakes) if of_fakes else {}
            return {name: self._score(metric, fake, classify) for name, metric in metrics.items()}

    def _score(self, metric: Metric, fake: dict[Key, Summary], classify: Classify | None) -> Score:
        if metric.of_discriminator:
            summary = metric.summary()
            for seen in metric.seen(classify):
                summary.add(seen)
            return metric.score(None, summary)
        return metric.score(self._real[self._key(metric)] if metric.needs_real else None, fake[key_of(metric)])

    def _key(self, metric: Metric) -> tuple[Key, int]:
        return key_of(metric), self.reals_for(metric)

    def _see_reals(self) -> None:
        """Summarises the reals, once; results that cost network passes, or much arithmetic, are kept in a file."""
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
        """Keeps a summary in a file; if features are cheap, only its derived parts, unless they are already kept."""
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
        except CannotWrite as error:  # the loss only costs time
            log.warning("statistics of the data set are not kept: %s", error)

    def _kept(self, metric: Metric) -> dict[str, Tensor] | None:
        """The summary of a metric's reals from its file; None if there is none that can be read."""
        path = self._file(metric)
        if path is None or damage(path):
            return None
        mark_used(path)
        try:
            return {key: value.to(self._device) for key, value in load_checkpoint(path)["state"].items()}
        except Exception:  # of another version, or not written by ganrun
            return None

    def _file(self, metric: Metric) -> Path | None:
        about = [metric.features.protocol, metric.summary().name, self.data.identity, self.reals_for(metric)]
        name = hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()
        return self.cache / f"real-{name}.ckpt" if self.cache else None

    def _summarise(self, batches: Iterable[Batch], key: str, metrics: Iterable[Metric]) -> dict[Key, Summary]:
        """One pass over the samples; what several metrics use is computed once."""
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
        if metric.of_discriminator:
            return {"metric": type(metric).__name__, **metric.protocol}
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
            "values": f"{self.data.depth} bit" if len(self.data.shape) == 3 else "float",
        }
        return about | {"labels": "as in the data" if self.conditional else "none"}
