# Every target does its own set-up: a clean clone and `make <target>` is all it takes.
# The targets are few and each is one line; what they do is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help setup build demo up down test hostile lint fmt openapi contract corpus bench bench-engine conformance temporal clean clients ci-full

help:            ## this list
	@sed -n 's/^\([a-z-]*\): *[a-z ]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup:           ## what is missing on this machine
	@scripts/setup

build: setup     ## the programs and the tests
	@. scripts/lib/cargo && build_all

demo: build      ## the main job from end to end, with a kill -9 in the middle; ENGINE=temporal runs it on Temporal
	@ENGINE=$(ENGINE) scripts/demo

up: build        ## a server that stays; prints its URL
	@"$$(. scripts/lib/cargo && target_dir)/debug/ambient" up --detach

down: build      ## the end of it; data is kept
	@"$$(. scripts/lib/cargo && target_dir)/debug/ambient" down

test: build      ## all tests, on a throw-away PostgreSQL
	@scripts/with-postgres cargo test --workspace

hostile: build    ## attacks by an agent on its server and its neighbours, as root and as an ordinary user
	@scripts/hostile

conformance: build ## both engines compared on a real Temporal server, and the lifecycles on it
	@scripts/conformance

clients: build   ## clients in TypeScript, Go and Python: generated from the OpenAPI document, compiled, used
	@scripts/check-clients --force

contract: build  ## the server answers as its OpenAPI document says: schemathesis with three seeds
	@scripts/schemathesis

lint: setup      ## form, clippy, dependencies, shell scripts, licences, crate graph, OpenAPI document
	@scripts/lint

ci-full:         ## everything that can be checked, for hours; docs/ci.md tells what CI leaves out
	@scripts/ci-full

fmt: setup       ## put the code into form
	@cargo fmt --all

temporal:        ## a real Temporal server for development, built once a machine; prints its address
	@scripts/temporal start

openapi: setup   ## write openapi/openapi.yaml anew
	@scripts/check-openapi --write

corpus: build    ## record the histories that replay is tested with anew
	@scripts/record-corpus

bench: setup     ## figures, each beside a ceiling or a peer of the same run
	@scripts/bench

bench-engine: setup ## the engine beside its ceiling, Temporal's server, Restate and DBOS, and what it carries
	@scripts/bench-engine

clean:           ## what the build and the tests left
	@scripts/test-postgres stop
	@cargo clean
