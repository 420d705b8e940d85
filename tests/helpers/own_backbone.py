"""A backbone of a user's own, in a package that is installed in a folder."""

from pathlib import Path

#: A network that folding would change: its BatchNorm is declared behind the convolution and computed before it.
SOURCE = """
import torch
from torch import nn

from reid_core.backbones import register_backbone


class Tiny(nn.Module):
    dims = 8

    def __init__(self, size):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return torch.relu(self.conv(self.norm(images)))


@register_backbone("mynet-by-decorator")
class Decorated(Tiny):
    pass
"""


def install_backbone(folder: Path, **entry_points: str) -> Path:
    """A folder for sys.path or PYTHONPATH with the module `mynet`, and entry points of `urban_reid.backbones`."""
    points = entry_points or {"mynet": "mynet:Tiny"}
    described = folder / "mynet-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: mynet\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (described / "entry_points.txt").write_text(f"[urban_reid.backbones]\n{lines}")
    (folder / "mynet.py").write_text(SOURCE)
    return folder
