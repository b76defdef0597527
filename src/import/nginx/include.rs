//! `include`: the directives of other files in its place.
//!
//! Paths are from the directory of the main file, and `*` and `?` in the last part of one stand for others.
//! What is no TCP is not looked into.

use std::path::Path;

use super::directive::{DEEPEST, Directive, parse};
use crate::{
    file_pattern,
    import::{Kind, Remark, text_of},
};

/// `directives` with what they include in the place of `include`.
pub fn included(
    directives: Vec<Directive>,
    base: &Path,
    depth: usize,
    remarks: &mut Vec<Remark>,
) -> Vec<Directive> {
    let mut found = Vec::new();
    for mut directive in directives {
        if let Some(block) = directive.block.take() {
            // What is not TCP is passed over anyway, and so is what it includes.
            let block = match directive.name() {
                "http" | "mail" | "types" | "map" | "geo" => block,
                _ => included(block, base, depth, remarks),
            };
            directive.block = Some(block);
        }
        if directive.name() != "include" {
            found.push(directive);
            continue;
        }
        let pattern = base.join(directive.word(1));
        let files = match file_pattern::paths(&pattern) {
            Ok(files) => files,
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => {
                remarks.push(directive.remark(Kind::Invalid, error.to_string()));
                continue;
            }
        };
        for file in files {
            let read = match depth < DEEPEST {
                true => text_of(&file).and_then(|text| parse(&text, &file)),
                false => Err(directive.left_out("files include each other too deep")),
            };
            match read {
                Ok(inside) => found.extend(included(inside, base, depth + 1, remarks)),
                Err(remark) => remarks.push(remark),
            }
        }
    }
    found
}
