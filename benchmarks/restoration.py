"""How much each classical inverse gains over doing nothing, on pictures that come with
scikit-image.

    python benchmarks/restoration.py                 # the table of docs/restoration.md
    python benchmarks/restoration.py --skin FACES.tar  # the skin statistics used for white balance
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from recon3d import restoration as r
from recon3d.restoration import degradations as d

PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle")


def pictures(width: int = 320) -> dict[str, np.ndarray]:
    """Sample photographs that lie in the scikit-image wheel, reduced to `width` px."""
    import skimage
    from skimage import io

    folder = f"{skimage.__path__[0]}/data"
    files = {"rocket": "rocket.jpg", "motorcycle": "motorcycle_left.png"}
    found = {}
    for name in PICTURES:
        image = io.imread(f"{folder}/{files.get(name, name + '.png')}")[..., :3]
        height = round(image.shape[0] * width / image.shape[1])
        found[name] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return found


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two uint8 pictures or clips, dB over all pixels."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def pan(image: np.ndarray, frames: int = 9, step: float = 3.0) -> list[np.ndarray]:
    """A clip that pans over a picture, `step` px a frame."""
    height, width = image.shape[:2]
    inside = int(width - step * frames)
    clip = []
    for i in range(frames):
        move = np.array([[1, 0, -step * i], [0, 1, 0]], np.float64)
        moved = cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_CUBIC)
        clip.append(np.ascontiguousarray(moved[:, :inside]))
    return clip


@dataclass
class Case:
    """One degradation, its inverse, and what doing nothing means."""

    name: str
    steps: tuple
    inverse: Callable[[np.ndarray], np.ndarray]
    nothing: Callable[[np.ndarray], np.ndarray] = lambda x: x
    clip: bool = False


def enlarged(image: np.ndarray, factor: int, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return cv2.resize(image, size, interpolation=how)


def _deinterlaced(frames):
    return list(r.deinterlace_frames(frames))


def _field(frames):
    return [r.deinterlace(f)[0] for f in frames]


def _repaired(frames):
    return [image for image, _ in r.repair_repeats(frames)]


def _temporal(frames):
    return [image for image, _ in r.denoise_frames(frames)]


CASES = (
    Case(
        "noise (2 000 e-, read 8)",
        (d.LowLight(exposure=1, full_well=2000.0, read_noise=8.0),),
        lambda x: r.denoise(x)[0],
    ),
    Case(
        "strong noise (300 e-, read 4)",
        (d.LowLight(exposure=1, full_well=300.0, read_noise=4.0),),
        lambda x: r.denoise(x)[0],
    ),
    Case(
        "strong noise, non-local means",
        (d.LowLight(exposure=1, full_well=300.0, read_noise=4.0),),
        lambda x: r.denoise(x, method="nlm")[0],
    ),
    Case(
        "strong noise, clip",
        (d.LowLight(exposure=1, full_well=300.0, read_noise=4.0),),
        _temporal,
        clip=True,
    ),
    Case("exposure x 0.1", (d.Exposure(exposure=0.1),), lambda x: r.brighten(x)[0]),
    Case(
        "low light x 0.04",
        (d.LowLight(exposure=0.04, full_well=6000.0, compensation=0.0),),
        lambda x: r.brighten(r.denoise(x)[0])[0],
    ),
    Case("2 800 K", (d.ColourTemperature(kelvin=2800.0),), lambda x: r.white_balance(x)[0]),
    Case("12 000 K", (d.ColourTemperature(kelvin=12_000.0),), lambda x: r.white_balance(x)[0]),
    Case("Gaussian blur 2 px", (d.OpticalBlur(sigma=2.0),), lambda x: r.deblur(x)[0]),
    Case(
        "Gaussian blur 2 px, Richardson-Lucy",
        (d.OpticalBlur(sigma=2.0),),
        lambda x: r.deblur(x, method="richardson_lucy")[0],
    ),
    Case(
        "defocus 3 px",
        (d.OpticalBlur(sigma=0.0, defocus=3.0),),
        lambda x: r.deblur(x)[0],
    ),
    Case(
        "motion blur 11 px, 25 degrees",
        (d.MotionBlur(length=11.0, angle=25.0),),
        lambda x: r.deblur(x)[0],
    ),
    Case(
        "downsampling by 2 (nothing: bilinear)",
        (d.Downsample(factor=2.0),),
        lambda x: r.super_resolve(x, 2)[0],
        lambda x: enlarged(x, 2),
    ),
    Case(
        "downsampling by 4 (nothing: bilinear)",
        (d.Downsample(factor=4.0),),
        lambda x: r.super_resolve(x, 4)[0],
        lambda x: enlarged(x, 4),
    ),
    Case(
        "sharpening x 1.5, 1.5 px",
        (d.Sharpen(amount=1.5, sigma=1.5),),
        lambda x: r.remove_halos(x)[0],
    ),
    Case(
        "sharpening x 1, 2.5 px",
        (d.Sharpen(amount=1.0, sigma=2.5),),
        lambda x: r.remove_halos(x)[0],
    ),
    Case("JPEG 15", (d.Jpeg(quality=15.0),), lambda x: r.deblock(x)[0]),
    Case("JPEG 40", (d.Jpeg(quality=40.0),), lambda x: r.deblock(x)[0]),
    Case("H.264 crf 40, picture", (d.H264(crf=40.0),), lambda x: r.soften_coding(x)[0]),
    Case("interlacing, one field", (d.Interlace(),), _field, clip=True),
    Case("interlacing, bwdif", (d.Interlace(),), _deinterlaced, clip=True),
    Case("repeated frames 30 %", (d.DropFrames(drop=0.0, repeat=0.3),), _repaired, clip=True),
)


def measure(case: Case, image: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """PSNR in dB of doing nothing, and of the inverse."""
    rng = np.random.default_rng(seed)
    recipe = d.Recipe(steps=case.steps)
    if case.clip:
        truth = pan(image)
        spoilt = list(d.degrade_clip(truth, recipe, rng))
        restored = case.inverse(spoilt)
        part = slice(0, len(truth) - 1)  # the last frame of an interlaced clip is whole
        return tuple(psnr(np.stack(truth[part]), np.stack(out[part])) for out in (spoilt, restored))
    factor = next((int(s.factor) for s in case.steps if s.kind == "downsample"), 1)
    h, w = (n // factor * factor for n in image.shape[:2])
    image = image[:h, :w]
    spoilt = d.degrade(image, recipe, rng)
    return psnr(image, case.nothing(spoilt)), psnr(image, case.inverse(spoilt))


def skin_statistics(path: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Median and standard deviation of log(R/G), log(B/G) of cheeks in aligned crops."""
    import tarfile

    from recon3d.colour import srgb_to_linear

    seen = []
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if not member.name.endswith((".jpg", ".png")):
                continue
            data = np.frombuffer(archive.extractfile(member).read(), np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            h, w = image.shape[:2]
            rows = slice(int(0.55 * h), int(0.65 * h))
            cheeks = [image[rows, int(a * w) : int((a + 0.1) * w)] for a in (0.3, 0.6)]
            pixels = np.concatenate([c.reshape(-1, 3) for c in cheeks])
            rgb = np.median(srgb_to_linear(np.ascontiguousarray(pixels)), 0)
            if rgb.min() > 0.005:
                seen.append([np.log(rgb[0] / rgb[1]), np.log(rgb[2] / rgb[1])])
    return np.median(seen, 0), np.std(seen, 0), len(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skin", metavar="TAR", help="measure skin in this archive of faces")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="each picture")
    arguments = parser.parse_args()
    if arguments.skin:
        median, spread, count = skin_statistics(arguments.skin)
        print(f"{count} faces: median {median.round(3)}, standard deviation {spread.round(3)}")
        return
    cv2.setNumThreads(1)
    samples = pictures()
    print("| degradation | nothing, dB | inverse, dB | gain | worst gain | s / picture |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if arguments.only not in case.name:
            continue
        start = time.perf_counter()
        table = np.array([measure(case, image) for image in samples.values()])
        seconds = (time.perf_counter() - start) / len(samples)
        gain = table[:, 1] - table[:, 0]
        print(
            f"| {case.name} | {table[:, 0].mean():.2f} | {table[:, 1].mean():.2f} | "
            f"{gain.mean():+.2f} | {gain.min():+.2f} | {seconds:.2f} |",
            flush=True,
        )
        if arguments.verbose:
            print("   ", dict(zip(samples, gain.round(2))))


if __name__ == "__main__":
    main()
