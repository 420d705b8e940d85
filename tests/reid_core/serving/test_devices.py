import subprocess
import sys

import pytest
import torch

from reid_core.serving.devices import use_bfloat16
from schemas.settings import Settings

#: In a process of its own, since torch's flags are the process's.
FLAGS = """
import torch
from reid_core.serving.devices import choose_device
from schemas.settings import Settings
torch.set_float32_matmul_precision("high")
choose_device(Settings(device="cpu"))
assert torch.get_float32_matmul_precision() == "highest"
assert "tf32" not in (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision)
with torch.backends.cudnn.flags(enabled=True):  # reads the older flags
    print("float32")
"""


def test_float32_is_float32_on_cuda_too() -> None:
    done = subprocess.run([sys.executable, "-c", FLAGS], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "float32\n", done.stderr


def test_bfloat16_where_the_processor_has_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, tiles in (({"amx_tile": True}, True), ({"amx_tile": False}, False), ({"neon": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert use_bfloat16(Settings(), torch.device("cpu")) is tiles
