# What CI runs is what people run: `just --list`, then `just RECIPE`.

target_dir := `cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'`
version := `sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml`
revision := `git rev-parse --short=12 HEAD 2>/dev/null || echo unknown`
# npm package @openai/codex; images/sandbox/fetch-codex holds the digests
codex_version := "0.169.0"
# where the cluster for tests lies; E2E on any other cluster goes by KUBECONFIG
cluster := justfile_directory() / "../shared/cluster"

# this list
default:
    @just --list

# formatting, lints, documentation, licences and duplicates: what must be clean before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
    @# Nobody outside reads these pages, so they show private items, and may link to them.
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
    @if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; else echo "cargo-deny is not installed: deny.toml is not checked (cargo install --locked cargo-deny)"; fi

# every test that needs no cluster
test *ARGS:
    cargo test --workspace {{ ARGS }}

# what a newcomer sees: the README's first command on a fresh clone of what is committed, and the first thing that it says to try
first-screen:
    #!/usr/bin/env bash
    set -euo pipefail
    # Not in /tmp, where agents write. Cargo's directory is the one that is there, so that only our own crates are built.
    mkdir -p "{{ target_dir }}"
    place=$(mktemp -d -p "{{ target_dir }}" first-screen.XXXXXX) dev=
    # A group of its own, so that cargo ends with the shell that started it. Not by INT, which what a script starts beside itself ignores.
    set -m
    finish() {
        if [ -n "$dev" ]; then
            kill -TERM -- -"$dev" 2>/dev/null || true
            local last=$((SECONDS + 10))
            while kill -0 -- -"$dev" 2>/dev/null && [ $SECONDS -lt $last ]; do sleep 0.1; done
            kill -KILL -- -"$dev" 2>/dev/null || true
        fi
        wait
        rm -rf "$place"
    }
    trap finish EXIT
    export CARGO_TARGET_DIR="{{ target_dir }}" XDG_STATE_HOME="$place/state"
    git clone --quiet . "$place/clone"
    cd "$place/clone"
    command=$(sed -n '/^```sh$/{n;p;q}' README.md)
    echo "\$ $command"
    # A shell that is replaced by its command, so that there is one process to stop.
    bash -c "exec $command" </dev/null >"$place/screen" &
    dev=$!
    until grep -q '^Ctrl-C' "$place/screen"; do
        # Building our own crates is the longest of it.
        kill -0 "$dev" && [ $SECONDS -lt 300 ] || { cat "$place/screen"; echo "no first screen after $SECONDS s" >&2; exit 1; }
        sleep 0.1
    done
    cat "$place/screen"
    try=$(sed -n '/^Try in another terminal:$/{n;s/^ *//;p;q}' "$place/screen")
    echo "\$ $try"
    # It shows what a task may not, so it does not end with 0.
    bash -c "$try" 2>&1 | tee "$place/task" || true
    grep -q '^uid=' "$place/task" && grep -q '/etc/x' "$place/task"
    kill -INT "$dev"
    wait "$dev"
    dev=
    echo "the first screen is as it should be"

# static release programs into dist/: supervisor, shim, gateway
dist: (static "dist" "supervisor") (static "dist" "shim") (static "dist" "gateway")

# static helpers of the cluster tests into dist/tests/
dist-tests: (static "dist/tests" "tests" "scripted-model")

[private]
static DEST PACKAGE PROGRAM=PACKAGE:
    #!/usr/bin/env bash
    set -euo pipefail
    # The target is always named, so that static linking applies to our programs and not to procedural macros.
    host=$(rustc -vV | sed -n 's/^host: //p')
    musl=$(uname -m)-unknown-linux-musl
    # Paths of the machine that builds stay out of the program.
    registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
    # Frame pointers take 0.1 MB off: unwinding tables that follow a moving stack pointer are longer than the code for them.
    flags="-C target-feature=+crt-static -C force-frame-pointers=yes --remap-path-prefix=$registry/=crates/ --remap-path-prefix={{ justfile_directory() }}/="
    if [ {{ PACKAGE }} != tests ] && [ -d "$(rustc --print target-libdir --target "$musl")" ]; then
        # Where the toolchain has it: static glibc adds 0.75 MB to each program. Nothing is downloaded for it.
        target=$musl
    else
        target=$host
        # Packed relative relocations take a tenth of a megabyte off file and memory; the start-up code of glibc before
        # 2.36 cannot read them.
        if printf '%s\n' 2.36 "$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)" | sort -CV; then
            flags="$flags -C link-arg=-Wl,-z,pack-relative-relocs"
        fi
    fi
    # One package at a time, so that no other one's features are in the program.
    RUSTFLAGS="${RUSTFLAGS:-} $flags" \
        cargo build --release --locked --target "$target" -p {{ PACKAGE }} --bin {{ PROGRAM }}
    mkdir -p {{ DEST }}
    install -m 0555 "{{ target_dir }}/$target/release/{{ PROGRAM }}" "{{ DEST }}/{{ PROGRAM }}"
    # A static program asks for no interpreter (elf(5), PT_INTERP); one that does would not start from scratch.
    if LC_ALL=C readelf -lW "{{ DEST }}/{{ PROGRAM }}" | grep -q INTERP; then
        echo "{{ DEST }}/{{ PROGRAM }} is not static" >&2
        exit 1
    fi
    stat -c '%n %s bytes, static' "{{ DEST }}/{{ PROGRAM }}"

