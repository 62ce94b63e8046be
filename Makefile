# Two commands: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Asked for by exact version first, so that no other package pulls in a larger build of it.
OPENCV := $(shell sed -n "s/^opencv-contrib-python==//p" constraints.txt)
TORCH := $(shell grep "^torch==" constraints.txt)

.PHONY: demo test setup lint clean

# A stamp says which versions the environment was made from; a change in either file renews it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "recon3d needs Python 3.11 ($(PYTHON) not found); set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[viewer,recognition,onnx,models]"
	@# The desktop build of OpenCV wants GL and GLib from the system; where they are missing, the
	@# headless build of the same version takes its place.
	@$(BIN)/python -c "import cv2" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps opencv-contrib-python-headless==$(OPENCV)
	touch $@

# What tests, notebooks and documentation need on top: left out of the first minute.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,notebook,docs,dev]"
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/recon3d demo

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check recon3d tests benchmarks notebooks

# With CI set, the slow tests run too. One thread for the linear algebra, as the command line has it:
# how many share a product, which depends on the load, shows in the last bit.
test: lint
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(CI),-m "slow or not slow")

clean:
	rm -rf $(VENV) out
