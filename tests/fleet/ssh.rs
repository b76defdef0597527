//! ssh through the proxies of two regions to the sshd of one job. Needs root, network namespaces, OpenSSH and
//! PostgreSQL.

use std::{net::Ipv4Addr, process::Command};

use rustix::process::Signal;

use super::{
    board::{Switchboard, job_id},
    database::{Database, eventually, open_at},
    harness::{
        lab::{Lab, TARGET},
        postgresql::NEEDS,
        process::{output, succeed},
        proxy::PROGRAM,
        require::{Need, require},
    },
    peers::{Keys, Remote, Sshd},
    shared::Member,
    stage::Stage,
};

const LOOKUP: u16 = 9423;

/// Regions and proxies: the first of each is asked in vain, once it does not answer.
const PROXIES: [(&str, &str); 3] = [("us-1", "us"), ("us-2", "us"), ("eu-1", "eu")];

/// The public address of the proxy with that number.
fn public(number: usize) -> Ipv4Addr {
    let third = u8::try_from(101 + number).expect("there are few");
    Ipv4Addr::new(198, 51, third, 1)
}

/// The addresses of that proxy and of the job in the network between them.
fn inside(number: usize) -> [String; 2] {
    ["1", "10"].map(|host| format!("fd9d:773b:e6f9:{}::{host}", number + 1))
}

/// A user, a job with sshd, and three proxies between them.
struct User {
    keys: Keys,
    members: Vec<Member>,
    job: String,
    stage: Stage,
    _database: Database,
    _sshd: Sshd,
    /// The user's network and the job's.
    lab: Lab,
}

impl User {
    fn new() -> Option<Self> {
        let tools = ["ip", "ssh", "sshd", "ssh-keygen", "mount"].map(Need::Tool);
        if !require(&[&NEEDS[..], &tools[..]].concat()) {
            return None;
        }
        let lab = Lab::new();
        let keys = Keys::new(22);
        let sshd = Sshd::start(&lab, &keys);
        let database = Database::start();
        let stage = Stage::with(Switchboard::start(), 20);
        let members = PROXIES.iter().enumerate().map(|(number, (name, region))| {
            let host = public(number);
            let member = Member::start_edited(&database, &stage, name, region, |text| {
                let lookup = format!("lookup = \"0.0.0.0:{LOOKUP}\"\npoll =");
                let text = text.replace("poll =", &lookup);
                let text = text.replace(&stage.public, &host.to_string());
                text + "nearest = [\"us\", \"eu\"]\n"
            });
            join(&member, number, &lab);
            member
        });
        Some(Self {
            members: members.collect(),
            keys,
            job: stage.ready(1, &TARGET.to_string()),
            stage,
            _database: database,
            _sshd: sshd,
            lab,
        })
    }

    /// `ssh -p PORT` to the proxy with that number.
    fn ssh(&self, number: usize, port: u16) -> Command {
        let mut command = self.lab.client.command("ssh");
        command.args(["-F", "none", "-p", &port.to_string()]);
        command.args(self.keys.options());
        command.arg(format!("root@{}", public(number)));
        command
    }

    /// `tml-proxy ssh`, which asks these proxies one after the other.
    fn ssh_by_id(&self, asked: &[usize]) -> Command {
        let lookups = asked
            .iter()
            .map(|number| format!("{}:{LOOKUP}", public(*number)));
        let lookups: Vec<_> = lookups.collect();
        let mut command = self.lab.client.command(PROGRAM);
        command.args(["ssh", "--lookup", &lookups.join(",")]);
        command.args([&format!("root@{}", self.job), "--", "-F", "none"]);
        command.args(self.keys.options());
        command
    }
}

/// Puts a proxy between the user and the job, whichever way it has of its own.
fn join(member: &Member, number: usize, lab: &Lab) {
    let proxy = &member.lab.proxy;
    let host = public(number);
    let client = Ipv4Addr::from(u32::from(host) + 1);
    let near = format!("near-{number}");
    proxy.link("public", &lab.client, &near);
    proxy.ip(&format!("addr add {host}/24 dev public"));
    lab.client.ip(&format!("addr add {client}/24 dev {near}"));
    let [own, job] = inside(number);
    let far = format!("far-{number}");
    proxy.link("jobs", &lab.target, &far);
    proxy.ip(&format!("addr add {own}/64 dev jobs nodad"));
    lab.target.ip(&format!("addr add {job}/64 dev {far} nodad"));
    proxy.ip(&format!("route add {TARGET}/128 via {job} dev jobs"));
}

/// What has the job tell by which proxy somebody has come.
const WAY: &str = "echo $SSH_CONNECTION";

#[track_caller]
fn came_through(said: &str, number: usize) {
    let [proxy, _] = inside(number);
    assert_eq!(said.split(' ').next(), Some(&*proxy), "{said}");
}

#[test]
fn ssh_reaches_a_job_through_every_proxy_of_both_regions_and_no_session_outlives_the_job() {
    let Some(user) = User::new() else { return };
    let ports: Vec<_> = (user.members.iter())
        .map(|member| member.opens(&user.job))
        .collect();
    assert_eq!(ports[0], ports[1]);
    let ways = ports.iter().copied().enumerate();
    let known = ways.clone().map(|(number, port)| {
        let host = public(number);
        format!("[{host}]:{port}")
    });
    user.keys.known_as(&known.collect::<Vec<_>>());
    let mut sessions = Vec::new();
    for (number, port) in ways {
        came_through(&succeed(user.ssh(number, port).arg(WAY)), number);
        let mut remote = Remote::start(user.ssh(number, port).arg("cat"));
        remote.says_and_hears("there");
        sessions.push(remote);
    }
    user.stage.finalize(&user.job);
    for remote in sessions {
        assert_eq!(remote.ends().code(), Some(255));
    }
}

#[test]
fn ssh_to_a_job_takes_the_next_proxy_when_the_nearest_does_not_answer() {
    let Some(user) = User::new() else { return };
    user.keys.known_as(&[format!("job-{}", job_id(1))]);
    eventually("all to be known everywhere", || {
        let at = |member: &Member| open_at(&member.proxy, &user.job).len();
        user.members.iter().all(|member| at(member) == 3)
    });
    const US_1: usize = 0;
    const US_2: usize = 1;
    const EU_1: usize = 2;
    let takes = |user: &User, asked: &[usize], expected: usize, passed: &[usize]| {
        let done = output(user.ssh_by_id(asked).arg(WAY));
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        came_through(&String::from_utf8_lossy(&done.stdout), expected);
        for number in [US_1, US_2, EU_1] {
            let line = format!("nothing answers at {} port", public(number));
            assert_eq!(said.contains(&line), passed.contains(&number), "{said}");
        }
    };
    takes(&user, &[EU_1], US_1, &[]);
    // It takes connections and says nothing, to whom asks where the job is neither.
    user.members[US_1].proxy.signal(Signal::STOP);
    takes(&user, &[US_1, EU_1], US_2, &[US_1]);
    user.members[US_2].proxy.signal(Signal::KILL);
    takes(&user, &[US_2, EU_1], EU_1, &[US_1, US_2]);
    user.members[US_1].proxy.signal(Signal::CONT);
    takes(&user, &[EU_1], US_1, &[]);
}
