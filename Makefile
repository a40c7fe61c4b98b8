# Start with `make run` and `make test`; `make help` lists all targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)
# Caches of uv, Go, npm and the tools: the user's, or below this folder if the home folder cannot be written.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
ifneq ($(shell mkdir -p "$(CACHE)" 2>/dev/null && test -w "$(CACHE)" && echo yes),yes)
CACHE := $(CURDIR)/.tools/cache
export XDG_CACHE_HOME := $(CACHE)
export GOCACHE := $(CACHE)/go-build
export GOPATH := $(CACHE)/go
export npm_config_cache := $(CACHE)/npm
endif

HELM := helm.sh/helm/v3@v3.22.0
KUBECTL := k8s.io/kubectl@v0.34.1
ARGO_CD := github.com/argoproj/argo-cd/v3@v3.1.9
# Pulumi's engine, of the version of its Python SDK in requirements/dev.txt.
PULUMI := github.com/pulumi/pulumi/pkg/v3@v3.250.0
PROMTOOL := github.com/prometheus/prometheus@v0.316.0
# Of the version that helm/gitops installs.
ALERTMANAGER := github.com/prometheus/alertmanager@v0.28.1
# Of the version that the node exporter of helm/gitops has.
NODE_EXPORTER := github.com/prometheus/node_exporter@v1.9.1
ACTIONLINT := github.com/rhysd/actionlint@v1.7.12
# Tools for the charts and runbooks, built once for all checkouts; one that is on the PATH already is used instead.
CHART_TOOLS := $(CACHE)/freight-rates/bin
export PATH := $(PATH):$(CHART_TOOLS)
# Of the release: they push images, sign them, list what is in them, and compare that with advisories.
CRANE := github.com/google/go-containerregistry@v0.21.7
COSIGN := github.com/sigstore/cosign/v3@v3.1.3
SYFT := github.com/anchore/syft@v1.57.1
GRYPE := github.com/anchore/grype@v0.121.3
BUILD ?= docker build
BUILDAH ?= buildah build
IMAGES := dist/images
# What the tests of charts, runbooks and workflows need.
CHART_PROGRAMS := helm kubectl promtool alertmanager actionlint
SCRIPTS := .ci/run spark/decom.sh spark/entrypoint tests/cluster/smoke tests/cluster/images/stores/postgres-entrypoint
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate

.PHONY: help run test test-unit test-newest check lint lint-workflows types ci audit audit-images format hooks docs chart-docs record golden lock lock-check \
  drill incidents transitions preflight drift preview release version tag images publish login promote propose comment test-cluster kind-load \
  cluster-images cluster-platform cluster-stores client client-typescript client-tools chart-tools signing-tools release-tools test-tools engine prometheus go clean

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' \
	  $(firstword $(MAKEFILE_LIST))

##@ Run and test

run: .venv/.ready ## Run the whole system on this machine: PostgreSQL with a replica, Redis, the service, the sample data
	@exec rates dev

test: machine-test .venv/.ready test-tools client-tools ## Set up everything the tests need and run them; COVERAGE=yes lists the lines that no test reaches
	@python -m pytest -n 2 --dist loadgroup --durations=15 --durations-min=10 $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

test-unit: .venv/.ready ## Run the tests that need no server, in a minute
	@python -m pytest -n 2 --dist loadgroup tests/unit

test-newest: | .tools/bin/uv ## Run the unit tests on the newest Python that the machine has, or on NEWEST=/path/to/python
	@for python in $(NEWEST) python3.14 python3.13 python3.12; do "$$python" -c "" 2>/dev/null || continue; \
	  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); folder=.tools/python$$version; \
	  echo "Running the unit tests on Python $$version"; \
	  test -x $$folder/bin/python || uv venv --quiet --python "$$(command -v "$$python")" $$folder; \
	  uv pip sync --quiet --require-hashes --python $$folder/bin/python requirements/dev.txt; \
	  uv pip install --quiet --python $$folder/bin/python --no-deps --no-build-isolation --editable .; \
	  exec $$folder/bin/python -m pytest -n 2 --dist loadgroup tests/unit; done; \
	  echo "This machine has no Python 3.12 to 3.14, so the unit tests do not run on one. NEWEST names another"

