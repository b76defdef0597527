//! The `tml-proxy` command.

fn main() {}
