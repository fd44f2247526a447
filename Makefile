# Two commands: `make demo` and `make test`. `make help` lists the rest.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
TESTBED := $(PYTHON) tests/testbed/testbed.py
CHECKOUT := .cache/collections/ansible_collections/selfhost/fleet
# FLUXBASE=/path/to/the/real/binary (and FLUXBASE_VERSION) runs the real program instead of the stand-in.
FLUXBASE_VERSION ?= 2026.3.6
STANDIN := .cache/standin/fluxbase-$(FLUXBASE_VERSION)
# The tests want one of each generation: the older one is what Debian 12's PostgreSQL can carry.
STANDINS := .cache/standin/fluxbase-2026.3.6 .cache/standin/fluxbase-0.9.4
DEMO_PORT ?= 8443
DEMO_HOST ?= local
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export FLUXBASE FLUXBASE_VERSION
# Said aloud, or molecule advises on every run to move the scenarios elsewhere.
export MOLECULE_GLOB := molecule/*/molecule.yml

.PHONY: help demo demo-down docs test lint sanity unit integration molecule bench-host bench-upgrade link
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

$(VENV)/ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV) || { apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

link: # a checkout runs as an installed collection does
	@mkdir -p $(dir $(CHECKOUT))
	@ln -sfn $(CURDIR) $(CHECKOUT)

.cache/standin/fluxbase-%: $(shell find tests/testbed/standin -type f -not -path '*/__pycache__/*') tests/testbed/build_standin.py
	@mkdir -p $(dir $@)
	$(PYTHON) tests/testbed/build_standin.py --version $* --output $@

demo: $(VENV)/ready link $(if $(FLUXBASE),,$(STANDIN)) ## a host, the whole site on it, and the address that answers in a browser
	@$(TESTBED) list | grep -q '^$(DEMO_HOST) ' || $(TESTBED) up $(DEMO_HOST) --publish $(DEMO_PORT):443
	@$(TESTBED) inventory $(DEMO_HOST) --name local > .cache/testbed/$(DEMO_HOST).yml
	$(BIN)/ansible-playbook -i inventories/local -i .cache/testbed/$(DEMO_HOST).yml playbooks/site.yml
	$(BIN)/ansible-playbook -i inventories/local -i .cache/testbed/$(DEMO_HOST).yml playbooks/status.yml
	@echo
	@echo "  Fluxbase answers at https://fluxbase.localhost:$(DEMO_PORT)/"
	@echo "  Its certificate is of the fleet's own authority: .cache/local-ca/ca.pem"
	@echo "  make demo-down removes the host."

demo-down: ## remove the demo's host
	$(TESTBED) down $(DEMO_HOST)

docs: $(VENV)/ready link ## write docs/reference and CHANGELOG.md anew
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_changelog.py

lint: $(VENV)/ready link
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(BIN)/mypy
	$(BIN)/ansible-lint --strict -q
	$(BIN)/antsibull-changelog lint
	$(BIN)/python docs/make_changelog.py --check
	$(BIN)/python docs/make_reference.py --check

sanity: $(VENV)/ready link
	$(BIN)/python -m tests.sanity.run

unit: $(VENV)/ready link
	$(BIN)/pytest -q tests/unit roles/edge/tests

integration: $(VENV)/ready link $(STANDINS)
	$(BIN)/pytest -q tests/integration

molecule: $(VENV)/ready link $(STANDINS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/molecule test --all

test: $(VENV)/ready link $(STANDINS) ## everything: linters, unit and integration tests, molecule; SCENARIO=lint (or unit, site, debian13, ...) for one part alone
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.run_all $(SCENARIO)

BENCH := .cache/venvs/bench
$(BENCH)/ready: bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

bench-host: $(BENCH)/ready link $(STANDIN) ## what a run costs on one host, beside a playbook of stock modules; writes bench/results/host.json
	$(BENCH)/bin/python bench/host.py $(if $(RUNS),--runs $(RUNS))

bench-upgrade: $(VENV)/ready link ## what users notice of upgrades and rollbacks under load; writes bench/results/upgrade.json
	$(BIN)/python bench/upgrade.py $(if $(RUNS),--runs $(RUNS)) $(if $(RATE),--rate $(RATE))
