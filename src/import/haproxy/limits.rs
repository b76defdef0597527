//! Limits of a source: of a mapping, or of the process where several front ends share a table.

use std::time::Duration;

use super::{
    forward::Forwarded,
    proxy::Proxy,
    requests::Limit,
    rules::{Counter, Table},
    sections::Line,
    values,
};
use crate::{
    import::{Import, Remark, model::Value},
    units,
};

/// No rate is of a longer time.
const DAY: u64 = 86_400;

/// A limit that has become a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub key: &'static str,
    pub value: Value,
    /// The proxy whose table it is.
    pub table: String,
    pub line: Line,
}

/// The setting that `limit` of `front` is, or the remark that there is none.
pub fn set(limit: &Limit, front: &Proxy, proxies: &[Proxy]) -> Result<Set, Remark> {
    let line = &limit.line;
    let owner = match &limit.table {
        Table::Named(name) => proxies
            .iter()
            .find(|proxy| proxy.name == *name && proxy.stick_table.is_some()),
        Table::Own | Table::Tracked(_) => Some(front).filter(|front| front.stick_table.is_some()),
    };
    let Some((owner, table)) = owner.and_then(|owner| Some((owner, owner.stick_table.as_ref()?)))
    else {
        let why = "there is no such stick-table";
        return Err(line.invalid(why));
    };
    let (key, value) = match limit.what {
        Counter::Sessions => ("max_sessions_per_source", Value::Number(limit.at_most)),
        Counter::NewSessions => {
            let period = period(table, &["conn_rate", "sess_rate"]).unwrap_or(1);
            let key = "new_sessions_per_second_per_source";
            let rate = Value::Number(limit.at_most);
            match period {
                1 => (key, rate),
                _ => {
                    let per = Duration::from_secs(period);
                    let per = Value::Text(units::duration(per));
                    (key, Value::Table(vec![("rate", rate), ("per", per)]))
                }
            }
        }
    };
    let set = Set {
        key,
        value,
        table: owner.name.clone(),
        line: line.clone(),
    };
    Ok(set)
}

/// The seconds in which a table counts one of `counters`.
pub fn period(table: &Line, counters: &[&str]) -> Option<u64> {
    let store = table
        .words
        .iter()
        .skip_while(|word| *word != "store")
        .skip(1);
    let stored = store.flat_map(|words| words.split(','));
    let mut periods = stored.filter_map(|stored| {
        let (name, period) = stored.strip_suffix(')')?.split_once('(')?;
        let (period, _) = values::time(period).ok()?;
        let seconds = period?.as_secs().clamp(1, DAY);
        counters.contains(&name).then_some(seconds)
    });
    periods.next()
}

/// Puts limits where they count for as many as in HAProxy.
pub fn place(forwarded: &mut [(&Proxy, Forwarded)], import: &mut Import) {
    let all: Vec<Vec<Set>> = forwarded
        .iter()
        .map(|(_, found)| found.limits.clone())
        .collect();
    let same = |a: &Set, b: &Set| (a.key, &a.value, &a.table) == (b.key, &b.value, &b.table);
    for (front, found) in forwarded.iter_mut() {
        for limit in &found.limits {
            let sharing = all
                .iter()
                .filter(|limits| limits.iter().any(|other| other.table == limit.table));
            let sharing = sharing.count();
            let agree = all
                .iter()
                .all(|limits| limits.iter().any(|other| same(other, limit)));
            if sharing > 1 && agree {
                let comments = limit.line.comments.clone();
                import
                    .section("limits")
                    .set(limit.key, limit.value.clone(), comments);
                continue;
            }
            if sharing > 1 || found.mappings.len() > 1 {
                let why =
                    "HAProxy counts over all that share the table, and here each mapping by itself";
                let remark = limit.line.different(why);
                import
                    .remarks
                    .push(remark.instead("the same in [limits] counts over all mappings"));
            }
            let comments = limit.line.comments.clone();
            for mapping in &mut found.mappings {
                mapping
                    .settings
                    .set(limit.key, limit.value.clone(), comments.clone());
            }
        }
        for net in &found.exempt {
            let why = "who is exempt here is so from all limits of a source, in every mapping";
            let head = &front.head;
            import
                .remarks
                .push(head.different(why).instead("see limits.exempt"));
            let limits = import.section("limits");
            let known = limits.get_mut("exempt").map(|known| &mut known.value);
            match known {
                Some(Value::List(nets)) if nets.contains(net) => {}
                Some(Value::List(nets)) => nets.push(net.clone()),
                _ => limits.set("exempt", Value::List(vec![net.clone()]), Vec::new()),
            }
        }
    }
}
