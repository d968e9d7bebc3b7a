"""Spans sent to a collector by OTLP over HTTP. Imported only where an endpoint is set."""

from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

FLUSH_MS = 5000


class Otlp:
    """A tracer whose spans leave in the background; a collector that is away costs spans, never requests."""

    def __init__(self, endpoint: str, headers: str, share: float, service: str) -> None:
        named = dict(one.strip().partition("=")[::2] for one in headers.split(",") if one.strip())
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", headers=named)
        # A caller that traces decides for its requests too.
        self._provider = TracerProvider(
            resource=Resource({"service.name": service, "service.version": version("oddity")}),
            sampler=ParentBased(TraceIdRatioBased(share)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("oddity")

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()
