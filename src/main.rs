//! The binary: everything that it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    volume_snapshotter::main()
}
