# `make` alone prints the targets.
GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT      = mvdan.cc/gofumpt@v0.12.0
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME    ?= 5000x
SOURCE      ?= postgres
# Packages whose tests run under the race detector: those with goroutines of their own.
RACE = ./capture/... ./checkpoint/... ./publish/... ./snapshot/... ./schema/...

.DEFAULT_GOAL := help
.PHONY: help build test unit race integration fuzz lint fmt bench demo clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/headwater
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/headwater ./cmd/headwater

test: lint race integration fuzz ## All of the tests, as CI runs them (gets and starts the servers it needs)

unit: ## The quick tests only, without a server
	$(GO) test -skip TestReal ./capture ./checkpoint/... ./publish/... ./schema/... ./snapshot/...

race: ## The tests of every package but integration, with the race detector; prints the versions of the databases
	$(GO) test -race -timeout 20m $(RACE)
	@out=$$($(GO) test -v -timeout 20m ./cmd/... ./integration/servers) || { echo "$$out"; exit 1; }; \
	  echo "$$out" | grep -oE '(^ok|(mysql|mariadb|postgres) [0-9]).*'

integration: ## The whole program: real databases, Kafka and registry, killed at random
	$(GO) test -timeout 40m ./integration

fuzz: ## Every fuzz target, $(FUZZTIME) runs each (a duration as FUZZTIME works too)
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p || exit 1; \
	  done; \
	done

lint: ## Format, vet, staticcheck, and that it builds for macOS
	@out=$$($(GO) run $(GOFUMPT) -l .); if [ -n "$$out" ]; then echo "not formatted, run make fmt:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	GOOS=darwin $(GO) build -o /dev/null ./cmd/headwater
	$(GO) run $(STATICCHECK) ./...

fmt: ## Format the code
	$(GO) run $(GOFUMPT) -w .

bench: ## Speed and memory: figures and ratios of one run, medians of 3
	$(GO) test -run '^$$' -bench . -benchtime 1s ./capture/... ./schema/... ./publish/...
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./integration

demo: ## See rows travel, and the program survive SIGKILL (SOURCE=postgres, mysql or mariadb)
	$(GO) run ./cmd/headwater demo --source $(SOURCE)

clean: ## Remove what was built
	rm -rf bin dist