# all images, and as OCI archives in dist/images/
images: dist dist-tests
    #!/usr/bin/env bash
    set -euo pipefail
    [ ! -x "{{ cluster }}/base-image" ] || "{{ cluster }}/base-image"
    images/sandbox/fetch-codex {{ codex_version }} dist/codex
    build() { # build NAME FOLDER CONTEXT ARGS...
        local name=$1 folder=$2 context=$3 image=localhost/chaperone-$1:dev; shift 3
        # One time for all files: the same input gives the same image, and an unchanged image is not saved again.
        podman build --quiet --isolation=chroot --timestamp 0 --build-arg VERSION={{ version }} "$@" \
            -f "images/$folder/Containerfile" -t "$image" "$context" >/dev/null
        local id; id=$(podman image inspect --format '{{{{.Id}}' "$image")
        if [ "$(cat "dist/images/$name.id" 2>/dev/null)" != "$id" ] || [ ! -f "dist/images/$name.tar" ]; then
            rm -f "dist/images/$name.tar"
            podman save --quiet --format oci-archive -o "dist/images/$name.tar" "$image"
            echo "$id" > "dist/images/$name.id"
        fi
        stat -c "$image  %n %s bytes" "dist/images/$name.tar"
    }
    mkdir -p dist/images
    build supervisor supervisor dist --build-arg REVISION={{ revision }}
    build gateway gateway dist --build-arg REVISION={{ revision }}
    build sandbox sandbox images/sandbox --build-context codex=dist/codex --build-arg CODEX_VERSION={{ codex_version }}
    # Of the cluster tests: helpers, what the gateway is upgraded to, and a database.
    build tests tests dist/tests
    build gateway-next gateway dist --build-arg VERSION=next --build-arg REVISION={{ revision }}
    build postgres tests/postgres images/tests/postgres

