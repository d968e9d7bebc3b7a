"""Image bytes as files named by their sha256, durable before the record mentions them."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from app.errors import NotFound


class ImageStore:
    """Content-addressed files below one folder: `ab/abcdef…`.

    `put` returns only when the bytes and the folders that name them are on disk, so a record committed afterwards
    never points at a file that a power cut took away. A file without a row is harmless and can be collected.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)

    def path(self, sha256: str) -> Path:
        """Where the bytes with this hash lie."""
        return self.folder / sha256[:2] / sha256

    def put(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Store each (sha256, bytes); folders are synced once for the whole batch."""
        folders: set[Path] = set()
        for sha256, data in items:
            target = self.path(sha256)
            # Also where the file is there already: whoever is storing it may not have come to sync the folders yet.
            folders |= {self.folder, target.parent}
            if target.exists():
                continue
            target.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as part:
                part.write(data)
                part.flush()
                os.fsync(part.fileno())
            Path(part.name).rename(target)
        for folder in folders:
            _sync_folder(folder)

    def get(self, sha256: str) -> bytes:
        """The bytes with this hash. Raises NotFound."""
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"The bytes of image {sha256} are not in the image store.", "bytes_missing") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
