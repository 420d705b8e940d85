"""Which place the settings name."""

from pipeline.files.files import Files, Kind
from pipeline.files.folder import Folder
from pipeline.files.object_store import ObjectStore
from schemas.settings import Settings


def open_files(settings: Settings, kind: Kind) -> Files:
    """The files of one kind: of a folder of the data directory, or of the object store of the settings."""
    if settings.pictures_url is None:
        return Folder(settings.home / kind)
    return ObjectStore(f"{settings.pictures_url.rstrip('/')}/{kind}")
