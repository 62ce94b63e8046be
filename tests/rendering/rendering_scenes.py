"""Meshes and cameras for the rendering tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

GOLDEN_SCENES = ("sphere", "soup", "torus_offcentre", "head")


def shared_folder() -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("RECON3D_SHARED", default))


def golden(scene: str) -> dict[str, torch.Tensor]:
    """One scene of the numbers printed by PyTorch3D 0.7.9."""
    path = shared_folder() / "data" / "pytorch3d_golden" / "golden.npz"
    if not path.exists():
        pytest.skip("shared/data/pytorch3d_golden is not here")
    with np.load(path) as data:
        values = {k.split("/")[1]: data[k] for k in data.files if k.startswith(scene + "/")}
    return {name: torch.from_numpy(np.asarray(value)) for name, value in values.items()}


def icosphere(subdivisions: int = 2, radius: float = 50.0, dtype=torch.float64):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return torch.tensor(np.array(mesh.vertices), dtype=dtype), torch.tensor(np.array(mesh.faces))


def soup(count: int, seed: int = 0, dtype=torch.float64):
    """Loose triangles that pierce one another."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-60, 60, (count, 1, 3))
    vertices = (centres + rng.normal(0, 18, (count, 3, 3))).reshape(-1, 3)
    return torch.tensor(vertices, dtype=dtype), torch.arange(3 * count).reshape(-1, 3)


def camera(size=(40, 48), views: int = 1, seed: int = 1, dtype=torch.float64, distance=450.0):
    """K, R, t of cameras that look at the origin from about `distance` mm, with a little skew."""
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    height, width = size
    K, R, t = [], [], []
    for _ in range(views):
        f = rng.uniform(2.4, 3.2) * width
        K.append(
            [
                [f, 0.01 * f, width / 2 + rng.uniform(-2, 2)],
                [0, 1.05 * f, height / 2 + rng.uniform(-2, 2)],
                [0, 0, 1],
            ]
        )
        R.append(Rotation.from_rotvec(rng.normal(0, 0.4, 3)).as_matrix())
        t.append([*rng.normal(0, 6, 2), distance])
    return tuple(torch.tensor(np.array(x), dtype=dtype) for x in (K, R, t))
