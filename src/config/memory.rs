//! What a file said when it was last read, so that reading it again costs what changed in it.
//!
//! The file is cut at its `[[mapping]]` headers; a piece that is byte for byte as before, and is
//! read over the same defaults, is not parsed again. This way of reading knows no problems: whenever
//! anything at all is wrong, or a piece cannot be read by itself, it gives up and the file is read
//! as a whole, which says what is wrong and where. So what comes of it, if anything does, is what a
//! whole reading gives.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeTable;

use super::{
    blocks::{Blocks, lines},
    mapping::{MOST_ADDRESSES, Mappings},
    reader::Section,
    report::Report,
    sections,
    settings::{Config, Targets},
};
use crate::table::{Ends, MappingSpec, Origin, Policy};

/// The last file that could be read in pieces, and what was in it; empty at first.
///
/// It never goes stale: what it knows of a piece is used only for that same piece.
#[derive(Debug, Default)]
pub struct Memory(Option<Known>);

/// A file and what was in it.
#[derive(Debug)]
struct Known {
    path: Arc<PathBuf>,
    text: String,
    targets: Targets,
    defaults: Arc<Policy>,
    mappings: Vec<KnownMapping>,
}

/// A piece of a file and the mapping in it.
#[derive(Debug, Clone)]
struct KnownMapping {
    /// Where in the text the piece is.
    place: Range<usize>,
    first_line: usize,
    lines: usize,
    spec: MappingSpec,
}

impl Memory {
    /// The configuration in `text`, the content of `path`, if it is valid and can be read in pieces.
    pub(super) fn read(&mut self, text: &str, path: &Path) -> Option<Config> {
        let blocks = Blocks::cut(text);
        let path = match &self.0 {
            Some(known) if *known.path == *path => Arc::clone(&known.path),
            _ => Arc::new(path.to_owned()),
        };
        let report = Report::new(Arc::clone(&path), blocks.head);
        let head = valid(blocks.head)?;
        let mut found = None;
        let config = sections::read(Section::root(&report, &head), |_, targets, defaults| {
            let defaults = self.shared(defaults);
            let mappings = self.mappings(&blocks, &path, targets, &defaults);
            let specs = mappings.iter().flatten().map(|known| known.spec.clone());
            let specs = specs.collect();
            found = mappings.zip(Some(defaults));
            specs
        })?;
        let (mappings, defaults) = found?;
        if !report.into_problems().is_empty() {
            return None;
        }
        self.0 = Some(Known {
            path,
            text: text.to_owned(),
            targets: config.targets.clone(),
            defaults,
            mappings,
        });
        Some(config)
    }

    /// The defaults, those known if they are the same.
    fn shared(&self, defaults: &Arc<Policy>) -> Arc<Policy> {
        match &self.0 {
            Some(known) if known.defaults == *defaults => Arc::clone(&known.defaults),
            _ => Arc::clone(defaults),
        }
    }

    /// What is in the pieces of a file, looked up or read; nothing if anything is wrong.
    fn mappings(
        &self,
        blocks: &Blocks<'_>,
        path: &Arc<PathBuf>,
        targets: &Targets,
        defaults: &Arc<Policy>,
    ) -> Option<Vec<KnownMapping>> {
        // What a piece means depends on these too.
        let usable = |known: &&Known| {
            known.path == *path && known.targets == *targets && known.defaults == *defaults
        };
        let known = match self.0.as_ref().filter(usable) {
            Some(known) => known.find(&blocks.mappings),
            None => vec![None; blocks.mappings.len()],
        };
        let mut place = blocks.head.len();
        let mut line = 1 + lines(blocks.head);
        let mut addresses = 0;
        let mut new_names = HashSet::new();
        let mut mappings = Vec::with_capacity(blocks.mappings.len());
        for (block, known) in blocks.mappings.iter().zip(known) {
            let mapping = match known {
                Some(known) => known.moved(place, line),
                None => {
                    let spec = mapping(
                        block,
                        Report::from_line(line, Arc::clone(path), block),
                        targets,
                        defaults,
                    )?;
                    if !new_names.insert(spec.name.clone()) {
                        return None;
                    }
                    KnownMapping {
                        place: place..place + block.len(),
                        first_line: line,
                        lines: lines(block),
                        spec,
                    }
                }
            };
            place = mapping.place.end;
            line += mapping.lines;
            addresses += mapping.spec.pairs.len();
            mappings.push(mapping);
        }
        // The names of known pieces differ from each other, as they did before.
        let named_so = |mapping: &&KnownMapping| new_names.contains(&mapping.spec.name);
        let unique =
            new_names.is_empty() || mappings.iter().filter(named_so).count() == new_names.len();
        (unique && addresses <= MOST_ADDRESSES).then_some(mappings)
    }
}

