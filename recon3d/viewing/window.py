"""The Open3D window. Open3D needs system libraries, so it is imported only here and on use."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb
from recon3d.errors import BackendUnavailable
from recon3d.exporting.files import write_png
from recon3d.exporting.surface import RANGES_MM
from recon3d.exporting.web import MODE_LABELS
from recon3d.geometry import vertex_normals
from recon3d.viewing.scene import MODES, ViewScene

MEND = (
    "apt-get install libusb-1.0-0 libegl1 libgl1 libgomp1 libvulkan1 mesa-vulkan-drivers && "
    "pip install 'recon3d[viewer]'"
)
"""What installs everything that the window needs."""

BACKGROUND = (0.914, 0.925, 0.949, 1.0)
FIELD_OF_VIEW = 24.0
"""Degrees: a long lens, as for a portrait."""

COMMON = (
    "jawOpen",
    "mouthSmileLeft",
    "mouthSmileRight",
    "browInnerUp",
    "browDownLeft",
    "browDownRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "mouthPucker",
    "mouthFunnel",
)
"""Expressions whose sliders come first."""

_LEGENDS = {
    "texture": "the fused skin, its light taken out",
    "evidence": "red support, green resolution, blue generated",
    "plain": "shape alone",
    **{mode: f"dark 0, yellow {top:g} mm and more" for mode, top in RANGES_MM.items()},
}
_SHADING = {"texture": 0.3, "evidence": 0.3, "uncertainty": 0.45, "error": 0.45}
"""How strongly light shades a mode: little where colours are to be read."""

_HELP = "1-5 colours   C cameras   B before/after\nL side light   R first view   S screenshot"
_CAMERA_MM = 340.0
"""Cameras are drawn so far from the eyes, whatever their true distance, to be in sight."""


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
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise BackendUnavailable(f"Open3D cannot be used here ({why}); mend: {MEND}") from error
    return open3d


def show(scene: ViewScene, mode: str = "texture") -> None:
    """Open a window and return when it is closed.

    Raises
    ------
    BackendUnavailable
        Where Open3D, a graphics driver or a display is missing.
    """
    Viewer(scene, mode).run()


class Viewer:
    """The window: the head on the left, a panel on the right.

    Parameters
    ----------
    scene : ViewScene
    mode : str, one of `MODES`
    size : (width, height), px

    Raises
    ------
    BackendUnavailable
        Where no window can be opened.
    """

    def __init__(
        self, scene: ViewScene, mode: str = "texture", size: tuple[int, int] = (1280, 860)
    ):
        self.scene, self.mode = scene, mode
        self.cameras = self.compare = self.side_light = False
        self.coefficients: dict[str, float] = {}
        self.saved: list[Path] = []
        self._skins: dict[str, object] = {}
        self._o3d = import_open3d()
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise BackendUnavailable(
                "no window can be opened here (no display); use recon3d view DIR --screenshot PNG, "
                "or open report.html in a browser"
            )
        from open3d.visualization import gui, rendering

        self._gui, self._rendering = gui, rendering
        self._app = gui.Application.instance
        try:
            self._app.initialize()
            self._window = self._app.create_window(f"recon3d: {scene.title}", *size)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise BackendUnavailable(
                f"Open3D cannot open a window here ({why}); mend: {MEND}"
            ) from error
        self._widget = gui.SceneWidget()
        self._widget.scene = rendering.Open3DScene(self._window.renderer)
        prepare(self._widget.scene)
        # The head is drawn again only when something about it changes, not with the panel.
        self._widget.enable_scene_caching(True)
        self._widget.set_on_key(self._on_key)
        self._panel = self._make_panel()
        self._window.add_child(self._widget)
        self._window.add_child(self._panel)
        self._pictures = self._make_pictures()
        self._window.add_child(self._pictures)
        self._window.set_on_layout(self._on_layout)
        self._draw_head()
        self.first_view()

    def run(self, actions: Sequence[tuple[float, Callable[[Viewer], None]]] = ()) -> None:
        """Show the window until it is closed.

        Parameters
        ----------
        actions : sequence of (seconds, callable)
            Done one after another, each after its pause, on the window's thread.
        """
        if actions:
            import threading
            import time

            def play() -> None:
                for pause, action in actions:
                    time.sleep(pause)
                    self._app.post_to_main_thread(self._window, lambda act=action: act(self))

            threading.Thread(target=play, daemon=True).start()
        self._app.run()

    def close(self) -> None:
        """Close the window."""
        self._window.close()

    # ---------------------------------------------------------------- what the user does
    def set_mode(self, mode: str) -> None:
        """Colour the head in another mode."""
        self.mode = mode
        self._list.selected_index = MODES.index(mode)
        self._legend.text = _LEGENDS[mode]
        self._draw_head()

    def set_expression(self, name: str, value: float) -> None:
        """Move the face; 0 is neutral, 1 the whole expression."""
        self.coefficients[name] = value
        self._draw_head()

    def show_cameras(self, shown: bool) -> None:
        """Draw the track's cameras with their frames, or take them away."""
        self.cameras = shown
        self._camera_box.checked = shown
        for name, geometry, material in camera_geometry(self.scene) if shown else ():
            if not self._widget.scene.has_geometry(name):
                self._widget.scene.add_geometry(name, geometry, material)
        if not shown:
            for number in range(-1, len(self.scene.frames)):
                self._widget.scene.remove_geometry(f"camera {number}")
        self.first_view()
        self._widget.force_redraw()

    def show_comparison(self, shown: bool) -> None:
        """Show the best frame and the frontal view beside the head."""
        self.compare = shown
        self._compare_box.checked = shown
        self._pictures.visible = shown
        self._window.set_needs_layout()

    def set_side_light(self, on: bool) -> None:
        """Light from the side brings out the surface."""
        self.side_light = on
        self._light_box.checked = on
        self._draw_head()

    def first_view(self) -> None:
        """Look at the face from half left, or from above and far enough for the cameras."""
        vertices = self.scene.surface.vertices
        low, high = vertices.min(0), vertices.max(0)
        centre, reach = (low + high) / 2, float(np.linalg.norm(high - low))
        direction = np.array([0.42, 0.1, 1.0])
        if self.cameras:
            centre, reach = centre + [0, 0, 0.35 * _CAMERA_MM], 2.4 * _CAMERA_MM
            direction = np.array([1.0, 0.75, 0.9])
        distance = 0.47 * reach / np.tan(np.radians(FIELD_OF_VIEW / 2))
        eye = centre + direction / np.linalg.norm(direction) * distance
        box = self._widget.scene.bounding_box
        self._widget.setup_camera(FIELD_OF_VIEW, box, centre)
        self._widget.look_at(centre, eye, [0, 1, 0])
        self._widget.center_of_rotation = centre

    def screenshot(self) -> None:
        """Save what the left side shows, beside the result, under the next free number."""
        folder = self.scene.folder or Path.cwd()
        number = 1
        while (path := folder / f"screenshot_{number:02d}.png").exists():
            number += 1
        path.touch()

        def write(image) -> None:
            write_png(path, np.ascontiguousarray(np.asarray(image)[..., :3]))
            self.saved.append(path)
            self._said.text = f"saved {path.name}"

        self._widget.scene.scene.render_to_image(write)

    # ---------------------------------------------------------------- how it is drawn
    def _draw_head(self) -> None:
        drawn = self._widget.scene
        drawn.remove_geometry("head")
        mesh = open3d_mesh(self.scene, self.mode, self.coefficients, self.side_light)
        if self.mode not in self._skins:
            self._skins[self.mode] = unlit_material(mode_picture(self.scene, self.mode))
        drawn.add_geometry("head", mesh, self._skins[self.mode])
        self._widget.force_redraw()

    # ---------------------------------------------------------------- the panel
    def _make_panel(self):
        gui, em = self._gui, self._window.theme.font_size
        panel = gui.Vert(0.4 * em, gui.Margins(0.7 * em, 0.7 * em, 0.7 * em, 0.7 * em))
        self._list = gui.Combobox()
        for mode in MODES:
            self._list.add_item(MODE_LABELS[mode])
        self._list.selected_index = MODES.index(self.mode)
        self._list.set_on_selection_changed(lambda _, index: self.set_mode(MODES[index]))
        self._legend = gui.Label(_LEGENDS[self.mode])
        panel.add_child(gui.Label("Colour"))
        panel.add_child(self._list)
        panel.add_child(self._legend)
        self._camera_box = self._check("Cameras and their frames", self.show_cameras, panel)
        self._compare_box = self._check("Before and after", self.show_comparison, panel)
        self._light_box = self._check("Light from the side", self.set_side_light, panel)
        panel.add_child(gui.Label("Expression (the model's)"))
        panel.add_child(self._make_sliders(em))
        self._said = gui.Label(_HELP)
        panel.add_child(self._said)
        return panel

    def _make_pictures(self):
        """Best frame and frontal view, one above the other over the left of the scene."""
        gui, em = self._gui, self._window.theme.font_size
        box = gui.Vert(0.3 * em, gui.Margins(0.5 * em, 0.3 * em, 0.5 * em, 0.5 * em))
        before, after = self.scene.before, self.scene.after
        shown = [("best frame", before)] if before is not None else []
        for title, picture in (*shown, ("frontal view", after)):
            small = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
            box.add_child(gui.Label(title))
            image = self._o3d.geometry.Image(np.ascontiguousarray(small))
            box.add_child(gui.ImageWidget(image))
        box.background_color = gui.Color(0.11, 0.14, 0.2, 1.0)
        box.visible = False
        return box

    def _make_sliders(self, em: float):
        gui = self._gui
        box = gui.ScrollableVert(0.15 * em, gui.Margins(0, 0, 0.4 * em, 0))
        if self.scene.expression is None:
            box.add_child(gui.Label("its face model is not installed here"))
            return box
        names = self.scene.expression_names
        ordered = [n for n in COMMON if n in names] + [n for n in names if n not in COMMON]
        sliders = []

        def reset() -> None:
            self.coefficients.clear()
            for slider in sliders:
                slider.double_value = 0.0
            self._draw_head()

        button = gui.Button("Neutral")
        button.set_on_clicked(reset)
        box.add_child(button)
        for name in ordered:
            slider = gui.Slider(gui.Slider.DOUBLE)
            slider.set_limits(0.0, 1.0)
            slider.set_on_value_changed(lambda value, name=name: self.set_expression(name, value))
            sliders.append(slider)
            box.add_child(gui.Label(name))
            box.add_child(slider)
        return box

    def _check(self, text: str, action: Callable[[bool], None], panel):
        box = self._gui.Checkbox(text)
        box.set_on_checked(action)
        panel.add_child(box)
        return box

    def _on_layout(self, context) -> None:
        rect = self._window.content_rect
        wide = min(round(17.5 * self._window.theme.font_size), rect.width // 2)
        self._widget.frame = self._gui.Rect(rect.x, rect.y, rect.width - wide, rect.height)
        self._panel.frame = self._gui.Rect(rect.get_right() - wide, rect.y, wide, rect.height)
        wanted = self._pictures.calc_preferred_size(context, self._gui.Widget.Constraints())
        below = rect.get_bottom() - wanted.height
        self._pictures.frame = self._gui.Rect(rect.x, below, wanted.width, wanted.height)

    def _on_key(self, event):
        handled = self._gui.Widget.EventCallbackResult.HANDLED
        if event.type == self._gui.KeyEvent.DOWN and self.key(event.key):
            return handled
        return self._gui.Widget.EventCallbackResult.IGNORED

    def key(self, key: int) -> bool:
        """Do what a key does; whether it does anything."""
        actions = {
            "C": lambda: self.show_cameras(not self.cameras),
            "B": lambda: self.show_comparison(not self.compare),
            "L": lambda: self.set_side_light(not self.side_light),
            "R": self.first_view,
            "S": self.screenshot,
            **{str(i + 1): lambda mode=mode: self.set_mode(mode) for i, mode in enumerate(MODES)},
        }
        action = actions.get(chr(int(key)).upper()) if 0 < int(key) < 128 else None
        if action is None:
            return False
        action()
        return True


def prepare(drawn) -> None:
    """Let a scene show colours as they are given.

    Open3D's post-processing shifts hues, and a legend's colour must be the legend's. Without it
    nothing encodes the linear values that textures and background are decoded to, so they are
    encoded beforehand (`_encoded`); vertex colours pass through as they are.
    """
    drawn.view.set_post_processing(False)
    drawn.view.set_sample_count(4)
    drawn.set_background([*_encoded(np.array(BACKGROUND[:3])), 1.0])


def _encoded(values: np.ndarray) -> np.ndarray:
    return linear_to_srgb(np.asarray(values, np.float64))


def mode_picture(scene: ViewScene, mode: str) -> np.ndarray:
    """What is laid over the mesh in a mode: (T, T, 3) uint8, white where vertices have colours."""
    picture = scene.picture(mode)
    return np.full((8, 8, 3), 255, np.uint8) if picture is None else picture


def unlit_material(picture: np.ndarray):
    """A material that shows a picture times the vertex colours, without light."""
    from open3d.visualization import rendering

    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    encoded = (_encoded(picture / 255.0) * 255 + 0.5).astype(np.uint8)
    material.albedo_img = import_open3d().geometry.Image(np.ascontiguousarray(encoded))
    return material


def open3d_mesh(
    scene: ViewScene,
    mode: str = "texture",
    coefficients: dict[str, float] | None = None,
    side_light: bool = False,
):
    """The head as an Open3D triangle mesh.

    Light is put into the vertex colours: that draws fast on any machine, and nothing but shading
    changes a colour. Texture coordinates are always there, because Open3D's Vulkan renderer takes
    minutes over meshes without them on a software driver.

    Parameters
    ----------
    scene : ViewScene
    mode : str, one of `MODES`
    coefficients : dict of str to float, optional
        Expression.
    side_light : bool
        Strong light from the side, to read the surface by.

    Returns
    -------
    open3d.geometry.TriangleMesh
    """
    o3d = import_open3d()
    surface = scene.surface
    vertices = scene.vertices(coefficients)
    closed = np.zeros((surface.original.max() + 1, 3))
    closed[surface.original] = vertices
    normals = vertex_normals(closed, surface.original[surface.triangles])[surface.original]
    towards = np.array([0.95, 0.35, 0.25] if side_light else [0.3, 0.4, 1.0])
    strength = 0.85 if side_light else _SHADING.get(mode, 0.75)
    lambert = np.clip(normals @ (towards / np.linalg.norm(towards)), 0, 1)
    colours = np.full((len(vertices), 3), 1.0)
    if scene.picture(mode) is None:
        colours = scene.vertex_colours(mode) / 255.0
    colours = colours * (1 - strength + strength * lambert)[:, None]
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(surface.triangles)
    )
    mesh.vertex_normals = o3d.utility.Vector3dVector(normals)
    mesh.vertex_colors = o3d.utility.Vector3dVector(colours)
    mesh.triangle_uvs = o3d.utility.Vector2dVector(surface.uv[surface.triangles].reshape(-1, 2))
    ids = np.zeros(len(surface.triangles), np.int32)
    mesh.triangle_material_ids = o3d.utility.IntVector(ids)
    return mesh


