"""TransReID's side information and jigsaw branch (He et al., ICCV 2021, sections 3.2 and 3.3) on a vision transformer.

An embedding of the camera, times 3, is added to each token. The transformer's last block is there twice: one gives the
feature of the whole picture, the other that of each of four groups of patches, each group with the class token. The
patches are shifted by five and shuffled first, so that each group has patches from all over the picture. Viewpoints,
which few data sets state, have no embedding here.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from reid_core.backbones.timm_nets import TimmNet
from schemas.errors import UsageError

CAMERA_WEIGHT = 3.0
SHIFT = 5
GROUPS = 4
#: Vectors in all: of the picture, and of each group.
PARTS = 1 + GROUPS


class Jigsaw(nn.Module):
    """(B, 3, H, W), cameras (B,) or None -> (B, 5 * D, 1, 1): the vector of the picture, then of each group."""

    pooled = True

    def __init__(self, net: nn.Module, architecture: str, cameras: int) -> None:
        """Takes over the layers of `net`, with their weights. `cameras`: how many have an embedding.

        Raises UsageError unless `net` is a transformer of timm with one class token.
        """
        super().__init__()
        inner: Any = net.net if isinstance(net, TimmNet) else None
        if not _has_plain_tokens(inner):
            raise UsageError(
                f"TransReID needs one of timm's vision transformers with a class token, such as "
                f"timm:vit_base_patch16_224; {architecture} is none"
            )
        self.patch_embed, self.cls_token, self.pos_embed = inner.patch_embed, inner.cls_token, inner.pos_embed
        *before, last = inner.blocks
        self.blocks = nn.Sequential(*before)
        self.whole = nn.Sequential(last, inner.norm)
        self.group = copy.deepcopy(self.whole)
        width = int(inner.embed_dim)
        self.camera_embeddings = nn.Parameter(torch.empty(cameras, width))
        nn.init.trunc_normal_(self.camera_embeddings, std=0.02)
        self.register_buffer("groups", _groups(inner.pos_embed.shape[1] - 1), persistent=False)
        self.dims = PARTS * width

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """`cameras` (B,): row of each picture's camera embedding, -1 for an unknown camera; None: all are unknown.

        An unknown camera has the mean of all embeddings.
        """
        patches = self.patch_embed(images)  # (B, N, D)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        if len(self.camera_embeddings):
            mean = self.camera_embeddings.mean(0, keepdim=True)
            known = torch.cat([self.camera_embeddings, mean])  # its last row, which is row -1, is the mean
            tokens = tokens + CAMERA_WEIGHT * (mean[None] if cameras is None else known[cameras][:, None])
        tokens = self.blocks(tokens)
        parts = [self.whole(tokens)[:, 0]]
        for rows in self.groups:  # type: ignore[union-attr]
            parts.append(self.group(torch.cat([tokens[:, :1], tokens[:, 1 + rows]], dim=1))[:, 0])
        return torch.cat(parts, dim=1)[:, :, None, None]

    def only(self, camera: int) -> None:
        """Drops the other cameras' embeddings: pictures of cameras that are not stated are then taken to be of this."""
        self.camera_embeddings = nn.Parameter(self.camera_embeddings.detach()[camera : camera + 1].clone())


def _has_plain_tokens(net: Any) -> bool:
    if type(net).__name__ != "VisionTransformer" or getattr(net, "num_prefix_tokens", 0) != 1:
        return False
    plain = net.pos_embed is not None and net.pos_embed.shape[1] == 1 + net.patch_embed.num_patches
    return bool(plain and isinstance(net.norm_pre, nn.Identity) and isinstance(net.patch_drop, nn.Identity))


def _groups(patches: int) -> Tensor:
    """The patches of each group, (GROUPS, n): shifted, written in GROUPS rows, read by columns, and cut.

    Where GROUPS does not divide their number, the last patch of the shifted ones is there several times.
    """
    shifted = torch.arange(patches).roll(-SHIFT)
    filled = torch.cat([shifted, shifted[-1:].expand(-patches % GROUPS)])
    return filled.view(GROUPS, -1).T.reshape(GROUPS, -1)
