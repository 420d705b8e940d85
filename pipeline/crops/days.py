"""A day of a district as a whole: its key, its crops and its context frames."""

from datetime import date

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore
from pipeline.encryption.data_keys import DataKeys
from schemas.settings import Settings


def destroy_day(settings: Settings, owner: str, day: date) -> int:
    """Destroys the key of a day and removes the day's pictures and context frames; how many files there were.

    owner: a district's code, or PROBES. The key goes first: killed after that, no picture of the day can be read, here
    or in a copy of the files, and the next call removes what is left. Nothing may be taken in meanwhile
    (`pipeline.store.locks.lock_crops`). Rows are the caller's. Raises HomeError.
    """
    stores = CropStore(settings), context_store(settings)
    with stores[0].errors():
        DataKeys(settings).destroy(owner, day)
        return sum(store.files.remove_below(f"{owner}/{day.isoformat()}") for store in stores)
