"""The Open3D window. Open3D needs system libraries, so it is imported only here and on use."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import BackendUnavailable
from recon3d.viewing.scene import ViewScene

_MEND = (
    "Open3D cannot be used here ({why}); mend: "
    "apt-get install libusb-1.0-0 libegl1 libgl1 libgomp1 && pip install 'recon3d[viewer]'"
)


def import_open3d():
    """Open3D, or one clear line.

    Raises
    ------
    BackendUnavailable
        With the command that mends it.
    """
    try:
        import open3d
    except Exception as error:
        why = str(error).splitlines()[0]
        raise BackendUnavailable(_MEND.format(why=why)) from error
    return open3d


def open3d_mesh(scene: ViewScene, mode: str = "texture"):
    """The mesh as an Open3D triangle mesh with texture or vertex colours."""
    o3d = import_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(scene.vertices), o3d.utility.Vector3iVector(scene.triangles)
    )
    mesh.vertex_normals = o3d.utility.Vector3dVector(scene.normals)
    if mode == "uncertainty":
        mesh.vertex_colors = o3d.utility.Vector3dVector(scene.vertex_colours() / 255.0)
    elif mode != "plain":
        # Open3D's texture rows run downwards from v = 0.
        uv = scene.uv[scene.triangles].reshape(-1, 2)
        mesh.triangle_uvs = o3d.utility.Vector2dVector(uv)
        mesh.triangle_material_ids = o3d.utility.IntVector(np.zeros(len(scene.triangles), np.int32))
        picture = np.ascontiguousarray(scene.colours(mode)[::-1])
        mesh.textures = [o3d.geometry.Image(picture)]
    return mesh


def camera_frusta(scene: ViewScene, length: float = 60.0):
    """The views' cameras as one line set, in model axes and mm.

    Cameras stand where the head's motion puts them: for a fixed camera and a turning head they lie
    on an arc round the face. Far cameras are drawn at a third of their distance.
    """
    o3d = import_open3d()
    points, lines = [], []
    for R, t, K, size in zip(scene.R, scene.t, scene.K, scene.image_size):
        centre = -R.T @ t
        centre = centre * min(1.0, 600.0 / max(np.linalg.norm(centre), 1e-6))
        w, h = size
        corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1.0]]) @ np.linalg.inv(K).T
        base = len(points)
        points += [centre, *(centre + length * corners @ R)]
        lines += [(base, base + k) for k in range(1, 5)]
        lines += [(base + k, base + k % 4 + 1) for k in range(1, 5)]
    frusta = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(np.array(points)), o3d.utility.Vector2iVector(np.array(lines))
    )
    frusta.paint_uniform_color([0.18, 0.37, 0.7])
    return frusta


def show(scene: ViewScene, mode: str = "texture") -> None:
    """Open a window; keys: 1 texture, 2 evidence, 3 uncertainty, 4 plain, C cameras, S screenshot.

    Raises
    ------
    BackendUnavailable
        Where Open3D or a display is missing.
    """
    o3d = import_open3d()
    window = o3d.visualization.VisualizerWithKeyCallback()
    if not window.create_window(f"recon3d: {scene.folder}", 1024, 1024):
        raise BackendUnavailable(
            "no window can be opened here (no display?); use recon3d view DIR --screenshot PNG"
        )
    state = {"mode": mode, "mesh": open3d_mesh(scene, mode), "cameras": None, "shots": 0}
    window.add_geometry(state["mesh"])
    options = window.get_render_option()
    options.background_color = np.array([0.914, 0.925, 0.949])
    options.mesh_show_back_face = True
    view = window.get_view_control()
    view.set_front([0.35, 0.05, 1.0])
    view.set_up([0, 1, 0])
    view.set_lookat(scene.vertices.mean(0))
    view.set_zoom(0.7)

    def colour(new: str):
        def change(vis):
            vis.remove_geometry(state["mesh"], reset_bounding_box=False)
            state["mesh"] = open3d_mesh(scene, new)
            vis.add_geometry(state["mesh"], reset_bounding_box=False)
            return True

        return change

    def cameras(vis):
        if state["cameras"] is None:
            state["cameras"] = camera_frusta(scene)
            vis.add_geometry(state["cameras"], reset_bounding_box=False)
        else:
            vis.remove_geometry(state["cameras"], reset_bounding_box=False)
            state["cameras"] = None
        return True

    def shot(vis):
        state["shots"] += 1
        vis.capture_screen_image(str(scene.folder / f"screenshot_{state['shots']:02d}.png"), True)
        return False

    for key, new in zip("1234", ("texture", "evidence", "uncertainty", "plain")):
        window.register_key_callback(ord(key), colour(new))
    window.register_key_callback(ord("C"), cameras)
    window.register_key_callback(ord("S"), shot)
    window.run()
    window.destroy_window()


def offscreen(scene: ViewScene, mode: str, size: tuple[int, int], yaw: float) -> np.ndarray:
    """A still from Open3D's off-screen renderer (needs EGL).

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    BackendUnavailable
        Where Open3D cannot render off-screen; the caller draws with `render_still` instead.
    """
    import subprocess
    import sys

    # Without EGL, Open3D ends the process instead of raising, so it is asked in a process of its
    # own.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "still.png"
        command = [sys.executable, "-m", "recon3d.viewing.window", str(scene.folder), str(target)]
        command += [mode, str(size[0]), str(size[1]), str(yaw)]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        picture = cv2.imread(str(target)) if target.exists() else None
    if done.returncode != 0 or picture is None:
        last = done.stderr.decode(errors="replace").strip().splitlines()
        raise BackendUnavailable(
            f"Open3D cannot render off-screen here ({last[-1][:120] if last else 'no EGL'})"
        )
    return np.ascontiguousarray(picture[..., ::-1])


def _offscreen_main(arguments: list[str]) -> None:
    from recon3d.viewing.scene import load_scene

    folder, target, mode, width, height, yaw = arguments
    scene = load_scene(folder)
    o3d = import_open3d()
    renderer = o3d.visualization.rendering.OffscreenRenderer(int(width), int(height))
    material = o3d.visualization.rendering.MaterialRecord()
    material.shader = "defaultLit" if mode == "plain" else "defaultUnlit"
    mesh = open3d_mesh(scene, mode)
    if mesh.has_textures():
        material.albedo_img = mesh.textures[0]
    renderer.scene.set_background([0.914, 0.925, 0.949, 1.0])
    renderer.scene.add_geometry("face", mesh, material)
    centre = scene.vertices.mean(0)
    reach = float(np.linalg.norm(np.ptp(scene.vertices, axis=0)))
    angle = np.radians(-float(yaw))
    eye = centre + 2.2 * reach * np.array([np.sin(angle), 0.0, np.cos(angle)])
    renderer.setup_camera(30.0, centre, eye, [0, 1, 0])
    o3d.io.write_image(target, renderer.render_to_image())


if __name__ == "__main__":
    import sys

    _offscreen_main(sys.argv[1:])
