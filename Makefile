# Everything is also described in CONTRIBUTING.md.
SWIFT ?= swift
RELEASE = $(SWIFT) build -c release --static-swift-stdlib
DAVIT = .build/release/davit

.PHONY: build oracle torture run run-kernel test bench fuzz fuzz-instructions fuzz-disks kill-disks debian check-debian check-netboot check-people check-tutorial docs bench-debian coverage format check setup packages boot-loop check-xen guest-programs stress check-share clean

build: packages
	$(RELEASE) --product davit

# A root shell in a Debian, whose image is made the first time. `poweroff` there ends it.
run: build
	@$(DAVIT) run --rm debian

# Debian's kernel alone, and busybox. `poweroff -f` there ends it.
run-kernel: setup build
	@scripts/run

test: setup build oracle torture
	scripts/test

bench: setup build
	scripts/bench
	scripts/bench-kvm
	scripts/bench-guest

oracle: packages
	$(RELEASE) --product davit-oracle

# What guests, files and clients may send, by libFuzzer, for TIME seconds each; then instructions, CASES of each kind.
fuzz: oracle
	scripts/fuzz-inputs $(or $(TIME),60)
	FUZZ_CASES=$(or $(CASES),200000) scripts/fuzz-instructions

# Goes on until a mismatch or Ctrl-C.
fuzz-instructions: oracle
	scripts/fuzz-instructions

# Kills a writer of qcow2 images 200 times; KILLS=n for another number.
kill-disks: torture
	.build/release/davit-torture --rounds $(or $(KILLS),200)

# Opens images with random bytes changed, ROUNDS of them; DAVIT_NOISE_SEED repeats a run.
fuzz-disks: packages
	DAVIT_NOISE_ROUNDS=$(or $(ROUNDS),20000) $(SWIFT) test --no-parallel --filter noiseInHeadersAndTables

# A Debian 12 root disk with its kernel, and what must hold of it, booted from raw with that kernel and from qcow2 with its own.
# ENGINE=kvm for the other engine.
DEBIAN = .build/guest/debian

debian: packages
	[ -s $(DEBIAN).raw ] || scripts/make-root-disk $(DEBIAN).raw

check-debian: debian build
	for format in raw qcow2; do \
	    qemu-img convert -O $$format $(DEBIAN).raw $(DEBIAN)-check.$$format && \
	    for part in vmlinuz initrd key; do cp $(DEBIAN).$$part $(DEBIAN)-check.$$part; done && \
	    scripts/check-debian $(DEBIAN)-check.$$format --engine $(or $(ENGINE),soft) \
	        $$([ $$format = raw ] || echo --own-kernel) || exit 1; \
	done

# Debian's network installer sees disk and network. ENGINE=kvm for the other engine; PATIENCE=n seconds (900).
check-netboot: packages build
	scripts/check-netboot

# A Debian with fio and iperf3 on it, in Davit and in QEMU's TCG in one run.
bench-debian: build
	[ -s $(DEBIAN)-bench.raw ] || DAVIT_ROOT_PACKAGES=fio,iperf3 scripts/make-root-disk $(DEBIAN)-bench.raw
	scripts/bench-debian $(DEBIAN)-bench.raw

# Debian's image and what people do with it, in a store of its own in .build/people. ENGINE=kvm for the other engine.
check-people: packages build
	scripts/check-people --engine $(or $(ENGINE),soft)

# docs/tutorial.md, word by word.
check-tutorial: packages build
	scripts/check-tutorial

# A manual page and a reference of all verbs, in .build/docs.
docs: build
	scripts/make-docs $(DAVIT) .build/docs

torture: packages
	$(RELEASE) --product davit-torture

# BOOTS=n, CPUS=n, ENGINE=kvm.
boot-loop: setup build
	scripts/boot-loop --boots $(or $(BOOTS),200) --cpus $(or $(CPUS),1) --engine $(or $(ENGINE),soft)

# Debian's Xen with a dom0 that makes a domU; CPUS=n; PEER=1 for the same under QEMU's TCG beside it.
check-xen: packages build
	scripts/check-xen --cpus $(or $(CPUS),1) $(if $(PEER),--peer)

# Programs of real weight, natively and in guests with 1 and 2 vCPUs; JOBS="gcc perl" for some of them. Needs root, for chroot.
guest-programs: setup build
	scripts/guest-programs $(JOBS)

# CPUS=n, ROUNDS=n.
check-share: setup build
	scripts/check-share --cpus $(or $(CPUS),1) --rounds $(or $(ROUNDS),3)

# MINUTES=n, CPUS=n.
stress: setup build
	scripts/stress --minutes $(or $(MINUTES),30) --cpus $(or $(CPUS),4)

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