# start the cluster for tests where it is there, and load the images into it
cluster-up:
    {{ cluster }}/cluster up
    {{ cluster }}/cluster load dist/images/*.tar

# the types of each Kubernetes version that the chart is held against, as Go modules
api-types:
    cd "$(mktemp -d)" && for version in 0.31.14 0.32.13 0.33.12 0.34.13 0.35.10 0.36.6 0.37.2; do go mod download "k8s.io/client-go@v$version"; done

# the chart without a cluster: values, types, objects, alerts; Helm has to be on PATH
chart *ARGS:
    helm lint charts/chaperone --values charts/chaperone/ci/plain.yaml --strict
    helm lint charts/chaperone --values charts/chaperone/ci/rich.yaml --strict
    cargo test -p tests --test chart --locked {{ ARGS }}

# the chart as an archive in dist/, to be pushed by `helm push dist/chaperone-*.tgz oci://REGISTRY/charts`
chart-package:
    helm package charts/chaperone --destination dist

# the chart with the images that `just images` made, in the cluster of KUBECONFIG: for a first look, and again after each change
try:
    #!/usr/bin/env bash
    set -euo pipefail
    umask 077
    tokens=$(mktemp -d); trap 'rm -rf "$tokens"' EXIT
    for namespace in openhive hive-agents hive-sandbox; do
        kubectl create namespace $namespace --dry-run=client -o yaml | kubectl apply -f - >/dev/null
        kubectl label --overwrite namespace $namespace pod-security.kubernetes.io/enforce=restricted >/dev/null
    done
    if ! kubectl -n openhive get secret openhive-platform-secrets >/dev/null 2>&1; then
        for name in user sandbox agent; do head -c 32 /dev/urandom | base64 | tr -d '\n' > "$tokens/$name"; done
        echo "you $(cat "$tokens/user")" > "$tokens/user-tokens"
        printf 'shared-sandbox %s\nstatic-agent %s\n' "$(cat "$tokens/sandbox")" "$(cat "$tokens/agent")" > "$tokens/sandbox-tokens"
        kubectl -n openhive create secret generic openhive-platform-secrets --from-file="$tokens/user-tokens" --from-file="$tokens/sandbox-tokens"
        for role in sandbox agents; do
            kubectl -n hive-$role delete secret openhive-platform-secrets --ignore-not-found
            kubectl -n hive-$role create secret generic openhive-platform-secrets --from-file=gateway-token="$tokens/${role%s}"
        done
    fi
    # The images keep their names, so what tells the Pods to start again is the time.
    images=() now=$(date +%s)
    for part in gateway supervisor sandbox agent sandboxes; do
        case $part in agent | sandboxes) name=sandbox ;; *) name=$part ;; esac
        images+=(--set "$part.image.repository=localhost/chaperone-$name,$part.image.tag=dev,$part.image.pullPolicy=Never")
        [ $part = supervisor ] || images+=(--set-string "$part.podAnnotations.chaperone\.io/tried=$now")
    done
    server=$(kubectl -n default get service kubernetes -o jsonpath='{.spec.clusterIP}/32')
    server+=$(kubectl -n default get endpointslices -l kubernetes.io/service-name=kubernetes -o jsonpath='{range .items[*].endpoints[*]},{.addresses[0]}/32{end}')
    helm upgrade --install chaperone charts/chaperone -n openhive --wait --timeout 3m "${images[@]}" \
        --set sandboxes.enabled=true,identity.enabled=true --set "networkPolicies.apiServer.cidrs={$server}"
    helm test chaperone -n openhive

# kinds of others that the chart renders where it is asked to, for the cluster of KUBECONFIG: without them its objects of those kinds go untried
cluster-crds:
    #!/usr/bin/env bash
    set -euo pipefail
    cd "$(mktemp -d)"
    apply() { # apply MODULE FOLDER FILE...
        local folder; folder=$(go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/$2; shift 2
        for file in "$@"; do kubectl apply --server-side -f "$folder/$file.yaml"; done
    }
    apply sigs.k8s.io/gateway-api@v1.6.3 config/crd/standard \
        gateway.networking.k8s.io_{httproutes,backendtlspolicies}
    apply github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd \
        monitoring.coreos.com_{servicemonitors,podmonitors,prometheusrules}

# the cluster tests; images by E2E_*_IMAGE, cluster by KUBECONFIG (`eval "$(../shared/cluster/cluster env)"`)
e2e *ARGS:
    cargo test -p tests --features e2e --test e2e --locked -- --test-threads=4 {{ ARGS }}

# the numbers of the Kubernetes backend on a cluster, as `goal=… measured=…`; E2E_KILLS says how many kills
e2e-numbers *ARGS:
    cargo test -p tests --features e2e --test e2e --locked -- --test-threads=1 --nocapture backend_numbers {{ ARGS }}

# the numbers, ratios taken in one run
bench *ARGS: dist
    cargo run --release --locked -p tests --bin bench -- {{ ARGS }}

# every number of the promises, the long ones included: about half an hour; `just torture WHAT short` is a tenth of the long ones
numbers: bench torture

# reaping, ending, confinement and truth under load and faults: a name of its table (`just torture help` lists them) or all, [short]
torture *ARGS: dist
    cargo run --release --locked -p tests --bin torture -- {{ ARGS }}

# thousands of sandboxes at real gateways: [--links N] [--real N] [--gateways N] [--rate N] [--tasks N] [--hold SECONDS] [--tls] [--backlog KIB] [--add] [--kill] [--lose] [--drain]; docs/fleet.md
fleet *ARGS: dist
    cargo run --release --locked -p tests --bin fleet -- {{ ARGS }}

# any bytes for every parser of what others write, by libFuzzer: [--runs N] [--jobs N] [TARGET...]; what it finds is kept in fuzz/corpus
fuzz *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    host=$(rustc -vV | sed -n 's/^host: //p')
    # The instrumentation of cargo-fuzz, by flags that a stable compiler takes; the target is named, so that macros go without it.
    flags="-Cpasses=sancov-module"
    for arg in -sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table -sanitizer-coverage-trace-compares; do
        flags+=" -Cllvm-args=$arg"
    done
    RUSTFLAGS="$flags" cargo build --profile fuzz --locked --target "$host" -p fuzz --features engine --bin engine
    FUZZ_ENGINE="{{ target_dir }}/$host/fuzz/engine" FUZZ_PLACE="{{ target_dir }}/fuzz" cargo run --release --locked -p fuzz --bin fuzz -- {{ ARGS }}

# a run that is kept in docs/evidence, and the page of all that are: `just evidence torture kills`
evidence +RUN:
    #!/usr/bin/env bash
    set -euo pipefail
    revision=$(git rev-parse --short=12 HEAD)
    # What runs themselves write is no change of what is run.
    [ -z "$(git status --porcelain -- . ':!docs/evidence*' ':!fuzz/corpus')" ] || revision+=+
    kept=0
    EVIDENCE_DIR="{{ justfile_directory() }}/docs/evidence" EVIDENCE_COMMAND="{{ RUN }}" EVIDENCE_REVISION="$revision" just {{ RUN }} || kept=$?
    just evidence-page
    exit $kept

# docs/evidence.md from the runs that are kept
evidence-page:
    cargo run --locked -p tests --bin evidence