def camera_geometry(scene: ViewScene) -> list[tuple[str, object, object]]:
    """The cameras: name, geometry and material of each part.

    They stand where the head's motion puts them: for a fixed camera and a turning head they lie on
    an arc round the face. Directions are true; distances and sizes are chosen to be in sight.
    """
    from open3d.visualization import rendering

    o3d = import_open3d()
    parts: list[tuple[str, object, object]] = []
    framed = {frame.view for frame in scene.frames}
    points, lines = [], []
    for view in range(len(scene.R)):
        apex, corners = frustum(scene, view, 64.0 if view in framed else 20.0)
        base = len(points)
        points += [apex, *corners]
        lines += [(base, base + k) for k in range(1, 5)]
        lines += [(base + k, base + k % 4 + 1) for k in range(1, 5)]
    frusta = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(np.array(points)), o3d.utility.Vector2iVector(np.array(lines))
    )
    frusta.paint_uniform_color([0.18, 0.37, 0.7])
    material = rendering.MaterialRecord()
    material.shader, material.line_width = "unlitLine", 1.0
    parts.append(("camera -1", frusta, material))
    for number, frame in enumerate(scene.frames):
        _, corners = frustum(scene, frame.view, 64.0)
        # Seen from both sides: the picture is looked at from behind the camera and from before.
        quad = o3d.geometry.TriangleMesh(
            o3d.utility.Vector3dVector(corners),
            o3d.utility.Vector3iVector([[0, 1, 2], [0, 2, 3], [0, 2, 1], [0, 3, 2]]),
        )
        uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0.0]])
        order = [0, 1, 2, 0, 2, 3, 0, 2, 1, 0, 3, 2]
        quad.triangle_uvs = o3d.utility.Vector2dVector(uv[order])
        quad.triangle_material_ids = o3d.utility.IntVector(np.zeros(4, np.int32))
        quad.compute_vertex_normals()
        quad.vertex_colors = o3d.utility.Vector3dVector(np.ones((4, 3)))
        parts.append((f"camera {number}", quad, unlit_material(frame.image)))
    return parts


