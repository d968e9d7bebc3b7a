"""Where spans go, if anywhere. Without an endpoint there is no tracer, and nothing of this costs anything."""

import importlib
from typing import Any, Protocol

from opentelemetry.trace import Tracer

from app.settings import Settings


class TracingUnavailable(ValueError):
    """Traces are asked for and cannot be made; the sentence says what to install."""


class Tracing(Protocol):
    """A tracer, and the end of it."""

    tracer: Tracer

    def close(self) -> None:
        """Send what is left."""


def open_tracing(settings: Settings, service: str) -> Tracing | None:
    """Where spans of this process go, as the settings say; None when nowhere.

    Raises TracingUnavailable: the packages are not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        # Half a second of imports that nobody without traces is to pay.
        otlp: Any = importlib.import_module("app.monitoring.otlp")  # rule-skip: import-by-name an optional extra
    except ModuleNotFoundError as error:
        raise TracingUnavailable(
            "ODDITY_OTLP_ENDPOINT needs packages that are not installed: pip install 'oddity[otel]'."
        ) from error
    headers = settings.otlp_headers
    opened: Tracing = otlp.Otlp(
        settings.otlp_endpoint, "" if headers is None else headers.get_secret_value(), settings.otlp_share, service
    )
    return opened
