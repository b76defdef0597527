//! Commands as the manual has them, to be typed word by word.

/// The `sh` blocks of a chapter, each with the heading it stands under.
pub fn commands(chapter: &'static str) -> Vec<(&'static str, &'static str)> {
    let (mut heading, mut found, mut rest) = ("", Vec::new(), chapter);
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        match line {
            "```sh" => {
                let (block, after) = rest.split_once("```\n").expect("it ends");
                found.push((heading, block));
                rest = after;
            }
            // Another kind of block, which may have comments.
            line if line.starts_with("```") => {
                rest = rest.split_once("```\n").expect("it ends").1;
            }
            line if line.starts_with('#') => heading = line.trim_start_matches(['#', ' ']),
            _ => {}
        }
    }
    found
}

/// Those under one heading.
#[track_caller]
pub fn commands_under(chapter: &'static str, heading: &str) -> Vec<&'static str> {
    let all = commands(chapter).into_iter();
    let under: Vec<_> = all
        .filter(|(at, _)| *at == heading)
        .map(|(_, block)| block)
        .collect();
    assert!(!under.is_empty(), "no commands under {heading:?}");
    under
}

/// The first block of a kind.
pub fn first_block(chapter: &'static str, kind: &str) -> &'static str {
    let (_, block) = chapter
        .split_once(&format!("```{kind}\n"))
        .expect("there is one");
    block.split_once("```\n").expect("it ends").0
}
