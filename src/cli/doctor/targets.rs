//! Whether each target can be reached, and whether more than one packet gets through.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Mutex,
    thread,
};

use super::{PATIENCE, report::Finding};
use crate::{
    os_error::in_words,
    table::{MappingName, Table},
};

const AT_A_TIME: usize = 32;

/// Targets named when they fail; the others are counted.
const NAMED: usize = 10;

pub(super) fn examine(table: &Table, push: Option<usize>) -> Vec<Finding> {
    let targets: BTreeMap<SocketAddr, &MappingName> = table
        .routes()
        .flat_map(|route| {
            let targets = route.target.addresses().into_iter();
            targets.map(|target| (target, &route.mapping.name))
        })
        .collect();
    let count = targets.len();
    let left = Mutex::new(targets.into_iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(count) {
            scope.spawn(|| {
                // The lock is held for taking the next one only.
                while let Some((target, mapping)) = next(&left) {
                    if let Err(finding) = reach(target, mapping, push) {
                        failed.lock().expect("pushing cannot panic").push(finding);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("pushing cannot panic");
    failed.sort_by(|one, other| one.check.cmp(&other.check));
    let bad = failed.len();
    let mut findings: Vec<Finding> = failed.into_iter().take(NAMED).collect();
    if bad > NAMED {
        findings.push(Finding::poor(
            "targets",
            format!("{} more fail", bad - NAMED),
            "",
        ));
    }
    let answer = format!("{} of {count} answer", count - bad);
    findings.push(match bad {
        0 => Finding::good("targets", answer),
        // Not each for itself switched off, but this machine or its way to all of them.
        _ if bad == count => Finding::bad(
            "targets",
            answer,
            "is the VPN up, and is there a route to them? `ip route get ADDRESS`",
        ),
        _ => Finding::poor("targets", answer, ""),
    });
    findings
}

fn next<'t>(
    left: &Mutex<impl Iterator<Item = (SocketAddr, &'t MappingName)>>,
) -> Option<(SocketAddr, &'t MappingName)> {
    left.lock().expect("iterating cannot panic").next()
}

fn reach(target: SocketAddr, mapping: &MappingName, push: Option<usize>) -> Result<(), Finding> {
    let check = format!("target {target} of {mapping}");
    let stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(|error| {
        // A board may be switched off for good reason.
        Finding::poor(
            &check,
            in_words(&error),
            "is the host up, and does the service listen there?",
        )
    })?;
    match push {
        None => Ok(()),
        Some(bytes) => echo(stream, bytes).map_err(|(back, error)| {
            Finding::poor(
                &check,
                format!("of {bytes} bytes {back} came back: {}", in_words(&error)),
                "if it is no echo service this says nothing; if it is, the way loses large packets: \
                 compare the MTU of the mesh interface with that of the network below it",
            )
        }),
    }
}

/// Sends `bytes` and has them all come back, or says how many did.
fn echo(mut stream: TcpStream, bytes: usize) -> Result<(), (usize, io::Error)> {
    let fresh = |error| (0, error);
    stream.set_read_timeout(Some(PATIENCE)).map_err(fresh)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(fresh)?;
    let mut writer = stream.try_clone().map_err(fresh)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            // What did not get through is missed on the way back.
            let _ = io::copy(&mut io::repeat(b'.').take(bytes as u64), &mut writer);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut back = 0;
        let mut buffer = [0; 4096];
        while back < bytes {
            match stream.read(&mut buffer) {
                Ok(0) => return Err((back, io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => back += count,
                Err(error) => return Err((back, error)),
            }
        }
        Ok(())
    })
}
