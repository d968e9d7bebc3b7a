"""Metric learning leaves the searches of the process alone."""

import subprocess
import sys

SCRIPT = """
import faiss
searches = {name: vars(getattr(faiss, name)).get("search") for name in dir(faiss) if name.startswith("Index")}
import models.similarity.{module}
now = {name: vars(getattr(faiss, name)).get("search") for name in dir(faiss) if name.startswith("Index")}
assert searches == now and any(searches.values())
"""


def test_the_library_replaces_no_search_of_the_process() -> None:
    for module in ("losses", "retrieval"):
        script = SCRIPT.replace("{module}", module)
        subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
