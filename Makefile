# Two commands: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Asked for by exact version first, so that no other package pulls in a larger build of it.
TORCH := $(shell grep "^torch==" constraints.txt)

.PHONY: demo test setup lint clean

# A stamp says which versions the environment was made from; a change in either file renews it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "recon3d needs Python 3.11 ($(PYTHON) not found); set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[viewer,recognition,onnx,dev]"
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/recon3d demo

lint: setup
	$(BIN)/ruff check recon3d tests benchmarks

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) out
