# Bundles the project's commands; `make help` lists them. Each also works by itself.

INVENTORY ?= inventories/lab
BIN := .venv/bin
LAB := $(BIN)/python -m lab
LOG := .lab/site.log

# molecule and ansible-lint look for Ansible's programs on the PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help bootstrap up down status check lint docs test endurance sabotage mutants lock distclean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "  INVENTORY=$(INVENTORY) selects the hosts of up, down, status and sabotage."

bootstrap: ## install what this machine lacks, after saying so
	@lab/bootstrap

up: bootstrap ## build the whole service on the lab's hosts, and show it
	@started=$$(date +%s) && \
	$(LAB) up --inventory $(INVENTORY) && \
	rm -f $(LOG) && \
	ANSIBLE_LOG_PATH=$(LOG) ansible-playbook -i $(INVENTORY) playbooks/site.yml && \
	fab status --inventory $(INVENTORY) && \
	if grep -q 'changed=[1-9]' $(LOG); then echo "The service is up"; else echo "Nothing changed"; fi && \
	echo "after $$(($$(date +%s) - started)) s; \`make down\` removes it."

down: bootstrap ## remove every trace of the lab
	@$(LAB) down --inventory $(INVENTORY)

status: bootstrap ## show the running service on one screen
	@fab status --inventory $(INVENTORY)

# The checks run beside each other; what each says is shown when it ends, and all run to their end.
BESIDE = @+$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target

lint: bootstrap ## ruff, mypy, yamllint, ansible-lint
	$(BESIDE) ansible-lint python-lint

check: bootstrap ## the quick part of the tests: lint, types, and unit, contract and template tests that take no seconds
	$(BESIDE) ansible-lint python-lint quick-tests

.PHONY: ansible-lint python-lint quick-tests browser
browser:
	@lab/bootstrap tests

ansible-lint:
	ansible-lint --offline -q

python-lint:
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .

HOSTLESS := tests/unit tests/contract tests/templates tests/lab --ignore=tests/lab/live

quick-tests:
	pytest --numprocesses auto -m 'not slow' $(HOSTLESS)

test: browser check ## everything that CI runs
	pytest --numprocesses auto -m slow $(HOSTLESS)
	python -m tests.sabotage
	pytest tests/lab/live
	molecule destroy
	molecule test --all --exclude reboot --exclude disasters

endurance: browser ## all molecule scenarios, with every fault of the catalogue
	molecule destroy
	STANDFAST_DRILLS=all molecule test --all

sabotage: bootstrap ## break the project and a running lab, one thing at a time: a test must notice each
	@python -m tests.sabotage --inventory $(INVENTORY)

mutants: bootstrap ## break simulated histories of drills in many ways: the checker must pass none of them
	@python -m tests.mutants

docs: bootstrap ## write the roles' lists of variables anew from their argument specs
	for role in roles/*/; do aar-doc $$role markdown || exit; done

lock: bootstrap ## write requirements.lock anew from requirements.in
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--output-file requirements.lock requirements.in

distclean: ## make down, and remove the image and the Python tools
	@if [ -x $(BIN)/python ]; then \
		$(LAB) down --inventory $(INVENTORY) && \
		$(LAB) down --inventory inventories/molecule && \
		$(LAB) distclean; \
	fi
	rm -rf .venv .lab .ansible .*_cache
