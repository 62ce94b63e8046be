"""Small clips with known motion, drawn around a portrait."""

import cv2
import numpy as np

from recon3d.types import Frame


class Portrait:
    """A head that can be drawn anywhere, with a soft outline."""

    # Centre of the face and its width in the picture, px.
    CENTRE, WIDTH = np.array([222.0, 118.0]), 96.0

    def __init__(self, image):
        self.image = image.astype(np.float32)
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        head = ((x - 222) / 78) ** 2 + ((y - 118) / 112) ** 2
        self.mask = np.clip((1.15 - head) / 0.25, 0, 1).astype(np.float32)

    def draw(self, canvas, centre, width, turn=0.0):
        """Paste the head onto (H, W, 3) float32: its centre in px, face width in px, degrees."""
        affine = cv2.getRotationMatrix2D((0, 0), turn, width / self.WIDTH)
        affine[:, 2] = np.asarray(centre) - affine[:, :2] @ self.CENTRE
        size = canvas.shape[1], canvas.shape[0]
        factor = width / self.WIDTH
        sigma = max(0.0, 0.45 / factor - 0.3)
        source = cv2.GaussianBlur(self.image, (0, 0), sigma) if sigma > 0.2 else self.image
        head = cv2.warpAffine(source, affine, size, flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(self.mask, affine, size)[..., None]
        canvas[:] = canvas * (1 - mask) + head * mask


def background(size, seed=0):
    """Smooth random colours, dim: nothing like a face."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(30, 110, (6, 8, 3)).astype(np.float32)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def as_frames(pictures, source=0, fps=25.0):
    """Float or uint8 pictures as frames."""
    for index, picture in enumerate(pictures):
        image = np.clip(picture, 0, 255).astype(np.uint8)
        yield Frame(image, index, index / fps, source)
