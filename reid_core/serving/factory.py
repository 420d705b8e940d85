"""Opens a core: the core process of `urban-reid up` where it answers, else one in this process.

Importing this module loads no torch.
"""

from pathlib import Path

from reid_core.files import read_card
from reid_core.serving.core import ReIDCore
from reid_core.serving.remote import RemoteCore
from schemas.settings import Settings


def open_core(settings: Settings, model_directory: Path) -> ReIDCore:
    """The core for a model directory: the home's core process where it has this model, else one in this process.

    Raises ModelFileError.
    """
    remote = RemoteCore.connect(settings, read_card(model_directory))
    if remote is not None:
        return remote
    from reid_core.serving.local import LocalCore

    return LocalCore.open(settings, model_directory)
