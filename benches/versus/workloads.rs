//! What is measured: the workloads, by name and size.

use std::time::Duration;

use crate::load::bulk::Direction;

/// Sessions at once in `connections`.
pub const AT_ONCE: usize = 64;
/// Connections over which keystrokes are spread.
pub const TYPISTS: usize = 16;
/// One keystroke per this time, over all connections.
pub const PACE: Duration = Duration::from_millis(1);
/// Bulk connections beside the keystrokes.
pub const BESIDE: usize = 4;

/// A kind of load and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Bytes as fast as they go.
    Bulk(Direction, usize),
    /// Connect, request, response, close.
    Connections,
    /// A message there and back over each of some connections.
    PingPong(usize),
    /// A steady thousand messages a second.
    Keystrokes,
    /// The same with a target that takes its time, as one behind a network does.
    DistantKeystrokes,
    /// The first while other sessions move bulk.
    KeystrokesBesideBulk,
    /// Sessions that do nothing.
    Idle(usize),
}

/// How long things are measured.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// A load that runs as fast as it can.
    pub load: Duration,
    /// A load with a pace, which takes longer to say something about its tail.
    pub paced: Duration,
    /// Idle sessions.
    pub idle: Duration,
}

impl Windows {
    /// For figures that are published.
    pub const FULL: Self = Self {
        load: Duration::from_millis(1000),
        paced: Duration::from_millis(3000),
        idle: Duration::from_millis(3000),
    };

    /// For a look.
    pub const QUICK: Self = Self {
        load: Duration::from_millis(200),
        paced: Duration::from_millis(400),
        idle: Duration::from_millis(700),
    };

    /// Longer ones.
    pub fn times(self, factor: u32) -> Self {
        Self {
            load: self.load * factor,
            paced: self.paced * factor,
            idle: self.idle,
        }
    }

    /// To get caches, pools and branch predictors going; not measured.
    pub const WARM_UP: Self = Self {
        load: Duration::from_millis(100),
        paced: Duration::from_millis(100),
        idle: Duration::from_millis(100),
    };
}

impl Workload {
    /// Every workload, or those that fit in a quick run.
    pub fn all(quick: bool) -> Vec<Self> {
        let mut all = Vec::new();
        for direction in [Direction::Down, Direction::Up, Direction::Both] {
            all.extend([1, 8, 64].map(|connections| Self::Bulk(direction, connections)));
        }
        all.extend([
            Self::Connections,
            Self::PingPong(1),
            Self::PingPong(64),
            Self::Keystrokes,
            Self::DistantKeystrokes,
            Self::KeystrokesBesideBulk,
            Self::Idle(1000),
        ]);
        if !quick {
            all.push(Self::Idle(9000));
        }
        all
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Bulk(Direction::Down, connections) => format!("bulk-down-{connections}"),
            Self::Bulk(Direction::Up, connections) => format!("bulk-up-{connections}"),
            Self::Bulk(Direction::Both, connections) => format!("bulk-both-{connections}"),
            Self::Connections => "connections".to_owned(),
            Self::PingPong(connections) => format!("ping-pong-{connections}"),
            Self::Keystrokes => "keystrokes".to_owned(),
            Self::DistantKeystrokes => "keystrokes-distant".to_owned(),
            Self::KeystrokesBesideBulk => "keystrokes-beside-bulk".to_owned(),
            Self::Idle(sessions) => format!("idle-{sessions}"),
        }
    }

    /// What it is, in a line.
    pub fn title(&self) -> String {
        let over = |n: &usize| {
            if *n == 1 {
                "1 connection".to_owned()
            } else {
                format!("{n} connections")
            }
        };
        match self {
            Self::Bulk(Direction::Down, n) => format!("Bulk to the client over {}", over(n)),
            Self::Bulk(Direction::Up, n) => format!("Bulk to the target over {}", over(n)),
            Self::Bulk(Direction::Both, n) => format!("Bulk both ways over {}", over(n)),
            Self::Connections => format!("Connect, 64 bytes each way, close; {AT_ONCE} at a time"),
            Self::PingPong(n) => format!("64 bytes there and back over {}", over(n)),
            Self::Keystrokes => format!("1000 keystrokes a second over {TYPISTS} connections"),
            Self::DistantKeystrokes => {
                format!("1000 keystrokes a second over {TYPISTS} connections, echoed 1 ms later")
            }
            Self::KeystrokesBesideBulk => {
                format!(
                    "1000 keystrokes a second over {TYPISTS} connections, beside {BESIDE} in bulk"
                )
            }
            Self::Idle(sessions) => format!("{sessions} idle sessions"),
        }
    }

    /// What it is, in a few words.
    pub fn short_title(&self) -> String {
        match self {
            Self::Bulk(direction, connections) => {
                let way = match direction {
                    Direction::Down => "to the client",
                    Direction::Up => "to the target",
                    Direction::Both => "both ways",
                };
                format!("Bulk {way}, {connections} at once")
            }
            Self::Connections => "Connect, exchange, close".to_owned(),
            Self::PingPong(connections) => format!("Ping-pong, {connections} at once"),
            Self::Keystrokes => "Keystrokes".to_owned(),
            Self::DistantKeystrokes => "Keystrokes, echo 1 ms later".to_owned(),
            Self::KeystrokesBesideBulk => "Keystrokes beside bulk".to_owned(),
            Self::Idle(sessions) => format!("{sessions} idle sessions"),
        }
    }

    /// Whether it wants a proxy that has done nothing else.
    pub fn wants_fresh_start(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// How many rounds are worth their time: memory varies little.
    pub fn rounds(&self, asked: u32) -> u32 {
        if self.wants_fresh_start() {
            asked.min(3)
        } else {
            asked
        }
    }

    /// Whether it says something about doing without a proxy.
    pub fn suits_direct(&self) -> bool {
        !matches!(self, Self::Idle(_))
    }
}