check: lint lint-workflows types lock-check ## Linters, types, and whether the lock files match pyproject.toml

lint: .venv/.ready ## Lint Python, shell, YAML and pages
	@ruff check . && ruff format --check .
	@command -v shellcheck >/dev/null || { echo "shellcheck has no wheel for this system: install the system's package" >&2; exit 1; }
	@shellcheck $(SCRIPTS)
	@yamllint --strict .
	@djlint --quiet --lint rates_app/web/templates

lint-workflows: .venv/.ready tool-actionlint ## Lint the workflows
	@actionlint -shellcheck= -pyflakes=
	@zizmor --quiet --offline .

hooks: .venv/.ready ## Lint each commit: install .pre-commit-config.yaml as a hook of git
	@pre-commit install

types: .venv/.ready ## Check the types, also of what macOS has of the standard library
	@mypy
	@mypy --platform darwin --cache-dir .mypy_cache/darwin rates_app

ci: ## What every change has to pass; LAB=PROGRAM starts a cluster for the smoke test, otherwise KUBECONFIG names one
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory test-newest
	@tests/cluster/smoke $(LAB)
	@$(MAKE) --no-print-directory test

audit: .venv/.ready ## Known vulnerabilities of the locked packages; needs the network, and fails without it only if CI is set
	@python -m requirements.audit

audit-images: tool-grype ## Known vulnerabilities, of high severity and with a fix, in what the images of dist/images contain
	@status=0; for image in service spark; do echo "$$image:"; \
	  grype --quiet "sbom:$(IMAGES)/$$image.cdx.json" --only-fixed --fail-on high || status=1; done; exit $$status

##@ Change

format: .venv/.ready ## Format the code, and fix what the linter can fix
	@ruff check --fix . && ruff format .

docs: chart-docs record ## Generate every generated page, table and schema again
	@python -m docs.index
	@python -m tests.infra.faults
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

lock-check: | .tools/bin/uv ## Fail if pyproject.toml asks for something that the locks do not hold, or a platform has no wheel of it
	@for set in "dev pyproject.toml --group dev" "app pyproject.toml" "spark pyproject.toml --group spark" "build --group build"; do \
	  read -r name input <<<"$$set"; fresh=$$(mktemp); cp requirements/$$name.txt $$fresh; \
	  $(COMPILE) --constraints requirements/dev.txt $$input --output-file $$fresh >/dev/null; \
	  diff -u requirements/$$name.txt $$fresh || { echo "requirements/$$name.txt is stale: run 'make lock' and commit it" >&2; exit 1; }; \
	  rm -f $$fresh; done
	@python3 requirements/platforms.py

##@ Rehearse

drill: .venv/.ready ## Rehearse failures of the local stack under load and record the results in docs/drills.md; NAME=failover for one
	@python -m drills --record $(NAME)

incidents: .venv/.ready chart-tools prometheus ## Make incidents on the local stack and record who is notified in docs/drills.md; NAME="Redis killed"
	@python -m tests.incidents.rehearse --record $(if $(NAME),"$(NAME)")

transitions: .venv/.ready $(if $(ENGINE),engine) ## Take stacks through their life in an emulated AWS account; STACKS="dev prod", ENGINE=yes, RECORD=yes
	@PYTHONPATH=pulumi python -m tests.infra.emulator.transitions $(if $(ENGINE),--engine) $(RECORD:yes=--record) $(STACKS)

drift: .venv/.ready engine ## STACK=dev  Fail if `pulumi up` would change something
	@pulumi preview --stack "$(STACK)" --policy-pack pulumi/policies --expect-no-changes --non-interactive --diff

preview: .venv/.ready engine ## STACK=dev  Write what `pulumi up` would change into dist/preview.txt; Pulumi hides secrets
	@mkdir -p dist && rm -f dist/preview.txt
	@pulumi preview --stack "$(STACK)" --policy-pack pulumi/policies --non-interactive --color never --diff --suppress-outputs \
	  2>&1 | tee dist/preview.new && mv dist/preview.new dist/preview.txt

preflight: .venv/.ready ## STACK=dev  Check tools, credentials, permissions, quotas, names and versions before the first `pulumi up`
	@python pulumi/preflight.py "$(STACK)"

