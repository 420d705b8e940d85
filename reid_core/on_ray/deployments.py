"""Which models Ray Serve has: a deployment for each that is asked for, as long as it is asked for.

A model comes up at the first request that names it, beside those that are there, and one that nobody asks for any more
goes. So a promotion, which embeds every crop with the new model before it comes into use, replaces the old one without
a call that fails.
"""

import asyncio
import itertools
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.core_process import detection, embedding
from reid_core.core_process.detection import Result as Detected
from reid_core.core_process.embedding import Result as Computed
from reid_core.core_process.folders import Folders
from reid_core.core_process.places import Places
from reid_core.detection.files import detector_file, digest_of
from reid_core.on_ray.replicas import ONGOING, DetectionReplica, EmbeddingReplica, Refused, settings_of_replica
from reid_core.serving import wire
from schemas.errors import CoreError, CoreUnavailable
from schemas.settings import Settings

#: Begins the names of our applications on Ray Serve.
PREFIX = "urban-reid-"

#: A model that takes longer to come up may find no room, seconds.
_COMES_UP_S = 60.0

_log = logging.getLogger("urban_reid.core")
_numbers = itertools.count(1)


@dataclass
class _Served:
    """A model that was asked for. `handle`: once it is up; `fault`: why it did not come up."""

    name: str
    asked_at: float
    calls: int = 0
    handle: Any = None
    fault: str | None = None
    began_at: float = field(default_factory=time.monotonic)
    told: bool = False  # that it has not come up for long


class Deployments(Places):
    """The deployments of one kind. `most`: requests at a time for each replica; one more is refused."""

    def __init__(self, settings: Settings, kind: str, replica: type, folders: Folders, most: int) -> None:
        super().__init__(most * settings.ray_max_replicas)
        self._settings, self._kind, self._replica, self._folders = settings, kind, replica, folders
        self._served: dict[str, _Served] = {}
        self._lock = threading.Lock()

    def find(self, digest: str) -> None:
        """Has a model come up.

        Raises ModelFileError if the home has none with this digest, CoreUnavailable while it comes up, CoreError if it
        does not.
        """
        self._asked(digest)

    def leave_idle(self) -> None:
        """Ends what nobody has asked for lately, but for the one that was asked for last."""
        with self._lock:
            up = sorted((one.asked_at, digest) for digest, one in self._served.items() if one.handle is not None)
            before = time.monotonic() - self._settings.ray_idle_s
            gone = [
                self._served.pop(digest) for at, digest in up[:-1] if at < before and not self._served[digest].calls
            ]
        for one in gone:
            _delete(one.name)

    def close(self) -> None:
        with self._lock:
            gone = list(self._served.values())
            self._served.clear()
        for one in gone:
            _delete(one.name)

    def call(self, digest: str, method: str, tensor: NDArray[Any]) -> "asyncio.Future[Any]":
        """Begins a call of a model's replicas, whose result is theirs. The caller's place is given back at its end.

        Raises, when it is awaited, as `find`, and what the replica refused; CoreUnavailable if two replicas end on it.
        """
        future = asyncio.ensure_future(self._call(digest, method, tensor))
        future.add_done_callback(lambda _: self.leave())
        return future

    async def _call(self, digest: str, method: str, tensor: NDArray[Any]) -> Any:
        one = await asyncio.to_thread(self._asked, digest)
        one.calls += 1
        try:
            try:
                found = await _result(one.handle, method, tensor)
            except _Lost:  # of a replica that ended; what it computes changes nothing, so another one may
                found = await _result(one.handle, method, tensor)
        finally:
            one.calls -= 1
            one.asked_at = time.monotonic()
        if isinstance(found, Refused):
            raise wire.stated(found.said)
        return found

    def _asked(self, digest: str) -> _Served:
        self._folders.find(digest)
        with self._lock:
            one = self._served.get(digest)
            if one is None:
                name = f"{PREFIX}{self._kind}-{digest[:12]}-{next(_numbers)}"
                one = self._served[digest] = _Served(name, time.monotonic())
                threading.Thread(target=self._deploy, args=(digest, one), name=name, daemon=True).start()
            one.asked_at = time.monotonic()
            if one.fault is not None:
                del self._served[digest]  # the next request tries again
                raise CoreError(one.fault)
        if one.handle is None:
            raise CoreUnavailable(f"{self._kind} {digest[:12]} comes up on Ray Serve{self._room(one)}; try again")
        return one

    def _room(self, one: _Served) -> str:
        """What a model that has not come up for long may wait for; said in the log too, once."""
        if time.monotonic() - one.began_at < _COMES_UP_S:
            return ""
        ours = self._settings
        wants = f"{ours.ray_gpus:g} of a GPU and {ours.ray_cpus:g} cores"
        if not one.told:
            one.told = True
            _log.warning(
                "%s has not come up for %.0f s: is there no room for a replica, %s? `ray status` shows what is taken",
                one.name,
                time.monotonic() - one.began_at,
                wants,
            )
        return f", for which a replica needs {wants}"

    def _deploy(self, digest: str, one: _Served) -> None:
        from ray import serve

        ours = self._settings
        deployment = serve.deployment(self._replica).options(
            name=self._kind,
            ray_actor_options={"num_gpus": ours.ray_gpus, "num_cpus": ours.ray_cpus},
            max_ongoing_requests=ONGOING,
            autoscaling_config={
                "min_replicas": ours.ray_min_replicas,
                "max_replicas": ours.ray_max_replicas,
                "target_ongoing_requests": ONGOING / 2,
            },
            max_constructor_retry_count=1,
        )
        try:
            application = deployment.bind(settings_of_replica(ours), digest)
            one.handle = serve.run(application, name=one.name, route_prefix=None)
        except Exception as error:  # of Ray, whose errors have no narrower base
            reason = _line(error)
            _log.warning("%s %s does not come up: %s", self._kind, digest[:12], reason)
            one.fault = f"{self._kind} {digest[:12]} does not come up on Ray Serve: {reason}"
            _delete(one.name)


