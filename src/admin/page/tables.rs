//! The tables of the page.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::{Content, Shown};
use crate::{
    admin::api::model::{Mapping, Standing},
    units::{bytes, duration_ms, rate},
};

/// Rows of each table; the command line has the rest.
pub(super) const ROWS: usize = 50;

/// A row of a table.
struct Row<const COLUMNS: usize> {
    cells: [String; COLUMNS],
    /// Whether something is wrong with it.
    mark: Option<&'static str>,
}

impl<const COLUMNS: usize> Row<COLUMNS> {
    fn plain(cells: [String; COLUMNS]) -> Self {
        Self { cells, mark: None }
    }
}

impl Content {
    /// What needs attention first, then the busiest.
    pub(super) fn mappings(&self) -> Markup {
        let heads = [
            "~Mapping",
            "~State",
            "+Listen",
            "+Target",
            "#Sessions",
            "#New/s",
            "#Refused",
            "#Failed",
            "#Up/s",
            "#Down/s",
            "#Up",
            "#Down",
        ];
        let mut ordered: Vec<(Standing, &Mapping)> = (self.mappings.iter())
            .map(|mapping| (mapping.standing(), mapping))
            .collect();
        ordered.sort_by_key(|(standing, mapping)| (*standing, Reverse(mapping.sessions)));
        let rows = ordered.into_iter().map(|(standing, mapping)| Row {
            cells: [
                mapping.mapping.clone(),
                mapping.state_in_words(),
                mapping.listen(),
                leads_to(mapping),
                mapping.sessions.to_string(),
                format!("{:.1}", mapping.rates.opened_per_second),
                mapping.refused().to_string(),
                mapping.failed().to_string(),
                rate(mapping.rates.bytes_up_per_second),
                rate(mapping.rates.bytes_down_per_second),
                bytes(mapping.bytes_up),
                bytes(mapping.bytes_down),
            ],
            mark: match standing {
                Standing::Failing => Some("bad"),
                Standing::Impaired | Standing::Held => Some("warn"),
                Standing::Serving => None,
            },
        });
        self.table("Mappings", self.mappings.len(), heads, rows)
    }

    /// The targets of mappings that have several, those first that are down.
    pub(super) fn targets(&self) -> Option<Markup> {
        let heads = [
            "~Mapping",
            "Target",
            "State",
            "#Weight",
            "#Sessions",
            "#Opened",
            "#Failed",
        ];
        let each = self.mappings.iter().flat_map(|mapping| {
            let targets = mapping.targets.iter();
            targets.map(move |target| (target.state == "down", mapping, target))
        });
        let mut each: Vec<_> = each.collect();
        each.sort_by_key(|(is_down, ..)| Reverse(*is_down));
        let count = each.len();
        let rows = each.into_iter().map(|(is_down, mapping, target)| Row {
            cells: [
                mapping.mapping.clone(),
                match target.backup {
                    true => format!("{} (backup)", target.target),
                    false => target.target.clone(),
                },
                target.state.clone(),
                target.weight.to_string(),
                target.sessions.to_string(),
                target.opened.to_string(),
                target.connect_failures.to_string(),
            ],
            mark: is_down.then_some("bad"),
        });
        (count > 0).then(|| self.table("Targets", count, heads, rows))
    }

    pub(super) fn sessions(&self) -> Markup {
        let heads = [
            "#Session", "~Mapping", "Client", "Target", "Stage", "#Age", "#Quiet", "#Up", "#Down",
        ];
        let rows = self.sessions.iter().map(|session| {
            Row::plain([
                session.session.to_string(),
                session.mapping.clone(),
                session.client.clone(),
                session.target.clone(),
                session.stage.clone(),
                duration_ms(session.duration_ms),
                duration_ms(session.quiet_ms),
                bytes(session.bytes_up),
                bytes(session.bytes_down),
            ])
        });
        self.table("Live sessions", self.total, heads, rows)
    }

    pub(super) fn events(&self) -> Markup {
        let rows = self.events.iter().map(|event| {
            let fields = event.fields.iter();
            let fields: Vec<_> = fields
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            Row {
                cells: [
                    event.at.clone(),
                    event.level.clone(),
                    event.message.clone(),
                    fields.join(" "),
                ],
                mark: match event.level.as_str() {
                    "error" => Some("bad"),
                    "warn" => Some("warn"),
                    _ => None,
                },
            }
        });
        let heads = ["Time", "Level", "~Event", "~Particulars"];
        self.table("Events", self.events.len(), heads, rows)
    }

    /// A section with a table of the first rows, or of those searched for. A head that begins with `#`
    /// is that of a column of numbers, with `~` that of text that may have several lines, with `+` that of
    /// addresses, each of which stays whole.
    fn table<const COLUMNS: usize>(
        &self,
        title: &str,
        total: usize,
        heads: [&str; COLUMNS],
        rows: impl Iterator<Item = Row<COLUMNS>>,
    ) -> Markup {
        let id = title.to_lowercase().replace(' ', "-");
        let wanted = self.search.to_lowercase();
        let is_found = |row: &Row<COLUMNS>| {
            let mut cells = row.cells.iter();
            cells.any(|cell| cell.to_lowercase().contains(&wanted))
        };
        let (found, rows): (usize, Vec<_>) = match wanted.is_empty() {
            true => (total, rows.take(ROWS).collect()),
            false => {
                let mut rows: Vec<_> = rows.filter(is_found).collect();
                let found = rows.len();
                rows.truncate(ROWS);
                (found, rows)
            }
        };
        let class = |head: &str| match head.as_bytes().first() {
            Some(b'#') => Some("number"),
            Some(b'~') => Some("text"),
            Some(b'+') => Some("list"),
            _ => None,
        };
        html! {
            // No landmark of its own: the table in it is one, of the same name.
            section {
                h2 id=(id) {
                    (title) " "
                    small {
                        @if !wanted.is_empty() { (found) " of " }
                        (total)
                    }
                }
                @if rows.is_empty() {
                    p { "None." }
                } @else {
                    // Wide tables scroll by themselves; the keyboard has to reach them for that.
                    div class="scroll" tabindex="0" role="region" aria-labelledby=(id) {
                        table {
                            thead {
                                tr {
                                    @for head in heads {
                                        th scope="col" class=[class(head)] {
                                            (head.trim_start_matches(['#', '~', '+']))
                                        }
                                    }
                                }
                            }
                            tbody {
                                @for Row { cells, mark } in &rows {
                                    tr class=[mark] {
                                        @for (place, (head, cell)) in heads.iter().zip(cells).enumerate() {
                                            @if place == 0 {
                                                th scope="row" class=[class(head)] { (Shown(cell)) }
                                            } @else {
                                                td class=[class(head)] { (Shown(cell)) }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    @if rows.len() < found {
                        p {
                            "And " (found - rows.len()) " more: search for them, or "
                            code { "tml-proxy" } " lists them all."
                        }
                    }
                }
            }
        }
    }
}

/// Where a mapping leads: of many targets the first, all of them having a table of their own.
pub(super) fn leads_to(mapping: &Mapping) -> String {
    match &mapping.targets[..] {
        [one, two, three, others @ ..] if !others.is_empty() => {
            let first = [one, two, three].map(|target| target.target.as_str());
            format!("{} and {} more", first.join(", "), others.len())
        }
        _ => mapping.target(),
    }
}
