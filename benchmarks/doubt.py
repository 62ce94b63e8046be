"""Learn how far the refiner's opinion of the fused view is to be believed.

    python benchmarks/doubt.py --photos ../shared/data/synthetic_faces [--people 36] [--heads 36]

Validation people, whom the refiner was not trained on, are simulated as `benchmarks/refiner.py`
does, with another seed. The errors of their fused views are explained by
`recon3d.refinement.doubt`; printed are the coefficients for `RefinementSettings.doubt_coefficients`
and, for people that were left out, how well the deviation and the red of evidence.png pick out the
worst fifth of the pixels before and after. Fused views are kept in --out and used again. With the
shipped weights the section of docs/RESULTS.md is filled.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from refiner import rendered_head, simulated, turned_photo
from results import PAGE, machine, markdown_table, write_section
from texture import auc

from recon3d.evaluation.metrics import picture_error
from recon3d.frontal.deviation import learn_coefficients, predicted_deviation
from recon3d.progress import Reporter
from recon3d.refinement.doubt import OPINIONS, doubted_support, opinions
from recon3d.refinement.refiners import OwnRefiner, load_refiner

SEED = 7101
"""Of the people's cameras; other benchmarks use others."""
STEP = 7
"""Every so many pixels are looked at."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "doubt")
    parser.add_argument("--people", type=int, default=36, help="photos that turn")
    parser.add_argument("--heads", type=int, default=36, help="clips of rendered heads")
    parser.add_argument("--refiner", type=Path, help="weights; by default the shipped ones")
    parser.add_argument("--page", type=Path, help="where the section goes")
    a = parser.parse_args()
    reporter = Reporter()
    cases = []
    for name, count, make in (
        ("people", a.people, turned_photo),
        ("heads", a.heads, rendered_head),
    ):
        with reporter.stage(name) as move:
            cases += simulated(a.photos, a.out / name, count, make, move, SEED)
    network = OwnRefiner(a.refiner or load_refiner().path)
    data = []
    with reporter.stage("looking") as move:
        for done, (name, _, view, truth) in enumerate(cases):
            found = errors_of(view, truth, network)
            if found is not None:
                data.append((name, *found))
            move(done + 1, len(cases))
    text = report(*learn(data), a.people, a.heads)
    print(text)
    if a.page or not a.refiner:
        write_section("doubt", text, a.page or PAGE)


def errors_of(view, truth, network) -> tuple[np.ndarray, ...] | None:
    """Opinions (N, K), fusion's own deviation (N,), errors of luma (N,) and red (N,) of observed
    pixels."""
    said = opinions(view, *network(view))
    red, _, blue = np.moveaxis(view.evidence.astype(np.float32), -1, 0)
    maps = np.dstack([view.face_mask, blue / 255, view.sigma, said, red])
    found = picture_error(view.raw, truth, maps)
    if found is None:
        return None
    error, maps = found
    used = truth.mask & (maps[..., 0] > 0.99) & (maps[..., 1] < 0.5)
    maps = maps[used][::STEP]
    error = np.abs(error[used])[::STEP].astype(np.float32)
    return maps[:, 3:-1], maps[:, 2], error, maps[:, -1]


def learn(data: list[tuple]) -> tuple[np.ndarray, pd.Series, int, int]:
    """Coefficients of all, and what those of the others do for each third of the people; numbers
    of views and people."""
    people = np.unique([name for name, *_ in data], return_inverse=True)[1]
    rows = []
    for part in range(3):
        theta = coefficients([d for d, p in zip(data, people) if p % 3 != part])
        for (_, said, before, error, red), p in zip(data, people):
            if p % 3 == part:
                after = predicted_deviation(said, theta)
                doubted = doubted_support(red, before, after)
                rows.append([*scores(before, error, red), *scores(after, error, doubted)])
    columns = [f"{what}, {when}" for when in ("before", "after") for what in SCORES]
    means = pd.DataFrame(rows, columns=columns).mean()
    return coefficients(data), means, len(data), people.max() + 1


def report(theta: np.ndarray, means: pd.Series, views: int, people: int, *asked: int) -> str:
    """The section of docs/RESULTS.md."""
    table = markdown_table(
        ["", *SCORES],
        [
            [name, *(f"{means[f'{what}, {when}']:.3f}" for what in SCORES)]
            for name, when in LINES.items()
        ],
    )
    command = f"--photos ../shared/data/synthetic_faces --people {asked[0]} --heads {asked[1]}"
    said = ", ".join(f"{name} {value:.3g}" for name, value in zip(OPINIONS, theta))
    return f"""## How far evidence is right

Evidence and predicted deviation against errors of luma of the fused view, {views} views of {people}
validation people, each third of them judged with what was learned on the others. Learned on all:
{said}.

```
python benchmarks/doubt.py {command}
```

Machine: {machine()}.

{table}"""


LINES = {"as fusion has it": "before", "with the refiner's doubt": "after"}
SCORES = (
    "AUC of the deviation",
    "AUC of red",
    "Spearman",
    "inside 1 sigma",
    "inside 2 sigma",
)


def scores(sigma: np.ndarray, error: np.ndarray, red: np.ndarray) -> tuple[float, ...]:
    rank = float(pd.Series(sigma).corr(pd.Series(error), method="spearman"))
    picked = auc(sigma, error), auc(-red.astype(np.float32), error)
    return *picked, rank, (error <= sigma).mean(), (error <= 2 * sigma).mean()


def coefficients(data: list[tuple]) -> np.ndarray:
    said, error = (np.concatenate([d[k] for d in data]) for k in (1, 3))
    theta = learn_coefficients(said, error)
    # A Laplacian's deviation holds 76 % of the errors; a normal one's, which the shares inside one
    # and two are asked of, is what 68 % are within.
    theta[0] += np.log(np.quantile(error / predicted_deviation(said, theta), NORMAL))
    return theta


NORMAL = 0.6827
"""Share within one deviation."""


if __name__ == "__main__":
    main()
