#!/bin/sh
# There are no API keys yet: publish the port on loopback, or put a proxy that authenticates before it.
set -eu
exec oddity serve --host "${HOST:-0.0.0.0}" --port "${PORT:-8000}"
