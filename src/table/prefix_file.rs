//! Prefixes that an operator keeps in a file of their own: as many as there are in the lists that
//! people share, looked up by halving.
//!
//! What of an address decides is the longest prefix that contains it. Prefixes either contain each other
//! or have nothing in common, so they divide all addresses into runs, each with a longest prefix of its
//! own or none.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::setting::{As, List, Prefix};

/// The prefixes of a file as they were when it was read.
#[derive(Debug)]
pub struct PrefixFile {
    path: PathBuf,
    /// In their order, each once.
    prefixes: Vec<IpNet>,
    v4: Runs<u32>,
    v6: Runs<u128>,
    /// Differs where the prefixes do, but for once in ages.
    digest: u64,
}

impl PrefixFile {
    /// The prefixes found at `path`.
    pub fn new(path: PathBuf, mut prefixes: Vec<IpNet>) -> Self {
        prefixes.iter_mut().for_each(|net| *net = net.trunc());
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes.shrink_to_fit();
        let (mut v4, mut v6) = (Runs::default(), Runs::default());
        for net in &prefixes {
            match net {
                IpNet::V4(net) => v4.add(
                    net.network().into(),
                    net.broadcast().into(),
                    net.prefix_len(),
                ),
                IpNet::V6(net) => v6.add(
                    net.network().into(),
                    net.broadcast().into(),
                    net.prefix_len(),
                ),
            }
        }
        let mut digest = DefaultHasher::new();
        prefixes.hash(&mut digest);
        Self {
            path,
            prefixes,
            v4: v4.finish(),
            v6: v6.finish(),
            digest: digest.finish(),
        }
    }

    /// Where they were found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length of the longest that contains an address; IPv4 is written as IPv4.
    pub fn longest(&self, address: IpAddr) -> Option<u8> {
        match address {
            IpAddr::V4(address) => self.v4.longest(address.into()),
            IpAddr::V6(address) => self.v6.longest(address.into()),
        }
    }
}

impl PartialEq for PrefixFile {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.path == other.path && self.prefixes == other.prefixes
    }
}

impl Eq for PrefixFile {}

impl Hash for PrefixFile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// Runs of addresses: where each begins, and how long the longest prefix of those in it is.
#[derive(Debug, Default)]
struct Runs<T> {
    begins: Vec<T>,
    longest: Vec<Option<u8>>,
    /// While prefixes are added: the last addresses and lengths of those that are open.
    open: Vec<(T, u8)>,
}

trait Address: Copy + Ord {
    /// The address after it.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl<T: Address> Runs<T> {
    /// Adds a prefix that comes behind all before.
    fn add(&mut self, first: T, last: T, length: u8) {
        self.close(|end| end < first);
        self.begin(first, Some(length));
        self.open.push((last, length));
    }

    fn finish(mut self) -> Self {
        self.close(|_| true);
        self.open = Vec::new();
        self.begins.shrink_to_fit();
        self.longest.shrink_to_fit();
        self
    }

    /// Ends the innermost prefixes that are over.
    fn close(&mut self, is_over: impl Fn(T) -> bool) {
        while let Some(&(last, _)) = self.open.last()
            && is_over(last)
        {
            self.open.pop();
            let outer = self.open.last().map(|(_, length)| *length);
            if let Some(next) = last.next() {
                self.begin(next, outer);
            }
        }
    }

    fn begin(&mut self, at: T, longest: Option<u8>) {
        if self.begins.last() == Some(&at) {
            self.longest.pop();
        } else {
            self.begins.push(at);
        }
        self.longest.push(longest);
    }

    fn longest(&self, address: T) -> Option<u8> {
        let behind = self.begins.partition_point(|begin| *begin <= address);
        self.longest[behind.checked_sub(1)?]
    }
}

/// A [`PrefixFile`] as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPrefixFile {
    path: PathBuf,
    #[serde(with = "As::<List<Prefix>>")]
    prefixes: Vec<IpNet>,
}

/// Takes files, each once.
#[derive(Debug, Default)]
pub struct PrefixFileSaver {
    /// By where they are in memory.
    known: HashMap<usize, u32>,
    saved: Vec<SavedPrefixFile>,
}

impl PrefixFileSaver {
    /// The place of a file.
    pub fn save(&mut self, file: &Arc<PrefixFile>) -> u32 {
        let saved = &mut self.saved;
        *self
            .known
            .entry(Arc::as_ptr(file) as usize)
            .or_insert_with(|| {
                saved.push(SavedPrefixFile {
                    path: file.path.clone(),
                    prefixes: file.prefixes.clone(),
                });
                u32::try_from(saved.len() - 1).unwrap_or(u32::MAX)
            })
    }

    /// All of them.
    pub fn finish(self) -> Vec<SavedPrefixFile> {
        self.saved
    }
}

impl SavedPrefixFile {
    /// Files at the places they were saved at.
    pub fn load(saved: Vec<Self>) -> Vec<Arc<PrefixFile>> {
        saved
            .into_iter()
            .map(|Self { path, prefixes }| Arc::new(PrefixFile::new(path, prefixes)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn file(prefixes: &[&str]) -> PrefixFile {
        let prefixes = prefixes.iter().map(|net| net.parse().expect("a prefix"));
        PrefixFile::new("f".into(), prefixes.collect())
    }

    #[test]
    fn the_longest_prefix_is_found_wherever_others_begin_and_end() {
        let file = file(&[
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.255.255.255/32",
            "11.0.0.0/8",
            "255.255.255.255/32",
            "::/0",
            "2001:db8::/32",
            "ffff::/16",
        ]);
        for (address, expected) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(16)),
            ("10.0.255.255", Some(16)),
            ("10.1.0.0", Some(8)),
            ("10.255.255.254", Some(8)),
            ("10.255.255.255", Some(32)),
            ("11.0.0.0", Some(8)),
            ("12.0.0.0", None),
            ("255.255.255.254", None),
            ("255.255.255.255", Some(32)),
            ("::", Some(0)),
            ("2001:db8::1", Some(32)),
            ("2001:db9::", Some(0)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(16)),
        ] {
            let found = file.longest(address.parse().expect("an address"));
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn a_hundred_thousand_prefixes_are_judged_as_one_by_one() {
        let mut seed = 1_u64;
        let mut next = move || {
            // splitmix64
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut address = |wide: bool| match wide {
            true => IpAddr::V6(Ipv6Addr::from(u128::from(next()) << 64 | 0xfd << 120)),
            false => IpAddr::V4(Ipv4Addr::from(next() as u32)),
        };
        let nets: Vec<_> = (0..100_000_u32)
            .filter_map(|number| {
                let wide = number % 2 == 0;
                let length = if wide {
                    8 + number % 57
                } else {
                    8 + number % 25
                };
                IpNet::new(address(wide), u8::try_from(length).ok()?).ok()
            })
            .collect();
        assert_eq!(nets.len(), 100_000);
        let file = PrefixFile::new("f".into(), nets.clone());
        for number in 0..50 {
            let address = address(number % 2 == 0);
            let containing = nets.iter().filter(|net| net.contains(&address));
            let longest = containing.map(IpNet::prefix_len).max();
            assert_eq!(file.longest(address), longest, "{address}");
        }
        for net in nets.iter().take(1000) {
            assert!(file.longest(net.addr()) >= Some(net.prefix_len()));
            assert!(file.prefixes.contains(&net.trunc()));
        }
    }
}
