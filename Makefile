# make demo       build, sign, verify and boot recipes/appliance.toml, fine-tune its model there, and ask what it learnt
# make test       everything that must hold before a change lands
# make test-all   the same and what is slower: licences, fuzzing, the whole matrix of boots
# make bench      measurements against other tools, as a table

CARGO ?= cargo
CACHE ?= $(CURDIR)/.cache
DEMO  ?= $(CACHE)/demo
GAPIMAGE = target/release/gapimage

.PHONY: all demo test test-all bench tools tools-test lint deny fuzz clean

all: $(GAPIMAGE)

.PHONY: $(GAPIMAGE)
$(GAPIMAGE):
	$(CARGO) build --release --locked --bin gapimage --bin gapctl

tools:
	tests/setup.sh demo

tools-test:
	tests/setup.sh test

demo: tools $(GAPIMAGE)
	@mkdir -p $(DEMO)
	@test -e $(DEMO)/keys/release.key || $(GAPIMAGE) keygen $(DEMO)/keys
	$(GAPIMAGE) build recipes/appliance.toml -o $(DEMO)/appliance.gap --trust $(DEMO)/keys/trust.toml
	$(GAPIMAGE) sign $(DEMO)/appliance.gap --key $(DEMO)/keys/release.key
	$(GAPIMAGE) verify $(DEMO)/appliance.gap --trust $(DEMO)/keys/trust.toml --full
	@rm -f $(DEMO)/data.img && truncate -s 4G $(DEMO)/data.img
	PATH="$(CURDIR)/target/release:$$PATH" $(GAPIMAGE) boot $(DEMO)/appliance.gap --trust $(DEMO)/keys/trust.toml \
		--data $(DEMO)/data.img --check -- sh recipes/appliance/demo.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test: tools-test lint
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --no-fail-fast

test-all: test deny fuzz
	GAPIMAGE_TEST_MIRROR=1 $(CARGO) test --workspace --locked --test debian_mirror
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --test real -- --ignored
	$(CARGO) build --workspace --locked --bin gap-train --bin gap-serve --bin gapctl
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --test agent -- --ignored proofs:: --test-threads 1
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --test reproducible --test recipes --test boot --test faults -- --ignored
	$(MAKE) demo
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --test false_alarms -- --ignored
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --test peft -- --ignored
	tests/memory/measure.sh $(CACHE) > $(CACHE)/measured.jsonl
	GAPIMAGE_MEASURED=$(CACHE)/measured.jsonl $(CARGO) test --workspace --locked --lib check::memory
	GAPIMAGE_TEST_CACHE=$(CACHE) $(CARGO) test --workspace --locked --test oracles -- --ignored
	CARGO="$(CARGO)" tests/mistralrs.sh $(CACHE)/mistralrs
	CARGO="$(CARGO)" tests/cuda.sh $(CACHE)/cuda

deny:
	tests/deny.sh

fuzz:
	tests/fuzz.sh 60

bench: tools-test $(GAPIMAGE)
	python3 tests/bench.py

clean:
	rm -rf target $(DEMO)
