# `make demo` and `make test` do everything from a fresh clone; `make check` is for every change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
DEMO_TIME ?= 90s

.PHONY: demo test check format install clean

demo: install
	$(BIN)/rnncli train sample_data/book.txt --out $(DEMO) --max-time $(DEMO_TIME) --overwrite
	tail -n 47 sample_data/book.txt | $(BIN)/rnncli evaluate $(DEMO)
	$(BIN)/rnncli generate $(DEMO) --prompt "The river " --max-new-tokens 300 --temperature 0.7 --seed 1

test: install
	$(BIN)/python -m pytest -q -n 2 -m "not slow"
	$(BIN)/python -m pytest -q -n 2 -m slow

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed

# torch goes first, in the version that was tested.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
