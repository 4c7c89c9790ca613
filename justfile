# The commands that CI runs, under short names. `just` lists them.

_default:
    @just --list --unsorted

# Everything that has to pass before a change goes in
ci: fmt-check lint test deny docs

# All tests; `just test tidy` only those with that word
test *ARGS:
    cargo test --locked {{ ARGS }}

# Lints are errors, with the simulator and without it
lint:
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked --lib --bins --no-default-features -- -D warnings

# Format the code
fmt:
    cargo fmt

# Say what is not formatted
fmt-check:
    cargo fmt --check

# Licences, banned libraries, sources; needs no network
deny:
    cargo deny --locked check bans licenses sources

# Known vulnerabilities of the libraries; asks the network for the list
advisories:
    cargo deny --locked check advisories

# The documentation of the code; a broken link is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --document-private-items

# The book as HTML, into target/book; each link, anchor and picture of it has to lead somewhere
book:
    tests/book.sh

# The pictures of README and book anew, from the program itself; look at them before they are committed
pictures:
    cargo build --locked
    tests/pictures.sh

# The page of errors, from the table in the code
errors:
    cargo run --locked -- help --page > docs/errors.md

# The main job from nothing, against the built-in ServiceNow simulator
demo *ARGS:
    cargo run --locked --release -- demo {{ ARGS }}

# Benchmarks; `just bench rules` one of them
bench NAME="":
    cargo bench --locked {{ if NAME == "" { "--benches" } else { "--bench " + NAME } }}

# Fuzz every target, or one, for some seconds each (needs nightly and cargo-fuzz)
fuzz TARGET="alert_json cef config defender defender_text eve leef query syslog zeek" SECONDS="60":
    for target in {{ TARGET }}; do \
        mkdir -p fuzz/corpus/$target && \
        cargo +nightly fuzz run $target fuzz/corpus/$target fuzz/seeds/$target -- \
            -max_total_time={{ SECONDS }} -max_len=8192 -timeout=10 || exit 1; \
    done

# Kills, power cuts, failing and full disks, damaged databases: all faults, or some (images kill corrupt ...)
faults *SCRIPTS:
    tests/faults.sh {{ SCRIPTS }}

# The same, as long as before a release; writes docs/faults-report.md
faults-long *ARGUMENTS:
    tests/faults.sh --long {{ ARGUMENTS }}

# Beside Fluent Bit and rsyslog, where they are installed, on one file of alerts
peers:
    tests/peers.sh

# What the service costs: size, memory, wake-ups, writes, requests
footprint:
    tests/footprint.sh

# The same for the ARM programs, under emulation; how good that is: tests/footprint_arm.sh --check
footprint-arm *TARGETS:
    tests/footprint_arm.sh {{ TARGETS }}

# The static programs; `just build-static armv7-unknown-linux-musleabihf` one of them
build-static *TARGETS:
    packaging/build.sh {{ TARGETS }}

# Does a second build elsewhere give the same program as build-static?
reproduce TARGET="x86_64-unknown-linux-musl":
    packaging/reproduce.sh {{ TARGET }}

# Packages of what build-static made, then a look whether they are as they should be
packages *TARGETS:
    packaging/package.sh {{ TARGETS }}
    packaging/verify.sh {{ TARGETS }}

# The ARM programs under emulation, compared with this machine's own
emulate:
    packaging/qemu.sh

# The systemd unit: read without a complaint, exposure below 1.5
unit:
    tests/unit.sh

# The packages in a booted Debian: install, kill, reload, hang, upgrade, purge (root)
container:
    tests/container.sh

# From `dpkg -i` to the first ticket as the README has it, and what goes wrong in a first hour (root)
install:
    tests/install.sh
