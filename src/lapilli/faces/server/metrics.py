"""What a server counts of itself, for Prometheus; every app has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.types import Scope

from lapilli.wire.question import Account

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of requests and tokens, and gauges that are read when somebody looks."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.routes: dict[Any, str] = {}  # an endpoint's path: as many labels as routes, whatever strangers ask for
        self.requests = Counter(
            "lapilli_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.tokens = Counter(
            "lapilli_tokens", "Tokens: of prompts, cached among them, of pictures among them, of answers.", ("kind",),
            registry=registry,
        )  # fmt: skip
        self.truncated = Counter("lapilli_truncated", "Requests of which something was left out.", registry=registry)
        self.seconds = Histogram(
            "lapilli_request_seconds", "Seconds from a request's head to its response's end.", ("route",),
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self.first = Histogram(
            "lapilli_prompt_seconds", "Seconds of waiting, loading, looking and reading before the first token.",
            registry=registry, buckets=SECONDS,
        )  # fmt: skip

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives under `name`, each time somebody looks."""
        self.registry.register(_Read(name, text, read))

    def seen(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that is over."""
        route, method = self.routes.get(scope.get("endpoint"), "other"), scope["method"]
        known = method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self.requests.labels(route, known, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def answered(self, account: Account) -> None:
        """Count an answer's tokens."""
        for kind, count in (
            ("prompt", account.prompt_tokens),
            ("cached", account.cached_tokens),
            ("image", account.image_tokens),
            ("completion", account.completion_tokens),
        ):
            self.tokens.labels(kind).inc(count)
        if account.truncated:
            self.truncated.inc()
        if account.prompt_tokens:
            before = account.queue_seconds + account.load_seconds + account.image_seconds + account.prefill_seconds
            self.first.observe(before)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name, self.text, self.read = name, text, read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily(self.name, self.text, value=self.read())

    def describe(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily(self.name, self.text)
