//! What the logs in databases share: headers as one column, and who may write to a shard.

use services::log::{AppendError, Record};

/// The epochs of an append by a writer of ours: the one that must be in force, and the one that is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epochs {
    pub needed: u64,
    pub left: u64,
}

/// What these records ask of their shard's epoch. A record without an epoch comes from no writer of ours; it passes, as on
/// Kafka, and stops the readers. `None` = there is no other.
///
/// # Errors
/// [`AppendError::Fenced`] when no epoch in force would do.
pub fn epochs(records: &[Record]) -> Result<Option<Epochs>, AppendError> {
    let text = |record: &Record, name| -> Option<String> {
        record
            .header(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let mut epochs: Option<Epochs> = None;
    for record in records {
        let Some(own) = text(record, "ce_epoch").and_then(|text| text.parse::<u64>().ok()) else {
            continue;
        };
        let needed = match text(record, "ce_type").as_deref() {
            Some("crm.log.created.v1" | "crm.log.quarantined.v1") => continue,
            Some("crm.log.shard-claimed.v1") => own.checked_sub(1).ok_or(AppendError::Fenced)?,
            _ if own == 0 => return Err(AppendError::Fenced),
            _ => own,
        };
        match &mut epochs {
            None => epochs = Some(Epochs { needed, left: own }),
            Some(known) if known.left == needed => known.left = own,
            Some(_) => return Err(AppendError::Fenced),
        }
    }
    Ok(epochs)
}

/// The epoch in force after these records, or `None` when their writer does not own the shard.
pub fn admit(in_force: u64, records: &[Record]) -> Option<u64> {
    match epochs(records) {
        Ok(None) => Some(in_force),
        Ok(Some(epochs)) if epochs.needed == in_force => Some(epochs.left),
        Ok(Some(_)) | Err(_) => None,
    }
}

/// `(length, name, length, value)` of each header, lengths as four bytes, little end first.
pub fn encode_headers(headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum());
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

pub fn decode_headers(mut bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut headers = Vec::with_capacity(16);
    while !bytes.is_empty() {
        let name = String::from_utf8(take_part(&mut bytes)?.to_vec()).ok()?;
        headers.push((name, take_part(&mut bytes)?.to_vec()));
    }
    Some(headers)
}

fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(part)
}

#[cfg(test)]
mod specs {
    use super::*;

    fn record(epoch: u64, kind: &str) -> Record {
        let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
        Record {
            headers: vec![header("ce_type", kind.into()), header("ce_epoch", epoch.to_string())],
            ..Record::default()
        }
    }

    #[test]
    fn an_append_asks_for_one_epoch_and_leaves_one() {
        let claim = |epoch| record(epoch, "crm.log.shard-claimed.v1");
        let event = |epoch| record(epoch, "crm.customer.closed.v1");
        let word = || record(0, "crm.log.quarantined.v1");
        let asked = |records: &[Record]| epochs(records).ok().map(|found| found.map(|it| (it.needed, it.left)));
        assert_eq!(asked(&[Record::default(), word()]), Some(None));
        assert_eq!(asked(&[event(3), word(), event(3)]), Some(Some((3, 3))));
        assert_eq!(asked(&[claim(3), event(3)]), Some(Some((2, 3))));
        assert_eq!(asked(&[event(2), claim(3), event(3)]), Some(Some((2, 3))));
        for impossible in [
            vec![event(0)],
            vec![claim(0)],
            vec![event(1), claim(3)],
            vec![claim(2), event(1)],
        ] {
            assert_eq!(asked(&impossible), None);
        }
    }

    #[test]
    fn damaged_headers_are_no_headers() {
        let headers = vec![("".to_owned(), vec![]), ("a".into(), vec![0, 255])];
        let bytes = encode_headers(&headers);
        assert_eq!(decode_headers(&bytes), Some(headers));
        assert_eq!(decode_headers(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode_headers(&[255, 255, 255, 255, 0]), None);
    }
}
