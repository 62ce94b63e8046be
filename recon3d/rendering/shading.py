"""Diffuse light as spherical harmonics of order 2.

References
----------
Ramamoorthi and Hanrahan, An efficient representation for irradiance environment maps, SIGGRAPH
2001.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recon3d.checks import check_shape

# What the clamped cosine leaves of each order, over pi: 1, 2/3, 1/4 (their equation 8).
_COSINE = (1.0, *(2 / 3,) * 3, *(1 / 4,) * 5)


def spherical_harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics up to order 2.

    Parameters
    ----------
    directions : (..., 3), unit vectors

    Returns
    -------
    (..., 9)
        In the order (0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2);
        orthonormal over the sphere.
    """
    check_shape(directions, "... 3", "directions")
    x, y, z = directions.unbind(-1)
    first = math.sqrt(3 / (4 * math.pi))
    second = math.sqrt(15 / (4 * math.pi))
    return torch.stack(
        [
            torch.full_like(x, 0.5 / math.sqrt(math.pi)),
            first * y,
            first * z,
            first * x,
            second * x * y,
            second * y * z,
            math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
            second * x * z,
            second / 2 * (x * x - y * y),
        ],
        -1,
    )


def irradiance(
    normals: Tensor,  # (..., 3)
    light: Tensor,  # (9, C) or broadcastable (..., 9, C)
) -> Tensor:
    """Irradiance over pi: what a white diffuse surface sends back under distant light.

    Parameters
    ----------
    normals : (..., 3), unit
    light : (9, C) or (..., 9, C)
        Coefficients of the incoming radiance, per colour; leading axes broadcast against those of
        the normals, so that one light a view is (N, 1, 1, 9, C) for normals (N, H, W, 3).

    Returns
    -------
    (..., C), linear. Constant radiance 1 gives 1. May be negative where the light is not
    physical; it is not clamped, so that it stays linear in the light.
    """
    check_shape(light, "... 9 C", "light")
    basis = spherical_harmonics(normals) * normals.new_tensor(_COSINE)
    if light.ndim == 2:
        return basis @ light
    return (basis[..., None, :] @ light)[..., 0, :]


def irradiance_adjoint(normals: Tensor, grad: Tensor) -> Tensor:
    """The transpose of `irradiance` in the light: (..., 3) and (..., C) to (9, C), summed."""
    check_shape(normals, "... 3", "normals")
    basis = spherical_harmonics(normals) * normals.new_tensor(_COSINE)
    return basis.reshape(-1, 9).mT @ grad.reshape(-1, grad.shape[-1])


def shade(albedo: Tensor, normals: Tensor, light: Tensor) -> Tensor:
    """Diffuse reflection, linear light.

    Parameters
    ----------
    albedo : (..., C)
    normals : (..., 3), unit
    light : as in `irradiance`

    Returns
    -------
    (..., C)
    """
    return albedo * irradiance(normals, light)
