"""OSNet: omni-scale features for person re-identification (Zhou et al., ICCV 2019; -AIN: TPAMI 2021).

Each block computes four streams of one to four light 3x3 convolutions, one per scale. One gate, shared by the streams
(the 'unified aggregation gate'), computes weights for each stream's channels from the picture. Layers have torchreid's
names, pooling and final `fc`, so that its published weights load; with an untrained BNNeck behind it, the feature then
has the direction of the published one. The total stride is the paper's 16, so there is no last stride to remove.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

#: Channels after conv1, conv2, conv3 and conv4.
OSNETS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
}
OSNETS |= {name.replace("osnet", "osnet_ain"): channels for name, channels in OSNETS.items()}

#: OSNet-AIN: which of each stage's two blocks use instance normalization (TPAMI 2021, found by architecture search).
INSTANCE_BLOCKS = ((True, True), (False, True), (True, False))


def _convolution(before: int, after: int, kernel: int = 1, *, relu: bool = True, instance: bool = False) -> nn.Module:
    norm = nn.InstanceNorm2d(after, affine=True) if instance else nn.BatchNorm2d(after)
    conv = nn.Conv2d(before, after, kernel, stride=1 if kernel == 1 else 2, padding=kernel // 2, bias=False)
    parts: list[tuple[str, nn.Module]] = [("conv", conv), ("bn", norm)]
    return nn.Sequential(OrderedDict([*parts, ("relu", nn.ReLU())] if relu else parts))


def _light_convolution(channels: int) -> nn.Module:
    """A 3x3 convolution factored into a 1x1 and a depthwise 3x3 convolution (paper, section 3.1)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, channels, 1, bias=False),
            conv2=nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            bn=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
        )
    )


def _stream(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_light_convolution(channels) for _ in range(depth)))


def _gate(channels: int, reduction: int = 16) -> nn.Module:
    """Channel weights of a stream, (B, c, H, W) -> (B, c, 1, 1) in 0..1 (paper, section 3.2)."""
    return nn.Sequential(
        OrderedDict(
            global_avgpool=nn.AdaptiveAvgPool2d(1),
            fc1=nn.Conv2d(channels, channels // reduction, 1),
            relu=nn.ReLU(),
            fc2=nn.Conv2d(channels // reduction, channels, 1),
            gate_activation=nn.Sigmoid(),
        )
    )


class OSBlock(nn.Module):
    """Streams of four scales around a shortcut, (B, c, H, W) -> (B, channels, H, W) (paper, figure 4)."""

    def __init__(self, before: int, channels: int, *, adaptive: bool, instance: bool) -> None:
        """`adaptive`: name the streams as OSNet-AIN does. `instance`: add an instance normalization to the residual."""
        super().__init__()
        inner = channels // 4
        self.conv1 = _convolution(before, inner)
        self.adaptive = adaptive
        if adaptive:
            self.conv2 = nn.ModuleList(
                nn.Sequential(OrderedDict(layers=_stream(inner, depth))) for depth in (1, 2, 3, 4)
            )
        else:
            self.conv2a = _light_convolution(inner)
            self.conv2b = _stream(inner, 2)
            self.conv2c = _stream(inner, 3)
            self.conv2d = _stream(inner, 4)
        self.gate = _gate(inner)
        if instance:
            self.conv3: nn.Module = nn.Sequential(OrderedDict(conv=nn.Conv2d(inner, channels, 1, bias=False)))
        else:
            self.conv3 = _convolution(inner, channels, relu=False)
        self.downsample = None if before == channels else _convolution(before, channels, relu=False)
        self.IN = nn.InstanceNorm2d(channels, affine=True) if instance else None

    def forward(self, maps: Tensor) -> Tensor:
        narrow = self.conv1(maps)
        streams = self.conv2 if self.adaptive else (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        mixed: Tensor | None = None
        for stream in streams:
            found = stream(narrow)
            gated = self.gate(found) * found
            mixed = gated if mixed is None else mixed + gated
        added = self.conv3(mixed)
        if self.IN is not None:
            added = self.IN(added)
        return torch.relu_(added + (maps if self.downsample is None else self.downsample(maps)))


class OSNet(nn.Module):
    """The whole network with pooling and `fc`, (B, 3, H, W) -> (B, 512, 1, 1)."""

    dims = 512
    pooled = True

    def __init__(self, architecture: str) -> None:
        super().__init__()
        channels = OSNETS[architecture]
        adaptive = "_ain_" in architecture

        def stage(number: int) -> list[nn.Module]:
            before, after = channels[number], channels[number + 1]
            first, second = INSTANCE_BLOCKS[number] if adaptive else (False, False)
            return [
                OSBlock(before, after, adaptive=adaptive, instance=first),
                OSBlock(after, after, adaptive=adaptive, instance=second),
            ]

        def transition(width: int) -> nn.Sequential:
            return nn.Sequential(_convolution(width, width), nn.AvgPool2d(2, stride=2))

        self.conv1 = _convolution(3, channels[0], 7, instance=adaptive)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        # In OSNet the transition is the last layer of a stage, in OSNet-AIN a layer beside it.
        if adaptive:
            self.conv2, self.pool2 = nn.Sequential(*stage(0)), transition(channels[1])
            self.conv3, self.pool3 = nn.Sequential(*stage(1)), transition(channels[2])
        else:
            self.conv2, self.pool2 = nn.Sequential(*stage(0), transition(channels[1])), nn.Sequential()
            self.conv3, self.pool3 = nn.Sequential(*stage(1), transition(channels[2])), nn.Sequential()
        self.conv4 = nn.Sequential(*stage(2))
        self.conv5 = _convolution(channels[3], channels[3])
        self.fc = nn.Sequential(nn.Linear(channels[3], self.dims), nn.BatchNorm1d(self.dims), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.conv1(images))
        maps = self.pool3(self.conv3(self.pool2(self.conv2(maps))))
        maps = self.conv5(self.conv4(maps))
        vectors: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return vectors[:, :, None, None]
