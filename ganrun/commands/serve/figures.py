"""What GET /metrics tells, in the format of Prometheus."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from ganrun.commands.serve.drift import Drift

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Figures:
    """Of one server. drift: see there. waiting: images in the queue. steps: of the generator."""

    def __init__(self, drift: Drift, waiting: Callable[[], int], steps: Callable[[], float]):
        self.registry = CollectorRegistry()
        of = {"registry": self.registry}
        self.requests = Counter("ganrun_requests", "Requests by route and status.", ["route", "status"], **of)
        self.seconds = Histogram(
            "ganrun_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            **of,
        )
        self.batches = Histogram("ganrun_batch_images", "Images of a forward pass.", buckets=IMAGES, **of)
        self.passes = Histogram("ganrun_batch_seconds", "Seconds of a forward pass.", buckets=SECONDS, **of)
        self.samples = Counter("ganrun_samples", "Samples served.", **of)
        self.translations = Counter("ganrun_translations", "Images translated.", **of)
        self.duplicates = Counter(
            "ganrun_duplicates", "Samples whose pixels, shrunk to 32 a side, equal those of another noise.", **of
        )
        self.reloads = Counter("ganrun_reloads", "Attempts to load a newer generator.", ["outcome"], **of)
        Gauge("ganrun_queue_images", "Images that wait for a forward pass.", **of).set_function(waiting)
        Gauge("ganrun_generator_steps", "Training steps of the generator; NaN = unknown.", **of).set_function(steps)
        self.registry.register(OfDrift(drift))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def saw_batch(self, jobs: int, images: int, seconds: float) -> None:
        self.batches.observe(images)
        self.passes.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class OfDrift:
    """Diversity as gauges, computed when they are asked for."""

    def __init__(self, drift: Drift):
        self.drift = drift

    def collect(self) -> Iterator[Metric]:
        of = "served: the last 256; reference: the first of seed 0 at the start; training: by the run's metrics.jsonl"
        told = {
            "spread": GaugeMetricFamily("ganrun_pixel_spread", f"Root of the variance of pixels; {of}.", labels=["of"]),
            "twins": GaugeMetricFamily("ganrun_twins", f"Share of samples with a near twin; {of}.", labels=["of"]),
        }
        for (name, source), value in self.drift.told().items():
            told[name].add_metric([source], value)
        yield from told.values()

    def describe(self) -> list[Metric]:
        return []  # so that registering it computes nothing
