# syntax=docker/dockerfile:1

# A static binary in an empty image: no shell, no libraries, no package database to keep patched.
#
# Why musl: the binary is all that the image holds, so it has to bring its resolver along, and the API server's address
# can be a host name. musl's resolver reads the /etc/resolv.conf that the kubelet mounts, follows `search` and `ndots`, and
# retries truncated answers over TCP. The latter needs musl 1.2.4; Rust links 1.2.5 since 1.93, so do not use an older
# compiler. Its allocator is slow with many threads, which does not matter to a program that waits for one server.
# Why CA certificates: for pings to https URLs. For the API server a pod trusts the cluster's own CA, which is mounted with the
# ServiceAccount; outside of a cluster, a public CA may have signed its certificate.
#
# Each platform of a multi-platform build compiles natively (by emulation on another platform, which takes long):
# `docker buildx build --platform linux/amd64,linux/arm64 .`
#
# The same sources and base image produce the same binary: `--locked` fixes every crate, and the embedded paths are those of
# this file. `cargo release-binary` is defined in .cargo/config.toml.

# For `--sbom`: the crates are listed in Cargo.lock, and the final image does not show them.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# The compiler is that of rust-toolchain.toml, which is not copied: rustup would download the other components it names.
FROM rust:1.95.0-alpine3.23@sha256:606fd313a0f49743ee2a7bd49a0914bab7deedb12791f3a846a34a4711db7ed2 AS build
# For ring's C and assembly, for linking, and for the final image. Usually already installed; then this does nothing. Versions
# are not pinned: Alpine keeps only the newest version of a package in a branch, so a pinned one would break the build with
# the next fix.
RUN apk add --no-cache binutils ca-certificates gcc musl-dev
WORKDIR /build

# Only the dependencies, in layers that stay valid when the sources change. Cargo requires a file for every target that the
# workspace declares, so each gets an empty one; a test runs these lines.
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
# Cargo compares times: files that are older than the empty ones would count as already built.
RUN find src -name '*.rs' -exec touch {} + \
 && cargo release-binary
# An empty image has no loader: a dynamically linked binary has to fail here and not in the cluster.
RUN headers="$(readelf --program-headers --wide target/release/volume-snapshotter)" \
 && case "$headers" in *INTERP*) echo 'the binary is not static' >&2; exit 1 ;; esac

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
# The builder sets the labels for source and commit date with `--label`: an empty label would be wrong.
LABEL org.opencontainers.image.title="volume-snapshotter" \
      org.opencontainers.image.description="Takes a VolumeSnapshot of each chosen PersistentVolumeClaim, waits until it is ready, then prunes the older ones" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE /
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/volume-snapshotter /
# Numeric: there is no /etc/passwd, and `runAsNonRoot` can only check a number.
USER 65532:65532
ENTRYPOINT ["/volume-snapshotter"]
