# Every target does its own set-up: a clean clone and `make <target>` is all it takes.
# The targets are few and each is one line; the work is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help setup build demo up down test hostile lint fmt openapi contract agents corpus bench bench-engine bench-live conformance temporal clean clients ci-full

help:            ## this list
	@sed -n 's/^\([a-z-]*\): *[a-z ]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup:           ## check what this machine lacks, and as root install what it can
	@scripts/setup

build: setup     ## build the programs and the tests
	@. scripts/lib/cargo && build_all

demo: build      ## the main scenario end to end, with a kill -9 in the middle; ENGINE=temporal runs it on Temporal
	@ENGINE=$(ENGINE) scripts/demo

up: build        ## start a server in the background; prints its URL
	@"$$(. scripts/lib/cargo && target_dir)/debug/ambient" up --detach

down: build      ## stop it; data is kept
	@"$$(. scripts/lib/cargo && target_dir)/debug/ambient" down

test: build      ## all tests, on a throwaway PostgreSQL
	@scripts/with-postgres scripts/test

hostile: build    ## attacks by an agent on its server and its neighbours, as root and as an ordinary user
	@scripts/hostile

conformance: build ## compare the engine with a real Temporal server, and run the lifecycles on it
	@scripts/conformance

clients: build   ## TypeScript, Go and Python clients: generated from the OpenAPI document, compiled, used; the stock AG-UI client
	@scripts/check-clients --force
	@scripts/check-agui --force

contract: build  ## check that the server matches its OpenAPI document: schemathesis with three seeds
	@scripts/schemathesis

agents: build    ## real agents of three makers, from npm, with a model that follows a script
	@scripts/agents

lint: setup      ## formatting, clippy, dependencies, shell scripts, licences, crate and module graph, OpenAPI document
	@scripts/lint

ci-full:         ## everything that can be checked, for hours; docs/ci.md says what CI leaves out
	@scripts/ci-full

fmt: setup       ## format the code
	@cargo fmt --all

temporal:        ## start a real Temporal server for development, built once per machine; prints its address
	@scripts/temporal start

openapi: setup   ## regenerate openapi/openapi.yaml
	@scripts/check-openapi --write

corpus: build    ## re-record the histories that replay is tested with
	@scripts/record-corpus

bench: setup     ## benchmarks, each against a ceiling or a peer in the same run
	@scripts/bench

bench-engine: setup ## the engine against its ceiling, Temporal's server, Restate and DBOS, and under load
	@scripts/bench-engine

bench-live: setup ## live sessions, each beside a bare counterpart: turns, sockets, resuming, runners' events, idle actors, runners
	@scripts/bench-live

clean:           ## remove what the build and the tests left
	@scripts/test-postgres stop
	@cargo clean
