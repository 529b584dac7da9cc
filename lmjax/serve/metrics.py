"""What /metrics tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class Metrics:
    """Counters of one server. routes: the paths told apart; all others count as "other"."""

    def __init__(self, routes=()):
        self.registry, self.routes = CollectorRegistry(), frozenset(routes)
        registry = {"registry": self.registry}
        self.requests = Counter("lmjax_requests", "requests that ended", ["route", "status"], **registry)
        self.seconds = Histogram("lmjax_request_seconds", "from a request's first byte to its answer's last", ["route"],
                                 buckets=SECONDS, **registry)  # fmt: skip
        self.first = Histogram("lmjax_first_token_seconds", "from a prompt to the first token behind it",
                               buckets=SECONDS, **registry)  # fmt: skip
        self.tokens = Counter("lmjax_tokens", "tokens read (prompt) and written (completion)", ["kind"], **registry)
        self.active = Gauge("lmjax_active_rows", "rows that are being written", **registry)
        self.waiting = Gauge("lmjax_waiting", "rows or texts that wait", **registry)

    def seen(self, path: str, status: int, seconds: float):
        route = path if path in self.routes else "other"
        self.requests.labels(route, str(status or 499)).inc()  # 499: the client left before an answer
        self.seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)
