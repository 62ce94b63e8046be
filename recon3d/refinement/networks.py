"""Generator and discriminators.

The generator is a residual U-Net [1]_ that works on 2x2 blocks of pixels [2]_; it adds to the
picture rather than making one, and starts as the identity. Discriminators judge patches [3]_, of
the whole picture at two sizes and of eyes, mouth and nose by themselves.

References
----------
.. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image
   segmentation, MICCAI 2015.
.. [2] W. Shi et al., Real-time single image and video super-resolution using an efficient
   sub-pixel convolutional neural network, CVPR 2016.
.. [3] P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, Image-to-image translation with conditional
   adversarial networks, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d.checks import check_shape
from recon3d.refinement.conditioning import CHANNELS

IN_CHANNELS = sum(CHANNELS.values())
WIDTHS = (64, 96, 144, 192)
"""Channels at a half, a quarter, an eighth and a sixteenth of the working size."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input; the second starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class Generator(nn.Module):
    """Picture and guides in; the refined picture and its log-variance out.

    Parameters
    ----------
    widths : tuple of int
        Channels of each level, finest first.
    blocks : int or sequence of int
        Residual blocks of a level on the way down, and as many on the way up; one number for all
        levels, or one each. The deepest level has no way up.

    Raises
    ------
    ValueError
        If there are not as many numbers of blocks as levels.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, blocks: int | Sequence[int] = 2):
        super().__init__()
        counts = (blocks,) * len(widths) if isinstance(blocks, int) else tuple(blocks)
        if len(counts) != len(widths):
            raise ValueError(
                f"expected one number of blocks a level, {len(widths)}, got {len(counts)}"
            )
        self.widths, self.blocks = tuple(widths), counts
        self.entry = nn.Conv2d(4 * IN_CHANNELS, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.narrow = nn.ModuleList()
        self.up = nn.ModuleList()
        self.widen = nn.ModuleList()
        self.merge = nn.ModuleList()
        for level, (width, count) in enumerate(zip(widths, counts, strict=True)):
            self.down.append(nn.Sequential(*(ResidualBlock(width) for _ in range(count))))
            if level + 1 < len(widths):
                deeper = widths[level + 1]
                self.narrow.append(nn.Conv2d(width, deeper, 4, stride=2, padding=1))
                self.widen.append(nn.Conv2d(deeper, width, 1))
                self.merge.append(nn.Conv2d(2 * width, width, 1))
                self.up.append(nn.Sequential(*(ResidualBlock(width) for _ in range(count))))
        self.exit = nn.Conv2d(widths[0], 4 * 4, 3, padding=1)
        nn.init.normal_(self.exit.weight, std=1e-3)
        nn.init.zeros_(self.exit.bias)

    def grow_from(self, smaller: Generator) -> None:
        """Take the weights of a network with as many blocks or fewer, and do what it does.

        A block adds nothing before it has learned something, so that those which the smaller
        network lacks change no answer [1]_.

        Parameters
        ----------
        smaller : Generator
            Of the same widths. Blocks that it lacks stay as they were made.

        Raises
        ------
        ValueError
            If it is wider, narrower or has more blocks anywhere.

        References
        ----------
        .. [1] T. Chen, I. Goodfellow, J. Shlens, Net2Net: accelerating learning via knowledge
           transfer, ICLR 2016.
        """
        fewer = all(a <= b for a, b in zip(smaller.blocks, self.blocks, strict=False))
        if smaller.widths != self.widths or not fewer:
            raise ValueError(
                f"a network of widths {self.widths} and blocks {self.blocks} cannot grow from one "
                f"of widths {smaller.widths} and blocks {smaller.blocks}"
            )
        state = {key: value.float() for key, value in smaller.state_dict().items()}
        self.load_state_dict(state, strict=False)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Refine.

        Parameters
        ----------
        inputs : (N, 15, H, W) in [-1, 1], sides divisible by 2 to the number of levels

        Returns
        -------
        picture : (N, 3, H, W), about [-1, 1]
        log_variance : (N, 1, H, W), of the picture's values
        """
        check_shape(inputs, f"N {IN_CHANNELS} H W", "inputs")
        x = self.entry(F.pixel_unshuffle(inputs, 2))
        kept = []
        for level, body in enumerate(self.down):
            x = body(x)
            if level < len(self.narrow):
                kept.append(x)
                x = self.narrow[level](x)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.widen[level](x), scale_factor=2, mode="nearest")
            x = self.up[level](self.merge[level](torch.cat([x, kept[level]], 1)))
        out = F.pixel_shuffle(self.exit(F.silu(x)), 2).float()
        # Bounded softly: nothing in a picture varies by less than 1 or more than 100 of 255.
        log_variance = -4.8 + 4.6 * torch.tanh(out[:, 3:] / 4.6)
        return inputs[:, :3].float() + out[:, :3], log_variance


class PatchDiscriminator(nn.Module):
    """Judges patches; returns the features of every layer, the verdict last.

    Parameters
    ----------
    channels : int
        Of its input.
    widths : tuple of int
        Channels of its layers, each at half the size of the one before.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = (32, 64, 128, 160)):
        super().__init__()
        layers = []
        for before, after in zip((channels, *widths[:-1]), widths):
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
        self.layers = nn.ModuleList(layers)
        self.verdict = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.verdict(x)]


class Discriminators(nn.Module):
    """All critics of one picture: two sizes of the whole, an eye (either), the mouth, the nose."""

    EYE, MOUTH, NOSE = 48, 64, 48
    """Sides of the crops, px of the working size."""

    def __init__(self):
        super().__init__()
        self.fine = PatchDiscriminator(6)
        self.coarse = PatchDiscriminator(6)
        self.eye = PatchDiscriminator(3, (32, 64, 96))
        self.mouth = PatchDiscriminator(3, (32, 64, 96))
        self.nose = PatchDiscriminator(3, (32, 64, 96))

    def forward(self, picture: Tensor, given: Tensor, places: Tensor) -> list[list[Tensor]]:
        """Judge.

        Parameters
        ----------
        picture : (N, 3, H, W) in [-1, 1]
        given : (N, 3, H, W)
            The picture that was refined.
        places : (N, 4, 2) px
            Middles of the right eye, the left eye, the mouth and the nostrils.

        Returns
        -------
        list over critics of lists of features, the verdict last
        """
        both = torch.cat([picture, given], 1)
        right = crop(picture, places[:, 0], self.EYE)
        left = crop(picture, places[:, 1], self.EYE).flip(-1)
        return [
            self.fine(both),
            self.coarse(F.avg_pool2d(both, 2)),
            self.eye(torch.cat([right, left])),
            self.mouth(crop(picture, places[:, 2], self.MOUTH)),
            self.nose(crop(picture, places[:, 3], self.NOSE)),
        ]


def crop(pictures: Tensor, places: Tensor, side: int) -> Tensor:
    """Squares about places, moved inside where they would reach out.

    Parameters
    ----------
    pictures : (N, C, H, W)
    places : (N, 2) px, x and y
    side : int

    Returns
    -------
    (N, C, side, side)
    """
    height, width = pictures.shape[-2:]
    cut = []
    for picture, (x, y) in zip(pictures, places.tolist()):
        left = int(min(max(round(x - side / 2), 0), width - side))
        top = int(min(max(round(y - side / 2), 0), height - side))
        cut.append(picture[:, top : top + side, left : left + side])
    return torch.stack(cut)