class Models(Deployments):
    """The models of a home on Ray Serve, for callers that `reid_core.core_process.application` answers."""

    def __init__(self, settings: Settings) -> None:
        folders = Folders(settings.models_dir, embedding.digest_of)
        super().__init__(settings, "model", EmbeddingReplica, folders, embedding.QUEUE)

    def embed(self, digest: str, pictures: NDArray[np.uint8]) -> "asyncio.Future[Computed]":
        return self.call(digest, "embed", pictures)

    def distances(self, digest: str, pairs: NDArray[np.float64]) -> "asyncio.Future[Computed]":
        return self.call(digest, "distances", pairs)


class ServedDetectors(Deployments):
    """The detectors of a home on Ray Serve, for callers that `reid_core.core_process.application` answers."""

    def __init__(self, settings: Settings) -> None:
        folders = Folders(settings.detectors_dir, lambda folder: digest_of(detector_file(folder)))
        super().__init__(settings, "detector", DetectionReplica, folders, detection.QUEUE)

    def submit(self, digest: str, pictures: NDArray[np.uint8]) -> "asyncio.Future[Detected]":
        return self.call(digest, "find", pictures)


def delete_left_over() -> None:
    """Deletes the applications that a door which was killed left in a cluster."""
    from ray import serve

    for name in serve.status().applications:
        if name.startswith(PREFIX):
            _delete(name)


class _Lost(CoreUnavailable):
    """A replica ended on a call."""


async def _result(handle: Any, method: str, tensor: NDArray[Any]) -> Any:
    """What a replica answers. Raises `_Lost` if it ends, CoreUnavailable if Ray has no room or fails otherwise."""
    from ray.exceptions import RayActorError, RayError
    from ray.serve.exceptions import RayServeException

    response = getattr(handle, method).remote(tensor)
    try:
        return await response
    except asyncio.CancelledError:  # nobody waits for it any more
        response.cancel()
        raise
    except RayActorError as error:
        _log.warning("a replica ended: %s", _line(error))
        raise _Lost("a replica of the core ended; try again") from None
    except (RayError, RayServeException) as error:
        _log.warning("Ray Serve: %s", _line(error))
        raise CoreUnavailable(f"the core on Ray Serve failed: {_line(error)}; try again") from None


def _delete(name: str) -> None:
    from ray import serve

    try:
        serve.delete(name)
    except Exception as error:  # of Ray, whose errors have no narrower base; the cluster may be gone
        _log.warning("%s is not deleted: %s", name, _line(error))


def _line(error: BaseException) -> str:
    """The last line of an error: Ray puts tracebacks before it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[-1].split())[:300]
