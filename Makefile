# Needs Python 3.11 or newer, git and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo space space-test test quick reliability attacks matrix oldest lint types docs wheel runtimes release-check clean

# torch comes first and alone: pulled in by another package it may come as another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# What quantises models while they are loaded: for the tests alone, since transformers imports torchao where it finds it,
# and torchao warns of what its build lacks.
$(VENV)/.complete: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,quantised]'
	touch $@

# The real SmolLM2-135M-Instruct, made shallower; leaves the pruned model in demo/pruned.
demo: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python examples/prune_smollm2.py demo/dense demo/pruned

# The page in the browser, at http://127.0.0.1:7860. Gradio and what drives a browser live in an environment of their own,
# which sees the packages of the first one.
SPACE := .venv-space
$(SPACE)/.installed: $(VENV)/.installed constraints.txt
	$(PYTHON) -m venv $(SPACE)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		$$($(SPACE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth
	$(SPACE)/bin/pip install --quiet --constraint constraints.txt "gradio[oauth]" playwright
	touch $@

space: $(SPACE)/.installed
	PYTHONPATH=$(CURDIR) SLEB_SPACE_FOLDERS=1 $(SPACE)/bin/python examples/space/app.py

# In a real Chromium (`apt-get install chromium`, or the one that CHROME names); skipped, with the reason, where there is
# none. Each of the two processes serves a page of its own.
space-test: $(SPACE)/.installed
	PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 $(SPACE)/bin/python -m pytest -q -rs -n 2 tests/space

test: $(VENV)/.complete
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not matrix"

# Before every commit. Of every room of the package all tests but those that are marked because they take more than about
# half a second each, or ten seconds over all their cases: they are four fifths of the time and a tenth of the tests. A
# new test is run here unless it is marked. The attacks have a command of their own.
quick: $(VENV)/.complete
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not (long or slow or matrix or cuda)" --ignore tests/attacks

# What befalls a run: kills, faults, damaged files, memory that runs out. Writes the table of docs/reliability.md.
reliability: $(VENV)/.complete
	$(BIN)/python -m pytest -m "reliability and not matrix" --reliability-page docs/reliability.md

# Strange and hostile inputs: each is refused with one sentence, or gives the right result.
attacks: $(VENV)/.complete
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/attacks

# Every architecture of the installed transformers, in a few minutes; `make test` tries one for each mechanism.
matrix: $(VENV)/.complete
	$(BIN)/python -m pytest -m matrix

# The oldest releases that pyproject.toml allows of what moves fastest, and the tests of all that stands on it. Everything
# else is as in constraints.txt.
OLDEST := .venv-oldest
OLDEST_PINS := transformers==5.17.0 huggingface-hub==1.31.0 peft==0.19.1 trl==1.0.0
$(OLDEST)/.installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(OLDEST)
	grep -vE '^(transformers|huggingface-hub|peft|trl)==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --constraint $(OLDEST)/constraints.txt torch==2.13.0
	$(OLDEST)/bin/pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[dev]' $(OLDEST_PINS)
	touch $@

oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -m "not matrix" tests/test_trainer.py tests/test_callback.py tests/hub/test_healed.py \
		tests/test_healing_page.py tests/healing tests/test_examples.py tests/test_pruner.py tests/architectures

# Pruned models in every runtime that docs/runtimes.md claims; writes the tables of that page. What runs them is too much
# for .venv, and the oldest transformers needs a place of its own. What was measured is kept in .cache/runtimes.
RUNTIMES := .venv-runtimes
RUNTIMES_PINS := xllamacpp==2026.10.11549 ik-llama-cpp-python==0.1.5 onnx==1.23.2 onnxscript==0.7.2 \
	onnxruntime==1.32.0 sentencepiece==0.2.3
$(RUNTIMES)/.installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(RUNTIMES)
	$(RUNTIMES)/bin/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RUNTIMES)/bin/pip install --quiet --constraint constraints.txt --editable '.[gguf,heal,quantised]' $(RUNTIMES_PINS)
	$(PYTHON) -m venv $(RUNTIMES)/oldest
	$(RUNTIMES)/oldest/bin/pip install --quiet --constraint constraints.txt torch==2.13.0 numpy
	$(RUNTIMES)/oldest/bin/pip install --quiet transformers==5.17.0
	touch $@

runtimes: $(RUNTIMES)/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(RUNTIMES)/bin/python benchmarks/runtimes.py measure --work .cache/runtimes \
		--oldest $(RUNTIMES)/oldest/bin/python
	$(RUNTIMES)/bin/python benchmarks/runtimes.py page

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# The site of docs/, in `site/`; a link that leads nowhere is an error. It needs no torch: sources are read, not run.
DOCS := .venv-docs
$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs']))" \
		> $(DOCS)/requirements.txt
	$(DOCS)/bin/pip install --quiet --constraint constraints.txt --requirement $(DOCS)/requirements.txt
	touch $@

docs: $(DOCS)/.installed
	PATH="$(CURDIR)/$(DOCS)/bin:$$PATH" NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

# What `pip install dist/*.whl` takes; nothing but Python and pip is needed.
wheel:
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .

# What a release must pass: build, metadata, and the README's first command with the wheel in an environment of its own.
RELEASE := .venv-release
release-check:
	rm -rf $(RELEASE) dist
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet build twine
	$(RELEASE)/bin/python -m build --outdir dist .
	$(RELEASE)/bin/twine check --strict dist/*
	rm -rf $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RELEASE)/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	$(RELEASE)/bin/python -I tests/release_check.py README.md

clean:
	rm -rf $(VENV) $(OLDEST) $(DOCS) $(RELEASE) $(RUNTIMES) $(SPACE) demo .cache site dist
