//! Values as bytes, in the order of their fields: what an encoding is made of. Decoding is strict:
//! each value has one form. It must not know which messages there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use meta::level::{Level, TooNew};

/// Bytes that are no message, or not the only form of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it ends too early")]
    Short,
    #[error("there is more than the message")]
    Long,
    #[error("a number is not what it may be")]
    Number,
    #[error("there is no {kind} of number {tag}")]
    Tag { kind: &'static str, tag: u8 },
    #[error("a text is not UTF-8")]
    Text,
    #[error("names are not sorted, or repeated")]
    Order,
    #[error("it has no such command")]
    Command,
}

/// What is left of a message.
pub(super) struct Reader {
    left: Bytes,
}

impl Reader {
    pub(super) fn new(message: Bytes) -> Self {
        Reader { left: message }
    }

    /// Nothing may be left at the end.
    pub(super) fn end(self) -> Result<(), Malformed> {
        self.left.is_empty().then_some(()).ok_or(Malformed::Long)
    }

    fn bytes(&mut self, count: u64) -> Result<Bytes, Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed::Short)?;
        if count > self.left.len() {
            return Err(Malformed::Short);
        }
        Ok(self.left.split_to(count))
    }

    /// The number that tells which kind of a thing follows.
    pub(super) fn tag(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }
}

/// A message that is being written.
pub(super) struct Writer {
    /// The level to write for.
    pub(super) level: &'static Level,
    bytes: Vec<u8>,
    refused: Option<TooNew>,
}

impl Writer {
    pub(super) fn new(level: &'static Level) -> Self {
        Writer {
            level,
            bytes: Vec::new(),
            refused: None,
        }
    }

    /// The message cannot be written.
    pub(super) fn refuse(&mut self, why: TooNew) {
        self.refused = Some(why);
    }

