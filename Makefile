# On a fresh machine with Python: `make quickstart`, `make test`. Without make, see "Without make" in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUT ?= outputs
NPM := $(shell command -v npm)
CHROMIUM := $(shell command -v chromium)
WEB := src/colorization/web/index.html

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-web test-browser web client lint docs format train eval serve data tensorboard bench bench-data bench-train bench-infer bench-colorize bench-eval bench-api bench-shards bench-cluster bench-scale bench-memory bench-accelerator scale wheel archive container clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## create .venv with everything in it

quickstart: STARTED := quickstart-$(shell date +%m%d-%H%M%S)
quickstart: $(INSTALLED) ## install, train all four stages briefly, evaluate them, colorize a photo
	$(BIN)/python -m colorization.train -m experiment=quickstart/baseline,quickstart/unet,quickstart/gan,quickstart/fusion sweep=$(STARTED) paths.output_dir=$(OUT)/quickstart
	$(BIN)/python -m colorization.eval datamodule=sample datamodule.image_size=64 lpips=false paths.output_dir=$(OUT)/quickstart eval_dir=$(OUT)/quickstart/eval/$(STARTED) \
	  weights="{baseline: $(STARTED)-000, unet: $(STARTED)-001, gan: $(STARTED)-002, fusion: $(STARTED)-003}"
	$(BIN)/colorize "$$($(BIN)/python -c 'import skimage; print(skimage.__path__[0])')/data/coffee.png" -o $(OUT)/quickstart/coffee-colorized.png --overwrite
	@echo
	@echo "Four photos teach little. Three stages went on from weights that ship; fusion, of which none do, started from nothing and wavers,"
	@echo "and the plain baseline learns those four so well that it may end behind grey on the two test photos."
	@echo "The picture is by the default weights, which have seen 48,705; weights/README.md says how good they are."
	@echo "table    $(OUT)/quickstart/eval/$(STARTED)/table.md"
	@echo "strips   $(OUT)/quickstart/eval/$(STARTED)/strips/"
	@echo "picture  $(OUT)/quickstart/coffee-colorized.png"
	@echo "runs     $(OUT)/quickstart/runs/"

test: $(INSTALLED) $(if $(NPM),$(WEB)) ## run all tests (ARGS="-k name" for some of Python's)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --durations=15 $(ARGS)
	$(if $(ARGS),,$(MAKE) test-web test-browser)

test-web: $(if $(NPM),frontend/node_modules/.installed) ## the web app's unit tests
	$(if $(NPM),cd frontend && npm test,@echo "web app: not tested, there is no Node.js")

test-browser: $(INSTALLED) $(if $(NPM),$(WEB)) ## the web app in Chromium, on the real server
	$(if $(NPM),$(if $(CHROMIUM),cd frontend && COLORIZATION_PYTHON=$(abspath $(BIN)/python) npm run test:browser,@echo "web app: not tested in a browser, there is no chromium"),@echo "web app: not tested in a browser, there is no Node.js")

lint: $(INSTALLED) $(if $(NPM),frontend/node_modules/.installed) ## ruff, its formatter, mypy; of the web app eslint, prettier, vue-tsc
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(NPM),cd frontend && npm run lint)

docs: $(INSTALLED) ## build the documentation into build/docs, strictly: a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(INSTALLED) ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(INSTALLED) ## train a stage: ARGS="model=unet datamodule.data_dir=photos"
	$(BIN)/python -m colorization.train $(ARGS)

eval: $(INSTALLED) ## the newest finished run of each model and the shipped weights: ARGS="datamodule.test_dir=photos"
	$(BIN)/python -m colorization.eval $(ARGS)

frontend/node_modules/.installed: frontend/package.json frontend/package-lock.json frontend/.npmrc
	cd frontend && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci
	@touch $@

$(WEB): frontend/node_modules/.installed $(shell find frontend/src frontend/public frontend/scripts -type f) frontend/index.html frontend/vite.config.ts frontend/tsconfig.json
	cd frontend && npm run build

web: $(WEB) ## build the web app into the package (needs Node.js 20 or newer)

client: $(INSTALLED) frontend/node_modules/.installed ## the API's description, and the web app's types made from it
	$(BIN)/python -m colorization.api.openapi > frontend/openapi.json
	cd frontend && npm run client

serve: $(INSTALLED) $(if $(NPM),$(WEB)) ## the REST API and the web app on http://127.0.0.1:5000: ARGS="--port 8080"
	$(if $(NPM),,@echo "no Node.js here, so no web app: serving the API alone")
	$(BIN)/colorization serve $(ARGS)

data: $(INSTALLED) ## download COCO val2017 into data/coco
	$(BIN)/python -m colorization.data.download $(ARGS)

tensorboard: $(INSTALLED) ## curves of all runs
	$(BIN)/tensorboard --logdir $(OUT)/runs

bench: bench-data bench-infer bench-colorize bench-eval bench-api bench-train ## every benchmark against the plain way, see benchmarks/README.md

bench-data bench-train bench-infer bench-colorize bench-eval bench-api bench-shards bench-cluster bench-scale bench-memory: bench-%: $(INSTALLED) # one of them
	$(BIN)/python benchmarks/bench_$*.py --save $(ARGS)

# Each stage for half a minute in each setting.
bench-accelerator: $(INSTALLED)
	for setting in "32-true accelerator.channels_last=false" 32-true bf16-mixed "bf16-mixed accelerator.compile=true"; do \
	  $(BIN)/python benchmarks/bench_train.py --save --device cuda --seconds 30 --overrides "trainer.precision=$$setting" $(ARGS) || exit; \
	done

scale: $(INSTALLED) ## what more machines would do, computed from what bench-scale has measured: docs/scale.md
	$(BIN)/python benchmarks/scale.py

study-%: $(INSTALLED) # repeat a study of experiments/: DATA=<folder with its data>
	PYTHON=$(abspath $(BIN)/python) OUT=$(OUT) experiments/$*/run.sh $(DATA) $(ARGS)

wheel: $(INSTALLED) $(if $(NPM),$(WEB)) ## build the wheel, install it in a clean environment and run it from another folder
	VENV_BIN=$(abspath $(BIN)) tests/check_wheel.sh

archive: $(INSTALLED) ## the same without any extra, so without torch, and compare the picture with torch's
	VENV_BIN=$(abspath $(BIN)) tests/check_archive.sh

container: $(INSTALLED) ## lint the Dockerfile and run its steps without Docker, with a server under a token
	VENV_BIN=$(abspath $(BIN)) tests/check_container.sh

clean: ## remove caches and builds; runs, data and .venv stay
	rm -rf build dist src/*.egg-info src/colorization/web frontend/test-results .pytest_cache .mypy_cache .ruff_cache
	find src configs tests weights -name __pycache__ -type d -prune -exec rm -rf {} +
