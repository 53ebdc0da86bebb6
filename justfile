# The parameters are exported to the shell ($overlay) and not pasted into the commands, so no value can break the quoting.

set shell := ["bash", "-euo", "pipefail", "-c"]

export CONTAINER_ENGINE := env("CONTAINER_ENGINE", "docker")

# List the recipes.
@_default:
    {{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted

# Watch a run against an API server in this process: no cluster needed.
demo:
    cargo run --locked --package demo

# Run all tests.
test:
    cargo test --locked

# Run under random faults for the given number of seconds.
soak $SNAPSHOTTER_SOAK_SECONDS="600":
    cargo test --locked --test it -- --nocapture random_runs

# Measure the cost of a run, compared with the bash script and at scale; `just bench scale` runs only the second part.
bench *$arguments:
    cargo bench --locked --package benches --bench side-by-side -- $arguments

# Measure the retention policy with 100,000 snapshots.
bench-retention:
    cargo bench --locked --package benches --bench retention

# (Takes cargo-mutants, and hours; `just mutants --file 'src/retention/**' -- --lib` takes half an hour.)
# Break lines one by one, and list those whose breaking no test notices.
mutants *$arguments:
    set -f; cargo mutants --jobs 1 $arguments

# Check formatting, lints and the documentation.
lint:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Check licences, sources, duplicates and advisories of the dependencies.
deny:
    cargo deny --locked check

# Run all checks that a change has to pass.
ci:
    .ci/run

# Build the container image; CONTAINER_ENGINE=podman works as well.
image $tag="volume-snapshotter:0.1.0":
    "$CONTAINER_ENGINE" build --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" --tag "$tag" .

# (Needs the target and a C compiler for it: `rustup target add …-linux-musl`, `apt-get install musl-tools`.)
# Build the image's static binary, and test it in an empty root filesystem.
static $target=(arch() + "-unknown-linux-musl"):
    cargo release-binary --target "$target"
    cargo test --locked --test it image

# Create a kind cluster with a CSI driver, and run the image in it once.
kind:
    deploy/overlays/kind/run

# Update the rendered overlays and the output of list in tests/golden, and the man pages.
golden:
    UPDATE_GOLDEN=1 cargo test --locked --test it -- manifests list:: man_pages
    git --no-pager diff --stat -- docs/man tests/golden

# Print the manifests of an overlay.
render $overlay="gardener":
    kubectl kustomize "deploy/overlays/$overlay"

# (`kubectl diff` exits with 1 when there are differences, with more when it fails.)
# Show what `apply` would change in the cluster.
diff $overlay="gardener":
    kubectl diff --kustomize "deploy/overlays/$overlay" || test "$?" -eq 1

# Install or update an overlay in kubectl's current cluster.
apply $overlay="gardener":
    kubectl apply --kustomize "deploy/overlays/$overlay"

# Start a run now instead of at the next full hour.
snapshot $namespace="default":
    kubectl --namespace "$namespace" create job --from=cronjob/volume-snapshotter "volume-snapshotter-$(date +%s)"

# Show the logs of the runs that still exist.
logs $namespace="default":
    kubectl --namespace "$namespace" logs --selector=app.kubernetes.io/name=volume-snapshotter --tail=-1 --prefix