impl Known {
    /// For each of `blocks` the known piece with that text, none of them twice.
    fn find(&self, blocks: &[&str]) -> Vec<Option<&KnownMapping>> {
        let text = |known: &KnownMapping| &self.text[known.place.clone()];
        let ends = Ends::shared(blocks.len(), self.mappings.len(), |index, known| {
            blocks[index] == text(&self.mappings[known])
        });
        // Only what lies between the equal ends has to be searched.
        let (between, old) = (
            ends.between(blocks.len()),
            ends.between(self.mappings.len()),
        );
        let mut by_text: HashMap<&str, &KnownMapping> = self.mappings[old.clone()]
            .iter()
            .map(|known| (text(known), known))
            .collect();
        let mut found = Vec::with_capacity(blocks.len());
        found.extend(self.mappings[..old.start].iter().map(Some));
        found.extend(blocks[between].iter().map(|block| by_text.remove(block)));
        found.extend(self.mappings[old.end..].iter().map(Some));
        found
    }
}

impl KnownMapping {
    /// The same piece where it stands now.
    fn moved(&self, place: usize, line: usize) -> Self {
        let mut moved = self.clone();
        moved.place = place..place + self.place.len();
        moved.first_line = line;
        if let Origin::File { line: of_spec, .. } = &mut moved.spec.origin {
            *of_spec = *of_spec - self.first_line + line;
        }
        moved
    }
}

/// The TOML in `text`, if it is valid.
fn valid(text: &str) -> Option<DeTable<'_>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    errors.is_empty().then(|| table.into_inner())
}

/// The one mapping in `block`, if there is nothing else in it and nothing wrong with it.
fn mapping(
    block: &str,
    report: Report<'_>,
    targets: &Targets,
    defaults: &Arc<Policy>,
) -> Option<MappingSpec> {
    let table = valid(block)?;
    let mut root = Section::root(&report, &table);
    let mut entries = root.entry("mapping")?.items("")?.into_iter();
    let (Some(entry), None) = (entries.next(), entries.next()) else {
        return None;
    };
    let spec = Mappings::new(targets, defaults).read(1, entry);
    root.finish();
    spec.filter(|_| report.into_problems().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(names: impl IntoIterator<Item = usize>) -> String {
        let mapping = |name| {
            let listen = 1000 + name;
            format!(
                "[[mapping]]\nname = \"m{name}\"\nlisten = {listen}\ntarget = \"10.0.0.1:22\"\n"
            )
        };
        let mappings: String = names.into_iter().map(mapping).collect();
        format!("version = 1\n{mappings}")
    }

    /// Which mappings of `text` are taken over from what is known.
    fn known(memory: &mut Memory, text: &str) -> Vec<String> {
        let specs = |memory: &Memory| -> Vec<MappingSpec> {
            let mappings = memory.0.iter().flat_map(|known| &known.mappings);
            mappings.map(|known| known.spec.clone()).collect()
        };
        let before = specs(memory);
        assert!(memory.read(text, Path::new("f")).is_some(), "{text}");
        let after = specs(memory);
        let shared = |spec: &&MappingSpec| {
            let pairs = before.iter().map(|old| &old.pairs);
            pairs.into_iter().any(|old| Arc::ptr_eq(old, &spec.pairs))
        };
        let names = after.iter().filter(shared);
        names.map(|spec| spec.name.to_string()).collect()
    }

    #[test]
    fn only_what_changed_is_read_again() {
        let mut memory = Memory::default();
        assert!(known(&mut memory, &file(0..6)).is_empty());
        assert_eq!(known(&mut memory, &file(0..6)).len(), 6);
        let edited = file(0..6).replace("1002", "1012");
        assert_eq!(
            known(&mut memory, &edited),
            ["m0", "m1", "m3", "m4", "m5"],
            "one was edited"
        );
        let one_moved = file([0, 4, 1, 3, 5]).replace("1002", "1012");
        assert_eq!(
            known(&mut memory, &one_moved),
            ["m0", "m4", "m1", "m3", "m5"],
            "none was edited"
        );
    }

    #[test]
    fn other_defaults_make_other_mappings() {
        let mut memory = Memory::default();
        known(&mut memory, &file(0..3));
        let with = |head: &str| file(0..3).replacen('\n', head, 1);
        assert!(known(&mut memory, &with("\n[defaults]\nbacklog = 7\n")).is_empty());
        let config = memory.read(&with("\n[defaults]\nbacklog = 8\n"), Path::new("f"));
        let config = config.expect("valid");
        assert!(config.mappings.iter().all(|spec| spec.policy.backlog == 8));
    }
}
