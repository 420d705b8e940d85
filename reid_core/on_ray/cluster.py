"""Ray with the token of this home: started on this machine's loopback, or a cluster that is joined."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid_core.serving.extras import load_extra
from reid_core.serving.token import make_secret, secret_of
from schemas.addresses import is_private
from schemas.errors import CoreError
from schemas.settings import Settings

#: Whoever has it can run any code in the cluster, so it is another one than that of callers.
FILE = "ray-token"
#: Shared memory for requests on their way to replicas, bytes for each of the most replicas.
OBJECTS_BYTES = 2**30
_MEMORY = Path("/dev/shm")  # noqa: S108 # nosec B108


@contextmanager
def ray_serve(settings: Settings) -> Iterator[None]:
    """Ray Serve without its own HTTP, until the block ends.

    Raises CoreError if Ray is not installed, does not start or does not answer, would put pictures on a disk, or a host
    of the cluster has an address that is neither loopback nor private; HomeError if the token cannot be read.
    """
    path = settings.home / FILE
    make_secret(path)
    secret_of(path)
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(path.absolute()),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if settings.ray_address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on any system: nodes on loopback alone
    ray, serve = load_extra("ray"), load_extra("ray.serve", "ray")
    folder = tempfile.mkdtemp(prefix="urban-reid-ray-")  # a home's path may be too long for the sockets in it
    try:
        try:
            _connect(ray, settings, folder)
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CoreError(f"Ray does not start, or does not answer at {settings.ray_address}: {reason}") from None
        for node in ray.nodes():
            address = str(node["NodeManagerAddress"])
            if node["Alive"] and not is_private(address):
                raise CoreError(
                    f"a host of the Ray cluster is at {address}, which is no private address: pictures would go to it "
                    "unencrypted; start its node with --node-ip-address"
                )
        if settings.ray_address is not None and _spills(ray):
            raise CoreError(
                f"the Ray cluster at {settings.ray_address} puts objects on disks when its memory is full, among them "
                "pictures of people",
                do="start its head with --system-config='{\"automatic_object_spilling_enabled\":false}'",
            )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING", "enable_access_log": False})
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: "object", settings: Settings, folder: str) -> None:
    common = {"log_to_driver": False, "logging_level": logging.WARNING}
    if settings.ray_address is not None:
        ray.init(address=settings.ray_address, **common)  # type: ignore[attr-defined]
        return
    needed, free = OBJECTS_BYTES * settings.ray_max_replicas, shutil.disk_usage(_MEMORY).free
    if free < needed:  # Ray would take a folder on a disk in its place
        raise CoreError(
            f"{_MEMORY} has {free / 2**30:.1f} GiB free, and requests to {settings.ray_max_replicas} replicas need "
            f"{needed / 2**30:.0f} GiB of shared memory",
            do="enlarge it (--shm-size of a container), or lower URBAN_REID_RAY_MAX_REPLICAS",
        )
    ray.init(  # type: ignore[attr-defined]
        address="local",
        include_dashboard=False,
        object_store_memory=needed,
        _temp_dir=folder,
        _system_config={"automatic_object_spilling_enabled": False},  # pictures of people go to no disk
        **common,
    )


def _spills(ray: "object") -> bool:
    """Whether the cluster was started so that objects may go to disks, which is what Ray does unless it is told."""
    config = ray._private.state.state.get_system_config()  # type: ignore[attr-defined]
    return bool(config.get("automatic_object_spilling_enabled", True))
