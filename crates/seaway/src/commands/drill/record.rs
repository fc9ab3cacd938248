//! What the producers of a drill write: each record says who wrote it, to which partition, and as its how many-th there. It must not
//! know how records travel.

/// Bytes of a record's value.
pub const VALUE_BYTES: usize = 100;
/// Fills a value up.
const FILL: u8 = b'.';

/// The records of one producer in one partition, which have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// The producer's number, from 0 on.
    pub producer: u32,
    pub partition: i32,
}

/// The value of a stream's record; `number` counts its records from 0 on.
pub fn value(stream: Stream, number: u32) -> Vec<u8> {
    let Stream {
        producer,
        partition,
    } = stream;
    let mut value = format!("{producer} {partition} {number} ").into_bytes();
    value.resize(VALUE_BYTES, FILL);
    value
}

/// Whose record a value is, and which; `None` if it is not to the byte what [`value`] makes.
pub fn parse(bytes: &[u8]) -> Option<(Stream, u32)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split(' ');
    let stream = Stream {
        producer: words.next()?.parse().ok()?,
        partition: words.next()?.parse().ok()?,
    };
    let number = words.next()?.parse().ok()?;
    (value(stream, number) == bytes).then_some((stream, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_whose_it_is() {
        let stream = Stream {
            producer: 11,
            partition: 5,
        };
        for number in [0, 1, 4_000_000_000] {
            let value = value(stream, number);
            assert_eq!(value.len(), VALUE_BYTES);
            assert_eq!(parse(&value), Some((stream, number)));
        }
    }

    #[test]
    fn a_record_that_differs_is_nobodys() {
        let stream = Stream {
            producer: 1,
            partition: 2,
        };
        let whole = value(stream, 3);
        let mut damaged = whole.clone();
        damaged[VALUE_BYTES - 1] = b'!';
        let foreign: [&[u8]; 6] = [
            b"",
            b"hello, sea",
            &damaged,
            &whole[..VALUE_BYTES - 1],
            b"1 2 99999999999 ",
            b"\xff 2 3 ",
        ];
        for bytes in foreign {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
