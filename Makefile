# All that we do, CI included. `make` or `make help` lists it.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
GOFLAGS_BUILD := -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)"

ARGS     ?=
BENCH    ?=
FUZZTIME ?= 10s
CHAOS    ?=
PKG      ?= ./...
# Tests that play pictures in real time: beside another package's they would measure that one.
LIVE     := ./internal/rig ./load/...

# What the pages are made from. npm ci and the build run only when one of these is newer.
WEB_SOURCES := $(shell find web \( -name node_modules -o -name dist -o -name .test \) -prune -o -type f -not -name '*.go' -print 2>/dev/null)
WEB_MODULES := web/node_modules/.package-lock.json
WEB_BUILT   := web/dist/.built
# What the panel's types are made from: the nodes' own description of their REST.
OPENAPI     := web/src/panel/openapi.json
E2E_MODULES := e2e/node_modules/.package-lock.json

.PHONY: help deps deps-test build web up test ferretdb test-short test-web arch e2e e2e-long lint fuzz bench bench-ladder bench-micro simulate chaos abr rules release azure-validate docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

deps: ## check what building and running needs
	@scripts/deps run

deps-test: ## check what the tests need, and install it where that is allowed
	@scripts/deps test

$(WEB_MODULES): web/package-lock.json web/package.json
	@echo "web: installing packages (once)"
	@cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(OPENAPI): $(wildcard api/*.go internal/auth/*.go internal/settings/*.go) go.mod
	@go run ./cmd/openapi > $@.new && mv $@.new $@

$(WEB_BUILT): $(WEB_MODULES) $(OPENAPI) $(WEB_SOURCES)
	@echo "web: building the pages"
	@cd web && npm run --silent build
	@touch $@

$(E2E_MODULES): e2e/package-lock.json e2e/package.json
	@echo "e2e: installing packages (once)"
	@cd e2e && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web: $(WEB_BUILT) ## build the pages that go into the binary

build: deps web ## build bin/sluice
	@mkdir -p bin
	@[ -x bin/sluice ] || echo "sluice: building (the first time takes a minute or two; each package is named as it is done)"
	@go build $$([ -x bin/sluice ] || echo -v) $(GOFLAGS_BUILD) -o bin/sluice ./cmd/sluice

up: build ## build, and run a whole cluster on this machine; ARGS="--edges 3" for more
	@exec bin/sluice up $(ARGS)

test: deps deps-test lint arch rules test-web ferretdb ## every test: what CI runs
	@echo "go: tests with the race detector"
	go test -race -timeout 10m $$(go list $(PKG) | grep -vxF "$$(go list $(LIVE))")
	go test -race -timeout 10m -p 1 $(LIVE)
	@$(MAKE) --no-print-directory e2e

ferretdb: ## build bin/ferretdb, the MongoDB of the tests
	@[ -x bin/ferretdb ] || echo "tests: building FerretDB (once, about a minute)"
	@scripts/ferretdb

test-short: web ## the fast tests of the Go code
	go test -short $(PKG)

test-web: $(WEB_MODULES) $(OPENAPI) ## tests of the pages' code
	@echo "web: tests"
	@cd web && npm run --silent check && npm test --silent

arch: web ## only the rules of ARCHITECTURE.md
	@echo "go: rules of the house"
	go test .

rules: ## alert rules with their tests, and the queries of the dashboard, by promtool
	@echo "promtool: alert rules, queries of the dashboard"
	@scripts/rules

e2e: build ## the real binary in real Chromium, ffmpeg and GStreamer
	@if [ -f e2e/package.json ]; then $(MAKE) --no-print-directory e2e-run; else echo "e2e: nothing there"; fi

.PHONY: e2e-run
e2e-run: $(E2E_MODULES)
	@echo "e2e: the real binary in a real browser"
	@cd e2e && npm test

e2e-long: build ## slow tests: the real binary behind networks that lose packets; needs root
	@scripts/deps long
	@$(MAKE) --no-print-directory $(E2E_MODULES)
	@echo "e2e: the real binary behind bad networks"
	@cd e2e && npm run --silent long
	@echo "e2e: a cluster that grows and shrinks under load"
	go test -tags long -run TestUpAutoscale -count=1 ./cmd/sluice

abr: build ## how a viewer's picture follows his network, in Chromium, with charts; needs root; SCENES="step" REPEAT=3
	@scripts/deps long
	@$(MAKE) --no-print-directory $(E2E_MODULES)
	@go build -o bin/abr-relay ./e2e/abr/relay
	@cd e2e && node abr/abr.mjs $(SCENES)

lint: web ## gofmt and go vet
	@echo "go: gofmt, vet"
	@unformatted="$$(gofmt -l $$(go list -f '{{.Dir}}' $(PKG)))"; [ -z "$$unformatted" ] || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	go vet $(PKG)

fuzz: web ## each fuzz target for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME)

bench: build ## what a viewer costs: ours, the floor and Janus beside each other, then bench-micro; BENCH="--repeat 3" for medians
	@go build -o bin/bench ./cmd/bench
	@bin/bench $(BENCH)
	@$(MAKE) --no-print-directory bench-micro

bench-ladder: ## what renditions cost over FFmpeg alone, how late they come, and each rung on its own
	go test -run '^$$' -bench . -benchtime 1x ./ladder

bench-micro: web ## the Go benchmarks: of the send loop, sealing, batches; PKG=./... for all
	go test -run '^$$' -bench . -benchmem $(if $(filter command%,$(origin PKG)),$(PKG),./rtc ./udp)

chaos: build ## break a cluster in network namespaces and measure what people notice; needs root; CHAOS="--quick" takes minutes, not an hour
	@go build -trimpath -o bin/chaos ./e2e/chaos
	@bin/chaos $(CHAOS)

simulate: ## a thousand edges and a million viewers in virtual time, half a minute; ARGS="--case budget", ARGS=--help
	@go build -o bin/simulate ./cmd/simulate
	@bin/simulate $(ARGS)

release: web ## static binaries, Debian packages, checksums and lists of modules for linux amd64 and arm64, in dist
	@scripts/release $(VERSION) $(COMMIT)
	@SLUICE_DIST=$(CURDIR)/dist go test -count=1 -run TestRelease ./deploy/debian

azure-validate: ## check deploy/azure by OpenTofu and the azurerm provider, built from source once (20 minutes of CPU)
	@scripts/azure-validate

docs: ## write again what is made from the code: docs/errors.md
	go test -count=1 -run 'TestErrorsPage' . -update

clean: ## remove what was built
	rm -rf bin dist web/node_modules web/.test web/src/panel/openapi.json web/src/panel/schema.d.ts e2e/node_modules e2e/artifacts
	find web/dist -mindepth 1 -not -name about.txt -delete # that one is in git: it lets Go compile without the pages
