# `make` lists the targets. What needs more than a line lives in .config/.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO       ?= go
PKG      ?= ./...
FUZZTIME ?= 10s
# Nothing here is C: the programs are static, and link in a third of the time.
export CGO_ENABLED ?= 0
ifeq ($(CI),true)
export TANDEM_REQUIRE ?= all
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

.PHONY: build
build: ## bin/tandem and bin/tandem.exe
	$(GO) build -trimpath -o bin/tandem ./cmd/tandem
	GOOS=windows $(GO) build -trimpath -o bin/tandem.exe ./cmd/tandem

.PHONY: demo
demo: ## from a commit to running pods on Linux and Windows, on this machine (WINDOWS=wine: tandem.exe under Wine)
	@.config/packages containerd runc nftables git $(if $(filter wine,$(WINDOWS)),wine64 gcc-mingw-w64-x86-64)
	@$(GO) run ./cmd/tandem/e2e/demo

.PHONY: test
test: ## every test (PKG=./render/... RUN=TestPairs narrow it; RACE=1)
	@.config/packages
	@.config/test $(PKG)

.PHONY: check
check: ## exactly what CI runs: build, vet, lint, generated code, tests
	@.config/check

.PHONY: soak
soak: ## the tests with full counts and the race detector: hours
	@.config/packages
	@RACE=1 TIMEOUT=2h .config/test $(PKG)
	@TANDEM_SOAK=1 TIMEOUT=8h .config/test $(PKG)

.PHONY: lint
lint: ## golangci-lint, for linux and windows (FIX=1 mends what it can)
	@.config/lint $(PKG)

.PHONY: bench
bench: ## a line a figure, with its goal; fails when one is missed
	@$(GO) run ./cmd/tandem/bench $(BENCH)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each (10s)
	@.config/fuzz $(FUZZTIME) $(PKG)

.PHONY: generate
generate: ## write generated code again
	$(GO) generate ./...

.PHONY: clean
clean: ## remove what make built here
	rm -rf bin .cache
