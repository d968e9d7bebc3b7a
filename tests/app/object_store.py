"""A server that speaks S3, for tests of the image store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from moto.server import ThreadedMotoServer

# What the server takes; none of it is a secret.
KEY, SECRET = "testing", "not-a-secret"


@dataclass(frozen=True)
class ObjectStore:
    """A bucket, with what fsspec needs to reach it."""

    url: str
    options: dict[str, Any]

    def system(self) -> Any:
        """The bucket seen by fsspec, without the service's code between."""
        return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **self.options)


@contextmanager
def object_store(bucket: str) -> Iterator[ObjectStore]:
    """An empty bucket on a server of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"key": KEY, "secret": SECRET, "endpoint_url": f"http://{host}:{port}"}
        store = ObjectStore(f"s3://{bucket}/oddity", options)
        store.system().mkdir(bucket)
        yield store
    finally:
        server.stop()
