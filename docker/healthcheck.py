"""Exit 0 when the service in this container is ready, or when the address given as the only argument answers 200."""

import os
import sys
import urllib.error
import urllib.request

usual = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/readyz"
url = sys.argv[1] if len(sys.argv) > 1 else usual
try:
    with urllib.request.urlopen(url, timeout=4) as answer:  # noqa: S310 - an address of this container
        sys.exit(0 if answer.status == 200 else 1)
except (urllib.error.URLError, TimeoutError) as error:
    sys.exit(f"not ready: {error}")
