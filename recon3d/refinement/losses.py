"""What the generator and its critics are trained to lower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def charbonnier(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of a smooth absolute difference.

    Parameters
    ----------
    a, b : (N, C, H, W); weight : (N, 1, H, W)
    """
    error = torch.sqrt((a - b) ** 2 + 1e-6)
    return (error * weight).sum() / (weight.sum() * a.shape[1]).clamp(min=1e-6)


def gradient_difference(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference of horizontal and vertical differences of pixels."""
    d = a - b
    across = (d[..., 1:] - d[..., :-1]).abs() * weight[..., 1:]
    down = (d[..., 1:, :] - d[..., :-1, :]).abs() * weight[..., 1:, :]
    return (across.sum() + down.sum()) / (2 * weight.sum() * a.shape[1]).clamp(min=1e-6)


def structure(a: Tensor, b: Tensor, weight: Tensor, sigma: float = 1.5) -> Tensor:
    """One minus the structural similarity of luminances [1]_, weighted.

    References
    ----------
    .. [1] Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from
       error visibility to structural similarity, IEEE TIP 13(4), 2004.
    """
    share = a.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    a, b = (a * share).sum(1, keepdim=True), (b * share).sum(1, keepdim=True)
    x = torch.arange(-5, 6, device=a.device, dtype=a.dtype)
    line = torch.exp(-0.5 * (x / sigma) ** 2)
    line = line / line.sum()

    def blur(image: Tensor) -> Tensor:
        image = F.conv2d(image, line.view(1, 1, 1, -1), padding=(0, 5))
        return F.conv2d(image, line.view(1, 1, -1, 1), padding=(5, 0))

    # Values run over 2.
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    similarity = ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return ((1 - similarity) * weight).sum() / weight.sum().clamp(min=1e-6)


def bands(a: Tensor, b: Tensor, weight: Tensor, levels: int = 4) -> Tensor:
    """Difference of the bands of a Laplacian pyramid [1]_, each relative to its strength.

    Coarse bands hold little of a pixel loss and much of who somebody is. The finest is left to the
    gradients and the critics.

    Parameters
    ----------
    a, b : (N, C, H, W); weight : (N, 1, H, W)
        Sides divisible by 2 to the number of levels.

    References
    ----------
    .. [1] P. J. Burt, E. H. Adelson, The Laplacian pyramid as a compact image code, IEEE
       Transactions on Communications 31(4), 1983.
    """
    parts = []
    for level in range(levels):
        coarse_a, coarse_b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        if level:
            band_a, band_b = (
                x - F.interpolate(y, scale_factor=2, mode="bilinear")
                for x, y in ((a, coarse_a), (b, coarse_b))
            )
            size = (band_b.abs() * weight).sum() + 1e-6
            parts.append(((band_a - band_b).abs() * weight).sum() / size)
        a, b, weight = coarse_a, coarse_b, F.avg_pool2d(weight, 2)
    return torch.stack(parts).mean()


def structure_of_scales(a: Tensor, b: Tensor, weight: Tensor, levels: int = 3) -> Tensor:
    """`structure` at full size, at half of it, and so on; the mean [1]_.

    References
    ----------
    .. [1] Z. Wang, E. P. Simoncelli, A. C. Bovik, Multiscale structural similarity for image
       quality assessment, Asilomar Conference on Signals, Systems and Computers, 2003.
    """
    parts = []
    for _ in range(levels):
        parts.append(structure(a, b, weight))
        a, b, weight = (F.avg_pool2d(x, 2) for x in (a, b, weight))
    return torch.stack(parts).mean()


def likelihood(error: Tensor, log_variance: Tensor) -> Tensor:
    """Negative log-likelihood of errors under the predicted variance [1]_.

    Parameters
    ----------
    error : (N, 3, H, W), taken as given: the picture is not made worse to be predictable
    log_variance : (N, 1, H, W)

    References
    ----------
    .. [1] A. Kendall, Y. Gal, What uncertainties do we need in Bayesian deep learning for computer
       vision?, NeurIPS 2017.
    """
    square = (error.detach() ** 2).mean(1, keepdim=True)
    return 0.5 * (square * torch.exp(-log_variance) + log_variance).mean()


def fool(verdicts: list[list[Tensor]]) -> Tensor:
    """The generator's non-saturating loss, mean over critics."""
    return torch.stack([F.softplus(-v[-1].float()).mean() for v in verdicts]).mean()


def tell_apart(real: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """The critics' logistic loss, mean over critics."""
    return torch.stack(
        [
            F.softplus(-r[-1].float()).mean() + F.softplus(m[-1].float()).mean()
            for r, m in zip(real, made)
        ]
    ).mean()


def match_features(real: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of the critics' features relative to their size [1]_.

    References
    ----------
    .. [1] T.-C. Wang et al., High-resolution image synthesis and semantic manipulation with
       conditional GANs, CVPR 2018.
    """
    parts = [
        (r.detach().float() - m.float()).abs().mean() / (r.detach().float().abs().mean() + 1e-3)
        for critic_r, critic_m in zip(real, made)
        for r, m in zip(critic_r[:-1], critic_m[:-1])
    ]
    return torch.stack(parts).mean()


def r1_penalty(verdicts: list[list[Tensor]], picture: Tensor) -> Tensor:
    """Mean squared gradient of the critics at real pictures [1]_.

    References
    ----------
    .. [1] L. Mescheder, A. Geiger, S. Nowozin, Which training methods for GANs do actually
       converge?, ICML 2018.
    """
    total = sum(v[-1].float().mean((1, 2, 3)).sum() for v in verdicts)
    (gradient,) = torch.autograd.grad(total, picture, create_graph=True)
    return (gradient**2).sum((1, 2, 3)).mean()


def other_person(real: list[Tensor], made: list[Tensor]) -> Tensor:
    """Mean distance of face descriptors [1]_.

    Parameters
    ----------
    real, made : list of Tensor
        What a face descriptor's network finds in the two pictures; the (N, D) descriptors last.

    References
    ----------
    .. [1] R. Huang, S. Zhang, T. Li, R. He, Beyond face rotation: global and local perception GAN
       for photorealistic and identity preserving frontal view synthesis, ICCV 2017.
    """
    difference = real[-1].detach().float() - made[-1].float()
    return torch.sqrt((difference**2).sum(1) + 1e-6).mean()
