"""Opens a core: in the core process of `urban-reid up` if it answers, otherwise in this process.

Importing this module loads no torch.
"""

from pathlib import Path

from reid_core.files import open_space, read_card
from reid_core.serving.arithmetic import check_arithmetic
from reid_core.serving.core import ReIDCore
from reid_core.serving.remote import RemoteCore
from schemas.settings import Settings


def open_core(settings: Settings, model_directory: Path) -> ReIDCore:
    """The core for a model directory, in the home's core process if that has this model, otherwise in this process.

    Raises ModelFileError, and CoreError if the model cannot be opened here or would not be computed as it is kept.
    """
    card = read_card(model_directory)
    check_arithmetic(settings, card)
    remote = RemoteCore.connect(settings, card, open_space(model_directory, card))
    if remote is not None:
        return remote
    from reid_core.serving.local import LocalCore

    return LocalCore.open(settings, model_directory)
