"""What one replica of a model does: requests of all callers that wait for it are computed together.

Importing this module loads neither Ray nor an engine.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.core_process.detection import Detectors
from reid_core.core_process.detection import Result as Detected
from reid_core.core_process.embedding import Embedders
from reid_core.core_process.embedding import Result as Computed
from reid_core.detection.detector import PictureInput
from reid_core.serving import wire
from schemas.cores import usable_cores
from schemas.disk import keep_private
from schemas.errors import UrbanReidError
from schemas.settings import Settings

#: Requests that a replica has at a time, of up to `wire.MAX_BODY_BYTES` each; others wait at the door.
ONGOING = 8

_CORE_SETTINGS = {"home", "device", "engine", "precision", "compile", "batch_size", "ray_max_replicas"}


@dataclass(frozen=True)
class Refused:
    """An error for the caller, as `wire.statement` says it. Ray would wrap an exception into its own."""

    said: Mapping[str, str]


@dataclass(frozen=True)
class Described:
    """A detector without its network. The fields are those of `DetectionModel`."""

    input: PictureInput
    sure: float
    name: str


def settings_of_replica(settings: Settings) -> dict[str, Any]:
    """What a replica is told of the settings: no secret, for Ray keeps it in its own store."""
    device = settings.device if settings.ray_gpus else "cpu"
    changed = settings.model_copy(update={"home": settings.home.absolute(), "device": device})  # hosts have one path
    return changed.model_dump(mode="json", include=_CORE_SETTINGS | ({"threads"} & settings.model_fields_set))


def _settings_here(told: Mapping[str, Any]) -> Settings:
    """The settings of a replica on this host. Unless they set threads or a GPU, the host's replicas share its cores."""
    import ray

    found = Settings(**told)
    if "threads" in told or found.device != "cpu":
        return found
    hosts, cores = sum(node["Alive"] for node in ray.nodes()), usable_cores()
    return found.model_copy(update={"threads": min(cores, max(1, cores * hosts // found.ray_max_replicas))})


def _begin() -> None:
    """Closes what this process writes, and where it listens: Serve has each replica listen on all addresses of its host
    for calls of other deployments, which there are none of.
    """
    import ray
    from ray.serve._private import replica

    keep_private()
    add_port, node = replica.add_port_to_grpc_server, ray.util.get_node_ip_address()
    here = f"[{node}]:0" if ":" in node else f"{node}:0"
    replica.add_port_to_grpc_server = lambda server, _: add_port(server, here)


class EmbeddingReplica:
    """One model: features and distances."""

    def __init__(self, settings: Mapping[str, Any], digest: str) -> None:
        """Raises ModelFileError, CoreError if the model cannot be opened on this host."""
        from ray import serve

        _begin()
        self._digest = digest
        self._embedders = Embedders(_settings_here(settings))
        self._embedders.load(digest)
        # No request waits for others to come: those that came while the last batch was computed are the next one.
        together = serve.batch(
            max_batch_size=wire.MAX_BODY_BYTES,
            batch_wait_timeout_s=0.0,
            batch_size_fn=lambda requests: sum(pictures.nbytes for pictures in requests),
        )
        self._embed_together: Callable[[NDArray[np.uint8]], Awaitable[Computed | Refused]] = together(self._embed)

    async def embed(self, pictures: NDArray[np.uint8]) -> Computed | Refused:
        """Features of pictures (n, H, W, 3), which do not depend on what else waits; see `ReIDCore`."""
        return await self._embed_together(pictures)

    async def distances(self, pairs: NDArray[np.float64]) -> Computed | Refused:
        """Distances of pairs (2, n, D); see `ReIDCore`."""
        return await self._compute(self._embedders.distances, pairs)

    async def _embed(self, requests: Sequence[NDArray[np.uint8]]) -> list[Computed | Refused]:
        if len(requests) > 1 and len({pictures.shape[1:] for pictures in requests}) == 1:
            found = await self._compute(self._embedders.embed, np.concatenate(requests))
            if not isinstance(found, Refused):
                features, seconds = found
                ends = np.cumsum([len(pictures) for pictures in requests])[:-1]
                return [(part, seconds * len(part) / len(features)) for part in np.split(features, ends)]
        # One alone, or one of them is refused, and the others shall not be.
        return [await self._compute(self._embedders.embed, pictures) for pictures in requests]

    async def _compute(self, queue: Callable[[str, NDArray[Any]], Any], tensor: NDArray[Any]) -> Computed | Refused:
        try:
            self._embedders.enter()
            found: Computed = await asyncio.wrap_future(queue(self._digest, tensor))
        except UrbanReidError as error:
            return Refused(wire.statement(error))
        return found


class DetectionReplica:
    """One detector."""

    def __init__(self, settings: Mapping[str, Any], digest: str) -> None:
        """Raises ModelFileError, CoreError if the detector cannot be opened on this host."""
        _begin()
        self._digest = digest
        self._detectors = Detectors(_settings_here(settings))
        self._detectors.enter()
        model, _, _ = self._detectors.submit(digest, np.empty((0, 0, 0, 3), np.uint8)).result()
        self._described = Described(model.input, model.sure, model.name)

    async def find(self, pictures: NDArray[np.uint8]) -> Detected | Refused:
        """What the detector finds in each of pictures (n, h, w, 3); none: what it is."""
        try:
            self._detectors.enter()
            _, found, seconds = await asyncio.wrap_future(self._detectors.submit(self._digest, pictures))
        except UrbanReidError as error:
            return Refused(wire.statement(error))
        return self._described, found, seconds
