"""What landmarks say about identity, and what they only seem to say."""

import numpy as np
import pytest
from dense_scene import head_model

from recon3d.fitting import FittingSettings
from recon3d.fitting.shape_basis import shape_basis


@pytest.fixture(scope="module")
def basis():
    return shape_basis(head_model(), FittingSettings())


@pytest.mark.parametrize("error", [0.0, 0.5, 4.0])
def test_doubt_shrinks_identity(basis, error):
    doubted = basis.doubted(error)
    q = np.random.default_rng(0).normal(size=basis.modes.shape[2])
    shape = basis.modes @ q
    # the same landmarks, in the coefficients of the doubted basis
    same = q / np.sqrt(1 + error)
    np.testing.assert_allclose(doubted.modes @ same, shape, atol=1e-9)
    np.testing.assert_allclose(doubted.identity(same), basis.identity(q) / (1 + error), atol=1e-9)


def test_doubt_leaves_identity_as_open_as_it_is(basis):
    """However well apparent shape is known, identity keeps the share that the error takes."""
    known = np.zeros((basis.modes.shape[2],) * 2)
    variances = [
        np.linalg.eigvalsh(basis.doubted(error).identity_covariance(known))
        for error in (0.0, 1.0, 1e6)
    ]
    assert (variances[0] <= variances[1] + 1e-9).all()
    np.testing.assert_allclose(variances[2], 1.0, atol=1e-4)


def test_doubt_changes_no_prior(basis):
    prior = np.eye(basis.modes.shape[2])
    covariance = basis.doubted(2.0).identity_covariance(prior)
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=1e-9)
