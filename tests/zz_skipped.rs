//! What was skipped, said once at the end: Cargo runs the tests of a package in the order of their names.

mod harness;

use harness::require;

fn main() {
    print!("\n{}\n", require::summary(&require::take_skipped()));
}
