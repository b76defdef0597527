//! Which part of the program may know which: data goes one way, and nothing knows who uses it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each folder or file of `src` may import from others. Tests inside of `src` may import more.
const MAY_IMPORT: &str = "
    cli:       admin config fleet handover host_port import lifecycle listen manual os_error provider resolve session
               table text units
    lifecycle: admin client_mask config end_reason files fleet handover health limit listen orders os_error provider relay
               resolve session shared_map socket table target telemetry text units worker
    admin:     client_mask config end_reason fleet handover host_port limit listen mutex orders os_error provider resolve session
               setting table target telemetry text units worker
    import:    file_pattern files os_error text units
    config:    client_mask file_pattern files fleet handover host_port limit provider resolve setting table target text units
    provider:  files handover host_port mutex setting shared_map table telemetry text tls_roots units
    fleet:     files os_error provider setting shared_map text tls_roots units
    tls_roots: files
    worker:    end_reason handover limit listen os_error proxy_protocol relay session socket table telemetry text
    session:   client_mask end_reason handover limit listen os_error proxy_protocol relay setting socket table
               target telemetry
    listen:    handover os_error proxy_protocol socket table
    orders:    table
    socket:    os_error
    table:     handover health limit mutex proxy_protocol relay resolve setting shared_map target telemetry text
    target:    handover limit mutex proxy_protocol resolve setting
    telemetry: end_reason handover mutex os_error text units
    limit:     client_mask end_reason handover setting
    health:    os_error proxy_protocol setting socket units
    resolve:   files mutex os_error setting units
    setting:   host_port units
    relay:     handover os_error
    files:     os_error units
    file_pattern: os_error
    handover:  os_error
";

/// Who may import whom.
fn allowed() -> BTreeSet<(&'static str, &'static str)> {
    let mut allowed = BTreeSet::new();
    let mut from = "";
    for word in MAY_IMPORT.split_whitespace() {
        match word.strip_suffix(':') {
            Some(folder) => from = folder,
            None => _ = allowed.insert((from, word)),
        }
    }
    allowed
}

/// An import: who, whom, and the file and line in which it stands.
struct Import {
    from: String,
    to: String,
    place: String,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        match path.extension() {
            _ if is_test => {}
            Some(extension) if extension == "rs" => found.push(path),
            _ if path.is_dir() => sources(&path, found),
            _ => {}
        }
    }
}

/// The names directly behind `crate::`, of which there are several in braces.
fn names(after: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.chars().take_while(is_part).collect()
    };
    let Some(list) = after.strip_prefix('{') else {
        return vec![name(after)];
    };
    let (mut depth, mut names, mut begins) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if c.is_whitespace() => {}
            _ if begins => {
                names.push(name(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// Every import of one folder from another.
fn imports() -> Vec<Import> {
    let root = src();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut imports = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).expect("it was found there");
        let first = inside.iter().next().and_then(|name| name.to_str());
        let from = first.expect("a name").trim_end_matches(".rs");
        let text = fs::read_to_string(&file).expect("a file of the repository");
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .expect("a part");
        for (at, _) in code.match_indices("crate::") {
            let line = code[..at].lines().count().max(1);
            // Outside of code, it is for people.
            let start = code[..at].rfind('\n').map_or(0, |newline| newline + 1);
            if code[start..at].trim_start().starts_with("//") {
                continue;
            }
            let others = names(&code[at + "crate::".len()..]);
            let others = others.into_iter().filter(|name| name != from);
            imports.extend(others.map(|to| Import {
                from: from.to_owned(),
                to,
                place: format!("src/{}:{line}", inside.display()),
            }));
        }
    }
    assert!(imports.len() > 100, "imports are not found any more");
    imports
}

#[test]
fn a_folder_imports_only_what_it_may_know() {
    let allowed = allowed();
    let wrong: Vec<String> = imports()
        .iter()
        // The program's two roots know everything.
        .filter(|import| !["main", "lib"].contains(&import.from.as_str()))
        .filter(|import| !allowed.contains(&(import.from.as_str(), import.to.as_str())))
        .map(|import| {
            format!(
                "{}: {} must not import {}",
                import.place, import.from, import.to
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_folder_leads_back_to_itself_by_what_it_imports() {
    let imports = imports();
    let mut arrows: BTreeSet<(&str, &str)> = imports
        .iter()
        .map(|import| (import.from.as_str(), import.to.as_str()))
        .collect();
    // Whoever imports nobody is on no way back; without them, others import nobody.
    loop {
        let importing: BTreeSet<&str> = arrows.iter().map(|(from, _)| *from).collect();
        let before = arrows.len();
        arrows.retain(|(_, to)| importing.contains(to));
        if arrows.len() == before {
            break;
        }
    }
    assert!(arrows.is_empty(), "these go round: {arrows:?}");
}