    pub(super) fn end(self) -> Result<Vec<u8>, TooNew> {
        self.refused.map_or(Ok(self.bytes), Err)
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// What can stand in a message.
pub(super) trait Value: Sized {
    fn put(&self, to: &mut Writer);
    fn take(from: &mut Reader) -> Result<Self, Malformed>;
}

/// Little end first, seven bits a byte, the top bit says that more follow.
impl Value for u64 {
    fn put(&self, to: &mut Writer) {
        let mut left = *self;
        while left >= 0x80 {
            to.push(left as u8 | 0x80);
            left >>= 7;
        }
        to.push(left as u8);
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(from.tag()?);
            let bits = byte & 0x7f;
            let fits = bits << shift >> shift == bits;
            let is_last = byte < 0x80;
            if !fits || is_last && bits == 0 && shift > 0 {
                return Err(Malformed::Number);
            }
            number |= bits << shift;
            if is_last {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }
}

/// Numbers near zero are short, whatever their sign.
impl Value for i64 {
    fn put(&self, to: &mut Writer) {
        ((self << 1) ^ (self >> 63)).cast_unsigned().put(to);
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let number = u64::take(from)?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

/// Numbers that are written as wider ones.
macro_rules! numbers {
    ($($narrow:ty as $wide:ty),*) => {$(
        impl Value for $narrow {
            fn put(&self, to: &mut Writer) {
                <$wide>::from(*self).put(to);
            }

            fn take(from: &mut Reader) -> Result<Self, Malformed> {
                <$narrow>::try_from(<$wide>::take(from)?).map_err(|_| Malformed::Number)
            }
        }
    )*};
}

numbers!(u16 as u64, u32 as u64, i16 as i64, i32 as i64);

impl Value for u128 {
    fn put(&self, to: &mut Writer) {
        to.extend(&self.to_be_bytes());
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let bytes = from.bytes(16)?;
        let bytes = <[u8; 16]>::try_from(&*bytes).map_err(|_| Malformed::Short)?;
        Ok(u128::from_be_bytes(bytes))
    }
}

impl Value for bool {
    fn put(&self, to: &mut Writer) {
        to.push(u8::from(*self));
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        match from.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Number),
        }
    }
}

impl Value for () {
    fn put(&self, _: &mut Writer) {}

    fn take(_: &mut Reader) -> Result<Self, Malformed> {
        Ok(())
    }
}

impl Value for Bytes {
    fn put(&self, to: &mut Writer) {
        (self.len() as u64).put(to);
        to.extend(self);
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let count = u64::take(from)?;
        from.bytes(count)
    }
}

impl Value for String {
    fn put(&self, to: &mut Writer) {
        (self.len() as u64).put(to);
        to.extend(self.as_bytes());
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let bytes = Bytes::take(from)?;
        String::from_utf8(bytes.into()).map_err(|_| Malformed::Text)
    }
}

impl<T: Value> Value for Vec<T> {
    fn put(&self, to: &mut Writer) {
        (self.len() as u64).put(to);
        self.iter().for_each(|item| item.put(to));
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let count = u64::take(from)?;
        // What is not there takes no memory: every item has a byte at least.
        if count > from.left.len() as u64 {
            return Err(Malformed::Short);
        }
        (0..count).map(|_| T::take(from)).collect()
    }
}

impl<T: Value> Value for Option<T> {
    fn put(&self, to: &mut Writer) {
        self.is_some().put(to);
        self.iter().for_each(|value| value.put(to));
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<T: Value, E: Value> Value for Result<T, E> {
    fn put(&self, to: &mut Writer) {
        self.is_ok().put(to);
        match self {
            Ok(value) => value.put(to),
            Err(error) => error.put(to),
        }
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        Ok(if bool::take(from)? {
            Ok(T::take(from)?)
        } else {
            Err(E::take(from)?)
        })
    }
}

impl<A: Value, B: Value> Value for (A, B) {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<T: Value> Value for Box<T> {
    fn put(&self, to: &mut Writer) {
        (**self).put(to);
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        T::take(from).map(Box::new)
    }
}

impl<T: Value> Value for Arc<T> {
    fn put(&self, to: &mut Writer) {
        (**self).put(to);
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        T::take(from).map(Arc::new)
    }
}

impl<T: Value> Value for Arc<[T]> {
    fn put(&self, to: &mut Writer) {
        (self.len() as u64).put(to);
        self.iter().for_each(|item| item.put(to));
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        Vec::take(from).map(Into::into)
    }
}

impl<T: Value> Value for BTreeMap<String, T> {
    fn put(&self, to: &mut Writer) {
        (self.len() as u64).put(to);
        for (name, value) in self {
            name.put(to);
            value.put(to);
        }
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let pairs = Vec::<(String, T)>::take(from)?;
        if pairs.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Malformed::Order);
        }
        Ok(pairs.into_iter().collect())
    }
}

/// Structs: their fields in this order.
macro_rules! fields {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Value for $name {
            fn put(&self, to: &mut Writer) {
                let $name { $($field),* } = self;
                $($field.put(to);)*
            }

            fn take(from: &mut Reader) -> Result<Self, Malformed> {
                $(let $field = Value::take(from)?;)*
                Ok($name { $($field),* })
            }
        }
    )*};
}

/// Enums: the number of the variant, and its fields in this order.
macro_rules! variants {
    ($($name:ident { $($tag:literal = $variant:ident
        $(( $($item:ident),* ))? $({ $($field:ident),* })?),* $(,)? })*) => {$(
        impl Value for $name {
            fn put(&self, to: &mut Writer) {
                match self {
                    $($name::$variant $(( $($item),* ))? $({ $($field),* })? => {
                        to.push($tag);
                        $($($item.put(to);)*)?
                        $($($field.put(to);)*)?
                    })*
                }
            }

            fn take(from: &mut Reader) -> Result<Self, Malformed> {
                match from.tag()? {
                    $($tag => {
                        $($(let $item = Value::take(from)?;)*)?
                        $($(let $field = Value::take(from)?;)*)?
                        Ok($name::$variant $(( $($item),* ))? $({ $($field),* })?)
                    })*
                    tag => Err(Malformed::Tag { kind: stringify!($name), tag }),
                }
            }
        }
    )*};
}

/// Names that are numbers.
macro_rules! numbered {
    ($($name:ident),*) => {$(
        impl Value for $name {
            fn put(&self, to: &mut Writer) {
                self.0.put(to);
            }

            fn take(from: &mut Reader) -> Result<Self, Malformed> {
                Value::take(from).map($name)
            }
        }
    )*};
}

pub(super) use {fields, numbered, variants};