##@ Release

release: ## VERSION=1.2.0 REPOSITORY=…  Number, tag, build, publish and sign a release, and commit its digest for dev
	@test -n "$(REPOSITORY)" || { echo "Which repository gets the images? Set REPOSITORY" >&2; exit 1; }
	@$(MAKE) --no-print-directory version tag images publish
	@$(MAKE) --no-print-directory promote TO=dev

version: .venv/.ready ## VERSION=1.2.0  Commit a new version and its section of the changelog
	@python -m release version "$(VERSION)"

tag: .venv/.ready ## Tag the commit with its version
	@python -m release tag

images: .venv/.ready release-tools ## Build both images with their bills of materials into dist/images; BUILDAH and BASE for another builder and base
	@python -m release images --folder $(IMAGES) --builder "$(BUILDAH)" --base "$(BASE)"

publish: .venv/.ready signing-tools ## REPOSITORY=…  Push the images, sign and attest them, and verify that; KEY=cosign.key outside a workflow
	@python -m release publish --folder $(IMAGES) --repository "$(REPOSITORY)" --key "$(KEY)" --label "$(LABEL)"

login: .venv/.ready signing-tools ## REPOSITORY=…  Log in to a registry of AWS with the credentials of the environment
	@python -m release login --repository "$(REPOSITORY)"

promote: .venv/.ready ## TO=staging|prod  Commit for a stack the image of the previous one, FROM; TO=dev: the image in dist/images, or DIGEST=sha256:…; ANYTIME=yes: prod outside working hours
	@python helm/gitops/promote.py $(if $(filter dev,$(TO)),release "$(or $(DIGEST),$$(python -m release digest --folder $(IMAGES)))",promote "$(TO)" --from "$(FROM)" $(if $(filter yes,$(ANYTIME)),--anytime))

propose: .venv/.ready ## Open a pull request with the commits that main lacks
	@python -m release propose

comment: .venv/.ready ## STACK=dev PULL_REQUEST=7  Show dist/preview.txt as a comment on a pull request
	@python -m release comment dist/preview.txt --title "Preview of the stack $(STACK)$(LABEL:%= at %)" --pull-request "$(PULL_REQUEST)"

##@ Test on a cluster

test-cluster: .venv/.ready chart-tools ## Test in the cluster that KUBECONFIG names; SUITE=smoke: the short part; RECORD=yes
	@python -m pytest tests/cluster -m "cluster$(if $(SUITE), and $(SUITE))" $(RECORD:yes=--record)

cluster-images: ## Build the images of the cluster tests; BUILD="buildah bud" for another builder, BASE=… for another base
	@$(BUILD) $(BASE:%=--build-arg BASE=%) --tag rates:1 .
	@for variant in next crashing slow broken-migration; do \
	  $(BUILD) --build-arg IMAGE=rates:1 --target $$variant --tag rates:$$variant tests/cluster/images/variants; done

