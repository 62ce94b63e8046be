"""The mesh inside a notebook: WebGL in the cell, a still where no script runs."""

from __future__ import annotations

import json
import uuid

import numpy as np

from recon3d.exporting.web import data_uri, viewer_script, web_mesh
from recon3d.types import Reconstruction
from recon3d.viewing.scene import ViewScene
from recon3d.viewing.still import render_still

_STYLE = """
<style>
.r3d{max-width:460px;font:13px/1.4 system-ui,sans-serif;color:#1d2433;background:#fff;padding:6px}
.r3d canvas,.r3d img{width:100%;aspect-ratio:1;display:block;border-radius:6px;touch-action:none}
.r3d img.r3d-still{display:none}.r3d-none canvas,.r3d-none .r3d-tools{display:none!important}
.r3d-none img.r3d-still{display:block!important}
.r3d-key{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin:0 .3em 0 .5em}
.r3d-bar{display:inline-block;width:6em;height:.8em;border-radius:2px;margin:0 .3em}
.r3d-tools{display:flex;gap:.6em;flex-wrap:wrap;align-items:center;margin-top:.3em}
</style>
"""


def mesh_html(scene: ViewScene, mode: str = "texture", *, side: int = 512) -> str:
    """The mesh as HTML that needs nothing from the network.

    Parameters
    ----------
    scene : ViewScene
    mode : str, one of `recon3d.viewing.MODES`
    side : int
        Largest side of the texture inside the page, px.

    Returns
    -------
    str
        About 450 kB: a canvas that turns, and a still that takes its place where scripts are not
        run (a notebook's preview on a website).
    """
    payload = web_mesh(
        scene.surface,
        scene.texture,
        scene.evidence,
        {"uncertainty": scene.uncertainty, "error": scene.error},
        first=mode,
        side=side,
    )
    still = data_uri(render_still(scene, mode=mode, size=(360, 360)))
    name = f"r3d-{uuid.uuid4().hex[:12]}"
    text = json.dumps(payload).replace("<", "\\u003c")
    # The still is what a page without scripts shows: the script takes it away, not the style.
    return f"""{_STYLE}
<div class="r3d r3d-none" id="{name}">
<img class="r3d-still" src="{still}" alt="The reconstructed mesh, turned by 25 degrees">
<canvas width="640" height="640" tabindex="0" role="img"
 aria-label="Textured 3D mesh; drag or use the arrow keys to turn it"></canvas>
<div class="r3d-tools"><label>colour <select class="r3d-mode"></select></label>
<button type="button" class="r3d-spin">Turn</button><span class="r3d-legend"></span></div>
</div>
<script>(() => {{
{viewer_script()}
const host = document.getElementById("{name}");
host.classList.remove("r3d-none");
recon3dMesh(host, {text});
}})();</script>"""


def display_mesh(scene: ViewScene, mode: str = "texture") -> None:
    """Put the mesh under the running cell."""
    from IPython.display import HTML, display

    display(HTML(mesh_html(scene, mode)))


def summary_html(made: Reconstruction) -> str:
    """Frontal view and evidence side by side, with one line of figures."""
    frontal = data_uri(np.asarray(made.frontal), 256)
    evidence = data_uri(made.frontal.evidence, 256)
    return (
        f'<figure style="margin:0"><img src="{frontal}" width="256" alt="Frontal view"> '
        f'<img src="{evidence}" width="256" alt="Evidence: red support, green resolution, '
        f'blue generated"><figcaption>{made!r}</figcaption></figure>'
    )
