# syntax=docker/dockerfile:1

# A static binary in an empty image: no shell, no libraries, no package database to keep patched.
#
# Why musl: the binary is all that the image holds, so it has to bring its resolver along, and the API server's address
# can be a host name. musl's resolver reads the /etc/resolv.conf that the kubelet mounts, follows `search` and `ndots`,
# and asks again over TCP when an answer is cut off; the last since musl 1.2.4, and Rust links 1.2.5 since 1.93: do not
# go below. Its allocator is slow under many threads, which does not matter to a program that waits for one server.
# Why CA certificates: a pod trusts the cluster's own CA, which comes with the service account, and needs none. Outside of a
# cluster, with a kubeconfig, the API server's certificate can be one that a public CA signed.
#
# Each platform of a multi-platform build compiles natively (on another one by emulation, which takes long):
# `docker buildx build --platform linux/amd64,linux/arm64 .`
#
# The same sources and the same base image make the same binary: `--locked` fixes every crate, and the paths that end up in
# it are those of this file. `cargo release-binary` stands in .cargo/config.toml.

# For `--sbom`: the crates are in Cargo.lock, and in the final image nothing shows them.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# The compiler is that of rust-toolchain.toml, which is not copied: rustup would fetch what else it names.
FROM rust:1.95.0-alpine3.23@sha256:606fd313a0f49743ee2a7bd49a0914bab7deedb12791f3a846a34a4711db7ed2 AS build
# For ring's C and assembly, for linking, and for the final image. Usually there already; then this does nothing. Without
# versions: Alpine keeps only the newest of each package in a branch, so a pinned one is gone with the next fix, and the
# build breaks.
RUN apk add --no-cache binutils ca-certificates gcc musl-dev
WORKDIR /build

# The dependencies alone, in layers that a change of the sources leaves valid. Cargo wants to see a file of every target that
# the workspace declares, so each gets an empty one; a test tries these lines.
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY benches/Cargo.toml benches/
COPY tests/demo/Cargo.toml tests/demo/
COPY tests/fake-apiserver/Cargo.toml tests/fake-apiserver/
RUN mkdir -p benches/side-by-side src tests/demo/src tests/it tests/fake-apiserver/src \
 && touch benches/retention.rs benches/side-by-side/main.rs src/lib.rs tests/demo/src/main.rs tests/it/main.rs tests/fake-apiserver/src/lib.rs \
 && echo 'fn main() {}' > src/main.rs \
 && cargo release-binary

# README.md, because the crate's documentation may include it.
COPY README.md ./
COPY src src
# Cargo compares times: files that are older than the empty ones would count as built already.
RUN find src -name '*.rs' -exec touch {} + \
 && cargo release-binary
# An empty image has no loader: a binary that asks for one has to fail here and not in the cluster.
RUN headers="$(readelf --program-headers --wide target/release/volume-snapshotter)" \
 && case "$headers" in *INTERP*) echo 'the binary is not static' >&2; exit 1 ;; esac

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
# Where the sources are and when they were committed is for the builder to say, with `--label`: an empty label would be wrong.
LABEL org.opencontainers.image.title="volume-snapshotter" \
      org.opencontainers.image.description="Takes a VolumeSnapshot of each chosen PersistentVolumeClaim, waits until it is ready, then prunes the older ones" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE /
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/volume-snapshotter /
# In numbers: there is no /etc/passwd, and `runAsNonRoot` can only check a number.
USER 65532:65532
ENTRYPOINT ["/volume-snapshotter"]
