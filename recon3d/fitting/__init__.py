"""The joint multi-view fit of a track: identity, cameras, poses and expressions."""

from recon3d.fitting.bundle import fit_track
from recon3d.fitting.moving import shifted
from recon3d.fitting.settings import DenseSettings, FittingSettings

__all__ = ["DenseSettings", "FittingSettings", "fit_track", "shifted"]
