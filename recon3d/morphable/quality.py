"""Figures of merit of a face model: generalisation, compactness, specificity, intersections.

References
----------
.. [1] M. Styner et al., Evaluation of 3D correspondence methods for model building, IPMI 2003.
"""

from __future__ import annotations

import numpy as np

from recon3d.morphable.photos import PhotoLandmarks
from recon3d.types import FaceModel

COUNTS = (0, 5, 10, 20, 40, 60, 80, 100, 150, 200)


def held_out_figures(model: FaceModel, landmarks: PhotoLandmarks, correction) -> dict:
    """How well unseen people's landmark meshes are reproduced, by number of identity modes.

    Meshes are aligned rigidly and by size, brought to the model's proportions by the same constant
    correction as the training meshes, then explained by the first k identity modes, with and
    without expression; every fit has a similarity of its own.

    Returns
    -------
    dict
        ``generalisation, mm`` and ``generalisation with expression, mm``: {k: RMS over points and
        people}; ``compactness``: {k: share of the model's variance};
        ``specificity, mm``: {k: mean RMS distance of random faces, of k modes, to the closest
        training face}.
    """
    from recon3d.morphable.build import aligned_shapes

    face = slice(0, 468)
    mean = model.mean[face]
    identity = model.identity[:, face].astype(np.float64)
    expression = model.expression[:, face].astype(np.float64)
    train = landmarks.split == "train"
    _, reference, _ = aligned_shapes(landmarks.points[train])
    test = landmarks.split == "test"
    out: dict = {"held-out people": int(test.sum())}
    if test.any():
        shapes, _, _ = aligned_shapes(landmarks.points[test], reference)
        shapes = correction(shapes)[:, face]
        counts = [k for k in COUNTS if k < len(identity)] + [len(identity)]
        for name, extra in (
            ("generalisation, mm", expression[:0]),
            ("generalisation with expression, mm", expression),
        ):
            out[name] = {
                k: round(
                    float(
                        np.sqrt(
                            np.mean([_fit_rms(x, mean, identity[:k], extra) ** 2 for x in shapes])
                        )
                    ),
                    3,
                )
                for k in counts
            }
    variance = (identity**2).sum((1, 2))
    share = np.cumsum(variance) / variance.sum()
    out["compactness"] = {
        k: round(float(share[k - 1]), 3) for k in COUNTS if 0 < k <= len(identity)
    }
    known, _, _ = aligned_shapes(landmarks.points[train], reference)
    known = correction(known)[:, face]
    rng = np.random.default_rng(0)
    known = known[:: max(len(known) // 300, 1)]
    z = rng.normal(size=(50, len(identity)))
    out["specificity, mm"] = {}
    for k in [k for k in COUNTS if 0 < k <= len(identity)]:
        drawn = mean + np.tensordot(z[:, :k], identity[:k], 1)
        nearest = [np.sqrt(((x - known) ** 2).sum(-1).mean(1)).min() for x in drawn]
        out["specificity, mm"][k] = round(float(np.mean(nearest)), 3)
    return out


def albedo_figures(learned, known, known_weight, unseen, unseen_weight) -> dict:
    """How well unseen people's albedo is reproduced, and how plausible invented people's is.

    Parameters
    ----------
    learned : PrincipalAlbedo
    known, known_weight : (N, 2, H, 3), (N, 2, H)
        Albedo of the people that the modes were learned from, sRGB-encoded.
    unseen, unseen_weight : (M, 2, H, 3), (M, 2, H)
        Of people kept apart.

    Returns
    -------
    dict
        ``albedo generalisation, levels``: {k: RMS error over what a photo shows of a person, by k
        modes, in levels of 255}; ``albedo of the hidden half, levels``: the same over one side of
        the face when only the other was given; ``albedo compactness``: {k: share of the modes'
        variance}; ``albedo specificity, levels``: {k: mean RMS distance of random people to the
        closest known one}.
    """
    from recon3d.morphable.albedo import TEXELS_PER_SAMPLE

    step = max(1, learned.mean.shape[0] // 4000)
    mean, parity = learned.mean[::step], learned.parity
    left = learned.modes[:, ::step]
    modes = np.stack([left, left * parity[:, None, None]], 1)  # (A, 2, H', 3)
    scale = step / (TEXELS_PER_SAMPLE * learned.noise**2)
    counts = [k for k in COUNTS if k < len(modes)] + [len(modes)]
    variance = (modes**2).sum((1, 2, 3))
    share = np.cumsum(variance) / variance.sum()
    out: dict = {
        "albedo modes": len(modes),
        "albedo noise, levels": round(255 * learned.noise, 2),
        "albedo compactness": {k: round(float(share[k - 1]), 3) for k in counts if k},
    }

    def errors(given: np.ndarray, asked: np.ndarray, people: np.ndarray) -> dict[int, float]:
        total, weight = dict.fromkeys(counts, 0.0), 0.0
        for x, w, v in zip(people, given, asked, strict=True):
            difference = x - mean
            w = (w * scale)[..., None]
            weighted = (modes * w).reshape(len(modes), -1)
            gram = weighted @ modes.reshape(len(modes), -1).T
            right = weighted @ difference.ravel()
            weight += 3 * float(v.sum())
            for k in counts:
                z = np.linalg.solve(gram[:k, :k] + np.eye(k), right[:k])
                miss = difference - np.tensordot(z.astype(np.float32), modes[:k], 1)
                total[k] += float((v[..., None] * miss**2).sum())
        return {k: round(255 * float(np.sqrt(total[k] / max(weight, 1e-9))), 2) for k in counts}

    if len(unseen):
        people, seen = unseen[:, :, ::step], unseen_weight[:, :, ::step]
        out["people held out for albedo"] = len(people)
        out["albedo generalisation, levels"] = errors(seen, seen, people)
        sides = np.array([1.0, 0.0], np.float32)[:, None]
        out["albedo of the hidden half, levels"] = errors(seen * sides, seen * sides[::-1], people)
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(50, len(modes))).astype(np.float32)
    some = slice(None, None, max(len(known) // 300, 1))
    people, seen = known[some, :, ::step], known_weight[some, :, ::step]
    total = 3 * np.maximum(seen.sum((1, 2)), 1e-6)
    weight = seen.reshape(len(people), -1).repeat(3, 1)
    flat = people.reshape(len(people), -1)
    square = (weight * flat**2).sum(1)
    out["albedo specificity, levels"] = {}
    for k in [k for k in counts if k]:
        x = (mean + np.tensordot(drawn[:, :k], modes[:k], 1)).reshape(len(drawn), -1)
        # sum of w (y - x)^2 over texels, for all pairs at once
        distance = square - 2 * x @ (weight * flat).T + x**2 @ weight.T
        nearest = np.sqrt(np.maximum(distance / total, 0).min(1))
        out["albedo specificity, levels"][k] = round(255 * float(nearest.mean()), 2)
    return out


def _fit_rms(shape, mean, identity, expression) -> float:
    """RMS point distance after the best similarity, identity and expression (ridge), mm."""
    from recon3d.geometry import umeyama

    modes = np.concatenate([identity, expression])
    prior = np.r_[np.ones(len(identity)), np.full(len(expression), 1 / 0.3**2)] * 0.1
    model = mean
    for _ in range(4):
        s, R, t = umeyama(shape, model)
        moved = s * shape @ R.T + t
        if not len(modes):
            model = mean
            break
        A = modes.reshape(len(modes), -1)
        z = np.linalg.solve(A @ A.T + np.diag(prior), A @ (moved - mean).ravel())
        model = mean + np.tensordot(z, modes, 1)
    s, R, t = umeyama(shape, model)
    return float(np.sqrt(((s * shape @ R.T + t - model) ** 2).sum(-1).mean()))


def intersecting_triangles(vertices: np.ndarray, triangles: np.ndarray) -> int:
    """Number of pairs of triangles that cut each other without sharing a vertex.

    Candidates come from a grid; each pair is decided by the edges of one against the other.

    Parameters
    ----------
    vertices : (V, 3)
    triangles : (F, 3) int
    """
    pairs = _candidate_pairs(vertices, triangles)
    if not len(pairs):
        return 0
    a, b = triangles[pairs[:, 0]], triangles[pairs[:, 1]]
    shared = (a[:, :, None] == b[:, None, :]).any((1, 2))
    pairs = pairs[~shared]
    hit = np.zeros(len(pairs), bool)
    for first, second in ((0, 1), (1, 0)):
        edge_of = vertices[triangles[pairs[:, first]]]
        other = vertices[triangles[pairs[:, second]]]
        for k in range(3):
            hit |= _segment_hits(edge_of[:, k], edge_of[:, (k + 1) % 3], other)
    return int(hit.sum())


def _candidate_pairs(vertices, triangles) -> np.ndarray:
    """Pairs of triangles whose bounding spheres meet, (M, 2)."""
    from scipy.spatial import cKDTree

    corners = vertices[triangles]
    centre = corners.mean(1)
    radius = np.linalg.norm(corners - centre[:, None], axis=-1).max(1)
    tree = cKDTree(centre)
    out = []
    # Large triangles are few: search the small among themselves, then the large against all.
    order = np.argsort(radius)
    cut = float(np.quantile(radius, 0.9))
    small = radius <= cut
    pairs = cKDTree(centre[small]).query_pairs(2 * cut, output_type="ndarray")
    index = np.flatnonzero(small)
    out.append(index[pairs])
    for t in order[small.sum() :]:
        near = np.array(tree.query_ball_point(centre[t], radius[t] + radius.max()))
        near = near[(near != t) & (small[near] | (near > t))]
        out.append(np.c_[np.full(len(near), t), near])
    pairs = np.concatenate(out)
    gap = np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1)
    return pairs[gap < radius[pairs[:, 0]] + radius[pairs[:, 1]]]


def _segment_hits(p, q, triangle) -> np.ndarray:
    """Whether segments p-q pass through the inside of triangles, (M,) bool."""
    a, b, c = triangle[:, 0], triangle[:, 1], triangle[:, 2]
    direction = q - p

    def volume(u, v, w):
        return (np.cross(u, v) * w).sum(-1)

    normal = np.cross(b - a, c - a)
    above = ((p - a) * normal).sum(-1)
    below = ((q - a) * normal).sum(-1)
    s1 = volume(a - p, b - p, direction)
    s2 = volume(b - p, c - p, direction)
    s3 = volume(c - p, a - p, direction)
    same = ((s1 > 0) & (s2 > 0) & (s3 > 0)) | ((s1 < 0) & (s2 < 0) & (s3 < 0))
    return (above * below < 0) & same
