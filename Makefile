# `make test` is the one command that a change has to pass.

GOLANGCI_LINT ?= github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME      ?= 10s
ARGS          ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## install what the tests need, then gofmt, vet, lint and every test under the race detector
	@.ci/test.sh

.PHONY: compat
compat: ## real clients, held to README's table of them; ARGS=-update writes it
	@.ci/compat.sh $(ARGS)

.PHONY: campaign
campaign: ## nodes and their Redis in trouble, by chance, and a checker; ARGS="-seed 7 -for 10m"
	@.ci/campaign.sh $(ARGS)

.PHONY: deps
deps: ## install what the tests need and is missing
	@.ci/deps.sh

.PHONY: lint
lint: ## golangci-lint, as .golangci.yml says
	@go run $(GOLANGCI_LINT) run ./...

.PHONY: build
build: ## bin/caddy: Caddy with sse_guard in it
	@go build -o bin/caddy ./cmd/caddy

.PHONY: bench
bench: ## the benchmark beside plain reverse_proxy; ARGS="..." are passed to it
	@go run ./cmd/ssebench $(ARGS)

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@.ci/fuzz.sh $(FUZZTIME)

.PHONY: clean
clean: ## remove what the other targets made
	@rm -rf bin .cache
