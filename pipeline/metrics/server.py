"""Serves the metrics over HTTP where the settings say."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from pipeline.metrics.collector import CityCollector
from pipeline.store import Store
from schemas.errors import UsageError


def listening_address(setting: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, [HOST]:PORT, or PORT, which is on loopback. Raises UsageError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]:|([^\s:/\[\]]+):)?(\d{1,5})", setting)
    if found is None or not 0 < int(found[3]) < 65_536:
        raise UsageError(f"URBAN_REID_METRICS: {setting[:60]!r} is no address; write 127.0.0.1:9464")
    return found[1] or found[2] or "127.0.0.1", int(found[3])


@contextmanager
def serving_metrics(store: Store) -> Iterator[None]:
    """Serves http://HOST:PORT/metrics until the block ends; nothing without the setting.

    Raises UsageError for an address that cannot be listened on.
    """
    setting = store.settings.metrics
    if setting is None:
        yield
        return
    host, port = listening_address(setting)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CityCollector(store))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"URBAN_REID_METRICS: cannot listen on {setting}: {error.strerror or error}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
