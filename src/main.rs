//! The `tml-proxy` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tml_proxy::main()
}
