//! Reading `struct tcp_info` out of an answer of sock_diag(7).

use crate::telemetry::PathInfo;

/// `INET_DIAG_INFO`, the attribute that carries it.
const INFO: u16 = 2;

/// The bit that asks for it.
pub(super) const EXTENSION: u8 = 1 << (INFO - 1);

/// What is wanted of it, from the attributes of an answer.
///
/// The structure grows at its end from kernel to kernel; what an old one does not have is 0.
pub(super) fn parse(attributes: &[u8]) -> Option<PathInfo> {
    let info = find(attributes)?;
    let u32_at = |at: usize| {
        let bytes = info.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let u64_at = |at: usize| {
        let bytes = info.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    Some(PathInfo {
        rtt_us: u32_at(68),
        retransmits: u32_at(100),
        segments: u32_at(156),
        delivery_rate: u64_at(160),
    })
}

/// The content of the wanted attribute. Each has its length, its type, and is padded to four bytes.
fn find(mut attributes: &[u8]) -> Option<&[u8]> {
    loop {
        let header = attributes.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let content = attributes.get(4..len)?;
        if u16::from_ne_bytes([header[2], header[3]]) == INFO {
            return Some(content);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let len = 4 + content.len() as u16;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_structure_is_found_behind_others_and_may_be_short() {
        let mut info = vec![0; 104];
        info[68..72].copy_from_slice(&1234u32.to_ne_bytes());
        let attributes = [attribute(8, &[3]), attribute(INFO, &info)].concat();
        let path = parse(&attributes).expect("it is there");
        assert_eq!((path.rtt_us, path.delivery_rate), (1234, 0));
    }

    #[test]
    fn nonsense_is_nothing() {
        for bytes in [&[][..], &[0; 8], &[255; 8], &attribute(8, &[1])] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
