"""A package of methods as somebody else would publish it, and its installation into a folder."""

import shutil
from pathlib import Path

METHODS = ("contrast", "spread", "turned")
PACKAGE = "outside_methods"


def install(folder: Path) -> Path:
    """The folder with the package and its dist-info, as an installer leaves them; put it on the path to use it."""
    shutil.copytree(Path(__file__).parent / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / f"{PACKAGE}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    points = "".join(f"{name} = {PACKAGE}.{name}\n" for name in METHODS)
    (info / "entry_points.txt").write_text(f"[oddity.methods]\n{points}")
    return folder