def frustum(scene: ViewScene, view: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """A camera as a pyramid in model axes.

    Parameters
    ----------
    scene : ViewScene
    view : int
    width : float
        Of its picture, mm.

    Returns
    -------
    apex : (3,) mm
    corners : (4, 3) mm
        Of the picture: upper left, upper right, lower right, lower left, as the camera sees it.
    """
    R, t = scene.R[view], scene.t[view]
    centre = -R.T @ t
    apex = centre / max(float(np.linalg.norm(centre)), 1e-6) * _CAMERA_MM
    right, down, forward = R
    half = width / 2
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    return apex, apex + 1.1 * width * forward + square @ np.array([right, down])


def offscreen(scene: ViewScene, mode: str, size: tuple[int, int], yaw: float) -> np.ndarray:
    """A still from Open3D's off-screen renderer (needs EGL or Vulkan).

    Parameters
    ----------
    scene : ViewScene
        Loaded from a folder.
    mode : str, one of `MODES`
    size : (width, height), px
    yaw : float, degrees

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    BackendUnavailable
        Where Open3D cannot render off-screen; the caller draws with `render_still` instead.
    """
    # Without a driver, Open3D may end the process instead of raising, so it is asked in a process
    # of its own.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "still.png"
        command = [sys.executable, "-m", "recon3d.viewing.window", str(scene.folder), str(target)]
        command += [mode, str(size[0]), str(size[1]), str(yaw)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        except subprocess.TimeoutExpired as error:
            raise BackendUnavailable("Open3D's off-screen renderer does not answer") from error
        picture = cv2.imread(str(target)) if target.exists() else None
    if done.returncode != 0 or picture is None:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        why = said[-1].strip()[:120] if said else "no EGL"
        raise BackendUnavailable(f"Open3D cannot render off-screen here ({why})")
    return np.ascontiguousarray(picture[..., ::-1])


def _offscreen_main(arguments: list[str]) -> None:
    from recon3d.errors import Recon3DError
    from recon3d.viewing.scene import load_scene

    folder, target, mode, width, height, yaw = arguments
    try:
        scene, o3d = load_scene(folder), import_open3d()
    except Recon3DError as error:
        raise SystemExit(str(error)) from error
    from open3d.visualization import rendering

    renderer = rendering.OffscreenRenderer(int(width), int(height))
    prepare(renderer.scene)
    material = unlit_material(mode_picture(scene, mode))
    renderer.scene.add_geometry("head", open3d_mesh(scene, mode), material)
    vertices = scene.surface.vertices
    centre = (vertices.min(0) + vertices.max(0)) / 2
    reach = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    # As `render_still` frames it.
    distance = 3.0 * reach
    angle = np.radians(-float(yaw))
    eye = centre + distance * np.array([np.sin(angle), 0.0, np.cos(angle)])
    renderer.scene.camera.look_at(centre, eye, [0, 1, 0])
    view = float(2 * np.degrees(np.arctan(0.39 * reach / distance)))
    kind = rendering.Camera.FovType.Vertical
    aspect = int(width) / int(height)
    renderer.scene.camera.set_projection(view, aspect, distance - reach, distance + reach, kind)
    o3d.io.write_image(target, renderer.render_to_image())


if __name__ == "__main__":
    _offscreen_main(sys.argv[1:])
