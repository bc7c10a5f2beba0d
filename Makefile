# Everything runs in .venv, installed at the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# A file's tests share what they have fitted.
PARALLEL := --numprocesses auto --dist loadfile
INSTALLED := .venv/.installed

.PHONY: demo test test-all bench native lint format audit constraints clean

demo: $(INSTALLED)
	$(BIN)/stanflow fit stan_models/eight_schools/eight_schools_noncentered.stan \
		stan_models/eight_schools/eight_schools.json --seed 1 --out fits/demo --force

test: $(INSTALLED)
	$(MAKE) --jobs 2 lint native
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: lint native audit
	rm -rf build/programs
	$(BIN)/python -m pytest $(PARALLEL) -p tests.recording --record-programs=build/programs
	CXXFLAGS=-O1 $(BIN)/python -m tests.sweep.programs build/programs
	docker/test

# normflows is what the paper's code is built from; only the comparison needs it.
bench: $(INSTALLED) native
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/gradient_throughput.py --out benchmarks/results/gradient_throughput.json
	$(BIN)/python benchmarks/engine_speed.py --out benchmarks/results/engine_speed.json
	$(BIN)/python benchmarks/small_fits.py --out benchmarks/results/small_fits.json
	$(BIN)/python benchmarks/step_time.py --out benchmarks/results/step_time.json
	$(BIN)/python benchmarks/local_conditioner.py --out benchmarks/results/local_conditioner.json
	$(BIN)/python benchmarks/stability.py --out benchmarks/results/stability.json
	$(BIN)/python benchmarks/verdicts.py --out benchmarks/results/verdicts.json
	$(BIN)/python benchmarks/refining.py --out benchmarks/results/refining.json
	$(BIN)/python benchmarks/warm_nuts.py --out benchmarks/results/warm_nuts.json
	$(BIN)/python benchmarks/service_load.py --out benchmarks/results/service_load.json
	$(BIN)/python -m benchmarks.defaults --out benchmarks/results/defaults.json

# The newest Stan for the tests that compile, what all programs share compiled as tests/conftest.py
# has it; without it they take the one that pip has installed.
native: $(INSTALLED)
	-$(BIN)/stanflow doctor --install native >/dev/null
	-CXXFLAGS=-O1 $(BIN)/stanflow check --engine native stan_models/bernoulli/bernoulli.stan \
		stan_models/bernoulli/bernoulli.json >/dev/null

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# Whether what constraints.txt pins is known to be vulnerable.
audit: $(INSTALLED)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(BIN)/python -m pip install --quiet --editable '.[audit]'
	.ci/audit $(BIN)/pip-audit constraints.txt

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard stanflow/kernels/*.[ch])
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(BIN)/python -m pip install --quiet --editable '.[cmdstan,native,serve,test,lint]'
	touch $@

# Resolve the newest versions that pyproject.toml allows, and pin them.
constraints:
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet torch==2.13.0 '.[audit,bench,cmdstan,native,serve,test,lint]'
	.venv-constraints/bin/python -m pip freeze --all --exclude stanflow --exclude pip \
		| sed 's/^torch==.*/torch==2.13.0/' > constraints.txt
	rm -r .venv-constraints

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +
	rm -f stanflow/kernels/_kernels*.so
