#!/bin/sh
# Without arguments: the service, which asks for API keys and does not start while there is none. With arguments: any
# other command, such as `keys create first --scope admin`.
set -eu
if [ $# -gt 0 ]; then
    exec oddity "$@"
fi
exec oddity serve --host "${HOST:-0.0.0.0}" --port "${PORT:-8000}"
