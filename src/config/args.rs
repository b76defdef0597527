//! Mappings from `LISTEN=TARGET` arguments, each named by its LISTEN.

use std::{collections::HashSet, sync::Arc};

use super::{
    address::{LISTEN, Listen, TARGET, Target, pair},
    draft::Draft,
    problem::{Fault, Problem},
};
use crate::{
    setting::Refusal,
    table::{MappingName, MappingSpec, Origin, Policy},
    target::TargetSettings,
};

pub(super) fn read(maps: &[String]) -> Draft {
    let mut draft = Draft::default();
    let mut names = HashSet::new();
    let policy = Arc::default();
    for map in maps {
        let origin = Origin::Argument(map.as_str().into());
        let problem = |(key, fault): (&str, Fault)| Problem::Key {
            origin: origin.clone(),
            key: key.to_owned(),
            fault,
        };
        match mapping(map, &origin, &policy) {
            Ok(spec) => {
                if !names.insert(spec.name.clone()) {
                    let twice = format!("there are two mappings on {}", spec.name);
                    draft
                        .problems
                        .push(problem(("", Fault::Contradiction(twice))));
                }
                draft.config.mappings.push(spec);
            }
            Err(faults) => draft.problems.extend(faults.into_iter().map(problem)),
        }
    }
    draft
}

/// The mapping in `map`, or what is wrong with its parts.
fn mapping(
    map: &str,
    origin: &Origin,
    policy: &Arc<Policy>,
) -> Result<MappingSpec, Vec<(&'static str, Fault)>> {
    let (listen, target) = map.split_once('=').ok_or_else(|| {
        let needed = format!("\"=\" between LISTEN ({LISTEN}) and TARGET ({TARGET})");
        vec![("", Fault::Missing { needed })]
    })?;
    let refused = |key, found: &str, refusal: &Refusal| {
        let fault = Fault::Value {
            found: format!("{found:?}"),
            allowed: refusal.to_string(),
        };
        (key, fault)
    };
    match (Listen::parse(listen), Target::parse(target)) {
        (Ok(public), Ok(target)) => Ok(MappingSpec {
            name: MappingName::new(listen),
            pairs: pair(&[public], &[TargetSettings::of(target)], false)
                .map_err(|unpaired| vec![("target", Fault::Contradiction(unpaired.why))])?
                .into(),
            policy: Arc::clone(policy),
            origin: origin.clone(),
        }),
        (public, to) => {
            let public = public.err().map(|why| refused("listen", listen, &why));
            let to = to.err().map(|why| refused("target", target, &why));
            Err(public.into_iter().chain(to).collect())
        }
    }
}
