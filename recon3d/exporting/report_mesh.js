// Draws one textured mesh with plain WebGL; shared by report.html and by the notebook's widget.
// `host` holds a canvas, and where wanted a select.r3d-mode, a button.r3d-spin and a .r3d-legend.
function recon3dMesh(host, mesh) {
  "use strict";
  const canvas = host.querySelector("canvas");
  const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) { host.classList.add("r3d-none"); return; }
  const decode = (text, Type) => {
    const s = atob(text), b = new Uint8Array(s.length);
    for (let i = 0; i < s.length; i++) b[i] = s.charCodeAt(i);
    return new Type(b.buffer);
  };
  const shader = (kind, text) => {
    const s = gl.createShader(kind);
    gl.shaderSource(s, text); gl.compileShader(s);
    if (!gl.getShaderParameter(s, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(s));
    return s;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    attribute vec3 p, n, c; attribute vec2 t;
    uniform vec2 turn; uniform float zoom; uniform float wide;
    varying vec3 vn, vc; varying vec2 vt;
    vec3 spin(vec3 v) {
      float c = cos(turn.x), s = sin(turn.x);
      v = vec3(c * v.x + s * v.z, v.y, c * v.z - s * v.x);
      c = cos(turn.y); s = sin(turn.y);
      return vec3(v.x, c * v.y - s * v.z, s * v.y + c * v.z);
    }
    void main() {
      vec3 q = spin(p); vn = spin(n); vt = t; vc = c;
      float w = 4.0 - q.z;
      gl_Position = vec4(q.x * 3.2 * zoom / wide, q.y * 3.2 * zoom, (3.5 - q.z) * 0.1 * w, w);
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    precision mediump float;
    varying vec3 vn, vc; varying vec2 vt;
    uniform sampler2D skin; uniform float painted; uniform float shade;
    void main() {
      vec3 n = normalize(vn);
      float d = 0.5 + 0.5 * max(dot(n, normalize(vec3(0.3, 0.4, 1.0))), 0.0);
      vec3 c = mix(texture2D(skin, vt).rgb, vc, painted);
      gl_FragColor = vec4(c * mix(1.0, d, shade), 1.0);
    }`));
  gl.linkProgram(program); gl.useProgram(program);
  const at = name => gl.getUniformLocation(program, name);
  const bind = (name, data, size, type, unit) => {
    const place = gl.getAttribLocation(program, name), buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, type, unit, 0, 0);
    return buffer;
  };
  bind("p", decode(mesh.position, Int16Array), 3, gl.SHORT, true);
  bind("n", decode(mesh.normal, Int8Array), 3, gl.BYTE, true);
  bind("t", decode(mesh.uv, Uint16Array), 2, gl.UNSIGNED_SHORT, true);
  const colour = bind("c", new Uint8Array(mesh.count * 3).fill(190), 3, gl.UNSIGNED_BYTE, true);
  const big = mesh.count > 65535 && gl.getExtension("OES_element_index_uint");
  const index = decode(mesh.index, mesh.count > 65535 ? Uint32Array : Uint16Array);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, index, gl.STATIC_DRAW);
  gl.enable(gl.DEPTH_TEST); gl.clearColor(0.914, 0.925, 0.949, 1);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 1, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, new Uint8Array([190, 190, 190]));
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);

  const places = { turn: at("turn"), zoom: at("zoom"), wide: at("wide"), painted: at("painted"), shade: at("shade") };
  let yaw = -0.45, pitch = 0.06, zoom = 1.12, mode = null, held = null, clock = null;
  const draw = () => {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const w = Math.round(canvas.clientWidth * scale) || 640, h = Math.round(canvas.clientHeight * scale) || 640;
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    gl.viewport(0, 0, w, h);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniform2f(places.turn, yaw, pitch); gl.uniform1f(places.zoom, zoom); gl.uniform1f(places.wide, w / h);
    gl.uniform1f(places.painted, mode && mode.picture ? 0 : 1);
    gl.uniform1f(places.shade, mode ? mode.shade : 1);
    gl.drawElements(gl.TRIANGLES, index.length, big ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT, 0);
  };
  const paint = name => {
    mode = mesh.modes.find(m => m.name === name) || mesh.modes[0];
    const legend = host.querySelector(".r3d-legend");
    if (legend) legend.innerHTML = mode.legend;
    if (mode.picture) {
      const chosen = mode, image = new Image();
      image.onload = () => {
        if (mode !== chosen) return;
        gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
        draw(); host.dataset.drawn = name;
      };
      image.src = mode.picture;
      return;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, colour);
    gl.bufferData(gl.ARRAY_BUFFER, mode.colour ? decode(mode.colour, Uint8Array) : new Uint8Array(mesh.count * 3).fill(190), gl.STATIC_DRAW);
    draw(); host.dataset.drawn = name;
  };
  const select = host.querySelector(".r3d-mode"), button = host.querySelector(".r3d-spin");
  const stop = () => { if (clock) { cancelAnimationFrame(clock); clock = null; } if (button) { button.textContent = "Turn"; button.setAttribute("aria-pressed", "false"); } };
  const spin = () => {
    const begin = performance.now() - Math.asin(Math.max(-1, Math.min(1, yaw / 0.9))) * 1800;
    const step = now => { yaw = 0.9 * Math.sin((now - begin) / 1800); draw(); clock = requestAnimationFrame(step); };
    clock = requestAnimationFrame(step);
    if (button) { button.textContent = "Stop"; button.setAttribute("aria-pressed", "true"); }
  };
  const move = (dx, dy) => { stop(); yaw += dx; pitch = Math.max(-1.4, Math.min(1.4, pitch + dy)); draw(); };
  const closer = factor => { stop(); zoom = Math.max(0.5, Math.min(5, zoom * factor)); draw(); };
  canvas.addEventListener("pointerdown", e => { stop(); held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", e => { if (held) { move((e.clientX - held[0]) * 0.01, (e.clientY - held[1]) * 0.01); held = [e.clientX, e.clientY]; } });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("wheel", e => { if (document.activeElement === canvas || e.ctrlKey) { e.preventDefault(); closer(Math.exp(-e.deltaY * 0.001)); } }, { passive: false });
  canvas.addEventListener("keydown", e => {
    const k = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
    if (k) { e.preventDefault(); move(...k); }
    else if (e.key === "+" || e.key === "=") closer(1.1);
    else if (e.key === "-") closer(1 / 1.1);
    else if (e.key === "Home" || e.key === "0") { e.preventDefault(); stop(); yaw = 0; pitch = 0; zoom = 1.12; draw(); }
  });
  if (select) {
    for (const m of mesh.modes) select.add(new Option(m.label, m.name, false, m.name === mesh.first));
    select.addEventListener("change", () => paint(select.value));
  }
  if (button) button.addEventListener("click", () => clock ? stop() : spin());
  if (window.ResizeObserver) new ResizeObserver(draw).observe(canvas);
  window.addEventListener("beforeprint", draw);
  paint(mesh.first || mesh.modes[0].name); draw();
  if (button && !(window.matchMedia && matchMedia("(prefers-reduced-motion: reduce)").matches)) {
    // Turns once it is seen, so that a long page does not work for what is out of sight.
    if (window.IntersectionObserver) {
      const seen = new IntersectionObserver(list => { if (list[0].isIntersecting) { seen.disconnect(); spin(); } }, { threshold: 0.4 });
      seen.observe(canvas);
    }
  }
}
