//! A direction as it is handed over to the next image of the program.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::{Carrier, Direction, Flow};
use crate::{
    handover::{Bytes, Descriptor, LoadError, Loader, Saver, is_default},
    relay::{Pipe, PipeBudget, RelayMode, Side},
};

/// More bytes than a session moves in its life.
const FAR: u64 = 1 << 62;

/// The largest pipe that Linux makes.
const LARGEST_PIPE: usize = 1 << 31;

/// A [`Direction`]; whence it goes is known to its relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::relay) struct SavedDirection {
    #[serde(skip_serializing_if = "is_default")]
    carrier: SavedCarrier,
    #[serde(skip_serializing_if = "is_default")]
    delivered: i64,
    #[serde(skip_serializing_if = "is_default")]
    spliced: u64,
    #[serde(skip_serializing_if = "is_default")]
    mode: RelayMode,
    #[serde(skip_serializing_if = "is_default")]
    flow: Flow,
    #[serde(skip_serializing_if = "is_default")]
    bulk: bool,
    #[serde(skip_serializing_if = "is_default")]
    small_reads: u8,
    #[serde(skip_serializing_if = "is_default")]
    must_copy: bool,
}

/// What holds the bytes in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedCarrier {
    #[default]
    Scratch,
    /// Those that the sink did not take yet.
    Kept(Bytes),
    Pipe {
        read: Descriptor,
        write: Descriptor,
        level: usize,
        size: usize,
    },
}

impl Direction<Pipe> {
    /// Leaves what is in flight with `saver`.
    pub(in crate::relay) fn save<'a>(&'a self, saver: &mut Saver<'a>) -> SavedDirection {
        let Self {
            carrier,
            delivered,
            spliced,
            from: _,
            mode,
            flow,
            bulk,
            small_reads,
            must_copy,
        } = self;
        let carrier = match carrier {
            Carrier::Scratch => SavedCarrier::Scratch,
            Carrier::Kept { bytes, start } => {
                SavedCarrier::Kept(saver.bytes(&bytes[*start as usize..]))
            }
            Carrier::Pipe(pipe) => {
                let Pipe {
                    read,
                    write,
                    level,
                    size,
                } = pipe;
                SavedCarrier::Pipe {
                    read: saver.descriptor(read.as_fd()),
                    write: saver.descriptor(write.as_fd()),
                    level: *level,
                    size: *size,
                }
            }
        };
        SavedDirection {
            carrier,
            delivered: *delivered,
            spliced: *spliced,
            mode: *mode,
            flow: *flow,
            bulk: *bulk,
            small_reads: *small_reads,
            must_copy: *must_copy,
        }
    }

    /// Takes up a direction that was handed over; its pipe counts for `budget`.
    pub(in crate::relay) fn load(
        from: Side,
        saved: &SavedDirection,
        loader: &mut Loader,
        budget: &PipeBudget,
    ) -> Result<Self, LoadError> {
        let SavedDirection {
            carrier,
            delivered,
            spliced,
            mode,
            flow,
            bulk,
            small_reads,
            must_copy,
        } = saved;
        if delivered.unsigned_abs() > FAR || *spliced > FAR {
            let why = format!("{delivered} delivered, {spliced} of them spliced");
            return Err(LoadError::value("bytes of a session", why));
        }
        let carrier = match *carrier {
            SavedCarrier::Scratch => Carrier::Scratch,
            SavedCarrier::Kept(bytes) => Carrier::Kept {
                bytes: loader.bytes(bytes)?.into(),
                start: 0,
            },
            SavedCarrier::Pipe {
                read,
                write,
                level,
                size,
            } => {
                if size == 0 || size > LARGEST_PIPE || level > LARGEST_PIPE {
                    let why = format!("{level} bytes in {size}");
                    return Err(LoadError::value("pipe of a session", why));
                }
                let (read, write) = (loader.descriptor(read)?, loader.descriptor(write)?);
                Carrier::Pipe(budget.take_up(Pipe {
                    read,
                    write,
                    level,
                    size,
                }))
            }
        };
        Ok(Self {
            carrier,
            delivered: *delivered,
            spliced: *spliced,
            from,
            mode: *mode,
            flow: *flow,
            bulk: *bulk,
            small_reads: *small_reads,
            must_copy: *must_copy,
        })
    }
}
