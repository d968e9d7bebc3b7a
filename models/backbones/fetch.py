"""Bringing published weights to this machine: a command of the operator, never part of a request."""

import hashlib
import http.client
import json
import os
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from models.backbones.resnet import BACKBONES
from models.errors import ParameterInvalid, WeightsDamaged, WeightsMissing

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0  # without a byte, not for the whole file


class Download(Protocol):
    """What opening an address gives: bytes to read, and the announced length among the headers."""

    def read(self, amount: int, /) -> bytes:
        """The next bytes, none at the end."""

    def getheader(self, name: str, /) -> str | None:
        """The header of that name."""


Opener = Callable[[str], AbstractContextManager[Download]]
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


def open_url(url: str) -> AbstractContextManager[Download]:
    """The response of a GET; redirects, proxies and certificates as Python's own client handles them."""
    response: AbstractContextManager[Download] = urllib.request.urlopen(url, timeout=_TIMEOUT_S)  # noqa: S310
    return response


def fetch_weights(
    name: str,
    folder: Path,
    *,
    url: str | None = None,
    opener: Opener = open_url,
    progress: Progress | None = None,
) -> Path:
    """Path of the published weights of a backbone in `folder`, downloaded unless they are there and whole.

    The file appears under its name only when it is complete and its SHA-256 begins as that name says; beside
    it a `.json` records the full SHA-256, the size and the address. `url` names a mirror of the same file.

    Raises:
        ParameterInvalid: no backbone has that name, or the address is not http(s).
        WeightsMissing: the address cannot be reached, or breaks off.
        WeightsDamaged: what came is not the published file.
    """
    record = BACKBONES.get(name)
    if record is None:
        raise ParameterInvalid(f"`name` of weights must be one of {', '.join(BACKBONES)}; got {name}.")
    address = record.weights_url if url is None else url
    if not address.startswith(("https://", "http://")):
        raise ParameterInvalid(f"`url` of weights must begin with https:// or http://; got {address}.")
    target = folder / record.weights_file
    if target.is_file() and _file_begins(target, record.weights_sha256_prefix):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    handle, part_name = tempfile.mkstemp(dir=folder, prefix=record.weights_file, suffix=".part")
    part = Path(part_name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest, size = _download(address, file.write, opener, progress)
            file.flush()
            os.fsync(file.fileno())
        if not digest.startswith(record.weights_sha256_prefix):
            raise WeightsDamaged(
                f"`weights` of backbone `{name}` must have a SHA-256 that begins with "
                f"{record.weights_sha256_prefix}; got {digest[:16]} in {size} bytes from {address}."
            )
        note = {"file": record.weights_file, "sha256": digest, "bytes": size, "url": address}
        _write_whole(folder / f"{record.weights_file}.json", json.dumps(note, indent=2) + "\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(folder)
    return target


def _download(
    address: str, write: Callable[[bytes], object], opener: Opener, progress: Progress | None
) -> tuple[str, int]:
    """SHA-256 in hex and number of the bytes written."""
    digest, size = hashlib.sha256(), 0
    try:
        with opener(address) as response:
            announced = response.getheader("Content-Length")
            total = int(announced) if announced is not None and announced.isdigit() else None
            while chunk := response.read(_CHUNK_BYTES):
                write(chunk)
                digest.update(chunk)
                size += len(chunk)
                if progress is not None:
                    progress(size, total)
    except (OSError, http.client.HTTPException) as error:  # URLError, HTTPError and timeouts are OSErrors
        raise WeightsMissing(
            f"`weights` must be reachable at {address}; got {error} after {size} bytes. Where this machine "
            f"has no "
            "network, copy the file into the weights folder yourself."
        ) from error
    if total is not None and size != total:
        raise WeightsMissing(f"`weights` must arrive whole from {address}; got {size} of {total} bytes.")
    return digest.hexdigest(), size


def _file_begins(path: Path, prefix: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(prefix)


def _write_whole(path: Path, text: str) -> None:
    handle, part_name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    part = Path(part_name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only when the folder that holds the name is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