kind-load: ## Load the images of the cluster tests into kind
	@kind load docker-image rates:1 rates:next rates:crashing rates:slow rates:broken-migration

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
	@files=$$(mktemp -d); trap 'rm -rf "$$files"' EXIT; python -m clients.python.generate "$$files"; \
	  .tools/bin/uv build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir dist "$$files"; ls dist/*client*

client-typescript: .venv/.ready client-tools ## Build the typed TypeScript client into dist/
	@files=$$(mktemp -d); trap 'rm -rf "$$files"' EXIT; mkdir -p dist; mv "$$(python -m clients.typescript.build "$$files")" dist/; ls dist/*.tgz

##@ Tools

client-tools: .tools/typescript/.ready ## Install what builds the TypeScript client, as clients/typescript/package-lock.json lists it

.tools/typescript/.ready: clients/typescript/package.json clients/typescript/package-lock.json clients/typescript/.npmrc | machine-test
	@echo "Installing the tools of the TypeScript client"
	@mkdir -p $(@D) && cp $^ $(@D)/ && npm ci --prefix $(@D) --silent --no-audit --no-fund
	@touch $@

chart-tools: $(addprefix tool-,$(CHART_PROGRAMS)) ## Build helm, kubectl, promtool, alertmanager and actionlint from their Go modules, unless installed

signing-tools: tool-crane tool-cosign ## Build crane and cosign likewise

release-tools: signing-tools tool-syft ## Build syft, too

prometheus: tool-prometheus tool-node_exporter ## Build Prometheus, of promtool's version, and exporters, unless they are there

engine: tool-pulumi ## Build Pulumi's command, unless it is there already

test-tools: | go # The tests of a program whose module cannot be reached do not run
	@python3 requirements/tools.py $(addprefix tool-,$(CHART_PROGRAMS) pulumi crane cosign)

# $(call install,PROGRAM,MODULE@VERSION,PACKAGE,DURATION)
install = command -v $(1) >/dev/null || { echo "Building $(1) ($(2)) into $(CHART_TOOLS), $(4)"; \
	  GOBIN="$(CHART_TOOLS)" go install -trimpath "$(subst @,$(3)@,$(2))"; }

# $(call build,PROGRAM,MODULE@VERSION,DURATION,COMMANDS) builds within a new module: `go install` refuses modules
# that replace some of their dependencies. Go's output is printed if it fails.
build = command -v $(1) >/dev/null || { echo "Building $(1) ($(2)) into $(CHART_TOOLS), $(3)"; mkdir -p "$(CHART_TOOLS)"; \
	  build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; cd "$$build"; { go mod init build && $(4); } >log 2>&1 || \
	  { cat log >&2; exit 1; }; }

tool-helm: | go
	@$(call install,helm,$(HELM),/cmd/helm,two minutes)

tool-alertmanager: | go
	@$(call install,alertmanager,$(ALERTMANAGER),/cmd/alertmanager,a minute)

tool-node_exporter: | go
	@$(call install,node_exporter,$(NODE_EXPORTER),,a minute)

tool-actionlint: | go
	@$(call install,actionlint,$(ACTIONLINT),/cmd/actionlint,a minute)

tool-crane: | go
	@$(call install,crane,$(CRANE),/cmd/crane,a minute)

tool-cosign: | go
	@$(call install,cosign,$(COSIGN),/cmd/cosign,ten minutes)

tool-syft: | go
	@$(call install,syft,$(SYFT),/cmd/syft,ten minutes)

tool-grype: | go
	@$(call install,grype,$(GRYPE),/cmd/grype,ten minutes)

tool-promtool tool-prometheus: tool-%: | go
	@$(call build,$*,$(PROMTOOL),five minutes,go get "$(subst @,/cmd/$*@,$(PROMTOOL))" && \
	  go build -trimpath -o "$(CHART_TOOLS)/$*" "$(firstword $(subst @, ,$(PROMTOOL)))/cmd/$*")

tool-kubectl: | go
	@# kubectl's module is the library alone; its program is this one line, which Kubernetes keeps in a module of its own.
	@$(call build,kubectl,$(KUBECTL),two minutes,printf '%s\n' 'package main' \
	    'import ("k8s.io/component-base/cli"; "k8s.io/kubectl/pkg/cmd")' \
	    'func main() { cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()) }' >main.go && \
	  go get "$(KUBECTL)" && go mod tidy && go build -trimpath -o "$(CHART_TOOLS)/kubectl" .)

tool-pulumi: | go
	@# Its libraries are a module of the same version; the module replaces it by a folder, which holds only inside it.
	@$(call build,pulumi,$(PULUMI),three minutes,go mod edit -require="$(PULUMI)" -require="$(subst /pkg/,/sdk/,$(PULUMI))" && \
	  CGO_ENABLED=0 go build -mod=mod -trimpath -o "$(CHART_TOOLS)/pulumi" \
	    -ldflags "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$(lastword $(subst @v, ,$(PULUMI)))" \
	    "$(firstword $(subst @, ,$(PULUMI)))/cmd/pulumi")

go: | .tools/bin/uv # Compiles the tools. It goes into the folder of uv, which is on the PATH
	@command -v go >/dev/null || { echo "Installing Go, which builds the tools"; \
	  .tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/compiler.txt; }

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
	@test -x .venv/bin/python || uv venv --quiet --python ">=3.11,<3.15" .venv
	@uv pip sync --quiet --require-hashes --python .venv/bin/python requirements/dev.txt
	@uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
