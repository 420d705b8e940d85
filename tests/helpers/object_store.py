"""An object store on loopback: moto's server, which speaks S3."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from moto.server import ThreadedMotoServer

BUCKET = "city"


@contextmanager
def object_store() -> Iterator[ThreadedMotoServer]:
    """Serves BUCKET, which clients of this process find by their environment. Other prefixes may hold something."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        with patch.dict(os.environ, found):
            from s3fs import S3FileSystem

            S3FileSystem.clear_instance_cache()  # a client keeps the address that it found first
            store = S3FileSystem(use_listings_cache=False)
            if not store.exists(BUCKET):
                store.mkdir(BUCKET)
            yield server
    finally:
        server.stop()
