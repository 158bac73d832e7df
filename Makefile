# Everything is also described in CONTRIBUTING.md.
SWIFT ?= swift
RELEASE = $(SWIFT) build -c release --static-swift-stdlib
DAVIT = .build/release/davit

.PHONY: build oracle run test bench fuzz coverage format check setup packages clean

build: packages
	$(RELEASE) --product davit

# Boots Debian's cloud kernel; you end at a shell inside the guest. `poweroff -f` there ends it.
run: setup build
	@scripts/run

test: setup build oracle
	scripts/test

bench: setup build
	scripts/bench

oracle: packages
	$(RELEASE) --product davit-oracle

# Goes on until a mismatch or Ctrl-C; FUZZ_CASES=n stops after n.
fuzz: oracle
	scripts/fuzz

# Writes docs/instruction-coverage.md anew: to be done when the opcode table changes.
coverage: oracle
	scripts/coverage

format:
	swift format -i -r Package.swift Sources Tests

check:
	scripts/check

setup:
	@scripts/setup

# Debian's packages that building and testing needs; asks apt only for what is missing.
packages:
	@scripts/setup packages

clean:
	rm -rf .build
